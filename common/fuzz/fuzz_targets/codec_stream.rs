//! Whatever a QEMU writes, damaged or unheard of: the parser does not panic, does not depend on how the bytes arrive, and
//! what the encoder makes of them comes back byte for byte. The first byte says how they arrive and what is done to them.
//!
//! The codec is taken in as it stands, with prints of pages that collide easily.

#![no_main]

use choice::{Means, Policy};
use decode::Decoder;
use encode::Encoder;
use framer::Settings;
use libfuzzer_sys::fuzz_target;
use parse::{Parser, Piece};
use proof::{PrintKey, Printer, Secret};
use std::sync::Arc;
use stock::{Library, NotHeld, Offered};

mod codec;

codec::modules!();

/// What the target holds: the first pages that the stream itself has.
struct Offer(Vec<Page>);

impl Offer {
    fn of(stream: &[u8]) -> Self {
        let (mut pages, mut cut) = (Vec::new(), 0);
        for piece in pieces(stream, stream.len().max(1)) {
            let bytes = &stream[cut..cut + piece.length()];
            cut += piece.length();
            if let (Piece::PageRecord { .. } | Piece::Content { .. }, Some(page)) =
                (piece, bytes.last_chunk())
            {
                pages.push(*page);
            }
        }
        pages.truncate(pages.len().div_ceil(2).min(8));
        Self(pages)
    }

    fn told(&self) -> Offered {
        let key = PrintKey([0; 16]);
        let printer = Printer::shared(&key);
        let offered = Offered::new(&key, self.0.len() as u32);
        let prints: Vec<_> = self.0.iter().map(|page| printer.of(page)).collect();
        offered.extend(&prints).expect("as many as were announced");
        offered
    }
}

impl Library for Offer {
    fn page(&mut self, number: u32, into: &mut Page) -> Result<(), NotHeld> {
        *into = self.0[number as usize];
        Ok(())
    }
}

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
    let (offer, mut wire, mut back) = (Offer::of(stream), Vec::new(), Vec::new());
    let mut encoder = Encoder::new(settings).with_offer(Arc::new(offer.told()));
    for bytes in stream.chunks(part) {
        encoder.push(bytes, &mut wire);
        if how & 0x40 != 0 {
            encoder.flush(&mut wire);
        }
    }
    encoder.finish(&mut wire);
    let mut decoder = Decoder::new(secret, 0, CACHE_DEFAULT).with_library(Box::new(offer));
    let mut rest = wire.as_slice();
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
