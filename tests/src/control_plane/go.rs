//! Building `tests/control-plane` with Go, once for each state of its source and each version of Go.
//!
//! The program lies in `target/control-plane/SOURCE-GO/`, where SOURCE is a digest of everything that goes into it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use aws_lc_rs::digest;

/// The oldest Go that builds it.
pub(super) const WANTED: &str = "Go 1.26 or newer";
const WANTED_VERSION: (u32, u32) = (1, 26);

/// Where Go's own instructions install it.
const USUAL_PLACE: &str = "/usr/local/go/bin/go";

/// Name of the program in its directory.
const PROGRAM: &str = "control-plane";

/// An installation of Go that is new enough.
#[derive(Debug)]
pub(crate) struct Go {
    program: PathBuf,
    version: String,
}

impl Go {
    /// Looks in `PATH` and in the usual place; otherwise says what is there.
    pub(crate) fn find() -> Result<Self, String> {
        let mut found = Vec::new();
        for program in [Path::new("go"), Path::new(USUAL_PLACE)] {
            // `local`: the version that is installed, not one that it would download.
            let output =
                Command::new(program).args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").output();
            let Ok(output) = output else { continue };
            let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            if parse(&version).is_some_and(|version| version >= WANTED_VERSION) {
                return Ok(Self { program: program.to_owned(), version });
            }
            found.push(format!("{} is {version}", program.display()));
        }
        if found.is_empty() {
            return Err(format!("there is no go in PATH or at {USUAL_PLACE}"));
        }
        Err(format!("{}, which is too old", found.join(" and ")))
    }

    /// The program itself.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }
}

/// Major and minor of `go1.26.8`, `go1.27rc1` or `go1.26`.
fn parse(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix("go")?.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The Go module.
#[derive(Debug)]
pub(super) struct Source {
    module: PathBuf,
    /// All built programs, a directory each.
    cache: PathBuf,
    linker_flags: String,
    digest: String,
}

impl Source {
    /// Reads the module.
    pub(super) fn read() -> anyhow::Result<Self> {
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("control-plane");
        let mut files = Vec::new();
        for entry in
            std::fs::read_dir(&module).with_context(|| format!("cannot list {}", module.display()))?
        {
            let path = entry.with_context(|| format!("cannot list {}", module.display()))?.path();
            if path
                .extension()
                .is_some_and(|extension| ["go", "mod", "sum"].iter().any(|wanted| extension == *wanted))
            {
                files.push(path);
            }
        }
        files.sort();
        let mut contents = Vec::new();
        for file in &files {
            contents.push(
                std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?,
            );
        }
        let version = contents
            .iter()
            .find_map(|content| kubernetes_version(content))
            .context("go.mod does not require k8s.io/kubernetes")?;
        let linker_flags = linker_flags(version)?;

        let mut context = digest::Context::new(&digest::SHA256);
        for text in contents.iter().chain([&linker_flags]) {
            context.update(&text.len().to_le_bytes());
            context.update(text.as_bytes());
        }
        let digest = context.finish().as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { module, cache: target()?.join("control-plane"), linker_flags, digest })
    }

    fn directory(&self, go: &Go) -> PathBuf {
        self.cache.join(format!("{}-{}", self.digest, go.version))
    }

    /// A program built from this source, by any version of Go.
    pub(super) fn built(&self) -> Option<PathBuf> {
        let entries = std::fs::read_dir(&self.cache).ok()?;
        let mut programs: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&self.digest))
            })
            .map(|path| path.join(PROGRAM))
            .filter(|program| program.is_file())
            .collect();
        programs.sort();
        programs.pop()
    }

    /// The program built by `go`; builds it the first time. Processes that want it at the same time build it once.
    pub(super) fn build(&self, go: &Go) -> anyhow::Result<PathBuf> {
        let directory = self.directory(go);
        let program = directory.join(PROGRAM);
        if program.is_file() {
            return Ok(program);
        }
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let lock = self.cache.join("lock");
        let lock = File::create(&lock).with_context(|| format!("cannot write {}", lock.display()))?;
        lock.lock().context("cannot lock the build of the control plane")?;
        if program.is_file() {
            return Ok(program);
        }
        announce(&format!(
            "building the control plane for tests with {}: this takes minutes, once",
            go.version
        ));
        let unfinished = directory.join("unfinished");
        let status = Command::new(&go.program)
            .args(["build", "-trimpath", "-buildvcs=false", "-ldflags", &self.linker_flags, "-o"])
            .arg(&unfinished)
            .arg(".")
            .current_dir(&self.module)
            .env("CGO_ENABLED", "0")
            .env("GOTOOLCHAIN", "local")
            .status()
            .context("cannot run go")?;
        ensure!(status.success(), "go build in {}: {status}", self.module.display());
        std::fs::rename(&unfinished, &program).context("cannot move the built program")?;
        Ok(program)
    }
}

/// Says something that is also seen where the test harness collects output.
pub(crate) fn announce(text: &str) {
    // Whoever closed standard error does not want to know.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The version that a `go.mod` requires of Kubernetes.
fn kubernetes_version(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes v"))
}

/// Kubernetes takes its version from the linker; without it the API server and its clients would call themselves v0.0.0.
fn linker_flags(version: &str) -> anyhow::Result<String> {
    let mut numbers = version.split('.');
    let major = numbers.next().context("a version has a major number")?;
    let minor = numbers.next().context("a version has a minor number")?;
    // Without tables of symbols and for debuggers: half the size.
    let mut flags = "-s -w".to_owned();
    for package in ["component-base", "client-go/pkg"] {
        for (name, value) in [
            ("Version", format!("v{version}").as_str()),
            ("Major", major),
            ("Minor", minor),
            ("TreeState", "clean"),
        ] {
            flags.push_str(&format!(" -X k8s.io/{package}/version.git{name}={value}"));
        }
    }
    Ok(flags)
}

/// Cargo's target directory that this program was built into; cargo marks it.
fn target() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("where does this program lie?")?;
    let marked = program.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file());
    Ok(marked.context("this program does not lie in a target directory of cargo")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{kubernetes_version, linker_flags, parse};

    #[test]
    fn versions_of_go_are_read() {
        for (text, version) in [
            ("go1.26.8", Some((1, 26))),
            ("go1.27rc1", Some((1, 27))),
            ("go1.26", Some((1, 26))),
            ("devel +1234", None),
            ("", None),
        ] {
            assert_eq!(parse(text), version, "{text}");
        }
    }

    #[test]
    fn the_program_tells_the_version_that_is_required() {
        let required = kubernetes_version("module x\n\nrequire (\n\tk8s.io/kubernetes v1.36.3\n)\n");
        assert_eq!(required, Some("1.36.3"));
        assert!(linker_flags("1.36.3").is_ok_and(|flags| flags.contains("gitMinor=36")));
        assert_eq!(kubernetes_version("k8s.io/api => k8s.io/api v0.36.3"), None);
    }
}
