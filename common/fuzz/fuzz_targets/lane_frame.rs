//! The headers on a migration's lanes: what is accepted is exactly what we would have sent, and never claims more than
//! a frame may hold.

#![no_main]

use libfuzzer_sys::fuzz_target;
use novacron_common::wire::{LANE_DATA_MAX, LANE_FRAME_BYTES, LaneFrame};

fuzz_target!(|data: &[u8]| {
    for bytes in data.as_chunks::<LANE_FRAME_BYTES>().0 {
        let Ok(frame) = LaneFrame::parse(*bytes) else { continue };
        assert_eq!(frame.to_bytes(), *bytes, "two spellings of one frame");
        if let LaneFrame::Data { length, .. } = frame {
            assert!((1..=LANE_DATA_MAX).contains(&length), "a length above the limit was let through");
        }
    }
});
