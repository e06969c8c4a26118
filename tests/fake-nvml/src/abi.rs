//! Codes and structures of `nvml.h`, and how values get to the caller.

use std::ffi::{c_char, c_uint, c_void};

/// `nvmlReturn_t`.
pub(crate) type Return = c_uint;
/// `nvmlDevice_t`: never followed, see `crate::state::handle`.
pub(crate) type Handle = *mut c_void;

/// A call's answer before it becomes a code.
pub(crate) type Answer = Result<(), Return>;

pub(crate) const SUCCESS: Return = 0;
pub(crate) const UNINITIALIZED: Return = 1;
pub(crate) const INVALID_ARGUMENT: Return = 2;
pub(crate) const NOT_SUPPORTED: Return = 3;
pub(crate) const NOT_FOUND: Return = 6;
pub(crate) const INSUFFICIENT_SIZE: Return = 7;
pub(crate) const GPU_IS_LOST: Return = 15;
pub(crate) const ARGUMENT_VERSION_MISMATCH: Return = 25;
pub(crate) const UNKNOWN: Return = 999;

/// `nvmlMemory_v2_t`; `version` is its size and a 2 in the top byte.
#[repr(C)]
pub(crate) struct MemoryV2 {
    pub(crate) version: c_uint,
    pub(crate) total: u64,
    pub(crate) reserved: u64,
    pub(crate) free: u64,
    pub(crate) used: u64,
}

/// The version a caller of `nvmlDeviceGetMemoryInfo_v2` announces.
pub(crate) const MEMORY_V2: c_uint = 0x0200_0028;
const _: () = assert!(size_of::<MemoryV2>() == 0x28, "the version names the size");

/// `nvmlMemory_t`.
#[repr(C)]
pub(crate) struct MemoryV1 {
    pub(crate) total: u64,
    pub(crate) free: u64,
    pub(crate) used: u64,
}

/// `nvmlPciInfo_t`.
#[repr(C)]
pub(crate) struct PciInfo {
    pub(crate) bus_id_legacy: [c_char; 16],
    pub(crate) domain: c_uint,
    pub(crate) bus: c_uint,
    pub(crate) device: c_uint,
    pub(crate) pci_device_id: c_uint,
    pub(crate) pci_subsystem_id: c_uint,
    pub(crate) bus_id: [c_char; 32],
}

/// `nvmlFieldValue_t`, with the union as its largest member: little endian makes the smaller ones its first bytes.
#[repr(C)]
pub(crate) struct FieldValue {
    pub(crate) field_id: c_uint,
    pub(crate) scope_id: c_uint,
    pub(crate) timestamp: i64,
    pub(crate) latency_usec: i64,
    pub(crate) value_type: c_uint,
    pub(crate) nvml_return: Return,
    pub(crate) value: u64,
}

/// Writes `value` where the caller wants it.
///
/// # Safety
/// `out` is null or points to memory for a `T`.
pub(crate) unsafe fn give<T>(out: *mut T, value: T) -> Answer {
    if out.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: not null, and by the contract of this function it points to memory for a `T`.
    unsafe { out.write(value) };
    Ok(())
}

/// Writes `text` and a terminating zero into a buffer of `length` bytes.
///
/// # Safety
/// `buffer` is null or points to `length` bytes.
pub(crate) unsafe fn give_text(buffer: *mut c_char, length: c_uint, text: &str) -> Answer {
    if buffer.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    if text.len() >= length as usize {
        return Err(INSUFFICIENT_SIZE);
    }
    // SAFETY: the text and its zero fit into the `length` bytes that the caller gave; they cannot overlap, because
    // the script's memory is never handed out.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), buffer, text.len());
        buffer.add(text.len()).write(0);
    }
    Ok(())
}

/// `text` in a fixed buffer, cut where it is too long, always with a zero at the end.
pub(crate) fn fixed<const N: usize>(text: &str) -> [c_char; N] {
    let mut buffer = [0; N];
    for (to, from) in buffer.iter_mut().take(N - 1).zip(text.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    buffer
}
