//! The processes of a control plane, and the one that cleans up after them.
//!
//! A test may end without running a destructor: killed, or because a static is never dropped. So a small shell script
//! ([`Janitor`]) holds the reading end of a pipe whose writing end dies with the test; then it kills what runs and removes the
//! directory. The program built from `tests/control-plane` also watches its own standard input, so that not even the death of
//! the janitor leaves a process behind.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;

use super::binaries::Component;

/// How many lines of a log go into a message.
const LINES: usize = 20;

/// What every healthy start warns of: versions of APIs that are off, and etcd coming up at the same time.
const USUAL: &[&str] = &[
    "because it has no resources",
    "addrConn.createTransport failed",
    "Found stale data, removed previous endpoints",
    "The manifest file is empty, ignoring",
    "namespaces \\\"kube-system\\\" not found",
];

/// A component with its flags, not started yet.
#[derive(Debug)]
pub(super) struct Program {
    /// Which component.
    pub(super) component: Component,
    /// The program, with all arguments.
    pub(super) command: Command,
}

/// A running component. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Process {
    component: Component,
    log: PathBuf,
    child: Mutex<Child>,
    janitor: Arc<Mutex<ChildStdin>>,
}

impl Process {
    /// Which component it is.
    pub(super) fn component(&self) -> Component {
        self.component
    }

    /// Where its output goes.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    /// How it ended, if it did.
    pub(super) fn ended(&self) -> anyhow::Result<Option<ExitStatus>> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.try_wait().with_context(|| format!("cannot ask whether {} runs", self.component))
    }

    /// The end of its log, on one line.
    pub(super) fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().rev().take(LINES).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    /// Kills it and waits until it is gone.
    pub(super) fn kill(self) -> anyhow::Result<()> {
        self.kill_now()
    }

    fn kill_now(&self) -> anyhow::Result<()> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child
            .kill()
            .and_then(|()| child.wait())
            .with_context(|| format!("cannot stop {}", self.component))?;
        tell(&self.janitor, &format!("- {}", child.id()));
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill_now() {
            tracing::warn!(%error, "a process of the control plane stays");
        }
    }
}

/// Starts processes and cleans up after them, also when this process is killed.
#[derive(Debug)]
pub(super) struct Janitor {
    directory: PathBuf,
    script: Child,
    lines: Option<Arc<Mutex<ChildStdin>>>,
}

impl Janitor {
    /// Takes over `directory`: it goes with this process, or when the janitor is dropped.
    pub(super) fn start(directory: PathBuf) -> anyhow::Result<Self> {
        let logs = directory.join("logs");
        std::fs::create_dir(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let mut script = Command::new("sh")
            .arg("-c")
            .arg(include_str!("janitor.sh"))
            .arg("janitor")
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C ends the test; the janitor has work to do then.
            .process_group(0)
            .spawn()
            .context("cannot start sh")?;
        let lines = script.stdin.take().context("a pipe was asked for")?;
        Ok(Self { directory, script, lines: Some(Arc::new(Mutex::new(lines))) })
    }

    /// The directory it removes.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where log files go.
    pub(super) fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }

    /// Leaves the log files when everything else goes.
    pub(super) fn keep_logs(&self) {
        if let Some(lines) = &self.lines {
            tell(lines, "keep");
        }
    }

    /// Starts a component; its output is appended to its log.
    pub(super) fn spawn(&self, program: Program) -> anyhow::Result<Process> {
        let Program { component, mut command } = program;
        let log = log_of(&self.logs(), component);
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone().context("cannot share a log file")?;
        let janitor = self.lines.clone().context("the janitor is there until it is dropped")?;
        let child = command
            .current_dir(&self.directory)
            // The pipe that tells it of our end.
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        tell(&janitor, &format!("+ {}", child.id()));
        Ok(Process { component, log, child: Mutex::new(child), janitor })
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        // Every process that held the pipe, too, is gone by now: the script reads the end of it, and does its work.
        drop(self.lines.take());
        if let Err(error) = self.script.wait() {
            tracing::warn!(%error, "the directory of the control plane stays");
        }
    }
}

/// Writes a line to the janitor. It cannot be gone while we are here; if somebody killed it, the components watch us themselves.
fn tell(janitor: &Mutex<ChildStdin>, line: &str) {
    let mut pipe = janitor.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = writeln!(pipe, "{line}") {
        tracing::warn!(%error, "the janitor of the control plane is gone");
    }
}

/// The log file of a component.
pub(super) fn log_of(logs: &Path, component: Component) -> PathBuf {
    logs.join(format!("{component}.log"))
}

/// The last warnings and errors in a log of klog's format: a line begins with `W`, `E` or `F` and the date.
pub(super) fn warnings(log: &Path) -> Vec<String> {
    let log = std::fs::read(log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let mut lines: Vec<_> =
        log.lines().rev().filter(|line| is_warning(line)).take(LINES).map(str::to_owned).collect();
    lines.reverse();
    lines
}

fn is_warning(line: &str) -> bool {
    let mut bytes = line.bytes();
    let level = bytes.next();
    matches!(level, Some(b'W' | b'E' | b'F'))
        && bytes.take(4).filter(u8::is_ascii_digit).count() == 4
        && !USUAL.iter().any(|usual| line.contains(usual))
}

#[cfg(test)]
mod tests {
    use super::is_warning;

    #[test]
    fn warnings_and_errors_are_told_from_information_and_other_output() {
        assert!(is_warning("W1124 10:11:12.131415  1 file.go:1] no"));
        assert!(is_warning("E1124 10:11:12.131415  1 file.go:1] no"));
        for line in [
            "I1124 10:11:12.131415  1 file.go:1] yes",
            "W1124 10:11:12.131415  1 file.go:1] Skipping API x/v1beta1 because it has no resources.",
            "Error: unknown flag",
            "",
            "{\"level\":\"warn\"}",
        ] {
            assert!(!is_warning(line), "{line}");
        }
    }
}
