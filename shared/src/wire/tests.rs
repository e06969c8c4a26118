//! The bytes on the wire, written out: a change of any of them breaks every agent already deployed.

use proptest::prelude::*;

use super::*;
use crate::fact::Fact;
use crate::protocol::{Credential, Hello, Notice, RefusalReason, Section};
use crate::report::{
    AcceleratedNetworking, Disagreement, Disk, DiskRole, EventType, GpuDevice, GpuState, HardwareReport,
    IsaLevel, NumaNode, ScheduledEvent,
};
use crate::units::Bytes;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a frame written as words of hex, for people to read.
fn bytes(words: &[&str]) -> String {
    words.concat().replace(' ', "")
}

/// A report in which nothing was found: every fact absent.
fn absent_report() -> HardwareReport {
    serde_json::from_str(
        r#"{"identity":{"nodeName":null,"bootId":null,"machineId":null,"vmId":null},
            "platform":{"cloud":null,"vmSize":null,"location":null,"zone":null,"priority":null,"hypervisor":null,
                        "generation":null,"kernelRelease":null,"osImage":null},
            "cpu":{"architecture":null,"vendor":null,"model":null,"family":null,"modelId":null,"stepping":null,
                   "isaLevel":null,"features":null,"logicalCpus":null,"physicalCores":null,"sockets":null,
                   "threadsPerCore":null,"l3Domains":null,"l3Bytes":null},
            "memory":{"installedBytes":null,"totalBytes":null,"kubepodsLimitBytes":null,"hugepages":null},
            "numa":null,
            "gpus":{"pci":null,"driverBound":null,"usable":null,"partition":null,"devices":null,"driverVersion":null,
                    "cudaVersion":null},
            "network":{"acceleratedNetworking":null,"interfaces":null,"rdma":null},
            "disks":null,"events":null,"disagreements":[]}"#,
    )
    .unwrap()
}

#[test]
fn every_message_of_an_agent_has_these_bytes() {
    let hello = |credential| {
        AgentMessage::Hello(Hello {
            protocol: 1,
            node_name: "node-a".to_owned(),
            boot_id: "b1".to_owned(),
            credential,
        })
    };
    let mut report = absent_report();
    report.identity.node_name = Fact::Measured("n".to_owned());
    report.identity.vm_id = Fact::Unavailable("no".to_owned());
    report.cpu.isa_level = Fact::Measured(IsaLevel::V4);
    report.memory.total_bytes = Fact::Measured(Bytes::gib(16));

    let absent = "01000000";
    let cases = [
        (
            hello(Credential::Certificate),
            bytes(&[
                "0100 01 1e000000",              // version, kind, length 30
                "0100",                          // protocol
                "0600000000000000 6e6f64652d61", // "node-a"
                "0200000000000000 6231",         // "b1"
                "00000000",                      // Certificate
            ]),
        ),
        (
            hello(Credential::Token("t".to_owned())),
            bytes(&[
                "0100 01 27000000",
                "0100",
                "0600000000000000 6e6f64652d61",
                "0200000000000000 6231",
                "01000000 0100000000000000 74", // Token("t")
            ]),
        ),
        (
            AgentMessage::Full { generation: 7, report: Box::new(report) },
            bytes(&[
                "0100 02 df000000",
                "0700000000000000",               // generation
                "00000000 0100000000000000 6e",   // identity.nodeName: measured
                &absent.repeat(2),                // bootId, machineId
                "02000000 0200000000000000 6e6f", // vmId: unavailable, "no"
                &absent.repeat(9),                // platform
                &absent.repeat(6),                // cpu, up to stepping
                "00000000 03000000",              // cpu.isaLevel: v4
                &absent.repeat(7),                // rest of cpu
                absent,                           // memory.installedBytes
                "00000000 0000000004000000",      // memory.totalBytes: 16 GiB
                &absent.repeat(2),                // rest of memory
                absent,                           // numa
                &absent.repeat(7),                // gpus
                &absent.repeat(3),                // network
                &absent.repeat(2),                // disks, events
                "0000000000000000",               // no disagreements
            ]),
        ),
        (
            AgentMessage::Delta {
                base: 7,
                generation: 8,
                sections: vec![Section::Disks(Fact::Measured(vec![Disk {
                    name: "sda".to_owned(),
                    role: DiskRole::Temp,
                    size_bytes: Fact::Measured(Bytes(1 << 30)),
                    model: Fact::Absent,
                    ephemeral_os: Fact::Measured(true),
                    in_use_by: Fact::Unavailable(String::new()),
                }]))],
            },
            bytes(&[
                "0100 03 58000000",
                "0700000000000000 0800000000000000",  // base, generation
                "0100000000000000",                   // one section
                "07000000 00000000 0100000000000000", // disks, measured, one
                "0300000000000000 736461 01000000",   // "sda", temp
                "00000000 0000004000000000",          // sizeBytes: 1 GiB
                "01000000",                           // model: absent
                "00000000 01",                        // ephemeralOs: true
                "02000000 0000000000000000",          // inUseBy: unavailable, ""
            ]),
        ),
        (
            AgentMessage::Notice(Notice::Scheduled(ScheduledEvent {
                event_type: EventType::Reboot,
                not_before: "x".to_owned(),
            })),
            bytes(&["0100 04 11000000", "00000000 02000000 0100000000000000 78"]),
        ),
        (
            AgentMessage::Notice(Notice::GpuLost { pci_address: "0".to_owned(), reason: String::new() }),
            bytes(&["0100 04 15000000", "01000000 0100000000000000 30 0000000000000000"]),
        ),
    ];
    for (message, expected) in cases {
        let frame = message.encode().unwrap();
        assert_eq!(hex(&frame), expected, "{message:?}");
        assert_eq!(AgentMessage::decode(&frame).unwrap(), message);
    }
}

#[test]
fn every_message_of_the_server_has_these_bytes() {
    let cases = [
        (
            ServerMessage::Welcome { report_interval_seconds: 60, last_generation: None },
            bytes(&["0100 81 05000000", "3c000000 00"]),
        ),
        (
            ServerMessage::Welcome { report_interval_seconds: 60, last_generation: Some(9) },
            bytes(&["0100 81 0d000000", "3c000000 01 0900000000000000"]),
        ),
        (
            ServerMessage::Refused { reason: RefusalReason::NodeMismatch, detail: "no".to_owned() },
            bytes(&["0100 82 0e000000", "03000000 0200000000000000 6e6f"]),
        ),
        (ServerMessage::Ack { generation: 258 }, bytes(&["0100 83 08000000", "0201000000000000"])),
        (ServerMessage::SendFull, bytes(&["0100 84 00000000"])),
    ];
    for (message, expected) in cases {
        let frame = message.encode().unwrap();
        assert_eq!(hex(&frame), expected, "{message:?}");
        assert_eq!(ServerMessage::decode(&frame).unwrap(), message);
    }
}

#[test]
fn reasons_and_sections_keep_their_numbers() {
    for (number, reason) in RefusalReason::ALL.into_iter().enumerate() {
        let frame = ServerMessage::Refused { reason, detail: String::new() }.encode().unwrap();
        assert_eq!(frame[HEADER_LENGTH], u8::try_from(number).unwrap(), "{reason}");
    }
    let sections = [
        Section::Identity(Default::default()),
        Section::Platform(Default::default()),
        Section::Cpu(Default::default()),
        Section::Memory(Default::default()),
        Section::Numa(Fact::Absent),
        Section::Gpus(Default::default()),
        Section::Network(Default::default()),
        Section::Disks(Fact::Absent),
        Section::Events(Fact::Absent),
        Section::Disagreements(vec![]),
    ];
    for (number, section) in sections.into_iter().enumerate() {
        let frame = AgentMessage::Delta { base: 0, generation: 1, sections: vec![section] }.encode().unwrap();
        assert_eq!(frame[HEADER_LENGTH + 24], u8::try_from(number).unwrap());
    }
}

#[test]
fn frames_are_refused_for_what_is_wrong_with_them() {
    let ack = ServerMessage::Ack { generation: 1 }.encode().unwrap();
    let changed = |at: usize, byte: u8| {
        let mut frame = ack.clone();
        frame[at] = byte;
        frame
    };
    let longer = [ack.clone(), vec![0]].concat();
    let mut padded = longer.clone();
    padded[3] = 9;
    let huge = [&ack[..3], &u32::MAX.to_le_bytes()].concat();
    let cases = [
        (changed(0, 2), WireError::WrongVersion { found: 2 }),
        (changed(2, 99), WireError::WrongKind { found: 99 }),
        (changed(2, Kind::Hello as u8), WireError::WrongKind { found: 1 }),
        (huge, WireError::TooLarge { length: u32::MAX.into() }),
        (longer, WireError::Trailing { extra: 1 }),
        (padded, WireError::Trailing { extra: 1 }),
        (ack[..ack.len() - 1].to_vec(), WireError::Truncated { missing: 1 }),
        (ack[..4].to_vec(), WireError::Truncated { missing: 3 }),
        (vec![], WireError::Truncated { missing: HEADER_LENGTH }),
    ];
    for (frame, expected) in cases {
        assert_eq!(ServerMessage::decode(&frame), Err(expected), "{}", hex(&frame));
    }
}

#[test]
fn a_report_over_the_limit_is_not_sent() {
    let mut report = HardwareReport::default();
    report.cpu.model = Fact::Measured("x".repeat(BODY_LIMIT));
    check_report(&report).unwrap_err();
    let error = AgentMessage::Full { generation: 1, report: Box::new(report) }.encode().unwrap_err();
    assert!(matches!(error, WireError::TooLarge { length } if length > BODY_LIMIT as u64), "{error}");
}

#[test]
fn a_length_inside_the_body_that_is_a_lie_is_malformed() {
    // A string, a list of sections and a list of facts that claim 2^60 elements in a body of a few bytes.
    let lie = (1_u64 << 60).to_le_bytes();
    let delta = [0_u8; 16];
    let sections_then_numa =
        [&1_u64.to_le_bytes()[..], &4_u32.to_le_bytes(), &0_u32.to_le_bytes(), &lie].concat();
    let bodies = [
        (Kind::Hello, [&[1, 0][..], &lie].concat()),
        (Kind::Delta, [&delta[..], &lie].concat()),
        (Kind::Delta, [&delta[..], &sections_then_numa].concat()),
    ];
    for (kind, body) in bodies {
        let header = FrameHeader { kind, length: body.len() };
        let error = AgentMessage::decode_body(header, &body).unwrap_err();
        assert!(matches!(error, WireError::Malformed(_)), "{error}");
    }
}

fn fact<T: std::fmt::Debug + Clone + 'static>(
    value: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Fact<T>> {
    prop_oneof![value.prop_map(Fact::Measured), Just(Fact::Absent), ".{0,20}".prop_map(Fact::Unavailable)]
        .boxed()
}

fn numa() -> impl Strategy<Value = NumaNode> {
    let fields = (
        any::<u32>(),
        fact("[0-9,-]{0,9}"),
        fact(any::<u64>()),
        fact(prop::collection::vec(any::<u32>(), 0..4)),
    );
    fields.prop_map(|(id, cpus, memory, distances)| NumaNode {
        id,
        cpus,
        memory_bytes: memory.map(Bytes),
        distances,
    })
}

fn gpu() -> impl Strategy<Value = GpuDevice> {
    (fact(".{0,16}"), fact(any::<u64>()), prop::option::of(".{0,16}")).prop_map(|(model, memory, reason)| {
        GpuDevice {
            model,
            memory_bytes: memory.map(Bytes),
            state: if reason.is_some() { GpuState::Lost } else { GpuState::Usable },
            reason,
            ..GpuDevice::default()
        }
    })
}

fn report() -> impl Strategy<Value = HardwareReport> {
    let networking = prop_oneof![Just(AcceleratedNetworking::VfActive), Just(AcceleratedNetworking::Absent)];
    (
        fact("[a-z0-9-]{1,20}"),
        fact(prop::collection::vec("[a-z0-9_]{1,12}", 0..9)),
        fact(any::<u64>()),
        fact(prop::collection::vec(numa(), 0..4)),
        fact(prop::collection::vec(gpu(), 0..9)),
        fact(networking),
        prop::collection::vec((".{0,9}", ".{0,9}"), 0..3),
    )
        .prop_map(|(node_name, features, total, numa, gpus, networking, disagreements)| {
            let mut report = absent_report();
            report.identity.node_name = node_name;
            report.cpu.features = features;
            report.memory.total_bytes = total.map(Bytes);
            report.numa = numa;
            report.gpus.devices = gpus;
            report.network.accelerated_networking = networking;
            report.disagreements =
                disagreements.into_iter().map(|(fact, detail)| Disagreement { fact, detail }).collect();
            report
        })
}

proptest! {
    #[test]
    fn what_is_sent_is_what_arrives(generation: u64, old in report(), new in report()) {
        let sections = crate::protocol::changed_sections(&old, &new);
        let full = AgentMessage::Full { generation, report: Box::new(new) };
        let delta = AgentMessage::Delta { base: generation, generation: generation.wrapping_add(1), sections };
        for message in [full, delta] {
            let frame = message.encode().unwrap();
            prop_assert!(frame.len() <= FRAME_LIMIT);
            prop_assert_eq!(AgentMessage::decode(&frame).unwrap(), message);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        let _ = AgentMessage::decode(&bytes);
        let _ = ServerMessage::decode(&bytes);
        for kind in Kind::ALL {
            let header = FrameHeader { kind, length: bytes.len() };
            let _ = AgentMessage::decode_body(header, &bytes);
            let _ = ServerMessage::decode_body(header, &bytes);
        }
    }

    #[test]
    fn a_damaged_frame_is_another_message_or_an_error(
        message in report(), at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>(),
    ) {
        let mut frame = AgentMessage::Full { generation: 1, report: Box::new(message) }.encode().unwrap();
        prop_assert!(AgentMessage::decode(&frame[..cut.index(frame.len())]).is_err(), "a cut frame is never whole");
        let at = at.index(frame.len());
        frame[at] = byte;
        let _ = AgentMessage::decode(&frame);
    }
}
