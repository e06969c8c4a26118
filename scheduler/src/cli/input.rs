//! What commands that decide offline read: manifests, a catalogue, and what was learned before.

use std::path::PathBuf;

use assay_core::catalog::Catalog;
use assay_core::model::{NodePool, PodId, Snapshot};
use assay_core::requirement::Requirement;
use assay_shared::labels::{azure, karpenter, kubernetes};

use super::catalog::Choice;
use super::profiles;
use crate::manifest::{Manifests, read_sources};

/// Where input comes from.
#[derive(Debug, clap::Args)]
pub(super) struct Input {
    /// Manifests: a file, a directory, or `-` for standard input; may be given several times.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    filename: Vec<String>,
    #[command(flatten)]
    catalog: Choice,
    /// What was learned about VM sizes: a file that a scheduler exported.
    #[arg(long, value_name = "FILE")]
    profiles: Option<PathBuf>,
    /// Configuration of kube-scheduler: its default spread constraints count for pods that have none.
    #[arg(long, value_name = "FILE")]
    scheduler_config: Option<String>,
}

impl Input {
    /// Reads all of it; warnings go to standard error. Also the pods that cannot be read, and why.
    pub(super) fn read(&self) -> anyhow::Result<(Snapshot, Vec<(PodId, String)>)> {
        let files: Vec<String> = self.filename.iter().chain(&self.scheduler_config).cloned().collect();
        let mut manifests = Manifests::parse(&read_sources(&files)?)?;
        let profiles = profiles::read(self.profiles.as_deref())?;
        let catalog = self.catalog.load()?;
        // All input is read: an error would have been the only line.
        for warning in &manifests.warnings {
            eprintln!("assay: warning: {warning}");
        }
        if manifests.pools.is_empty() && manifests.static_pools.is_empty() {
            eprintln!(
                "assay: warning: no NodePool given: using an implicit one (linux, amd64, families D, E, F, on-demand)"
            );
            manifests.pools.push(implicit_pool(&catalog));
        }
        let region = catalog.region().unwrap_or_default();
        let measured = |sku: &str| profiles.memory_for(sku, region);
        let invalid = std::mem::take(&mut manifests.invalid_pods);
        let snapshot = manifests.into_snapshot(|class| {
            let mut types = catalog.instance_types(class, measured);
            types.iter_mut().for_each(|one| profiles.refine(one, region));
            types
        });
        Ok((snapshot, invalid))
    }
}

/// Much as AKS node autoprovisioning starts: Linux on amd64, on demand, without the families that cost most. A catalogue of
/// another cloud knows no Azure families.
fn implicit_pool(catalog: &Catalog) -> NodePool {
    let mut pool = NodePool::with_defaults("default");
    if catalog.region().is_some() {
        pool.requirements = vec![
            Requirement::is_in(kubernetes::OS, ["linux"]),
            Requirement::is_in(kubernetes::ARCH, ["amd64"]),
            Requirement::is_in(karpenter::CAPACITY_TYPE, ["on-demand"]),
            Requirement::is_in(azure::SKU_FAMILY, ["D", "E", "F"]),
        ];
    }
    pool
}
