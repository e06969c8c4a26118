//! Where a survey reads from: the root directory, the NVIDIA library and IMDS, as the command line names them.
//!
//! The running machine may be asked everything. Of another tree only its files are read: no CPUID, no library and no
//! metadata service of the machine this runs on, unless they are named.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use assay_shared::Fact;
use assay_shared::report::{Cloud, HardwareReport};

use crate::cpu::cpuid::Cpuid;
use crate::gpu::{self, GpuLibrary, NvmlSource};
use crate::host::{HostFs, RootDir};
use crate::imds::client::{self, Endpoint, EndpointError};
use crate::imds::{Answer, parse};
use crate::platform::Dmi;
use crate::survey::{SurveyOptions, survey};

/// A captured tree may carry IMDS's answer in this file.
const IMDS_OF_TREE: &str = "imds.json";
/// Longest file taken for an answer of IMDS.
const IMDS_FILE_LIMIT: u64 = 1 << 20;

/// Where a survey reads from.
#[derive(Debug, Clone, clap::Args)]
pub struct SourceArgs {
    /// Directory that holds the machine's proc, sys and etc.
    ///
    /// "/" is the running machine. In a container, mount the host's directories below one and name that. Of any other
    /// tree only its files are read: nothing of the running machine gets into its report.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,

    /// NVIDIA management library: "auto", "off", or the file to load.
    ///
    /// "auto" loads libnvidia-ml.so.1 where the root is "/", and nothing otherwise.
    #[arg(long, value_name = "auto|off|FILE", default_value = "auto")]
    pub nvml: NvmlChoice,

    /// Azure's metadata service: "auto", "off", its address, or a file with its answer.
    ///
    /// "auto" asks http://169.254.169.254 where the root is "/" and DMI says Azure, and reads imds.json of any other
    /// root, where there is one.
    #[arg(long, value_name = "auto|off|URL|FILE", default_value = "auto")]
    pub imds: ImdsChoice,
}

/// Value of `--nvml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NvmlChoice {
    /// The system's library for the running machine, none for another tree.
    Auto,
    /// None.
    Off,
    /// This file.
    File(PathBuf),
}

impl FromStr for NvmlChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            "" => Err("expected auto, off or a file, found nothing".to_owned()),
            file => Ok(Self::File(PathBuf::from(file))),
        }
    }
}

/// Value of `--imds`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImdsChoice {
    /// The service for the running machine on Azure, `imds.json` for another tree.
    Auto,
    /// Not asked.
    Off,
    /// The service at this address.
    Service(Endpoint),
    /// A file that holds its answer.
    File(PathBuf),
}

impl FromStr for ImdsChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            "" => Err("expected auto, off, an address or a file, found nothing".to_owned()),
            url if url.contains("://") => {
                url.parse().map(Self::Service).map_err(|error: EndpointError| error.to_string())
            }
            file => Ok(Self::File(PathBuf::from(file.strip_prefix("file:").unwrap_or(file)))),
        }
    }
}

/// A source that was named and cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The root cannot be opened.
    #[error("--root {}: {}", .0.display(), plain(.1))]
    Root(PathBuf, std::io::Error),
    /// The file with IMDS's answer cannot be read.
    #[error("--imds {}: {}", .0.display(), plain(.1))]
    ImdsFile(PathBuf, std::io::Error),
}

/// An error of the system without its number.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// The sources of a survey, open.
#[derive(Debug)]
pub struct Sources {
    fs: RootDir,
    running_machine: bool,
    imds: Imds,
    gpu_library: Box<dyn GpuLibrary>,
}

#[derive(Debug)]
enum Imds {
    Off,
    /// On Azure only.
    Auto,
    Service(Endpoint),
    Answered(Box<Answer>),
}

impl SourceArgs {
    /// Opens what is named. The library is loaded later, when it is first asked.
    ///
    /// # Errors
    /// The root, or a file that was named, cannot be read.
    pub fn open(&self) -> Result<Sources, SourceError> {
        let fs = RootDir::open(&self.root).map_err(|error| SourceError::Root(self.root.clone(), error))?;
        let running_machine = fs::canonicalize(&self.root).is_ok_and(|root| root == Path::new("/"));
        let nvml = match &self.nvml {
            NvmlChoice::Auto if running_machine => NvmlSource::System,
            NvmlChoice::Auto | NvmlChoice::Off => NvmlSource::Off,
            NvmlChoice::File(file) => NvmlSource::File(file.clone()),
        };
        let imds = match &self.imds {
            ImdsChoice::Auto if running_machine => Imds::Auto,
            ImdsChoice::Auto => fs.read(IMDS_OF_TREE).map_or(Imds::Off, |content| answered(&content)),
            ImdsChoice::Off => Imds::Off,
            ImdsChoice::Service(endpoint) => Imds::Service(endpoint.clone()),
            ImdsChoice::File(path) => {
                answered(&imds_file(path).map_err(|error| SourceError::ImdsFile(path.clone(), error))?)
            }
        };
        Ok(Sources { fs, running_machine, imds, gpu_library: gpu::library(nvml) })
    }
}

fn imds_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let about = fs::metadata(path)?;
    if !about.is_file() || about.len() > IMDS_FILE_LIMIT {
        return Err(std::io::Error::other("expected a file of at most 1 MiB"));
    }
    fs::read(path)
}

fn answered(content: &[u8]) -> Imds {
    Imds::Answered(Box::new(parse::file(content)))
}

impl Sources {
    /// The machine's files.
    #[must_use]
    pub fn fs(&self) -> &dyn HostFs {
        &self.fs
    }

    /// Where IMDS can be asked again, such as for scheduled events; `None` where it is off or a file.
    #[must_use]
    pub fn imds_endpoint(&self) -> Option<Endpoint> {
        match &self.imds {
            Imds::Service(endpoint) => Some(endpoint.clone()),
            Imds::Auto if Dmi::read(&self.fs).cloud() == Fact::Measured(Cloud::Azure) => {
                Some(Endpoint::default())
            }
            Imds::Auto | Imds::Off | Imds::Answered(_) => None,
        }
    }

    /// What IMDS says, where it is to be asked. Takes [`client::TIMEOUT`] at most.
    pub async fn ask_imds(&self) -> Option<Answer> {
        if let Imds::Answered(answer) = &self.imds {
            return Some(Answer::clone(answer));
        }
        Some(client::ask(&self.imds_endpoint()?).await)
    }

    /// Surveys the machine with what IMDS said. Blocks while it reads files and asks the GPU library.
    #[must_use]
    pub fn survey(&self, node_name: Option<&str>, imds: Option<Answer>) -> HardwareReport {
        self.survey_with(node_name, imds, &*self.gpu_library)
    }

    /// The same without asking the GPU library, which a driver in trouble may hold up for seconds.
    #[must_use]
    pub fn survey_without_gpu_library(
        &self,
        node_name: Option<&str>,
        imds: Option<Answer>,
    ) -> HardwareReport {
        self.survey_with(node_name, imds, &*gpu::library(NvmlSource::Off))
    }

    fn survey_with(
        &self,
        node_name: Option<&str>,
        imds: Option<Answer>,
        gpu_library: &dyn GpuLibrary,
    ) -> HardwareReport {
        let options = SurveyOptions {
            node_name: node_name.map(str::to_owned),
            imds,
            cpuid: if self.running_machine { Cpuid::of_running_machine() } else { None },
            gpu_library,
        };
        survey(&self.fs, &options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(root: &Path, imds: &str) -> SourceArgs {
        SourceArgs { root: root.to_owned(), nvml: NvmlChoice::Auto, imds: imds.parse().unwrap() }
    }

    fn asked(sources: &Sources) -> Option<Answer> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(sources.ask_imds())
    }

    #[test]
    fn another_tree_gets_nothing_from_the_running_machine() {
        let root = tempfile::tempdir().unwrap();
        let sources = args(root.path(), "auto").open().unwrap();
        assert_eq!(asked(&sources), None);
        let report = sources.survey(None, None);
        assert!(!report.cpu.architecture.is_measured() && !report.identity.boot_id.is_measured());
        assert!(report.disagreements.is_empty());
    }

    #[test]
    fn the_answer_of_imds_may_lie_in_the_tree_or_in_a_file() {
        let root = tempfile::tempdir().unwrap();
        let answer = br#"{"compute":{"vmSize":"Standard_D4s_v5"}}"#;
        fs::write(root.path().join("imds.json"), answer).unwrap();
        let file = format!("file:{}", root.path().join("imds.json").display());
        for (imds, expected) in [("auto", true), (file.as_str(), true), ("off", false)] {
            let sources = args(root.path(), imds).open().unwrap();
            let imds_answer = asked(&sources);
            let report = sources.survey(None, imds_answer);
            assert_eq!(report.platform.vm_size.is_measured(), expected, "{imds}");
        }
        let error = args(root.path(), "file:/nonexistent").open().unwrap_err().to_string();
        assert_eq!(error, "--imds /nonexistent: no such file or directory");
    }

    #[test]
    fn an_address_is_a_plain_http_one() {
        let reads = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.to_string()).ok();
        assert_eq!(reads("http://127.0.0.1:8080/"), Some("http://127.0.0.1:8080".to_owned()));
        assert_eq!(reads("http://[::1]/prefix"), Some("http://[::1]:80/prefix".to_owned()));
        for wrong in
            ["https://169.254.169.254", "169.254.169.254", "ftp://x", "http://", "http://h?q", "http://a b"]
        {
            assert_eq!(reads(wrong), None, "{wrong}");
        }
        let error = "https://x".parse::<ImdsChoice>().unwrap_err();
        assert!(error.contains("expected an address like http://"), "{error}");
    }
}
