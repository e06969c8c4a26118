//! Disks, by the controller they hang on.

use assay_shared::Fact;
use assay_shared::report::Disk;

use crate::host::HostFs;
use crate::imds::Instance;

/// Surveys the disks. Only IMDS knows whether the operating system disk is ephemeral.
pub fn probe(_fs: &dyn HostFs, _instance: &Fact<Instance>) -> Fact<Vec<Disk>> {
    Fact::default()
}
