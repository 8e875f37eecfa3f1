//! How hard a live copy is pushed: from what it looks like, the next thing to do. Pure.
//!
//! ```text
//!            passes that do not help            …             …
//!  Precopy ───────────▶ LongerPause (auto: twice as long each time) ───▶ GiveUp(MaxDowntime)
//!     │ (QEMU slows the guest meanwhile, as far as it was told before)
//!     ├──(stop_and_copy without a limit)──▶ StopAndCopy           any rung ──▶ GiveUp(Deadline)
//!     └──(postcopy; auto behind its longest pause, if the machine allows it)──▶ Postcopy
//! ```
//!
//! A copy is looked at in *rounds*: a pass over memory, or as many bytes as one would take. A round helps if what was left
//! at its worst is less, by a tenth, than in the best one before. Rounds that do not help lead to the next rung; on the
//! highest rung that the limits allow there is some patience, or the deadline if there is one. So a copy ends: each round
//! that helps shrinks what is left, and the others are counted.
//!
//! QEMU's auto-converge raises the throttle by itself, as far as it was told; while it does, no round counts as one that
//! did not help.

mod advice;
mod round;

use novacron_common::record::{Climb, Limit, MoveLimits, Rung, Strategy};
use round::Round;
use std::time::Duration;

/// On the highest rung, so many rounds without help … The coordinator's forecast climbs by the same numbers.
const ROUNDS_OF_PATIENCE: u32 = MoveLimits::ROUNDS_OF_PATIENCE;
/// … and at least so long since the last that helped.
const PATIENCE: Duration = Duration::from_millis(MoveLimits::PATIENCE_MS);

/// What a copy looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Since it began.
    pub at: Duration,
    /// Bytes sent, as the hypervisor counts them.
    pub sent: u64,
    /// Bytes yet to be sent.
    pub remaining: u64,
    /// Passes over memory; 0 while only disks are copied.
    pub iteration: u64,
    /// How much is withheld of the guest's processors' time just now, percent.
    pub throttle_pct: u8,
}

impl Look {
    /// Whether the hypervisor has no figures yet.
    fn is_blank(&self) -> bool {
        (self.sent, self.remaining, self.iteration) == (0, 0, 0)
    }
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    GoOn,
    /// The hypervisor may plan for a pause of so many milliseconds.
    AllowPause(u32),
    /// The guest is held until the rest has been sent.
    Hold,
    /// The guest goes over, as soon as the hand-over is committed, and the rest follows (post-copy).
    GoOver,
    /// It ends, fully back; why, for people.
    GiveUp(String),
}

/// The state of one climb.
#[derive(Debug)]
pub struct Ladder {
    limits: MoveLimits,
    /// Whether the machine allows post-copy.
    may_split: bool,
    climb: Climb,
    round: Option<Round>,
    /// What was left in the round that helped last, bytes.
    best: Option<u64>,
    /// Rounds since then, on this rung.
    fruitless: u32,
    /// When that was.
    helped_at: Duration,
    /// Bytes a second, of the last round.
    rate: u64,
}

impl Ladder {
    /// At its foot. `post_copy`: whether the machine allows it.
    pub fn new(limits: MoveLimits, post_copy: bool) -> Self {
        Self {
            limits,
            may_split: post_copy && limits.may_split(),
            climb: Climb { pause_ms: limits.first_pause_ms(), ..Climb::default() },
            round: None,
            best: None,
            fruitless: 0,
            helped_at: Duration::ZERO,
            rate: 0,
        }
    }

    /// How far up it is.
    pub fn climb(&self) -> Climb {
        let slowed = self.climb.throttle_pct > 0 && self.climb.rung == Rung::Precopy;
        Climb { rung: if slowed { Rung::Throttle } else { self.climb.rung }, ..self.climb }
    }

    /// Takes a look, and says what follows from it.
    pub fn look(&mut self, look: Look) -> Step {
        let slower = look.throttle_pct > self.climb.throttle_pct;
        self.climb.throttle_pct = self.climb.throttle_pct.max(look.throttle_pct);
        if self.deadline().is_some_and(|deadline| look.at >= deadline) {
            return self.give_up(Limit::Deadline, look);
        }
        if slower {
            self.fruitless = 0;
            self.helped_at = look.at;
        }
        if !look.is_blank() {
            self.follow(look);
        }
        match self.climb.rung {
            Rung::StopAndCopy | Rung::Postcopy => Step::GoOn,
            _ if self.is_pressed(look) => self.highest(look),
            _ if self.fruitless >= self.limits.rounds(self.climb.pause_ms) => self.next(look),
            _ => Step::GoOn,
        }
    }

    fn deadline(&self) -> Option<Duration> {
        self.limits.deadline_ms.map(Duration::from_millis)
    }

    /// Goes on with the present round, or judges it and begins another.
    fn follow(&mut self, look: Look) {
        let Some(round) = &mut self.round else {
            self.round = Some(Round::begin(look));
            return;
        };
        if !round.ends_with(look) {
            return round.see(look);
        }
        let ended = *round;
        self.round = Some(Round::begin(look));
        self.rate = ended.rate(look);
        // Memory begins where disks end: what is left of the one says nothing of the other.
        let first_of_memory = ended.is_of_disks() && look.iteration > 0;
        let helped = self.best.is_none_or(|best| ended.peak() < best - best / 10);
        if helped || first_of_memory {
            self.best = (!first_of_memory).then_some(ended.peak());
            self.fruitless = 0;
            self.helped_at = look.at;
        } else {
            self.fruitless += 1;
        }
    }

    /// How long the rest would take at the rate of the last round; `None` as long as there was none.
    fn rest(&self, look: Look) -> Option<Duration> {
        let millis = (u128::from(look.remaining) * 1000).checked_div(u128::from(self.rate))?;
        u64::try_from(millis).ok().map(Duration::from_millis)
    }

    /// Whether the deadline is so near that only the highest rung still leads to it in time. In the first pass, which
    /// skips what is zero, nobody knows what the rest is.
    fn is_pressed(&self, look: Look) -> bool {
        let Some((deadline, rest)) = self.deadline().zip(self.rest(look)) else { return false };
        look.iteration > 1 && look.at + rest < deadline && look.at + rest * 2 >= deadline
    }

    /// Straight to the highest rung.
    fn highest(&mut self, look: Look) -> Step {
        match (self.limits.strategy, self.limits.max_downtime_ms) {
            (Strategy::StopAndCopy, None) => self.hold(look),
            _ if self.climb.pause_ms < self.limits.pause_ms() => self.allow(self.limits.pause_ms()),
            _ if self.may_split => self.go_over(),
            _ => Step::GoOn,
        }
    }

    /// To the next rung; on the highest, to patience and its end.
    fn next(&mut self, look: Look) -> Step {
        let (longest, pause) = (self.limits.pause_ms(), self.climb.pause_ms);
        let usual = self.limits.usual_pause_ms();
        match self.limits.strategy {
            // A pause does not help disks.
            _ if look.iteration == 0 => self.wait(look),
            _ if pause < usual => self.allow(usual),
            Strategy::StopAndCopy if self.limits.max_downtime_ms.is_none() => self.hold(look),
            Strategy::StopAndCopy if pause < longest => self.allow(longest),
            Strategy::Auto if pause < longest => self.allow(pause.saturating_mul(2).min(longest)),
            Strategy::Auto | Strategy::Postcopy if self.may_split => self.go_over(),
            Strategy::Auto | Strategy::Precopy | Strategy::StopAndCopy | Strategy::Postcopy => {
                self.wait(look)
            }
        }
    }

    fn go_over(&mut self) -> Step {
        self.climb.rung = Rung::Postcopy;
        Step::GoOver
    }

    /// Holds the guest, if the deadline leaves room for the rest: else it would stand still for nothing.
    fn hold(&mut self, look: Look) -> Step {
        let in_time = |deadline| self.rest(look).is_some_and(|rest| look.at + rest < deadline);
        if !self.deadline().is_none_or(in_time) {
            return Step::GoOn;
        }
        self.climb.rung = Rung::StopAndCopy;
        Step::Hold
    }

    fn allow(&mut self, pause_ms: u32) -> Step {
        let longer = pause_ms > MoveLimits::PAUSE_MS;
        let rung = if longer { Rung::LongerPause } else { self.climb.rung };
        self.climb = Climb { rung, pause_ms, ..self.climb };
        self.fruitless = 0;
        Step::AllowPause(pause_ms)
    }

    fn wait(&mut self, look: Look) -> Step {
        let patient = self.fruitless < ROUNDS_OF_PATIENCE || look.at < self.helped_at + PATIENCE;
        if patient || self.limits.deadline_ms.is_some() {
            return Step::GoOn;
        }
        self.give_up(Limit::MaxDowntime, look)
    }

    fn give_up(&mut self, limit: Limit, look: Look) -> Step {
        self.climb.limit = Some(limit);
        // The worst of a round is what a pause would have to take.
        let left = self.best.unwrap_or(look.remaining).max(look.remaining);
        let rate = match self.round {
            Some(round) if self.rate == 0 => round.rate(look),
            _ => self.rate,
        };
        Step::GiveUp(advice::advice(&advice::Case { limits: self.limits, limit, look, left, rate }))
    }
}

#[cfg(test)]
mod tests;
