//! Any bytes in any pieces come back.

use novacron_codec::{Encoder, Means};
use proptest::prelude::*;

use crate::lane::{decode, decoder, encode, settings};
use crate::streams::{Content, Main, Noise, multifd_greeting, multifd_packet, preempt};

const ALL: [Means; 3] = [Means::Off, Means::Pages, Means::Full];

/// Bytes that look like a channel at first, and may stop doing so anywhere.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::collection::vec(any::<u8>(), 0..5000);
    let cut = (0..3_u8, any::<u64>(), any::<prop::sample::Index>(), noise.clone(), any::<bool>());
    let damaged = cut.prop_map(|(kind, seed, at, tail, replace)| {
        let mut stream = well_formed(kind, seed);
        let at = at.index(stream.len());
        match replace {
            true => drop(stream.splice(at..at, tail)),
            false => {
                stream.truncate(at);
                stream.extend(tail);
            }
        }
        stream
    });
    let whole = (0..3_u8, any::<u64>()).prop_map(|(kind, seed)| well_formed(kind, seed));
    prop_oneof![noise, damaged, whole]
}

fn well_formed(kind: u8, seed: u64) -> Vec<u8> {
    let mut noise = Noise(seed);
    match kind {
        0 => {
            let mut main = Main::begin(32);
            for _ in 0..3 {
                let pages: Vec<(u64, Content)> =
                    (0..20).map(|_| (noise.below(32), content(&mut noise))).collect();
                main.part(pages.iter().map(|(page, content)| (*page, content)));
            }
            main.finish(&noise.text())
        }
        1 => {
            let mut stream = multifd_greeting();
            for _ in 0..3 {
                let normal: Vec<u64> = (0..noise.below(20)).map(|_| noise.below(32)).collect();
                let payload: Vec<u8> = normal.iter().flat_map(|_| noise.text()).collect();
                stream.extend(multifd_packet(0, &normal, &[40, 41], &payload));
            }
            stream
        }
        _ => preempt(&(0..20).map(|_| (noise.below(8), noise.text())).collect::<Vec<_>>()),
    }
}

fn content(noise: &mut Noise) -> Content {
    match noise.below(4) {
        0 => Content::Zero,
        1 => Content::of(noise.page()),
        2 => Content::of([noise.below(3) as u8; 4096]),
        _ => {
            let mut page = [1; 4096];
            page[noise.below(4096) as usize] = 2;
            Content::of(page)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn what_goes_in_comes_out(
        stream in streams(),
        pieces in prop::collection::vec(1..9000_usize, 1..6),
        pause in 1..9_usize,
        piece in 1..70_000_usize,
    ) {
        for means in ALL {
            let (wire, _) = encode(settings(means), &stream, &pieces, pause);
            let back = decode(&mut decoder(), &wire, piece).ok();
            prop_assert!(back.as_ref() == Some(&stream), "{:?}", means);
        }
    }
}

#[test]
fn byte_by_byte_is_the_same_stream() {
    for kind in 0..3 {
        let stream = well_formed(kind, 11);
        let (wire, _) = encode(settings(Means::Full), &stream, &[1], usize::MAX);
        assert!(decode(&mut decoder(), &wire, 1).expect("one byte at a time is enough") == stream);
    }
}

#[test]
fn other_protocols_are_not_held_up() {
    // A call of libvirt's: length, program, version, procedure, and so on; then an NBD server's greeting; then TLS.
    let call = [0, 0, 0, 0x1c, 0x20, 0, 0x80, 0x86, 0, 0, 0, 1, 0, 0, 0, 0x42];
    for greeting in [&call[..], b"NBDMAGICIHAVEOPT", b"\x16\x03\x01\x02\x00\x01"] {
        let (mut encoder, mut wire, mut out) = (Encoder::new(settings(Means::Full)), Vec::new(), Vec::new());
        encoder.push(greeting, &mut wire);
        encoder.flush(&mut wire);
        let (mut decoder, mut rest) = (decoder(), wire.as_slice());
        while !rest.is_empty() {
            rest = &rest[decoder.decode(rest, &mut out).expect("it passes")..];
        }
        assert_eq!(out, greeting, "all of it arrives without an end");
    }
}
