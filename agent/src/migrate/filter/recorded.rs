//! Tests over a recorded move: libvirt 11.3, a machine with everything (`fixtures/expected.xml` is what our own XML
//! writer makes of it), both directions of its control lane as they were.

use super::{Expectation, Frame, Gate, Passed, Refused, element::Element, gate, parse_frame};

const EXPECTED: &str = include_str!("fixtures/expected.xml");
const TO_TARGET: &[u8] = include_bytes!("fixtures/to_target.bin");
const TO_SOURCE: &[u8] = include_bytes!("fixtures/to_source.bin");
const PREPARE: i32 = 303;
const FINISH: i32 = 306;

fn gate() -> Gate {
    gate_of(false)
}

/// For a machine that allows post-copy, or does not.
fn gate_of(post_copy: bool) -> Gate {
    Gate::new(Expectation {
        domain: Element::parse(EXPECTED).unwrap(),
        migrate_uri: "unix:///run/novacron/m/x1/r".into(),
        disks_uri: "unix:///run/novacron/m/x1/d".into(),
        disk: "vda".into(),
        post_copy,
    })
}

fn frames(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut rest, mut frames) = (bytes, Vec::new());
    while let Some(frame) = parse_frame(rest).unwrap() {
        frames.push(frame.bytes.to_vec());
        rest = &rest[frame.bytes.len()..];
    }
    assert!(rest.is_empty(), "the recording ends in the middle");
    frames
}

fn procedure(frame: &[u8]) -> i32 {
    parse_frame(frame).unwrap().unwrap().procedure
}

/// Plays the recording up to the first refusal; `change` may alter each frame.
fn play(change: impl Fn(i32, &mut Vec<u8>)) -> Result<Vec<Passed>, Refused> {
    play_to(gate(), change)
}

fn play_to(mut gate: Gate, change: impl Fn(i32, &mut Vec<u8>)) -> Result<Vec<Passed>, Refused> {
    let play_one = |mut bytes: Vec<u8>| {
        change(procedure(&bytes), &mut bytes);
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        bytes[..4].copy_from_slice(&length);
        gate.judge(&parse_frame(&bytes).unwrap().unwrap())
    };
    frames(TO_TARGET).into_iter().map(play_one).collect()
}

/// Replaces text in one call's frame by text of the same length.
fn replace(call: i32, from: &'static str, to: &'static str) -> impl Fn(i32, &mut Vec<u8>) {
    assert_eq!(from.len(), to.len(), "{from} → {to}");
    move |procedure, bytes| {
        if procedure == call {
            let at = bytes.windows(from.len()).rposition(|w| w == from.as_bytes());
            let at = at.unwrap_or_else(|| panic!("{from} is not in the recording"));
            bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        }
    }
}

/// Puts `extra` into the devices of the domain in Prepare.
fn with_device(extra: &str) -> Result<Vec<Passed>, Refused> {
    with_inserted(PREPARE, "</devices>", extra)
}

/// Inserts `extra` before the first `mark` in the first parameter of a call, with its length put right.
fn with_inserted(call: i32, mark: &str, extra: &str) -> Result<Vec<Passed>, Refused> {
    let padded = format!("{extra}{}", " ".repeat(extra.len().next_multiple_of(4) - extra.len()));
    play(|procedure, bytes| {
        if procedure != call {
            return;
        }
        // header 28, count 4, name length 4, "destination_xml" + pad 16, type 4, then the text's length.
        const LENGTH_AT: usize = 28 + 4 + 4 + 16 + 4;
        let length = u32::from_be_bytes(bytes[LENGTH_AT..LENGTH_AT + 4].try_into().unwrap());
        let longer = length + u32::try_from(padded.len()).unwrap();
        bytes[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&longer.to_be_bytes());
        let at = bytes.windows(mark.len()).position(|w| w == mark.as_bytes()).unwrap();
        bytes.splice(at..at, padded.bytes());
    })
}

fn refusal(outcome: Result<Vec<Passed>, Refused>) -> String {
    crate::text::describe(&outcome.expect_err("it passed"))
}

#[test]
fn a_recorded_move_passes_whole() {
    let passed = play(|_, _| {}).unwrap_or_else(|e| panic!("{}", crate::text::describe(&e)));
    assert_eq!(passed.iter().filter(|p| **p == Passed::Prepare).count(), 1);
    assert!(passed.contains(&Passed::Finish { cancelled: false, runs: false, serial: 10 }));
    let is_end = |f: &Vec<u8>| gate::is_finished(&parse_frame(f).unwrap().unwrap(), 10);
    assert_eq!(frames(TO_SOURCE).iter().filter(|f| is_end(f)).count(), 1);
}

#[test]
fn other_calls_are_refused_by_number() {
    const DEFINE_XML: i32 = 11;
    const CREATE_XML: i32 = 10;
    const STORAGE_VOL_CREATE: i32 = 93;
    for call in [DEFINE_XML, CREATE_XML, STORAGE_VOL_CREATE, 302, 304, 305, 0, -1] {
        let refused = play(|procedure, bytes| {
            if procedure == PREPARE {
                bytes[12..16].copy_from_slice(&call.to_be_bytes());
            }
        });
        assert!(refusal(refused).contains(&format!("procedure {call} ")));
    }
    // The QEMU monitor's program, a reply, a stream: none is a call of a migration.
    for (at, word) in [(4, 0x2000_8087u32), (16, 1), (16, 3), (16, 4), (8, 2), (24, 1)] {
        let refused = play(|_, bytes| bytes[at..at + 4].copy_from_slice(&word.to_be_bytes()));
        assert!(refusal(refused).contains("is not part of a migration"));
    }
}

#[test]
fn a_foreign_disk_or_host_device_is_refused_by_name() {
    let disk = "<disk type='file' device='disk'><source file='/etc/shadow'/><target dev='vdc'/></disk>";
    let block = "<disk type='block' device='disk'><source dev='/dev/sda'/><target dev='vdc'/></disk>";
    let hostdev = "<hostdev mode='subsystem' type='pci'><source><address bus='1'/></source></hostdev>";
    let shared = "<filesystem type='mount'><source dir='/'/><target dir='root'/></filesystem>";
    for (extra, named) in
        [(disk, "/etc/shadow"), (block, "/dev/sda"), (hostdev, "hostdev"), (shared, "filesystem")]
    {
        let refused = refusal(with_device(extra));
        assert!(refused.contains(named) && refused.contains("Prepare"), "{refused}");
    }
    for extra in [
        "<interface type='bridge'><source bridge='br0'/></interface>",
        "<graphics type='vnc' listen='0.0.0.0'/>",
        "<controller type='scsi' index='0'/>",
        "<controller type='pci' index='9' model='pcie-root'><driver iommu='/x'/></controller>",
        "<emulator>/opt/evil</emulator>",
        "<watchdog model='itco' action='dump'/>",
        "<audio id='2' type='file' path='/srv/x'/>",
        "<console type='file'><source path='/etc/passwd'/><target type='serial' port='0'/></console>",
        "<tpm model='tpm-tis'><backend type='passthrough'/></tpm>",
    ] {
        assert!(refusal(with_device(extra)).contains("domain/devices/"), "{extra}");
    }
}

#[test]
fn what_is_beside_the_devices_is_compared_too() {
    let commandline = "<x:commandline xmlns:x='http://libvirt.org/schemas/domain/qemu/1.0'/>";
    for extra in [
        commandline,
        "<seclabel type='none' model='dac'/>",
        "<seclabel type='static' model='dac' relabel='yes'><label>root</label></seclabel>",
        "<launchSecurity type='sev'/>",
        "<resource><partition>/other</partition></resource>",
        "<os><loader>/opt/x</loader></os>",
        "<name>another</name>",
    ] {
        assert!(refusal(with_inserted(PREPARE, "<devices>", extra)).contains("domain/"), "{extra}");
    }
}

#[test]
fn each_path_and_size_of_the_machine_is_held_to() {
    let changes = [
        ("/data/vms/x/disk.qcow2", "/data/vms/y/disk.qcow2"),
        ("/data/vms/x/seed.img", "/data/vms/y/seed.img"),
        ("/data/images/02.raw", "/data/images/03.raw"),
        ("/data/vms/x/kernel", "/data/vms/y/kernel"),
        ("/data/vms/x/initramfs", "/data/vms/y/initramfs"),
        ("/data/vms/x/console.log", "/data/vms/y/console.log"),
        ("bridge='novabr0'", "bridge='novabr1'"),
        ("52:54:00:00:00:11", "52:54:00:00:00:12"),
        (">262144</memory>", ">262145</memory>"),
        ("00000000-0000-0000-0000-000000000011", "00000000-0000-0000-0000-000000000012"),
        ("/usr/bin/qemu-system-x86_64", "/usr/bin/qemu-system-x86_65"),
        ("unix:///run/novacron/m/x1/r", "unix:///run/novacron/m/x2/r"),
        ("unix:///run/novacron/m/x1/d", "unix:///run/novacron/m/x2/d"),
        ("type='qcow2'", "type='qcow1'"),
    ];
    for (from, to) in changes {
        if from.contains("images") && !frames(TO_TARGET).iter().any(|f| contains(f, from)) {
            continue; // libvirt leaves the backing chain out
        }
        let refused = refusal(play(replace(PREPARE, from, to)));
        assert!(refused.contains("Prepare"), "{refused}");
    }
}

fn contains(frame: &[u8], text: &str) -> bool {
    frame.windows(text.len()).any(|w| w == text.as_bytes())
}

#[test]
fn the_domain_that_finish_leaves_behind_is_compared_as_well() {
    // The last occurrence in Finish is the one in the cookie.
    let refused = refusal(play(replace(FINISH, "/data/vms/x/seed.img", "/etc/shadow         ")));
    assert!(refused.contains("cookie"), "{refused}");
    assert!(refusal(with_inserted(FINISH, "</devices>", "<hostdev/>")).contains("Finish"));
}

#[test]
fn a_guest_that_would_run_before_the_hand_over_is_refused() {
    const PAUSED: u8 = 1 << 5;
    for (call, from_end) in [(PREPARE, 1), (FINISH, 5)] {
        let refused = play(|procedure, bytes| {
            if procedure == call {
                let at = bytes.len() - from_end;
                assert_ne!(bytes[at] & PAUSED, 0);
                bytes[at] &= !PAUSED;
            }
        });
        assert!(refusal(refused).contains("0x20 are missing"));
    }
}

/// As libvirt asks for a migration that may go over to post-copy.
fn ask_for_post_copy(procedure: i32, bytes: &mut [u8]) {
    let from_end = match procedure {
        PREPARE => 4,
        FINISH => 8,
        _ => return,
    };
    let at = bytes.len() - from_end;
    let flags = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    bytes[at..at + 4].copy_from_slice(&(flags & !(1 << 5) | 1 << 15).to_be_bytes());
}

#[test]
fn post_copy_passes_where_the_machine_allows_it_and_its_finish_is_told_apart() {
    let refused = play(|procedure, bytes| ask_for_post_copy(procedure, bytes));
    assert!(refusal(refused).contains("0x8000 are not allowed"));
    let passed = play_to(gate_of(true), |procedure, bytes| ask_for_post_copy(procedure, bytes)).unwrap();
    assert!(passed.contains(&Passed::Finish { cancelled: false, runs: true, serial: 10 }));
    // What did not go over after all is held there by the source.
    let held = play_to(gate_of(true), |procedure, bytes| {
        ask_for_post_copy(procedure, bytes);
        if procedure == FINISH {
            *bytes = gate::held(&parse_frame(bytes).unwrap().unwrap());
        }
    });
    assert!(held.unwrap().contains(&Passed::Finish { cancelled: false, runs: false, serial: 10 }));
    let plain = play_to(gate_of(true), |_, _| {});
    assert!(plain.is_ok(), "it may move as any other, too");
}

#[test]
fn calls_out_of_order_are_refused() {
    let mut gate = gate();
    let recorded = frames(TO_TARGET);
    let of = |call| recorded.iter().find(|f| procedure(f) == call).unwrap();
    let mut judge = |bytes: &[u8]| gate.judge(&parse_frame(bytes).unwrap().unwrap());
    assert!(matches!(judge(of(FINISH)), Err(Refused::Order { state: "being greeted", .. })));
    assert!(matches!(judge(of(PREPARE)), Err(Refused::Order { .. })));
    judge(of(1)).unwrap();
    judge(of(PREPARE)).unwrap();
    assert!(matches!(judge(of(PREPARE)), Err(Refused::Order { state: "prepared", .. })), "a second Prepare");
}

#[test]
fn a_cancelled_finish_is_told_apart() {
    let passed = play(|procedure, bytes| {
        if procedure == FINISH {
            *bytes.last_mut().unwrap() = 1;
        }
    });
    assert!(passed.unwrap().contains(&Passed::Finish { cancelled: true, runs: false, serial: 10 }));
}

#[test]
fn bodies_cut_anywhere_are_refused_without_a_panic() {
    let recorded = frames(TO_TARGET);
    let prepare = recorded.iter().find(|f| procedure(f) == PREPARE).unwrap();
    for length in (28..prepare.len()).step_by(7) {
        let (mut gate, mut cut) = (gate(), prepare[..length].to_vec());
        cut[..4].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
        let frame: Frame<'_> = parse_frame(&cut).unwrap().unwrap();
        assert!(gate.judge(&frame).is_err());
    }
}
