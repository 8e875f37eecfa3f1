//! Every message that crosses a process boundary: decoding arbitrary bytes neither panics nor allocates what the peer
//! claims, and what was decoded survives another round trip unchanged. The first byte chooses the message.

#![no_main]

use libfuzzer_sys::fuzz_target;
use novacron_common::record::{HostHello, HostStatus};
use novacron_common::wire::{
    AgentCommand, AgentReply, ConsoleOpen, ControlRequest, Departed, Directory, Enrolled, ExecCommand,
    ExecInput, ExecOpen, ExecOutput, GossipFrame, ImageRequest, ImageResponse, JoinDenied, JoinRequest,
    LaneOpen, LaneVerdict, LeasesGranted, LogChunk, ProbeCount, ProbeOpen, ProbeVerdict, RenewRequest,
    SessionOpened, codec,
};
use serde::{Serialize, de::DeserializeOwned};

/// bincode's integers have more than one spelling, so it is the second encoding that must repeat itself.
fn round_trip<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(value) = codec::decode::<T>(bytes) else { return };
    let once = codec::encode(&value).expect("what was decoded within the limit is encoded within it");
    let again: T = codec::decode(&once).expect("what we encoded we decode");
    assert_eq!(codec::encode(&again).expect("it was encoded before"), once);
}

const MESSAGES: &[fn(&[u8])] = &[
    round_trip::<AgentCommand>,
    round_trip::<AgentReply>,
    round_trip::<ControlRequest>,
    round_trip::<SessionOpened>,
    round_trip::<Directory>,
    round_trip::<HostHello>,
    round_trip::<HostStatus>,
    round_trip::<LaneOpen>,
    round_trip::<LaneVerdict>,
    round_trip::<ImageRequest>,
    round_trip::<ImageResponse>,
    round_trip::<ConsoleOpen>,
    round_trip::<GossipFrame>,
    round_trip::<JoinRequest>,
    round_trip::<RenewRequest>,
    round_trip::<Enrolled>,
    round_trip::<JoinDenied>,
    round_trip::<LeasesGranted>,
    round_trip::<LogChunk>,
    round_trip::<ProbeOpen>,
    round_trip::<ProbeVerdict>,
    round_trip::<ProbeCount>,
    round_trip::<Departed>,
    round_trip::<ExecOpen>,
    round_trip::<ExecCommand>,
    round_trip::<ExecInput>,
    round_trip::<ExecOutput>,
];

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    MESSAGES[usize::from(*choice) % MESSAGES.len()](bytes);
    if let Some(prefix) = bytes.first_chunk::<{ codec::LENGTH_BYTES }>()
        && let Ok(length) = codec::frame_length(*prefix)
    {
        assert!(length <= codec::FRAME_MAX, "a length above the limit was let through");
    }
});
