//! Whatever a QEMU writes, damaged or unheard of: the parser does not panic, does not depend on how the bytes arrive, and
//! what the encoder makes of them comes back byte for byte. The first byte says how they arrive and what is done to them.
//!
//! The codec is taken in as it stands, with prints of pages that collide easily.

#![no_main]

use choice::{Means, Policy};
use decode::Decoder;
use encode::{Encoder, Settings};
use libfuzzer_sys::fuzz_target;
use parse::{Parser, Piece};
use proof::Secret;

mod codec;

codec::modules!();

/// The pieces of a stream that arrives in parts of `part` bytes, runs of other bytes joined.
fn pieces(stream: &[u8], part: usize) -> Vec<Piece> {
    let (mut parser, mut cut, mut arrived, mut pieces) = (Parser::default(), 0, 0, Vec::new());
    while arrived < stream.len() {
        arrived = stream.len().min(arrived + part);
        while let Some(piece) = parser.next(&stream[cut..arrived]) {
            assert!(piece.length() > 0, "it goes on");
            cut += piece.length();
            match (pieces.last_mut(), piece) {
                (Some(Piece::Bytes(length)), Piece::Bytes(more)) => *length += more,
                _ => pieces.push(piece),
            }
        }
        assert!(arrived - cut <= 70_000, "{} bytes wait", arrived - cut);
    }
    if cut < stream.len() {
        pieces.push(Piece::Bytes(stream.len() - cut));
    }
    pieces
}

fuzz_target!(|data: &[u8]| {
    let Some((how, stream)) = data.split_first() else { return };
    let part = [1, 7, 4104, 1 << 20][usize::from(how & 3)];
    assert_eq!(pieces(stream, part).iter().map(|piece| piece.length()).sum::<usize>(), stream.len());
    let whole: Vec<Piece> = pieces(stream, stream.len().max(1));
    assert!(joined(&pieces(stream, part)) == joined(&whole), "the cuts of arrival change what is found");

    let means = [Means::Off, Means::Pages, Means::Full][usize::from(how >> 2 & 3) % 3];
    let secret = Secret([0; 32]);
    let settings = Settings { policy: Policy::Fixed(means), ..Settings::new(secret.clone(), 0) };
    let (mut encoder, mut wire, mut back) = (Encoder::new(settings), Vec::new(), Vec::new());
    for bytes in stream.chunks(part) {
        encoder.push(bytes, &mut wire);
        if how & 0x40 != 0 {
            encoder.flush(&mut wire);
        }
    }
    encoder.finish(&mut wire);
    let (mut decoder, mut rest) = (Decoder::new(secret, 0, CACHE_DEFAULT), wire.as_slice());
    while !rest.is_empty() {
        rest = &rest[decoder.decode(rest, &mut back).expect("an encoder made these frames")..];
    }
    decoder.finish().expect("the stream was finished");
    assert!(back == stream, "another stream came back");
});

/// The pages of a stream and how many other bytes lie between them: bytes behind the last whole piece may be told or not.
fn joined(pieces: &[Piece]) -> Vec<Piece> {
    let mut joined: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (joined.last_mut(), piece) {
            (Some(Piece::Bytes(length)), Piece::Bytes(more)) => *length += more,
            _ => joined.push(*piece),
        }
    }
    joined
}
