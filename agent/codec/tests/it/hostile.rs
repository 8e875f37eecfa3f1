//! A peer that lies: the decoder refuses, allocates no more than it was made for, and gives out nothing unproven.

use novacron_codec::{BODY_MAX, DecodeError, Decoder, Means};
use proptest::prelude::*;

use crate::lane::{CACHE, decode, decoder, encode, secret, settings};
use crate::streams::{Content, Main, Noise};

fn stream() -> Vec<u8> {
    let mut noise = Noise(4);
    let mut main = Main::begin(64);
    for _ in 0..3 {
        let pages: Vec<(u64, Content)> = (0..40)
            .map(|page| match page % 4 {
                0 => (page, Content::Zero),
                1 => (page, Content::of([9; 4096])),
                2 => (page, Content::of(noise.text())),
                _ => {
                    (page, Content::of(std::array::from_fn(|at| (at == 70 || noise.below(900) == 0).into())))
                }
            })
            .collect();
        main.part(pages.iter().map(|(page, content)| (*page, content)));
    }
    main.finish(b"devices")
}

fn frames(means: Means) -> Vec<u8> {
    encode(settings(means), &stream(), &[8192], 2).0
}

/// What is given out is a beginning of what was sent, whatever was done to the frames.
fn gives_out_nothing_wrong(wire: &[u8]) -> Result<(), TestCaseError> {
    let (stream, mut decoder, mut out, mut rest) = (stream(), decoder(), Vec::new(), wire);
    while !rest.is_empty() {
        match decoder.decode(rest, &mut out) {
            Ok(taken) => rest = &rest[taken..],
            Err(_) => break,
        }
    }
    prop_assert!(stream.starts_with(&out), "unproven bytes were given out");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn damaged_frames_are_refused(
        full: bool,
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        junk in prop::collection::vec(any::<u8>(), 0..30),
    ) {
        let mut wire = frames(if full { Means::Full } else { Means::Pages });
        places.iter().for_each(|(at, byte)| { let at = at.index(wire.len()); wire[at] = *byte; });
        let at = cut.index(wire.len());
        wire.splice(at..at, junk);
        gives_out_nothing_wrong(&wire)?;
    }

    #[test]
    fn any_bytes_are_no_fault_of_the_process(wire: Vec<u8>) {
        gives_out_nothing_wrong(&wire)?;
    }
}

#[test]
fn frames_left_out_doubled_or_moved_are_refused() {
    let wire = frames(Means::Pages);
    let starts = frame_starts(&wire);
    assert!(starts.len() > 6, "{} frames", starts.len());
    let frame = |number: usize| &wire[starts[number]..starts[number + 1]];
    let without = [&wire[..starts[2]], &wire[starts[3]..]].concat();
    let doubled = [&wire[..starts[3]], &wire[starts[2]..]].concat();
    let moved = [&wire[..starts[2]], frame(3), frame(2), &wire[starts[4]..]].concat();
    for bad in [without, doubled, moved] {
        decode(&mut decoder(), &bad, 4096).expect_err("the order of frames is proven");
    }
}

fn frame_starts(wire: &[u8]) -> Vec<usize> {
    let next = |start: &usize| {
        let length = wire.get(start + 1..start + 5)?.try_into().ok()?;
        Some(start + 5 + u32::from_le_bytes(length) as usize)
    };
    std::iter::successors(Some(0), next).take_while(|start| *start < wire.len()).collect()
}

#[test]
fn claims_are_refused_before_they_cost_memory() {
    let mut too_long = vec![2];
    too_long.extend((BODY_MAX as u32 + 1).to_le_bytes());
    let refused = decoder().decode(&too_long, &mut Vec::new());
    assert!(matches!(refused, Err(DecodeError::Head(_))), "{refused:?}");

    let wire = frames(Means::Pages);
    let mut small = Decoder::new(secret(), 3, CACHE / 2);
    let refused = decode(&mut small, &wire, 4096);
    assert!(matches!(refused, Err(DecodeError::Cache { .. })), "{refused:?}");
}

#[test]
fn another_migrations_frames_and_a_cut_are_refused() {
    let wire = frames(Means::Full);
    let mut other_lane = Decoder::new(secret(), 4, CACHE);
    assert!(matches!(decode(&mut other_lane, &wire, 4096), Err(DecodeError::Proof { from: 0, .. })));
    let cut = decode(&mut decoder(), &wire[..wire.len() - 1], 4096);
    assert!(matches!(cut, Err(DecodeError::Cut { rebuilt }) if rebuilt == stream().len() as u64));
    let longer = [wire.as_slice(), &[1]].concat();
    assert!(matches!(decode(&mut decoder(), &longer, 4096), Err(DecodeError::BehindEnd)));
}
