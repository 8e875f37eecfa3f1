//! The first bytes of every stream: what is accepted is exactly what we would have sent.

#![no_main]

use libfuzzer_sys::fuzz_target;
use novacron_common::wire::{HEADER_BYTES, StreamHeader};

fuzz_target!(|data: &[u8]| {
    let Some(bytes) = data.first_chunk::<HEADER_BYTES>() else { return };
    if let Ok(header) = StreamHeader::parse(*bytes) {
        assert_eq!(header.to_bytes(), *bytes, "two spellings of one header");
    }
});
