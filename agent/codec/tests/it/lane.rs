//! An encoder and a decoder with nothing between them but the cuts that a test makes.

use novacron_codec::{DecodeError, Decoder, Encoder, Means, PLAIN_MAX, Policy, Secret, Settings, Stats};

/// Enough for every test's guest.
pub const CACHE: usize = 8 << 20;

pub fn settings(means: Means) -> Settings {
    Settings { cache: CACHE, policy: Policy::Fixed(means), ..Settings::new(secret(), 3) }
}

pub fn secret() -> Secret {
    Secret([7; 32])
}

pub fn decoder() -> Decoder {
    Decoder::new(secret(), 3, CACHE)
}

/// The frames for `stream`, which arrives in pieces of these lengths (again and again), QEMU pausing behind each
/// `pause`th of them.
pub fn encode(settings: Settings, stream: &[u8], pieces: &[usize], pause: usize) -> (Vec<u8>, Stats) {
    let (mut encoder, mut wire, mut rest) = (Encoder::new(settings), Vec::new(), stream);
    for (number, length) in pieces.iter().cycle().enumerate() {
        let (piece, left) = rest.split_at((*length).clamp(1, rest.len().max(1)).min(rest.len()));
        encoder.push(piece, &mut wire);
        if number % pause == 0 {
            encoder.flush(&mut wire);
        }
        rest = left;
        if rest.is_empty() {
            break;
        }
    }
    encoder.finish(&mut wire);
    assert_eq!(encoder.stats().wire, wire.len() as u64, "every byte is counted");
    assert_eq!(encoder.stats().plain, stream.len() as u64);
    (wire, *encoder.stats())
}

/// Decodes frames that arrive in pieces of this length.
pub fn decode(decoder: &mut Decoder, wire: &[u8], piece: usize) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::new();
    for piece in wire.chunks(piece.max(1)) {
        let mut rest = piece;
        while !rest.is_empty() {
            let before = out.len();
            let taken = decoder.decode(rest, &mut out)?;
            assert!(taken > 0 && out.len() - before <= PLAIN_MAX, "a call is bounded");
            rest = &rest[taken..];
        }
    }
    decoder.finish()?;
    Ok(out)
}

/// There and back, checked; what it took.
pub fn there_and_back(means: Means, stream: &[u8]) -> Stats {
    let (wire, stats) = encode(settings(means), stream, &[48 << 10], usize::MAX);
    let back = decode(&mut decoder(), &wire, 64 << 10).expect("the decoder takes what the encoder made");
    assert!(back == stream, "another stream came back");
    stats
}
