//! Climbs beside a played guest: it writes so many bytes a second within a working set, the link carries so many.

use super::*;

const MIB: u64 = 1 << 20;
const STEP_MS: u64 = 50;
const LOOK_MS: u64 = 500;
/// No climb takes longer.
const FOR_EVER: Duration = Duration::from_secs(6 * 3600);

/// A guest under a copy, and the hypervisor that copies it.
#[derive(Clone, Copy)]
struct Guest {
    memory: u64,
    working_set: u64,
    /// Bytes a second.
    writes: u64,
    /// Bytes a second.
    link: u64,
    /// As far as the hypervisor may slow it, percent.
    slowdown: u8,
    /// Whether its machine allows post-copy.
    post_copy: bool,
}

const BUSY: Guest = Guest {
    memory: 1024 * MIB,
    working_set: 256 * MIB,
    writes: 60 * MIB,
    link: 50 * MIB,
    slowdown: 0,
    post_copy: false,
};

#[derive(Debug, PartialEq, Eq)]
enum End {
    Arrived,
    GaveUp(String),
    WentOver,
}

struct Trip {
    end: End,
    at: Duration,
    climb: Climb,
    /// When the guest was held.
    held_at: Option<Duration>,
    pauses: Vec<u32>,
}

impl Guest {
    /// Copies it as QEMU does: a pass ends when what is left fits into the pause, and begins again with what was written.
    fn travel(self, limits: MoveLimits) -> Trip {
        let (mut ladder, mut held_at, mut pauses) = (Ladder::new(limits, self.post_copy), None, Vec::new());
        let (mut sent, mut remaining, mut dirty, mut iteration, mut throttle) = (0, self.memory, 0, 1, 0_u8);
        let mut at = Duration::ZERO;
        let end = loop {
            assert!(at < FOR_EVER, "it copies for ever");
            at += Duration::from_millis(STEP_MS);
            let moved = (self.link * STEP_MS / 1000).min(remaining);
            (sent, remaining) = (sent + moved, remaining - moved);
            let speed = if held_at.is_some() { 0 } else { 100 - u64::from(throttle) };
            dirty = self.working_set.min(dirty + self.writes * speed / 100 * STEP_MS / 1000);
            let fits = self.link * u64::from(ladder.climb().pause_ms) / 1000;
            if remaining <= fits {
                // What is left and is written again is left once.
                remaining = (remaining + dirty).min(remaining.max(self.working_set));
                (dirty, iteration) = (0, iteration + 1);
                if remaining <= fits || held_at.is_some() && remaining == 0 {
                    break End::Arrived;
                }
                throttle = self.slowdown.min(throttle + 10);
            }
            if !at.as_millis().is_multiple_of(LOOK_MS.into()) {
                continue;
            }
            match ladder.look(Look { at, sent, remaining, iteration, throttle_pct: throttle }) {
                Step::GoOn => {}
                Step::AllowPause(ms) => pauses.push(ms),
                Step::Hold => held_at = Some(at),
                Step::GoOver => break End::WentOver,
                Step::GiveUp(why) => break End::GaveUp(why),
            }
        };
        Trip { end, at, climb: ladder.climb(), held_at, pauses }
    }
}

fn limits(strategy: Strategy) -> MoveLimits {
    MoveLimits { strategy, ..MoveLimits::default() }
}

fn gave_up(trip: &Trip, limit: Limit) -> &str {
    assert_eq!(trip.climb.limit, Some(limit));
    let End::GaveUp(why) = &trip.end else { panic!("{:?}", trip.end) };
    why
}

#[test]
fn a_quiet_guest_arrives_and_nothing_is_done_to_it() {
    for strategy in [Strategy::Auto, Strategy::Precopy, Strategy::StopAndCopy] {
        let trip = Guest { writes: MIB, ..BUSY }.travel(limits(strategy));
        assert_eq!((trip.end, trip.held_at, trip.pauses), (End::Arrived, None, vec![]));
        let pause_ms = if strategy == Strategy::Precopy { 300 } else { MoveLimits::FIRST_PAUSE_MS };
        assert_eq!(trip.climb, Climb { pause_ms, ..Climb::default() });
    }
}

#[test]
fn a_guest_that_converges_slowly_is_given_the_time() {
    let trip = Guest { writes: 44 * MIB, working_set: 1024 * MIB, ..BUSY }.travel(limits(Strategy::Precopy));
    assert_eq!(trip.end, End::Arrived);
    assert_eq!(trip.climb.rung, Rung::Precopy);
}

#[test]
fn without_limits_to_use_up_a_busy_guest_is_left_alone_and_the_reason_says_what_would_help() {
    for strategy in [Strategy::Auto, Strategy::Precopy] {
        let trip = BUSY.travel(limits(strategy));
        let why = gave_up(&trip, Limit::MaxDowntime);
        let (left, pause) = match strategy {
            Strategy::Auto => ("253.5 MiB", "max_downtime_ms 6400"),
            Strategy::Precopy | Strategy::StopAndCopy | Strategy::Postcopy => {
                ("241.0 MiB", "max_downtime_ms 6100")
            }
        };
        for word in ["did not converge", left, "50.0 MiB a second", "0.3 s", pause, "max_slowdown_pct"] {
            assert!(why.contains(word), "{word} is not in {why:?}");
        }
        let usual: &[u32] = if strategy == Strategy::Auto { &[300] } else { &[] };
        assert_eq!((trip.held_at, trip.pauses.as_slice(), trip.climb.throttle_pct), (None, usual, 0));
        assert!(trip.at > PATIENCE, "it was given its chance: {:?}", trip.at);
    }
}

#[test]
fn auto_allows_longer_pauses_step_by_step_and_never_more_than_the_limit() {
    let generous = MoveLimits { max_downtime_ms: Some(20_000), ..MoveLimits::default() };
    let trip = BUSY.travel(generous);
    assert_eq!((trip.end, trip.climb.rung, trip.held_at), (End::Arrived, Rung::LongerPause, None));
    assert_eq!(trip.pauses, [300, 600, 1200, 2400, 4800, 9600], "no longer one than is needed");
    let tight = BUSY.travel(MoveLimits { max_downtime_ms: Some(1000), ..generous });
    assert_eq!(tight.pauses, [300, 600, 1000]);
    gave_up(&tight, Limit::MaxDowntime);
}

#[test]
fn a_pause_shorter_than_the_usual_one_is_kept_to_from_the_start() {
    for strategy in [Strategy::Auto, Strategy::Precopy, Strategy::StopAndCopy] {
        let short = MoveLimits { max_downtime_ms: Some(20), ..limits(strategy) };
        assert_eq!(Ladder::new(short, false).climb().pause_ms, 20);
    }
    let long = MoveLimits { max_downtime_ms: Some(900), ..MoveLimits::default() };
    assert_eq!(Ladder::new(long, false).climb().pause_ms, MoveLimits::FIRST_PAUSE_MS);
    assert_eq!(Ladder::new(MoveLimits { strategy: Strategy::Precopy, ..long }, false).climb().pause_ms, 900);
}

#[test]
fn a_slowed_guest_arrives_on_that_rung_with_its_usual_pause() {
    let slowed = MoveLimits { max_slowdown_pct: 80, ..MoveLimits::default() };
    let trip = Guest { slowdown: 80, ..BUSY }.travel(slowed);
    assert_eq!((trip.end, trip.climb.rung, trip.pauses), (End::Arrived, Rung::Throttle, vec![300]));
    assert!((10..=80).contains(&trip.climb.throttle_pct), "{:?}", trip.climb);
}

#[test]
fn where_slowing_does_not_do_the_longer_pause_follows() {
    let both = MoveLimits { max_slowdown_pct: 20, max_downtime_ms: Some(20_000), ..MoveLimits::default() };
    let guest = Guest { slowdown: 20, writes: 400 * MIB, ..BUSY };
    let trip = guest.travel(both);
    assert_eq!((trip.end, trip.climb.rung, trip.climb.throttle_pct), (End::Arrived, Rung::LongerPause, 20));
}

#[test]
fn stop_and_copy_holds_a_guest_only_when_passes_do_not_help() {
    let trip = BUSY.travel(limits(Strategy::StopAndCopy));
    assert_eq!((trip.end, trip.climb.rung), (End::Arrived, Rung::StopAndCopy));
    assert!(trip.held_at.is_some_and(|at| at > Duration::from_secs(30)), "{:?}", trip.held_at);
}

#[test]
fn stop_and_copy_within_a_limit_pauses_when_the_rest_fits_and_otherwise_not_at_all() {
    let within = |ms| MoveLimits { max_downtime_ms: Some(ms), ..limits(Strategy::StopAndCopy) };
    let fits = BUSY.travel(within(6000));
    assert_eq!((fits.end, fits.pauses, fits.held_at), (End::Arrived, vec![300, 6000], None));
    let not = BUSY.travel(within(2000));
    assert_eq!((&not.pauses, not.held_at), (&vec![300, 2000], None));
    gave_up(&not, Limit::MaxDowntime);
}

#[test]
fn a_deadline_ends_it_whatever_the_strategy_and_is_waited_for() {
    for strategy in [Strategy::Auto, Strategy::Precopy] {
        let trip = BUSY.travel(MoveLimits { deadline_ms: Some(400_000), ..limits(strategy) });
        let why = gave_up(&trip, Limit::Deadline);
        assert!(why.contains("400.0 s") && why.contains("later deadline"), "{why}");
        assert_eq!((trip.at, trip.held_at), (Duration::from_secs(400), None));
    }
}

#[test]
fn a_deadline_in_the_first_pass_does_not_speak_of_pauses() {
    let trip = BUSY.travel(MoveLimits { deadline_ms: Some(5000), ..limits(Strategy::StopAndCopy) });
    let why = gave_up(&trip, Limit::Deadline);
    assert!(
        why.contains("pass 1") && why.contains("50.0 MiB a second") && !why.contains("max_downtime"),
        "{why}"
    );
    assert_eq!(trip.held_at, None, "it would have stood still for nothing");
}

#[test]
fn a_deadline_that_comes_near_is_met_by_the_highest_rung_in_time() {
    for strategy in [Strategy::StopAndCopy, Strategy::Auto] {
        let max_downtime_ms = (strategy == Strategy::Auto).then_some(8000);
        let near = MoveLimits { deadline_ms: Some(34_000), max_downtime_ms, ..limits(strategy) };
        let trip = BUSY.travel(near);
        assert_eq!(trip.end, End::Arrived, "{strategy:?}");
        assert!(
            trip.at < Duration::from_secs(34) && trip.climb.rung > Rung::Throttle,
            "{strategy:?} {:?}",
            trip.at
        );
    }
}

#[test]
fn a_lost_link_is_no_round_that_did_not_help() {
    let mut ladder = Ladder::new(limits(Strategy::StopAndCopy), false);
    for at in 0..600 {
        let look =
            Look { at: Duration::from_secs(at), sent: 7, remaining: 9 * MIB, iteration: 2, throttle_pct: 0 };
        assert_eq!(ladder.look(look), Step::GoOn);
    }
    assert_eq!(ladder.fruitless, 0);
}

#[test]
fn without_figures_nothing_is_judged_but_the_deadline() {
    let blank =
        |at| Look { at: Duration::from_secs(at), sent: 0, remaining: 0, iteration: 0, throttle_pct: 0 };
    let mut ladder = Ladder::new(MoveLimits { deadline_ms: Some(9000), ..MoveLimits::default() }, false);
    for at in 0..9 {
        assert_eq!(ladder.look(blank(at)), Step::GoOn);
    }
    assert!(ladder.round.is_none() && ladder.best.is_none());
    assert!(matches!(ladder.look(blank(9)), Step::GiveUp(_)));
    assert_eq!(ladder.climb().limit, Some(Limit::Deadline));
}

/// What disks look like under a guest that writes them as fast as they are sent.
fn disk(at: u64) -> Look {
    let (at, sent) = (Duration::from_secs(at), at * 20 * MIB);
    Look { at, sent, remaining: 10 * MIB, iteration: 0, throttle_pct: 0 }
}

#[test]
fn disks_that_never_get_smaller_end_it_without_a_pause() {
    let mut ladder = Ladder::new(limits(Strategy::StopAndCopy), false);
    let ended = (1..FOR_EVER.as_secs()).map(|at| ladder.look(disk(at))).find(|step| *step != Step::GoOn);
    let Some(Step::GiveUp(why)) = ended else { panic!("{ended:?}") };
    assert!(why.contains("disk") && why.contains("\"live\": false"), "{why}");
}

#[test]
fn what_was_left_of_disks_is_no_measure_for_memory() {
    let mut ladder = Ladder::new(limits(Strategy::Auto), false);
    for at in 1..20 {
        ladder.look(disk(at));
    }
    assert!(ladder.fruitless > 0);
    let memory = |at: u64, iteration| Look { remaining: 500 * MIB, iteration, ..disk(at) };
    ladder.look(memory(22, 1));
    assert_eq!((ladder.fruitless, ladder.best), (0, None));
    ladder.look(memory(26, 1));
    ladder.look(memory(30, 2));
    assert_eq!((ladder.fruitless, ladder.best), (0, Some(500 * MIB)), "the first pass is the measure");
}

#[test]
fn every_climb_ends() {
    let strategies = [Strategy::Auto, Strategy::Precopy, Strategy::StopAndCopy];
    let pauses = [None, Some(1), Some(300), Some(5000)];
    for (strategy, max_downtime_ms) in strategies.into_iter().flat_map(|s| pauses.map(|p| (s, p))) {
        for (writes, link) in
            [1, 5, 20, 49, 51, 300, 4000].into_iter().flat_map(|w| [1, 50, 1000].map(|l| (w, l)))
        {
            for slowdown in if strategy == Strategy::Auto { [0, 99] } else { [0, 0] } {
                let guest = Guest { writes: writes * MIB, link: link * MIB, slowdown, ..BUSY };
                let given = MoveLimits {
                    strategy,
                    max_downtime_ms,
                    max_slowdown_pct: slowdown,
                    ..MoveLimits::default()
                };
                let trip = guest.travel(given);
                let kept = strategy == Strategy::StopAndCopy && max_downtime_ms.is_none()
                    || trip.climb.pause_ms <= given.pause_ms() && trip.held_at.is_none();
                assert!(kept, "{given:?} {:?}", trip.climb);
            }
        }
    }
}

#[test]
fn only_a_guest_whose_machine_allows_it_goes_over_and_only_if_passes_do_not_help() {
    let allowed = Guest { post_copy: true, ..BUSY };
    for strategy in [Strategy::Auto, Strategy::Postcopy] {
        let trip = allowed.travel(limits(strategy));
        assert_eq!((trip.end, trip.climb.rung, trip.climb.limit), (End::WentOver, Rung::Postcopy, None));
        assert!(trip.at < PATIENCE, "the means is there, so it is taken: {:?}", trip.at);
        let quiet = Guest { writes: MIB, ..allowed }.travel(limits(strategy));
        assert_eq!((quiet.end, quiet.climb.rung), (End::Arrived, Rung::Precopy));
        gave_up(&BUSY.travel(limits(strategy)), Limit::MaxDowntime);
    }
    for strategy in [Strategy::Precopy, Strategy::StopAndCopy] {
        assert_ne!(allowed.travel(limits(strategy)).end, End::WentOver, "{strategy:?}");
    }
}

#[test]
fn auto_takes_every_pause_that_is_allowed_before_the_guest_goes_over() {
    let limits = MoveLimits { max_downtime_ms: Some(1200), ..limits(Strategy::Auto) };
    let trip = Guest { post_copy: true, ..BUSY }.travel(limits);
    assert_eq!((trip.end, trip.pauses), (End::WentOver, vec![300, 600, 1200]));
}

#[test]
fn a_guest_that_waits_to_go_over_still_keeps_its_deadline() {
    let limits = MoveLimits { deadline_ms: Some(60_000), ..limits(Strategy::Postcopy) };
    let mut ladder = Ladder::new(limits, true);
    let at = |seconds, sent| Look {
        at: Duration::from_secs(seconds),
        sent: sent * MIB,
        remaining: 256 * MIB,
        iteration: 2 + seconds,
        throttle_pct: 0,
    };
    let went = (0..59).find(|s| ladder.look(at(*s, 300 * s)) == Step::GoOver);
    assert!(went.is_some());
    assert_eq!(ladder.look(at(59, 300 * 59)), Step::GoOn, "it is asked for once");
    assert!(matches!(ladder.look(at(60, 300 * 60)), Step::GiveUp(_)));
}
