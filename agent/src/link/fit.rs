//! Makes a report fit one message.
//!
//! A report of any machine known is an eighth of the limit. Should one not fit (thousands of disks or virtual functions), it
//! is better to lose a list, and say so, than the machine.

use assay_shared::wire::check_report;
use assay_shared::{Fact, HardwareReport};

/// Lists in the order in which they are given up: first what the scheduler needs least.
const LISTS: [fn(&mut HardwareReport, &str); 6] = [
    |report, _| report.disagreements.clear(),
    |report, reason| give_up(&mut report.cpu.features, reason),
    |report, reason| give_up(&mut report.network.interfaces, reason),
    |report, reason| give_up(&mut report.numa, reason),
    |report, reason| give_up(&mut report.disks, reason),
    |report, reason| give_up(&mut report.network.rdma, reason),
];

fn give_up<T>(fact: &mut Fact<T>, reason: &str) {
    if fact.is_measured() {
        *fact = Fact::unavailable(reason);
    }
}

/// The report, without the lists that would make it too large for a message.
pub(super) fn fit(mut report: HardwareReport) -> HardwareReport {
    const REASON: &str = "left out: the report would not fit a message";
    for give_up in LISTS {
        if check_report(&report).is_ok() {
            break;
        }
        give_up(&mut report, REASON);
    }
    report
}

#[cfg(test)]
mod tests {
    use assay_shared::report::Disk;

    use super::*;

    #[test]
    fn a_report_that_fits_is_left_alone() {
        let disks = Fact::Measured(vec![Disk::default(); 100]);
        let report = HardwareReport { disks, ..HardwareReport::default() };
        assert_eq!(fit(report.clone()), report);
    }

    #[test]
    fn a_report_that_does_not_fit_loses_lists_and_says_so() {
        let mut report = HardwareReport::default();
        report.cpu.features = Fact::Measured(vec!["avx2".to_owned()]);
        report.cpu.sockets = Fact::Measured(2);
        report.disks = Fact::Measured(vec![Disk::default(); 4000]);
        let fitting = fit(report);
        assert!(matches!(&fitting.disks, Fact::Unavailable(reason) if reason.contains("left out")));
        assert_eq!(fitting.cpu.sockets, Fact::Measured(2));
        check_report(&fitting).unwrap();
    }
}
