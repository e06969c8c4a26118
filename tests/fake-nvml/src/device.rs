//! Functions about one device.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong};

use crate::abi::{
    ARGUMENT_VERSION_MISMATCH, FieldValue, Handle, INSUFFICIENT_SIZE, INVALID_ARGUMENT, MEMORY_V2, MemoryV1,
    MemoryV2, NOT_FOUND, NOT_SUPPORTED, PciInfo, Return, SUCCESS, fixed, give, give_text,
};
use crate::script::{Device, RemappedRows};
use crate::state::{device, handle, index, is_instance};

/// Defines functions that give one value each: the name, what it points to, and where the value is.
macro_rules! getters {
    ($( $name:ident($type:ty) = $value:expr; )*) => { $(
        /// # Safety
        /// `out` is null or points to memory for the value.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(handle: Handle, out: *mut $type) -> Return {
            let value: fn(&Device, Handle) -> Option<$type> = $value;
            device(stringify!($name), handle, |device| {
                // SAFETY: as this function demands of its caller.
                unsafe { give(out, value(device, handle).ok_or(NOT_SUPPORTED)?) }
            })
        }
    )* };
}

getters! {
    nvmlDeviceGetIndex(c_uint) = |_, handle| c_uint::try_from(index(handle)?).ok();
    nvmlDeviceGetMinorNumber(c_uint) = |_, handle| c_uint::try_from(index(handle)?).ok();
    nvmlDeviceGetNumaNodeId(c_uint) = |device, _| device.numa_node;
    nvmlDeviceGetPowerUsage(c_uint) = |device, _| device.power;
    nvmlDeviceGetVirtualizationMode(c_uint) = |device, _| device.virtualization_mode;
    nvmlDeviceIsMigDeviceHandle(c_uint) = |_, handle| Some(is_instance(handle).into());
    nvmlDeviceGetRetiredPagesPendingStatus(c_uint) = |device, _| device.retired_pages.map(|pages| pages.pending.into());
    // Room for seven instances wherever there is MIG.
    nvmlDeviceGetMaxMigDeviceCount(c_uint) = |device, _| Some(if device.mig.is_some() { 7 } else { 0 });
    nvmlDeviceGetMemoryInfo(MemoryV1) = |device, _| {
        let (total, used) = memory(device)?;
        Some(MemoryV1 { total, free: total - used, used })
    };
}

/// Total and used memory, bytes.
fn memory(device: &Device) -> Option<(u64, u64)> {
    let total = device.memory_mib?;
    Some((total << 20, device.memory_used_mib.min(total) << 20))
}

/// # Safety
/// `name` is null or points to `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetName(handle: Handle, name: *mut c_char, length: c_uint) -> Return {
    device("nvmlDeviceGetName", handle, |device| {
        // SAFETY: as this function demands of its caller.
        unsafe { give_text(name, length, &device.name) }
    })
}

/// # Safety
/// `uuid` is null or points to `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUUID(handle: Handle, uuid: *mut c_char, length: c_uint) -> Return {
    device("nvmlDeviceGetUUID", handle, |device| {
        // SAFETY: as this function demands of its caller.
        unsafe { give_text(uuid, length, &device.uuid) }
    })
}

/// # Safety
/// `serial` is null or points to `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetSerial(handle: Handle, serial: *mut c_char, length: c_uint) -> Return {
    device("nvmlDeviceGetSerial", handle, |device| {
        let text = device.serial.as_ref().ok_or(NOT_SUPPORTED)?;
        // SAFETY: as this function demands of its caller.
        unsafe { give_text(serial, length, text) }
    })
}

/// # Safety
/// `info` is null or points to an `nvmlPciInfo_t`.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(handle: Handle, info: *mut PciInfo) -> Return {
    device("nvmlDeviceGetPciInfo_v3", handle, |device| {
        let mut parts =
            device.pci.split([':', '.']).map(|part| c_uint::from_str_radix(part, 16).unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        let (domain, bus, slot) = (next(), next(), next());
        let info_of = PciInfo {
            bus_id_legacy: fixed(&format!("{domain:04X}:{bus:02X}:{slot:02X}.0")),
            domain,
            bus,
            device: slot,
            pci_device_id: device.pci_device_id,
            pci_subsystem_id: 0,
            bus_id: fixed(&format!("{domain:08X}:{bus:02X}:{slot:02X}.0")),
        };
        // SAFETY: as this function demands of its caller.
        unsafe { give(info, info_of) }
    })
}

/// # Safety
/// `info` is null or points to an `nvmlMemory_v2_t` whose `version` is set.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(handle: Handle, info: *mut MemoryV2) -> Return {
    device("nvmlDeviceGetMemoryInfo_v2", handle, |device| {
        if info.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: not null, and as this function demands of its caller.
        if unsafe { (*info).version } != MEMORY_V2 {
            return Err(ARGUMENT_VERSION_MISMATCH);
        }
        let (total, used) = memory(device).ok_or(NOT_SUPPORTED)?;
        let answer = MemoryV2 { version: MEMORY_V2, total, reserved: 0, free: total - used, used };
        // SAFETY: as above.
        unsafe { give(info, answer) }
    })
}

/// # Safety
/// `major` and `minor` are null or point to ints.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCudaComputeCapability(
    handle: Handle,
    major: *mut c_int,
    minor: *mut c_int,
) -> Return {
    device("nvmlDeviceGetCudaComputeCapability", handle, |device| {
        let capability = device.compute_capability.ok_or(NOT_SUPPORTED)?;
        // SAFETY: as this function demands of its caller.
        unsafe {
            give(major, capability.0)?;
            give(minor, capability.1)
        }
    })
}

/// # Safety
/// `current` and `pending` are null or point to unsigned ints.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigMode(
    handle: Handle,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> Return {
    device("nvmlDeviceGetMigMode", handle, |device| {
        let mig = device.mig.ok_or(NOT_SUPPORTED)?;
        // SAFETY: as this function demands of its caller.
        unsafe {
            give(current, mig.enabled.into())?;
            give(pending, mig.pending.unwrap_or(mig.enabled).into())
        }
    })
}

/// # Safety
/// `instance` is null or points to a handle.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    parent: Handle,
    number: c_uint,
    instance: *mut Handle,
) -> Return {
    device("nvmlDeviceGetMigDeviceHandleByIndex", parent, |device| {
        let mig = device.mig.ok_or(NOT_SUPPORTED)?;
        if number >= mig.instances.min(7) {
            return Err(NOT_FOUND);
        }
        let index = index(parent).ok_or(INVALID_ARGUMENT)?;
        // SAFETY: as this function demands of its caller.
        unsafe { give(instance, handle(index, number as usize + 1)) }
    })
}

/// # Safety
/// `parent` is null or points to a handle.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(
    instance: Handle,
    parent: *mut Handle,
) -> Return {
    device("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", instance, |_| {
        let index = index(instance).ok_or(INVALID_ARGUMENT)?;
        // SAFETY: as this function demands of its caller.
        unsafe { give(parent, handle(index, 0)) }
    })
}

/// # Safety
/// `current` and `pending` are null or point to unsigned ints.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetEccMode(
    handle: Handle,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> Return {
    device("nvmlDeviceGetEccMode", handle, |device| {
        let enabled = device.ecc.ok_or(NOT_SUPPORTED)?.enabled.into();
        // SAFETY: as this function demands of its caller.
        unsafe {
            give(current, enabled)?;
            give(pending, enabled)
        }
    })
}

/// # Safety
/// `count` is null or points to an unsigned long long.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    handle: Handle,
    kind: c_uint,
    _counter: c_uint,
    count: *mut c_ulonglong,
) -> Return {
    device("nvmlDeviceGetTotalEccErrors", handle, |device| {
        let ecc = device.ecc.filter(|ecc| ecc.enabled).ok_or(NOT_SUPPORTED)?;
        // SAFETY: as this function demands of its caller.
        unsafe { give(count, if kind == 0 { ecc.corrected } else { ecc.uncorrected }) }
    })
}

/// # Safety
/// `count` is null or points to an unsigned long long.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryErrorCounter(
    handle: Handle,
    kind: c_uint,
    _counter: c_uint,
    _location: c_uint,
    count: *mut c_ulonglong,
) -> Return {
    device("nvmlDeviceGetMemoryErrorCounter", handle, |device| {
        let ecc = device.ecc.filter(|ecc| ecc.enabled).ok_or(NOT_SUPPORTED)?;
        // SAFETY: as this function demands of its caller.
        unsafe { give(count, if kind == 0 { ecc.corrected } else { ecc.uncorrected }) }
    })
}

/// # Safety
/// Each pointer is null or points to an unsigned int.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetRemappedRows(
    handle: Handle,
    correctable: *mut c_uint,
    uncorrectable: *mut c_uint,
    pending: *mut c_uint,
    failure: *mut c_uint,
) -> Return {
    device("nvmlDeviceGetRemappedRows", handle, |device| {
        let rows = device.remapped_rows.ok_or(NOT_SUPPORTED)?;
        // SAFETY: as this function demands of its caller.
        unsafe {
            give(correctable, rows.correctable)?;
            give(uncorrectable, rows.uncorrectable)?;
            give(pending, rows.pending.into())?;
            give(failure, rows.failure.into())
        }
    })
}

/// # Safety
/// `count` is null or points to the number of entries that `addresses` has room for.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetRetiredPages(
    handle: Handle,
    cause: c_uint,
    count: *mut c_uint,
    addresses: *mut c_ulonglong,
) -> Return {
    // SAFETY: as this function demands of its caller.
    unsafe { retired_pages("nvmlDeviceGetRetiredPages", handle, cause, count, &[addresses]) }
}

/// # Safety
/// `count` is null or points to the number of entries that `addresses` and `timestamps` have room for.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetRetiredPages_v2(
    handle: Handle,
    cause: c_uint,
    count: *mut c_uint,
    addresses: *mut c_ulonglong,
    timestamps: *mut c_ulonglong,
) -> Return {
    // SAFETY: as this function demands of its caller.
    unsafe { retired_pages("nvmlDeviceGetRetiredPages_v2", handle, cause, count, &[addresses, timestamps]) }
}

/// Fills each list with a number per page.
///
/// # Safety
/// `count` is null or points to the number of entries that each of `lists` has room for.
unsafe fn retired_pages(
    function: &str,
    handle: Handle,
    cause: c_uint,
    count: *mut c_uint,
    lists: &[*mut c_ulonglong],
) -> Return {
    device(function, handle, |device| {
        let pages = device.retired_pages.ok_or(NOT_SUPPORTED)?;
        let pages = if cause == 0 { pages.single_bit } else { pages.double_bit };
        if count.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: not null, and as this function demands of its caller.
        let room = unsafe { count.replace(pages) };
        if pages == 0 {
            return Ok(());
        }
        if room < pages {
            return Err(INSUFFICIENT_SIZE);
        }
        if lists.iter().any(|list| list.is_null()) {
            return Err(INVALID_ARGUMENT);
        }
        for list in lists {
            for page in 0..pages {
                // SAFETY: `page` is below `room`, the entries that the list has by the contract of this function.
                unsafe { list.add(page as usize).write(c_ulonglong::from(page) << 12) };
            }
        }
        Ok(())
    })
}

/// The fields of `nvml.h` that tell of remapped rows.
fn remapped(field_id: c_uint, rows: RemappedRows) -> Option<u32> {
    match field_id {
        142 => Some(rows.correctable),
        143 => Some(rows.uncorrectable),
        144 => Some(rows.pending.into()),
        145 => Some(rows.failure.into()),
        _ => None,
    }
}

/// `NVML_VALUE_TYPE_UNSIGNED_INT`.
const UNSIGNED_INT: c_uint = 1;

/// # Safety
/// `values` is null or points to `count` values whose `field_id` is set.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetFieldValues(
    handle: Handle,
    count: c_int,
    values: *mut FieldValue,
) -> Return {
    device("nvmlDeviceGetFieldValues", handle, |device| {
        let count = usize::try_from(count).map_err(|_| INVALID_ARGUMENT)?;
        if values.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: not null, and `count` values by the contract of this function.
        for field in unsafe { std::slice::from_raw_parts_mut(values, count) } {
            match device.remapped_rows.and_then(|rows| remapped(field.field_id, rows)) {
                Some(value) => {
                    field.value_type = UNSIGNED_INT;
                    field.value = value.into();
                    field.nvml_return = SUCCESS;
                }
                None => field.nvml_return = NOT_SUPPORTED,
            }
        }
        Ok(())
    })
}

/// # Safety
/// `temperature` is null or points to an unsigned int.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTemperature(
    handle: Handle,
    sensor: c_uint,
    temperature: *mut c_uint,
) -> Return {
    device("nvmlDeviceGetTemperature", handle, |device| {
        if sensor != 0 {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: as this function demands of its caller.
        unsafe { give(temperature, device.temperature.ok_or(NOT_SUPPORTED)?) }
    })
}
