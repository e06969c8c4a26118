//! Plans of many small pods on the built-in catalogue.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::ensure;
use assay_core::catalog::Catalog;
use assay_core::model::{Labels, NodeClass, NodePool, Pod, PodId, PodSpec, ResourceList, Snapshot};
use assay_core::solve::{SolveOptions, solve};
use assay_shared::units::{Bytes, MilliCpu};

use crate::report::{measure, row};

pub(crate) fn run() -> anyhow::Result<()> {
    for pods in [1_000, 10_000, 40_000] {
        let snapshot = mixed_pods(pods)?;
        let times = measure(5, || {
            let plan = solve(&snapshot, &SolveOptions::default());
            ensure!(plan.unschedulable.is_empty(), "{} pods left out", plan.unschedulable.len());
            Ok(())
        })?;
        row(&format!("plan of {pods} mixed pods, built-in catalogue"), &times);
        let plan = solve(&snapshot, &SolveOptions::default());
        let (price, bound) = (plan.totals.price.usd(), plan.totals.lower_bound.usd());
        println!("{:<52} {:>12.4}", "    cost / lower bound", price / bound);
    }
    Ok(())
}

/// Pods of the sizes of Karpenter's scheduling benchmark, without its topology rules, on the built-in catalogue.
fn mixed_pods(count: usize) -> anyhow::Result<Snapshot> {
    const MILLI_CPU: [u64; 5] = [100, 250, 500, 1000, 1500];
    const MEMORY_MIB: [u64; 6] = [100, 256, 512, 1024, 2048, 4096];
    let specs: Vec<Arc<PodSpec>> = MILLI_CPU
        .iter()
        .flat_map(|cpu| MEMORY_MIB.iter().map(move |mib| (*cpu, *mib)))
        .map(|(cpu, mib)| {
            let requests =
                ResourceList { cpu: MilliCpu(cpu), memory: Bytes::mib(mib), ..ResourceList::one_pod() };
            Arc::new(PodSpec { requests, ..PodSpec::default() })
        })
        .collect();
    let labels = Arc::new(Labels::new());
    // A fixed stride visits the sizes evenly, in an order that no sort would give.
    let pods = (0..count).map(|n| Pod {
        labels: Arc::clone(&labels),
        ..Pod::new(PodId::new("bench", &format!("pod-{n}")), Arc::clone(&specs[n * 7919 % specs.len()]))
    });
    let class = NodeClass::with_defaults("default");
    let types = Catalog::builtin("eastus")?.instance_types(&class, |_| None);
    Ok(Snapshot {
        pods: pods.collect(),
        pools: vec![NodePool::with_defaults("default")],
        instance_types: BTreeMap::from([("default".to_owned(), Arc::new(types))]),
        classes: vec![class],
        ..Snapshot::default()
    })
}
