//! An agent that is replaced in the middle of a move: its successor goes on with the stream, on either side.

use novacron_codec::{DecodeError, Decoder, Encoder, Means, Stats};
use proptest::prelude::*;

use crate::lane::{CACHE, decoder, secret, settings};
use crate::streams::{Content, Main, Noise, multifd_greeting, multifd_packet, preempt};

fn streams() -> [Vec<u8>; 3] {
    let mut noise = Noise(6);
    let pages: Vec<(u64, Content)> = (0..60).map(|page| (page, Content::of(noise.text()))).collect();
    let mut main = Main::begin(64);
    main.part(pages.iter().map(|(page, content)| (*page, content)));
    main.package(&[3; 9000]);
    main.part(pages.iter().map(|(page, content)| (*page, content)));
    let normal: Vec<u64> = (0..60).collect();
    let payload: Vec<u8> = normal.iter().flat_map(|_| noise.page()).collect();
    let packets = [multifd_packet(0, &normal, &[70], &payload), multifd_packet(4, &[1], &[], &[9; 3000])];
    let multifd = [multifd_greeting(), packets.concat()].concat();
    [main.finish(b"devices"), multifd, preempt(&(0..60).map(|page| (page, noise.page())).collect::<Vec<_>>())]
}

fn successor(decoder: Decoder) -> Decoder {
    let mut saved = Vec::new();
    decoder.suspend(&mut saved).expect("it has not failed");
    Decoder::resume((secret(), 3), CACHE, &saved, || None).expect("it was saved so")
}

/// Sends a stream by encoders that are replaced after each part, to decoders that are replaced after so many bytes, or in the
/// middle of a frame.
fn relayed(stream: &[u8], part: usize) -> (Vec<u8>, Stats) {
    let (mut encoder, mut decoder) = (Encoder::new(settings(Means::Pages)), decoder());
    let (mut wire, mut back, mut stats) = (Vec::new(), Vec::new(), Stats::default());
    for part in stream.chunks(part) {
        encoder.push(part, &mut wire);
        stats.add(encoder.stats());
        let saved = encoder.suspend(&mut wire);
        encoder = Encoder::resume(settings(Means::Pages), &saved).expect("it was saved so");
    }
    encoder.finish(&mut wire);
    for mut part in wire.chunks(part.max(1000)) {
        while !part.is_empty() {
            part = &part[decoder.decode(part, &mut back).expect("the frames are good")..];
        }
        decoder = successor(decoder);
    }
    decoder.finish().expect("the whole stream has come");
    (back, stats)
}

#[test]
fn successors_go_on_with_the_stream_and_its_pages() {
    for (stream, pages) in streams().iter().zip([118, 60, 60]) {
        for part in [61, 1344, 4000, 100_001] {
            let (back, stats) = relayed(stream, part);
            assert!(back == *stream, "parts of {part}");
            // A part is counted when it is pushed: what only its successor completes is the successor's.
            assert!(stats.raw.pages + stats.reference.pages <= pages + 2, "{stats:?}");
        }
        let (_, stats) = relayed(stream, 5000);
        assert!(
            stats.raw.pages + stats.reference.pages + 3 >= pages,
            "pages are recognised behind a restart: {stats:?}"
        );
    }
}

#[test]
fn a_decoder_that_failed_has_no_successor_and_one_that_was_damaged_none_either() {
    let (mut encoder, mut wire, mut out) = (Encoder::new(settings(Means::Pages)), Vec::new(), Vec::new());
    encoder.push(&streams()[0], &mut wire);
    encoder.flush(&mut wire);
    let mut decoder = decoder();
    let mut rest = wire.as_slice();
    while !rest.is_empty() {
        rest = &rest[decoder.decode(rest, &mut out).expect("the frames are good")..];
    }
    let mut saved = Vec::new();
    decoder.suspend(&mut saved).expect("it has not failed");
    let resume = |saved: &[u8]| Decoder::resume((secret(), 3), CACHE, saved, || None).map(|_| ());
    assert!(resume(&saved).is_ok());
    for length in (0..saved.len()).step_by(977) {
        assert!(matches!(resume(&saved[..length]), Err(DecodeError::Saved)), "{length}");
    }
    assert!(resume(&[saved.as_slice(), &[0]].concat()).is_err(), "something follows");
    let small = Decoder::resume((secret(), 3), 4096, &saved, || None).map(|_| ());
    assert!(matches!(small, Err(DecodeError::Cache { .. })));
    let mut failed = crate::lane::decoder();
    failed.decode(b"no frame at all", &mut out).expect_err("no frame begins like that");
    assert!(failed.suspend(&mut Vec::new()).is_err());
}

proptest! {
    #[test]
    fn what_no_encoder_saved_is_refused(tail in prop::collection::vec(any::<u8>(), 0..60)) {
        let saved = [b"NVS1".as_slice(), &tail].concat();
        if let Some(mut encoder) = Encoder::resume(settings(Means::Pages), &saved) {
            encoder.push(&[0; 9000], &mut Vec::new());
        }
        let saved = [b"NVD1".as_slice(), &tail].concat();
        if let Ok(mut decoder) = Decoder::resume((secret(), 3), CACHE, &saved, || None) {
            let _ = decoder.decode(&[1; 9000], &mut Vec::new());
        }
    }
}
