//! Functions about the library, the driver, and how to find a device.

use std::ffi::{CStr, c_char, c_int, c_uint};

use crate::abi::{Handle, INVALID_ARGUMENT, NOT_FOUND, Return, give, give_text};
use crate::script::Device;
use crate::state::{handle, initialize, shut_down, system};

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> Return {
    initialize("nvmlInit_v2")
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> Return {
    initialize("nvmlInitWithFlags")
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> Return {
    shut_down("nvmlShutdown")
}

#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(code: Return) -> *const c_char {
    let text: &CStr = match code {
        0 => c"Success",
        1 => c"Uninitialized",
        2 => c"Invalid Argument",
        3 => c"Not Supported",
        4 => c"Insufficient Permissions",
        6 => c"Not Found",
        7 => c"Insufficient Size",
        9 => c"Driver Not Loaded",
        10 => c"Timeout",
        12 => c"NVIDIA Shared Library Not Found",
        13 => c"Function Not Found",
        15 => c"GPU is lost",
        16 => c"GPU requires reset",
        18 => c"Driver/library version mismatch",
        25 => c"Argument version mismatch",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}

/// # Safety
/// `version` is null or points to `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> Return {
    system("nvmlSystemGetDriverVersion", |script| {
        // SAFETY: as this function demands of its caller.
        unsafe { give_text(version, length, &script.driver_version) }
    })
}

/// # Safety
/// `version` is null or points to `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) -> Return {
    system("nvmlSystemGetNVMLVersion", |script| {
        // SAFETY: as this function demands of its caller.
        unsafe { give_text(version, length, &format!("12.{}", script.driver_version)) }
    })
}

/// # Safety
/// `version` is null or points to an int.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> Return {
    system("nvmlSystemGetCudaDriverVersion_v2", |script| {
        // SAFETY: as this function demands of its caller.
        unsafe { give(version, script.cuda_version) }
    })
}

/// # Safety
/// `version` is null or points to an int.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetCudaDriverVersion(version: *mut c_int) -> Return {
    system("nvmlSystemGetCudaDriverVersion", |script| {
        // SAFETY: as this function demands of its caller.
        unsafe { give(version, script.cuda_version) }
    })
}

/// # Safety
/// `count` is null or points to an unsigned int.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> Return {
    system("nvmlDeviceGetCount_v2", |script| {
        // SAFETY: as this function demands of its caller.
        unsafe { give(count, c_uint::try_from(script.devices.len()).unwrap_or(c_uint::MAX)) }
    })
}

/// # Safety
/// `device` is null or points to a handle.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut Handle) -> Return {
    const NAME: &str = "nvmlDeviceGetHandleByIndex_v2";
    system(NAME, |script| {
        let index = index as usize;
        script.devices.get(index).ok_or(INVALID_ARGUMENT)?.act(NAME)?;
        // SAFETY: as this function demands of its caller.
        unsafe { give(device, handle(index, 0)) }
    })
}

/// # Safety
/// `address` is null or a C string; `device` is null or points to a handle.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(address: *const c_char, device: *mut Handle) -> Return {
    // Drivers take four or eight digits of domain.
    let same = |found: &Device, wanted: &str| {
        let plain = |text: &str| text.trim_start_matches('0').to_ascii_lowercase();
        plain(&found.pci) == plain(wanted)
    };
    // SAFETY: as this function demands of its caller.
    unsafe { find("nvmlDeviceGetHandleByPciBusId_v2", address, device, same) }
}

/// # Safety
/// `uuid` is null or a C string; `device` is null or points to a handle.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut Handle) -> Return {
    // SAFETY: as this function demands of its caller.
    unsafe { find("nvmlDeviceGetHandleByUUID", uuid, device, |found, wanted| found.uuid == wanted) }
}

/// The handle of the first device that `matches` the key.
///
/// # Safety
/// `key` is null or a C string; `device` is null or points to a handle.
unsafe fn find(
    function: &str,
    key: *const c_char,
    device: *mut Handle,
    matches: impl Fn(&Device, &str) -> bool,
) -> Return {
    system(function, |script| {
        if key.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: not null, and a C string by the contract of this function.
        let key = unsafe { CStr::from_ptr(key) }.to_str().map_err(|_| INVALID_ARGUMENT)?;
        let index = script.devices.iter().position(|found| matches(found, key)).ok_or(NOT_FOUND)?;
        script.devices[index].act(function)?;
        // SAFETY: as this function demands of its caller.
        unsafe { give(device, handle(index, 0)) }
    })
}
