//! A length that lies must not cost memory. A test of its own, so that nothing else moves the peak of the process.

use assay_shared::protocol::AgentMessage;
use assay_shared::wire::{BODY_LIMIT, FrameHeader, Kind, Message};

/// Peak resident memory of this process, KiB; `None` where the system does not tell.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[test]
fn lengths_that_lie_reserve_no_memory() {
    let Some(before) = peak_kib() else {
        eprintln!("skipped: this system has no /proc/self/status");
        return;
    };
    // Nested as deep as the messages allow: sections, then NUMA nodes, then the distances of one.
    for lie in [1_u64 << 20, 1 << 32, 1 << 60, u64::MAX] {
        let mut body = vec![0; 16];
        body.extend(lie.to_le_bytes()); // sections
        body.extend(4_u32.to_le_bytes()); // Numa
        body.extend(0_u32.to_le_bytes()); // measured
        body.extend(lie.to_le_bytes()); // nodes
        body.extend(0_u32.to_le_bytes()); // id
        body.extend(1_u32.to_le_bytes()); // cpus: absent
        body.extend(1_u32.to_le_bytes()); // memory: absent
        body.extend(0_u32.to_le_bytes()); // distances: measured
        body.extend(lie.to_le_bytes());
        for filler in [0, 64, BODY_LIMIT - body.len()] {
            let body = [&body[..], &vec![0; filler]].concat();
            let header = FrameHeader { kind: Kind::Delta, length: body.len() };
            AgentMessage::decode_body(header, &body).unwrap_err();
        }
    }
    let grown = peak_kib().unwrap() - before;
    assert!(grown < 16 << 10, "decoding took {grown} KiB of address space");
}
