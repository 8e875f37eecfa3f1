//! What a move will take, before it is made. Pure, and in whole numbers, so that every coordinator says the same.
//!
//! * [`model`] copies a guest on paper, pass after pass, and climbs the ladder as the source's agent would;
//! * [`lessons`] is what earlier moves teach: how much crossed the wire for how much memory, how fast, and what each move
//!   took besides;
//! * [`of`] runs the model three times, as well as may be, as expected and as badly as may be.
//!
//! The lessons are read off the migration records each time and kept nowhere else: the ledger owns them, they are bounded
//! as the records are, and what is forgotten there is forgotten here.

pub mod lessons;
pub mod model;

use crate::{
    record::{MigrationRecord, VmRecord},
    state::State,
};
use lessons::Lessons;
use model::{Inputs, Outcome};
use novacron_common::{
    api::MigrationState,
    ids::HostId,
    record::{Basis, DirtyRate, Forecast, GuestMeasure, Interval, LinkMeasure, MoveLimits, Rung},
};
use serde::{Deserialize, Serialize};

/// The pages that libvirt counts, bytes.
const PAGE: u64 = 4096;
/// What a guest of which nothing is known writes each second if it is busy, bytes.
const DIRTY_UNKNOWN: u64 = 16 << 20;
/// An unmeasured figure may be wrong by so much, in thousandths.
const UNMEASURED: u64 = 2000;
/// A measured one: pages are sampled, and a guest is busier at one time than at another.
const MEASURED: u64 = 1300;

/// What was measured for a move, where it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measures {
    /// Of the guest.
    pub guest: Option<GuestMeasure>,
    /// Of the way to the target.
    pub link: Option<LinkMeasure>,
}

impl Measures {
    /// The figures alone. What else an agent says has no bound that a command could keep, and no forecast needs it.
    #[must_use]
    pub fn figures(self) -> Self {
        let guest = self.guest.map(|guest| GuestMeasure { traits: None, notes: Vec::new(), ..guest });
        Self { guest, link: self.link.map(|link| LinkMeasure { note: None, ..link }) }
    }
}

/// One move that is thought of.
#[derive(Debug, Clone, Copy)]
pub struct Trip<'a> {
    /// What moves.
    pub vm: &'a VmRecord,
    /// From where.
    pub source: HostId,
    /// To where.
    pub target: HostId,
    /// Whether it runs meanwhile.
    pub live: bool,
    /// What it has to keep to.
    pub limits: &'a MoveLimits,
    /// What was measured.
    pub measures: &'a Measures,
}

/// What it will take.
pub fn of(state: &State, trip: &Trip<'_>) -> Forecast {
    let guest = Guest::of(state, trip);
    let bytes = guest.memory.expected.saturating_add(guest.disk);
    let lessons = Lessons::of(state, trip.vm.id, (trip.source, trip.target), bytes, guest.is_known);
    let rate = within_budget(link_rate(trip.measures.link.as_ref(), &lessons), trip.limits);
    forecast(trip, &guest, rate, &lessons)
}

/// One of an interval's figures.
type Pick = fn(Interval) -> u64;

fn forecast(trip: &Trip<'_>, guest: &Guest, rate: Interval, lessons: &Lessons) -> Forecast {
    let case = |pick: Pick, opposite: Pick| {
        let inputs = Inputs {
            live: trip.live,
            post_copy: trip.vm.spec.mobility.allows_post_copy(),
            memory: pick(guest.memory),
            disk: guest.disk,
            dirty_rate: pick(guest.dirty_rate),
            working_set: pick(guest.working_set),
            wire_ppm: pick(lessons.wire_ppm),
            rate: opposite(rate),
            engine: opposite(lessons.engine),
            overhead_ms: pick(lessons.overhead_ms),
            handover_ms: pick(lessons.handover_ms),
        };
        model::run(&inputs, trip.limits)
    };
    let (low, expected, high): (Pick, Pick, Pick) = (|i| i.low, |i| i.expected, |i| i.high);
    let (best, likely, worst) = (case(low, high), case(expected, expected), case(high, low));
    let interval = |part: fn(&Outcome) -> u64| Interval::around(part(&best), part(&likely), part(&worst));
    let link = trip.measures.link.as_ref();
    Forecast {
        total_ms: interval(|o| o.total_ms),
        blackout_ms: lessons.blackout(trip, likely.rung, interval(|o| o.blackout_ms)),
        wire_bytes: interval(|o| o.wire_bytes),
        rung: likely.rung.max(guest.rung),
        limit: likely.limit,
        at_risk: worst.limit,
        may_split: [best, likely, worst].iter().any(|case| case.rung == Rung::Postcopy),
        basis: Basis {
            memory_bytes: guest.memory.expected,
            disk_bytes: guest.disk,
            dirty_rate: guest.dirty_rate.expected,
            working_set_bytes: guest.working_set.expected,
            rate: rate.expected,
            round_trip_us: link.and_then(|link| link.round_trip_us).unwrap_or(0),
            guest_measured: guest.is_known,
            measured: guest.measured && link.is_some_and(|link| link.rate.is_some()),
            moves: lessons.moves,
            model_bytes: likely.guest_bytes,
        },
    }
}

/// The guest, as far as it is known.
struct Guest {
    memory: Interval,
    disk: u64,
    dirty_rate: Interval,
    working_set: Interval,
    /// The means that its last move took, under the same limits, if it is not known how fast it writes.
    rung: Rung,
    /// Whether these figures were measured at all, now or for an earlier move …
    is_known: bool,
    /// … or just now.
    measured: bool,
}

impl Guest {
    fn of(state: &State, trip: &Trip<'_>) -> Self {
        let all = trip.vm.spec.memory.0;
        let last = last_move(state, trip);
        let before = last.and_then(|last| last.forecast).map(|forecast| forecast.basis);
        let measure = trip.measures.guest.as_ref();
        let found =
            measure.and_then(|measure| Some((measure.in_use_bytes?, measure.disk_bytes, measure.dirty?)));
        let earlier = before.filter(|basis| basis.guest_measured).map(|basis| {
            let (bytes_per_second, working_set_bytes) = (basis.dirty_rate, basis.working_set_bytes);
            (basis.memory_bytes, basis.disk_bytes, DirtyRate { bytes_per_second, working_set_bytes })
        });
        let Some((in_use, disk, dirty)) = found.or(earlier) else { return Self::unknown(trip, last) };
        let (in_use, off) = (in_use.min(all), if found.is_some() { MEASURED } else { UNMEASURED });
        let set = dirty.working_set_bytes.min(in_use);
        Self {
            memory: Interval::around(in_use - in_use / 8, in_use, all.min(in_use + in_use / 8)),
            disk: disk.min(trip.vm.spec.storage.0),
            dirty_rate: wide(dirty.bytes_per_second, off),
            working_set: Interval::around(set, set, stretched(set, off).min(all)),
            rung: Rung::Precopy,
            is_known: true,
            measured: found.is_some(),
        }
    }

    /// Nobody ever looked: it is as it was when it moved last, and what the wire had of it then says the rest.
    fn unknown(trip: &Trip<'_>, last: Option<&MigrationRecord>) -> Self {
        let all = trip.vm.spec.memory.0;
        let wrote = last.map(|last| last.progress.dirty_pages_per_second.saturating_mul(PAGE));
        let report = last.filter(|last| last.limits == *trip.limits).and_then(|last| last.report.as_ref());
        Self {
            memory: Interval::exactly(all),
            disk: last.map_or(0, |last| last.counts().disk_bytes).min(trip.vm.spec.storage.0),
            dirty_rate: Interval {
                low: 0,
                expected: 0,
                high: wrote.map_or(DIRTY_UNKNOWN, |rate| stretched(rate, UNMEASURED)),
            },
            working_set: Interval::around(0, all, all),
            rung: report.map_or(Rung::Precopy, |report| report.climb.rung),
            is_known: false,
            measured: false,
        }
    }
}

fn last_move<'a>(state: &'a State, trip: &Trip<'_>) -> Option<&'a MigrationRecord> {
    let ended = |m: &&MigrationRecord| m.vm == trip.vm.id && m.live && m.state == MigrationState::Completed;
    lessons::newest(state).find(ended)
}

/// What the wire carries: as fast as it was found to be, and no faster than moves have been.
fn link_rate(link: Option<&LinkMeasure>, lessons: &Lessons) -> Interval {
    let probed = link.and_then(|link| link.rate).filter(|rate| *rate > 0);
    match (probed, lessons.rate) {
        // What this machine's moves over this link had of it: nothing is nearer to the next one, unless the link has become
        // slower. Those of other machines may have been too small to fill it.
        (Some(probed), Some(learned)) if lessons.knows_the_way() => Interval::around(
            probed.min(learned.low),
            probed.min(learned.expected),
            probed.min(learned.high).max(probed.min(learned.expected)),
        ),
        (Some(probed), _) => Interval::around(probed / 10 * 7, probed / 10 * 9, probed),
        (None, Some(learned)) => learned,
        (None, None) => lessons::RATE_UNKNOWN,
    }
}

/// The wire, or what the move may take of it.
fn within_budget(rate: Interval, limits: &MoveLimits) -> Interval {
    let most = limits.bandwidth().unwrap_or(u64::MAX);
    Interval { low: rate.low.min(most), expected: rate.expected.min(most), high: rate.high.min(most) }
}

fn stretched(figure: u64, permille: u64) -> u64 {
    let stretched = u128::from(figure) * u128::from(permille) / 1000;
    u64::try_from(stretched).unwrap_or(u64::MAX)
}

fn wide(figure: u64, permille: u64) -> Interval {
    let least = u128::from(figure) * 1000 / u128::from(permille.max(1));
    Interval::around(u64::try_from(least).unwrap_or(figure), figure, stretched(figure, permille))
}

/// Whether a forecast says that the guest only stands still as briefly as ever.
const fn is_gentle(rung: Rung) -> bool {
    matches!(rung, Rung::Precopy | Rung::Throttle)
}
