//! What earlier moves teach about the next one. Read off the migration records, newest first; nothing is kept besides.
//!
//! A move of the same machine over the same link teaches most, then one of the same machine (how its memory is packed) and
//! one over the same link (how fast it is), then any. Of each kind the newest [`MOVES_MAX`] count, by their median, so that one
//! that went wrong changes little. The interval is as wide as they differ, and narrower with each one more.

use super::{Trip, is_gentle};
use crate::{record::MigrationRecord, state::State};
use novacron_common::{
    api::MigrationState,
    ids::{HostId, VmId},
    record::{Interval, Rung},
};

/// Moves that are learned from, of each kind.
pub const MOVES_MAX: usize = 8;
/// Records that are looked at.
const RECORDS_MAX: usize = 2000;
/// Less than this on the wire says nothing of its rate, bytes.
const BYTES_MIN: u64 = 1 << 20;

/// A link of which nothing is known, bytes a second: from 100 Mbit/s to 10 Gbit/s.
pub const RATE_UNKNOWN: Interval = Interval { low: 12_500_000, expected: 100_000_000, high: 1_250_000_000 };
/// What crosses the wire for a million bytes of memory: from pages that pack well to pages that do not pack at all …
const WIRE_UNKNOWN: Interval = Interval { low: 100_000, expected: 500_000, high: 1_020_000 };
/// … and for memory of which nobody knows how much was ever written to.
const WIRE_OF_ALL_UNKNOWN: Interval = Interval { low: 10_000, expected: 250_000, high: 1_020_000 };
/// What the hosts read and pack, bytes a second: zstd's fastest level on one slow core, and memory that is not packed.
const ENGINE: Interval = Interval { low: 100_000_000, expected: 300_000_000, high: 1_200_000_000 };
/// Where the rate of this machine on this link is known, that is in it.
const ENGINE_KNOWN: Interval = Interval::exactly(u64::MAX);
/// What a move takes besides its copy, milliseconds.
const OVERHEAD_UNKNOWN: Interval = Interval { low: 200, expected: 1000, high: 5000 };
/// What a pause takes besides the rest: the state of devices and the committed hand-over, milliseconds.
const HANDOVER: Interval = Interval { low: 10, expected: 60, high: 300 };

/// An interval is never narrower than this, to either side, in thousandths …
const MARGIN_MIN: u64 = 60;
/// … and by so much wider the fewer moves it comes from.
const MARGIN_NEW: u64 = 600;
const MARGIN_MAX: u64 = 4000;

/// What is known from earlier moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lessons {
    /// What crosses the wire for a million bytes that the model sends.
    pub wire_ppm: Interval,
    /// What the wire carried, bytes a second; `None` if nothing moved over it yet.
    pub rate: Option<Interval>,
    /// What the hosts read and pack, bytes a second.
    pub engine: Interval,
    /// What a move took besides its copy, milliseconds.
    pub overhead_ms: Interval,
    /// What a pause takes besides the rest, milliseconds.
    pub handover_ms: Interval,
    /// The pauses of this machine that nothing but passes led to, milliseconds.
    gentle_pause_ms: Option<Interval>,
    /// Moves of this machine, or over this link, that it comes from.
    pub moves: u32,
}

/// What one move teaches.
#[derive(Debug, Clone, Copy)]
struct Lesson {
    same_vm: bool,
    same_link: bool,
    rung: Rung,
    /// What crossed the wire, bytes.
    wire: u64,
    /// For so many bytes of the model's.
    modelled: u64,
    /// Whether those came from measured figures of the guest.
    measured: bool,
    rate: Option<u64>,
    overhead_ms: u64,
    pause_ms: Option<u64>,
}

impl Lessons {
    /// For a move of `vm` between two hosts, in either direction. `bytes` is what it has to send at least, `measured` whether
    /// somebody looked.
    pub fn of(state: &State, vm: VmId, link: (HostId, HostId), bytes: u64, measured: bool) -> Self {
        let all: Vec<Lesson> = newest(state).filter_map(|record| lesson(record, vm, link)).collect();
        Self::from(&all, bytes, measured)
    }

    fn from(all: &[Lesson], bytes: u64, measured: bool) -> Self {
        let near = |lesson: &Lesson| lesson.same_vm && lesson.same_link;
        let of_vm = |lesson: &Lesson| lesson.same_vm;
        let of_link = |lesson: &Lesson| lesson.same_link;
        let any = |_: &Lesson| true;
        let rate = |lesson: &Lesson| lesson.rate;
        // Figures that were made in different ways are not compared: then the machine sends what it sent before.
        let wire = |lesson: &Lesson| match lesson.measured == measured {
            true => per_million(lesson.wire, lesson.modelled),
            false => per_million(lesson.wire, bytes).filter(|_| lesson.same_vm),
        };
        let unknown = if measured { WIRE_UNKNOWN } else { WIRE_OF_ALL_UNKNOWN };
        let overhead = |lesson: &Lesson| Some(lesson.overhead_ms);
        let gentle = |lesson: &Lesson| lesson.pause_ms.filter(|_| is_gentle(lesson.rung));
        let own_rate = learn(all, near, rate);
        let moves = all.iter().filter(|lesson| lesson.same_vm || lesson.same_link).count();
        Self {
            wire_ppm: learn(all, near, wire)
                .or_else(|| learn(all, of_vm, wire))
                .or_else(|| learn(all, any, wire).map(|known| unsure(known, unknown)))
                .unwrap_or(unknown),
            engine: if own_rate.is_some() { ENGINE_KNOWN } else { ENGINE },
            rate: own_rate.or_else(|| learn(all, of_link, rate)),
            overhead_ms: learn(all, of_link, overhead)
                .or_else(|| learn(all, any, overhead).map(|known| unsure(known, OVERHEAD_UNKNOWN)))
                .unwrap_or(OVERHEAD_UNKNOWN),
            handover_ms: HANDOVER,
            gentle_pause_ms: learn(all, of_vm, gentle),
            moves: u32::try_from(moves).unwrap_or(u32::MAX),
        }
    }

    /// Whether this machine has moved over this link before.
    pub(super) fn knows_the_way(&self) -> bool {
        self.engine == ENGINE_KNOWN
    }

    /// The pause of a gentle move is what this machine's gentle moves took, once there were some.
    pub(super) fn blackout(&self, trip: &Trip<'_>, rung: Rung, modelled: Interval) -> Interval {
        let known = self.gentle_pause_ms.filter(|_| trip.live && is_gentle(rung));
        known.map_or(modelled, |known| Interval { low: known.low.min(modelled.low), ..known })
    }
}

/// The newest records first: ids are ordered by time.
pub(super) fn newest(state: &State) -> impl Iterator<Item = &MigrationRecord> {
    state.migrations().iter().rev().take(RECORDS_MAX)
}

fn lesson(record: &MigrationRecord, vm: VmId, link: (HostId, HostId)) -> Option<Lesson> {
    let report =
        record.report.as_ref().filter(|_| record.live && record.state == MigrationState::Completed)?;
    let took = record.ended_at?.since(record.started_at);
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let wire = report.counts.total();
    let rate = u128::from(wire) * 1000 / u128::from(report.copy_ms.max(1));
    let basis = record.forecast.map(|forecast| forecast.basis).unwrap_or_default();
    let between = (record.source, record.target);
    // One that had a budget of its own does not say how fast the link is.
    let fills_the_link = wire >= BYTES_MIN && report.cuts == 0 && record.limits.bandwidth_mbit.is_none();
    Some(Lesson {
        same_vm: record.vm == vm,
        same_link: between == link || between == (link.1, link.0),
        rung: report.climb.rung,
        wire,
        modelled: basis.model_bytes,
        measured: basis.guest_measured,
        rate: u64::try_from(rate).ok().filter(|_| fills_the_link),
        overhead_ms: took_ms.saturating_sub(report.copy_ms),
        pause_ms: report.qemu_downtime_ms,
    })
}

fn per_million(part: u64, whole: u64) -> Option<u64> {
    let parts = (u128::from(part) * 1_000_000).checked_div(whole.into())?;
    u64::try_from(parts).ok()
}

/// The median of what the newest lessons of a kind say, with its interval; `None` if none says anything.
fn learn(
    all: &[Lesson],
    kind: impl Fn(&Lesson) -> bool,
    part: impl Fn(&Lesson) -> Option<u64>,
) -> Option<Interval> {
    let mut said: Vec<u64> =
        all.iter().filter(|lesson| kind(lesson)).filter_map(part).take(MOVES_MAX).collect();
    said.sort_unstable();
    interval(&said)
}

fn interval(sorted: &[u64]) -> Option<Interval> {
    let expected = *sorted.get(sorted.len() / 2)?;
    let count = u64::try_from(sorted.len()).unwrap_or(u64::MAX);
    let spread = sorted.iter().map(|one| off_by(*one, expected)).max().unwrap_or(0);
    let margin = spread.saturating_add(MARGIN_MIN + MARGIN_NEW / (count + 1)).min(MARGIN_MAX);
    let scaled = |by: u64, of: u64| u128::from(expected) * u128::from(by) / u128::from(of);
    let low = u64::try_from(scaled(1000, 1000 + margin)).unwrap_or(expected);
    let high = u64::try_from(scaled(1000 + margin, 1000)).unwrap_or(u64::MAX);
    Some(Interval::around(low, expected, high))
}

/// How far `one` is from `middle`, in thousandths of the smaller.
fn off_by(one: u64, middle: u64) -> u64 {
    let (small, large) = (one.min(middle).max(1), one.max(middle));
    u64::try_from(u128::from(large - small.min(large)) * 1000 / u128::from(small)).unwrap_or(u64::MAX)
}

/// What others taught, with the doubt that it holds here.
fn unsure(known: Interval, unknown: Interval) -> Interval {
    Interval { low: known.low.min(unknown.low), expected: known.expected, high: known.high.max(unknown.high) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Lesson = Lesson {
        same_vm: true,
        same_link: true,
        rung: Rung::Precopy,
        wire: 400,
        modelled: 1000,
        measured: true,
        rate: Some(50_000_000),
        overhead_ms: 700,
        pause_ms: Some(30),
    };

    #[test]
    fn with_nothing_known_the_interval_spans_what_may_be() {
        let none = Lessons::from(&[], 1000, true);
        assert_eq!((none.wire_ppm, none.rate, none.engine), (WIRE_UNKNOWN, None, ENGINE));
        assert_eq!((none.overhead_ms, none.moves), (OVERHEAD_UNKNOWN, 0));
    }

    #[test]
    fn every_move_narrows_the_interval_and_its_middle_is_the_median() {
        let widths: Vec<u64> = (1..=MOVES_MAX)
            .map(|count| {
                let known = Lessons::from(&vec![OWN; count], 1000, true);
                assert_eq!(known.rate.map(|rate| rate.expected), Some(50_000_000));
                assert_eq!((known.wire_ppm.expected, known.engine), (400_000, ENGINE_KNOWN));
                known.rate.map(|rate| rate.high - rate.low).unwrap_or_default()
            })
            .collect();
        assert!(widths.windows(2).all(|pair| pair[1] < pair[0]), "{widths:?}");
        let odd = Lesson { rate: Some(1_000_000), ..OWN };
        let known = Lessons::from(&[OWN, odd, OWN], 1000, true).rate.unwrap();
        assert_eq!(known.expected, 50_000_000);
        assert!(
            known.contains(1_000_000) || known.low < 15_000_000,
            "{known:?}: what happened may happen again"
        );
    }

    #[test]
    fn the_nearest_moves_teach_and_the_newest_of_them() {
        let other = Lesson { same_vm: false, same_link: false, wire: 900, rate: Some(9), ..OWN };
        let same_link = Lesson { same_vm: false, rate: Some(70_000_000), wire: 800, ..OWN };
        let known = Lessons::from(&[other, same_link, OWN], 1000, true);
        assert_eq!((known.rate.unwrap().expected, known.wire_ppm.expected), (50_000_000, 400_000));
        let known = Lessons::from(&[other, same_link], 1000, true);
        assert_eq!((known.rate.unwrap().expected, known.engine), (70_000_000, ENGINE));
        assert_eq!((known.wire_ppm.low, known.wire_ppm.expected), (WIRE_UNKNOWN.low, 900_000));
        assert!(!known.knows_the_way() && Lessons::from(&[OWN], 1000, true).knows_the_way());
        let newer = vec![Lesson { rate: Some(80_000_000), ..OWN }; MOVES_MAX];
        let all: Vec<_> = newer.into_iter().chain(vec![OWN; 100]).collect();
        assert_eq!(Lessons::from(&all, 1000, true).rate.unwrap().expected, 80_000_000);
    }

    #[test]
    fn what_was_measured_is_compared_with_the_like_only() {
        let guessed = Lesson { measured: false, modelled: 4000, ..OWN };
        let ppm = |all: &[Lesson], measured| Lessons::from(all, 2000, measured).wire_ppm.expected;
        assert_eq!((ppm(&[guessed], false), ppm(&[guessed], true)), (100_000, 200_000));
        let strange = Lesson { same_vm: false, ..guessed };
        assert_eq!(ppm(&[strange], true), WIRE_UNKNOWN.expected, "how full another machine was says nothing");
    }

    #[test]
    fn figures_at_the_edge_of_what_can_be_written_overflow_nothing() {
        for figures in [&[0, 0, 0][..], &[u64::MAX], &[0, u64::MAX], &[1, u64::MAX, u64::MAX]] {
            let interval = interval(figures).unwrap();
            assert!(interval.low <= interval.expected && interval.expected <= interval.high, "{interval:?}");
        }
    }
}
