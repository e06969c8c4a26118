//! Building programs for tests with Go, once for each state of their source and each version of Go.
//!
//! A program lies in `target/PROGRAM/SOURCE-GO/`, where SOURCE is a digest of everything that goes into it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use aws_lc_rs::digest;

/// The oldest Go that builds it.
pub(crate) const WANTED: &str = "Go 1.26 or newer";
const WANTED_VERSION: (u32, u32) = (1, 26);

/// Where Go's own instructions install it.
const USUAL_PLACE: &str = "/usr/local/go/bin/go";

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

/// A Go module in this package's directory, and the program to build from it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Module {
    /// Its directory.
    pub directory: &'static str,
    /// The package to build.
    pub package: &'static str,
    /// Name of the program.
    pub program: &'static str,
    /// What it is, for people who wait for it.
    pub what: &'static str,
}

/// The source of a program.
#[derive(Debug)]
pub(crate) struct Source {
    module: Module,
    directory: PathBuf,
    /// All built programs, a directory each.
    cache: PathBuf,
    linker_flags: String,
    digest: String,
}

impl Source {
    /// Reads a module. `linker_flags` makes them of its `go.mod`.
    pub(crate) fn read(
        module: Module,
        linker_flags: impl Fn(&str) -> anyhow::Result<String>,
    ) -> anyhow::Result<Self> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(module.directory);
        let mut files = Vec::new();
        for entry in
            std::fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))?
        {
            let path = entry.with_context(|| format!("cannot list {}", directory.display()))?.path();
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
        let requirements = std::fs::read_to_string(directory.join("go.mod"))
            .with_context(|| format!("cannot read {}/go.mod", directory.display()))?;
        let linker_flags = linker_flags(&requirements)?;

        let mut context = digest::Context::new(&digest::SHA256);
        for text in contents.iter().chain([&linker_flags]) {
            context.update(&text.len().to_le_bytes());
            context.update(text.as_bytes());
        }
        let digest = context.finish().as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { module, directory, cache: target()?.join(module.program), linker_flags, digest })
    }

    fn built_by(&self, go: &Go) -> PathBuf {
        self.cache.join(format!("{}-{}", self.digest, go.version))
    }

    /// A program built from this source, by any version of Go.
    pub(crate) fn built(&self) -> Option<PathBuf> {
        let entries = std::fs::read_dir(&self.cache).ok()?;
        let mut programs: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&self.digest))
            })
            .map(|path| path.join(self.module.program))
            .filter(|program| program.is_file())
            .collect();
        programs.sort();
        programs.pop()
    }

    /// The program built by `go`; builds it the first time. Processes that want it at the same time build it once.
    pub(crate) fn build(&self, go: &Go) -> anyhow::Result<PathBuf> {
        let Module { package, program: name, what, .. } = self.module;
        let directory = self.built_by(go);
        let program = directory.join(name);
        if program.is_file() {
            return Ok(program);
        }
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let lock = self.cache.join("lock");
        let lock = File::create(&lock).with_context(|| format!("cannot write {}", lock.display()))?;
        lock.lock().with_context(|| format!("cannot lock the build of {what}"))?;
        if program.is_file() {
            return Ok(program);
        }
        announce(&format!("building {what} for tests with {}: this takes minutes, once", go.version));
        let unfinished = directory.join("unfinished");
        let status = Command::new(&go.program)
            .args(["build", "-trimpath", "-buildvcs=false", "-ldflags", &self.linker_flags, "-o"])
            .arg(&unfinished)
            .arg(package)
            .current_dir(&self.directory)
            .env("CGO_ENABLED", "0")
            .env("GOTOOLCHAIN", "local")
            .status()
            .context("cannot run go")?;
        ensure!(status.success(), "go build in {}: {status}", self.directory.display());
        std::fs::rename(&unfinished, &program).context("cannot move the built program")?;
        Ok(program)
    }
}

/// Says something that is also seen where the test harness collects output.
pub(crate) fn announce(text: &str) {
    // Whoever closed standard error does not want to know.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Cargo's target directory that this program was built into; cargo marks it.
fn target() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("where does this program lie?")?;
    let marked = program.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file());
    Ok(marked.context("this program does not lie in a target directory of cargo")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::parse;

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
}
