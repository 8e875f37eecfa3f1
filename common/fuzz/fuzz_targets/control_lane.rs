//! The control lane of a migration ends at a libvirtd that runs as root, and its far side may have been taken over: no
//! bytes panic the filter, and what it lets through is judged here by a second, simpler reading of libvirt's framing.
//!
//! The filter is taken in as it stands: it is pure, and the rest of the agent would need libvirt.

#![no_main]

use std::sync::LazyLock;

use filter::{Expectation, Gate, Passed, element::Element, parse_frame};
use libfuzzer_sys::fuzz_target;

#[path = "../../../agent/src/migrate/filter/mod.rs"]
mod filter;

const EXPECTED: &str = include_str!("../../../agent/src/migrate/filter/fixtures/expected.xml");
const REMOTE_PROGRAM: u32 = 0x2000_8086;
const KEEPALIVE_PROGRAM: u32 = 0x6b65_6570;
/// Authentication list, feature query, open, close callbacks, prepare, finish, close: what one migration needs.
const NEEDED: &[i32] = &[66, 60, 1, 360, 361, 303, 306, 2];

static EXPECTATION: LazyLock<Expectation> = LazyLock::new(|| Expectation {
    domain: Element::parse(EXPECTED).expect("the recorded domain is XML"),
    migrate_uri: "unix:///run/novacron/m/x1/r".into(),
    disks_uri: "unix:///run/novacron/m/x1/d".into(),
    disk: "vda".into(),
    post_copy: true,
});

/// Every file or device that a domain in these bytes names is one that the expected domain names too.
fn names_only_known_files(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let sources = ["<source file='", "<source dev='", "<source dir='"];
    let named = sources.iter().flat_map(|mark| text.split(mark).skip(1));
    named.filter_map(|rest| rest.split('\'').next()).all(|path| EXPECTED.contains(path))
}

fuzz_target!(|data: &[u8]| {
    let (mut gate, mut rest) = (Gate::new(EXPECTATION.clone()), data);
    let (mut prepared, mut finished) = (0, 0);
    while let Ok(Some(frame)) = parse_frame(rest) {
        let length = u32::from_be_bytes(rest[..4].try_into().expect("four bytes")) as usize;
        assert_eq!(frame.bytes, &rest[..length], "a frame is as long as it says");
        let Ok(passed) = gate.judge(&frame) else { return };
        let (program, procedure) = (frame.program, frame.procedure);
        assert!(program == KEEPALIVE_PROGRAM || program == REMOTE_PROGRAM, "program {program:#x} passed");
        assert!(program != REMOTE_PROGRAM || NEEDED.contains(&procedure), "procedure {procedure} passed");
        match passed {
            Passed::Prepare => prepared += 1,
            Passed::Finish { .. } => finished += 1,
            Passed::Other => {}
        }
        assert!(finished <= prepared && prepared <= 1, "{prepared} times prepared, {finished} times finished");
        assert!(procedure != 303 || names_only_known_files(frame.bytes), "a foreign file passed");
        rest = &rest[length..];
    }
});
