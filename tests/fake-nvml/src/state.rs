//! The script in force, and the way from a C call to it.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use crate::abi::{Answer, Handle, INVALID_ARGUMENT, Return, SUCCESS, UNINITIALIZED, UNKNOWN};
use crate::script::{Device, Script, VARIABLE};

static SCRIPT: RwLock<Option<Arc<Script>>> = RwLock::new(None);

fn script() -> Option<Arc<Script>> {
    SCRIPT.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn set(script: Option<Arc<Script>>) {
    *SCRIPT.write().unwrap_or_else(PoisonError::into_inner) = script;
}

fn code(answer: Answer) -> Return {
    answer.err().unwrap_or(SUCCESS)
}

/// Reads the script and behaves as it says for `function`.
pub(crate) fn initialize(function: &str) -> Return {
    let read = match std::env::var_os(VARIABLE) {
        Some(path) => Script::read(&PathBuf::from(path)),
        None => Err(format!("{VARIABLE} is not set: expected the path of a script")),
    };
    match read {
        Ok(script) => {
            let answer = script.act(function);
            if answer.is_ok() {
                set(Some(Arc::new(script)));
            }
            code(answer)
        }
        Err(error) => {
            eprintln!("fake NVML: {error}");
            UNKNOWN
        }
    }
}

/// Behaves as scripted for `function`, and forgets the script.
pub(crate) fn shut_down(function: &str) -> Return {
    let answer = script().ok_or(UNINITIALIZED).and_then(|script| script.act(function));
    set(None);
    code(answer)
}

/// A call about the system: behaves as scripted, then answers.
pub(crate) fn system(function: &str, answer: impl FnOnce(&Script) -> Answer) -> Return {
    code(script().ok_or(UNINITIALIZED).and_then(|script| {
        script.act(function)?;
        answer(&script)
    }))
}

/// A call about a device: behaves as scripted for all devices and for this one, then answers.
pub(crate) fn device(function: &str, handle: Handle, answer: impl FnOnce(&Device) -> Answer) -> Return {
    system(function, |script| {
        let device = index(handle).and_then(|index| script.devices.get(index)).ok_or(INVALID_ARGUMENT)?;
        device.act(function)?;
        answer(device)
    })
}

/// MIG instances that a device has room for, and one more for the device itself.
const HANDLES_PER_DEVICE: usize = 8;

/// The handle of a device (`instance` 0) or of one of its MIG instances (from 1 on): a number, never a real pointer.
pub(crate) fn handle(index: usize, instance: usize) -> Handle {
    std::ptr::without_provenance_mut((index + 1) * HANDLES_PER_DEVICE + instance)
}

/// Index of the device that a handle belongs to.
pub(crate) fn index(handle: Handle) -> Option<usize> {
    (handle.addr() / HANDLES_PER_DEVICE).checked_sub(1)
}

/// Whether a handle is that of a MIG instance.
pub(crate) fn is_instance(handle: Handle) -> bool {
    !handle.addr().is_multiple_of(HANDLES_PER_DEVICE)
}
