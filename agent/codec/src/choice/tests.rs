//! The choice in small worlds: a guest's memory, a processor and a link.

use super::*;

const BATCH: usize = 256 << 10;
const MIB: u64 = 1 << 20;
const SEGMENTS: u32 = (SEGMENT / BATCH as u64) as u32;

/// A guest's memory, a processor and a link.
#[derive(Clone, Copy)]
struct World {
    /// What zstd leaves of a byte.
    packs_to: f64,
    /// What references and deltas leave of a byte, of pages that came back.
    again_to: f64,
    /// Pages that come back, of 64 in a batch.
    again: u32,
    /// Bytes a second.
    link: u64,
}

/// What the first memory of a guest is: text, all new, on a link of 1 Gbit/s.
const TEXT: World = World { packs_to: 0.4, again_to: 1.0, again: 0, link: 125_000_000 };

impl World {
    /// Lets `choice` treat so many batches; how many were treated with each means.
    fn run(&self, choice: &mut Choice, batches: u32) -> [u32; 3] {
        let mut used = [0; 3];
        for _ in 0..batches {
            let means = choice.means();
            used[means as usize] += 1;
            let kept = if means == Means::Off { 1.0 } else { self.again_to };
            let packed = if means == Means::Full { self.packs_to } else { 1.0 };
            let of = |ratio: f64| (BATCH as f64 * ratio) as usize;
            choice.sent(&Outcome {
                plain: BATCH,
                blob: of(kept),
                compressed: None,
                wire: of(kept * packed),
                full: means == Means::Full,
                pages: 64,
                again: self.again,
            });
            // Encoding and sending overlap: the longer of the two is what it takes.
            let encoding = Duration::from_nanos([80, 400, 2500][means as usize] * (BATCH as u64 / 1024));
            let sending = Duration::from_secs_f64(BATCH as f64 * kept * packed / self.link as f64);
            let blocked = sending.saturating_sub(encoding);
            let packing = if means == Means::Full { encoding } else { Duration::ZERO };
            let busy = encoding.max(sending);
            choice.measured(Measured { plain: BATCH as u64, busy, blocked, packing });
        }
        used
    }
}

#[test]
fn text_on_a_slow_link_is_compressed() {
    let [_, _, full] = TEXT.run(&mut Choice::default(), 2000);
    assert!(full > 1900, "{full}");
}

#[test]
fn zstd_tries_harder_on_a_link_that_leaves_it_the_time() {
    // It takes 0.6 ms for a batch, the link 8.4 ms or 0.8.
    for (link, effort) in [(12_500_000, Effort::Thorough), (125_000_000, Effort::Quick)] {
        let mut choice = Choice::default();
        World { link, ..TEXT }.run(&mut choice, 100);
        assert_eq!(choice.effort(), effort, "{link} bytes a second");
    }
}

#[test]
fn on_a_very_slow_link_nothing_is_tried_that_would_send_more() {
    let [off, pages, _] = World { link: 1_000_000, ..TEXT }.run(&mut Choice::default(), 4000);
    assert_eq!((off, pages), (0, 0));
}

#[test]
fn a_link_that_was_measured_is_remembered_for_a_while() {
    // zstd takes 2.44 ns a byte, the link 6: once the link was seen, bytes as they are need no trial for 2 GiB.
    let mut choice = Choice::default();
    let world = World { packs_to: 0.1, link: (1e9 / 6.0) as u64, ..TEXT };
    world.run(&mut choice, 20 * SEGMENTS);
    let [off, pages, _] = world.run(&mut choice, 4 * TRIAL_EVERY * SEGMENTS);
    assert_eq!((off, pages), (0, 0));
    let [off, pages, _] = world.run(&mut choice, 2 * KNOWN_FOR * TRIAL_EVERY * SEGMENTS);
    assert!(off + pages > 0, "a link may have changed");
}

#[test]
fn noise_costs_a_few_trials() {
    let [off, _, full] = World { packs_to: 1.0, ..TEXT }.run(&mut Choice::default(), 4000);
    assert!(off > 3750 && full < 150, "{off} off, {full} full");
}

#[test]
fn a_link_faster_than_zstd_gets_bytes() {
    let [off, ..] = World { link: 5_000 * MIB, ..TEXT }.run(&mut Choice::default(), 8000);
    assert!(off > 7500, "{off}");
}

#[test]
fn a_lane_that_the_processors_hold_up_still_learns_what_the_link_would_carry() {
    // zstd takes 2.44 ns a byte, the link 2.6: as bytes it is slower, though zstd never lets the link be full.
    let link = (1e9 / 2.6) as u64;
    let [off, _, full] = World { link, ..TEXT }.run(&mut Choice::default(), 4000);
    assert!(full > 3750 && off > 0, "{off} off, {full} full");
}

#[test]
fn where_all_take_about_as_long_the_bytes_decide() {
    // zstd takes 2.44 ns a byte, the link 2.35 for one as it is.
    let [_, _, full] = World { link: (1e9 / 2.35) as u64, ..TEXT }.run(&mut Choice::default(), 4000);
    assert!(full > 3750, "{full}");
}

#[test]
fn one_quick_trial_of_bytes_is_not_believed_and_three_are() {
    // zstd takes 2.44 ns a byte; bytes as they are 1.6 in the first trial, and then either 2.3 or 1.6 again.
    let quick = World { link: (1e9 / 1.6) as u64, ..TEXT };
    let mut choice = Choice::default();
    quick.run(&mut choice, (FIRST_TRIAL + TRIAL) * SEGMENTS);
    let mut other = choice.clone();
    assert_eq!(choice.means(), Means::Full);
    let [_, _, full] = World { link: (1e9 / 2.3) as u64, ..TEXT }.run(&mut choice, 1000);
    assert!(full >= 1000 - 3 * TRIAL * SEGMENTS, "{full}");
    let [off, ..] = quick.run(&mut other, 1000);
    assert!(off > 600, "{off}");
}

#[test]
fn what_the_target_offers_is_looked_for_though_much_of_what_comes_first_is_noise() {
    let noise = World { packs_to: 1.0, ..TEXT };
    let held = World { again_to: 0.001, ..noise };
    let mut choice = Choice::default().with_offer();
    let [off, ..] = noise.run(&mut choice, (OFFER_LOOKS - 1) * SEGMENTS);
    assert_eq!(off, 0);
    let [off, ..] = noise.run(&mut choice, 100 * SEGMENTS);
    assert!(off > 60 * SEGMENTS, "noise that is not held is left alone at last: {off}");
    held.run(&mut choice, 2 * OFFER_LOOKS * SEGMENTS);
    let [off, ..] = held.run(&mut choice, 100 * SEGMENTS);
    assert!(off < 20 * SEGMENTS, "{off}");
}

#[test]
fn zstd_that_finds_nothing_is_left_off_before_any_time_was_measured() {
    let [_, _, full] = World { packs_to: 1.0, ..TEXT }.run(&mut Choice::default(), 8 * SEGMENTS);
    assert_eq!(full, SEGMENTS);
}

#[test]
fn what_waits_on_its_way_to_the_link_does_not_make_bytes_look_cheap() {
    // 8 MiB of them are taken in at once while zstd kept the link idle, and then as slowly as it sends.
    let mut choice = Choice::default();
    TEXT.run(&mut choice, FIRST_TRIAL * SEGMENTS);
    assert_eq!(choice.means(), Means::Off);
    let taken_in = Measured { plain: SEGMENT, busy: Duration::from_millis(1), ..Measured::default() };
    let waits = Measured { busy: Duration::from_millis(33), blocked: Duration::from_millis(33), ..taken_in };
    [taken_in, taken_in, waits].into_iter().for_each(|measured| choice.measured(measured));
    assert_eq!(choice.means(), Means::Full);
}

#[test]
fn a_link_that_was_cut_for_seconds_changes_nothing() {
    let mut choice = Choice::default();
    TEXT.run(&mut choice, 1000);
    let cut = Duration::from_secs(5);
    choice.measured(Measured { plain: 1, busy: cut, blocked: cut, packing: Duration::ZERO });
    let [_, _, full] = TEXT.run(&mut choice, 1000);
    assert!(full > 950, "{full}");
}

#[test]
fn what_has_changed_is_noticed() {
    let mut choice = Choice::default();
    World { packs_to: 1.0, ..TEXT }.run(&mut choice, 1000);
    assert_eq!(choice.means(), Means::Off);
    TEXT.run(&mut choice, 6 * TRIAL_EVERY * SEGMENTS);
    assert_eq!(choice.means(), Means::Full);
}

#[test]
fn noise_that_comes_back_nearly_the_same_is_kept() {
    let mut choice = Choice::default();
    let noise = World { packs_to: 1.0, ..TEXT };
    noise.run(&mut choice, 1000);
    assert_eq!(choice.means(), Means::Off);
    let back = World { again: 60, again_to: 0.02, ..noise };
    back.run(&mut choice, 2 * SEGMENTS);
    let [off, ..] = back.run(&mut choice, 1000);
    assert!(off <= 2 * SEGMENTS && choice.means() != Means::Off, "more than one trial: {off}");
}

#[test]
fn pages_that_the_target_has_say_nothing_of_what_zstd_finds_in_others() {
    let mut choice = Choice::default();
    let held = World { again_to: 0.001, packs_to: 1.0, ..TEXT };
    TEXT.run(&mut choice, 8 * SEGMENTS);
    let [off, pages, _] = held.run(&mut choice, 40 * SEGMENTS);
    assert!(off <= TRIAL * SEGMENTS && pages == 0, "{off} off, {pages} pages");
    let [off, pages, _] = TEXT.run(&mut choice, 20 * SEGMENTS);
    assert_eq!((off, pages), (0, 0));
}

#[test]
fn keeping_what_gains_nothing_is_given_up() {
    let comes_back = World { packs_to: 1.0, again: 60, again_to: 1.0, ..TEXT };
    let mut choice = Choice::default();
    let [off, ..] = comes_back.run(&mut choice, 8192);
    assert!(off > 6400, "{off}");
}
