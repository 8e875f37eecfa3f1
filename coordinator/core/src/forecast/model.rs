//! A copy on paper: pass after pass, what is left is what the guest wrote meanwhile, and never more than it works on. Pure.
//!
//! ```text
//! left₁ = memory        timeₙ = leftₙ ÷ speed        leftₙ₊₁ = min(dirty rate × timeₙ, working set)
//! ```
//!
//! Passes that do not help lead up the ladder, by the numbers of the source's own (`agent/src/migrate/climb.rs`): QEMU slows
//! the guest as far as it may, then the pause grows, then the guest is held or goes over (post-copy), or the move is given
//! up.

use novacron_common::record::{Limit, MoveLimits, Rung, Strategy};

/// More passes than any copy takes: one that helps leaves a tenth less, and the others are counted.
const PASSES_MAX: u32 = 4000;
const MICROS: u128 = 1_000_000;
const MILLION: u128 = 1_000_000;
const PATIENCE_US: u128 = MoveLimits::PATIENCE_MS as u128 * 1000;
const ROUND_MIN_US: u128 = MoveLimits::ROUND_MIN_MS as u128 * 1000;

/// What is known of a guest and of its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inputs {
    /// Whether it runs meanwhile.
    pub live: bool,
    /// Whether it may go over before all of its memory has (post-copy).
    pub post_copy: bool,
    /// Memory in use, bytes.
    pub memory: u64,
    /// What its disk holds, bytes. It goes first.
    pub disk: u64,
    /// Memory written to, bytes a second.
    pub dirty_rate: u64,
    /// Memory written to again and again, bytes.
    pub working_set: u64,
    /// What crosses the wire for a million bytes of the guest's.
    pub wire_ppm: u64,
    /// What the wire carries, bytes a second.
    pub rate: u64,
    /// What the hosts read and pack, the guest's bytes a second.
    pub engine: u64,
    /// What a move takes besides the copy, milliseconds.
    pub overhead_ms: u64,
    /// What a pause takes besides the rest, milliseconds.
    pub handover_ms: u64,
}

impl Inputs {
    /// The guest's bytes that are through in a second.
    fn speed(&self) -> u128 {
        let by_wire = u128::from(self.rate) * MILLION / u128::from(self.wire_ppm.max(1));
        by_wire.min(self.engine.into()).max(1)
    }
}

/// How a copy goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// From the request to the end, milliseconds.
    pub total_ms: u64,
    /// How long the guest stands still, milliseconds.
    pub blackout_ms: u64,
    /// The guest's bytes that were sent, each pass counted.
    pub guest_bytes: u64,
    /// What crossed the wire for them, bytes.
    pub wire_bytes: u64,
    /// The means that was taken last.
    pub rung: Rung,
    /// The most that was withheld of the guest's processors' time, percent.
    pub throttle_pct: u8,
    /// The pause that was planned for last, milliseconds.
    pub pause_ms: u32,
    /// The limit that ended it; `None`: it arrived.
    pub limit: Option<Limit>,
    /// Passes over memory.
    pub passes: u32,
}

/// Copies on paper.
pub fn run(inputs: &Inputs, limits: &MoveLimits) -> Outcome {
    match inputs.live {
        true => Copy::begin(inputs, limits).live(),
        false => stopped(inputs),
    }
}

/// The guest is off, and its memory with it: only its disk goes.
fn stopped(inputs: &Inputs) -> Outcome {
    let copy_us = u128::from(inputs.disk) * MICROS / inputs.speed();
    let total_ms = millis(copy_us).saturating_add(inputs.overhead_ms);
    Outcome {
        total_ms,
        blackout_ms: total_ms,
        guest_bytes: inputs.disk,
        wire_bytes: on_the_wire(inputs.disk.into(), inputs),
        ..Outcome::default()
    }
}

struct Copy<'a> {
    inputs: &'a Inputs,
    limits: &'a MoveLimits,
    speed: u128,
    /// Since the copy began, microseconds.
    elapsed: u128,
    /// The guest's bytes.
    sent: u128,
    /// What the pass before left.
    left: u128,
    best: Option<u128>,
    fruitless: u32,
    /// Passes that left more than half of the one before: QEMU slows the guest after two.
    outrun: u32,
    helped_at: u128,
    out: Outcome,
}

impl<'a> Copy<'a> {
    fn begin(inputs: &'a Inputs, limits: &'a MoveLimits) -> Self {
        let speed = inputs.speed();
        Self {
            inputs,
            limits,
            speed,
            elapsed: u128::from(inputs.disk) * MICROS / speed,
            sent: inputs.disk.into(),
            left: inputs.memory.into(),
            best: None,
            fruitless: 0,
            outrun: 0,
            helped_at: 0,
            out: Outcome { pause_ms: limits.first_pause_ms(), ..Outcome::default() },
        }
    }

    fn live(mut self) -> Outcome {
        for _ in 0..PASSES_MAX {
            let before = self.left;
            self.pass();
            if self.is_late() {
                return self.give_up(Limit::Deadline);
            }
            if self.time(self.left) <= u128::from(self.out.pause_ms) * 1000 {
                return self.arrive();
            }
            self.judge(before);
            if self.is_pressed()
                && let Some(end) = self.highest()
            {
                return end;
            }
            if self.fruitless >= self.limits.rounds(self.out.pause_ms)
                && let Some(end) = self.climb()
            {
                return end;
            }
        }
        self.give_up(Limit::MaxDowntime)
    }

    /// Microseconds for so many of the guest's bytes.
    fn time(&self, bytes: u128) -> u128 {
        bytes * MICROS / self.speed
    }

    /// Sends what is left, and sees what that leaves. Short passes that do not help are repeated for a second: so the
    /// ladder judges them.
    fn pass(&mut self) {
        let once = self.time(self.left);
        let took = if self.fruitless > 0 { once.max(ROUND_MIN_US) } else { once };
        self.sent += if took > once { took * self.speed / MICROS } else { self.left };
        self.elapsed += took;
        self.out.passes += 1;
        let writes = u128::from(self.inputs.dirty_rate) * u128::from(100 - self.out.throttle_pct) / 100;
        self.left = (writes.saturating_mul(once) / MICROS).min(self.inputs.working_set.into());
    }

    fn judge(&mut self, before: u128) {
        if self.best.is_none_or(|best| self.left < best - best / 10) {
            self.best = Some(self.left);
            self.fruitless = 0;
            self.helped_at = self.elapsed;
        } else {
            self.fruitless += 1;
        }
        self.outrun = if self.left * 2 > before { self.outrun + 1 } else { 0 };
        if self.outrun >= 2 && self.out.throttle_pct < self.limits.max_slowdown_pct {
            self.slow_down();
        }
    }

    fn slow_down(&mut self) {
        let next = match self.out.throttle_pct {
            0 => MoveLimits::SLOWDOWN_FIRST_PCT,
            percent => percent.saturating_add(MoveLimits::SLOWDOWN_MORE_PCT),
        };
        self.out.throttle_pct = next.min(self.limits.max_slowdown_pct);
        self.out.rung = self.out.rung.max(Rung::Throttle);
        self.outrun = 0;
        self.fruitless = 0;
        self.helped_at = self.elapsed;
    }

    /// To the next means, or to its end.
    fn climb(&mut self) -> Option<Outcome> {
        let (longest, pause) = (self.limits.pause_ms(), self.out.pause_ms);
        let may_hold = self.limits.max_downtime_ms.is_none();
        let usual = self.limits.usual_pause_ms();
        match self.limits.strategy {
            _ if pause < usual => self.allow(usual),
            Strategy::StopAndCopy if may_hold => self.hold(),
            Strategy::StopAndCopy if pause < longest => self.allow(longest),
            Strategy::Auto if pause < longest => self.allow(pause.saturating_mul(2).min(longest)),
            Strategy::Auto | Strategy::Postcopy if self.inputs.post_copy => Some(self.split()),
            Strategy::Auto | Strategy::Precopy | Strategy::StopAndCopy | Strategy::Postcopy => self.wait(),
        }
    }

    /// The guest goes over, and the rest follows: each page once.
    fn split(&mut self) -> Outcome {
        self.out.rung = Rung::Postcopy;
        self.elapsed += self.time(self.left);
        self.sent += self.left;
        self.out.blackout_ms = self.inputs.handover_ms;
        self.end(self.inputs.handover_ms)
    }

    fn allow(&mut self, pause_ms: u32) -> Option<Outcome> {
        self.out.pause_ms = pause_ms;
        if pause_ms > MoveLimits::PAUSE_MS {
            self.out.rung = Rung::LongerPause;
        }
        self.fruitless = 0;
        (self.time(self.left) <= u128::from(pause_ms) * 1000).then(|| self.arrive())
    }

    /// Holds the guest, if the deadline leaves room for the rest.
    fn hold(&mut self) -> Option<Outcome> {
        let end = self.elapsed + self.time(self.left);
        if self.deadline().is_some_and(|deadline| end >= deadline) {
            return None;
        }
        self.out.rung = Rung::StopAndCopy;
        Some(self.arrive())
    }

    fn wait(&mut self) -> Option<Outcome> {
        let patient =
            self.fruitless < MoveLimits::ROUNDS_OF_PATIENCE || self.elapsed < self.helped_at + PATIENCE_US;
        (!patient && self.limits.deadline_ms.is_none()).then(|| self.give_up(Limit::MaxDowntime))
    }

    /// Straight to the highest rung.
    fn highest(&mut self) -> Option<Outcome> {
        match (self.limits.strategy, self.limits.max_downtime_ms) {
            (Strategy::StopAndCopy, None) => self.hold(),
            _ if self.out.pause_ms < self.limits.pause_ms() => self.allow(self.limits.pause_ms()),
            _ if self.inputs.post_copy && self.limits.may_split() => Some(self.split()),
            _ => None,
        }
    }

    fn deadline(&self) -> Option<u128> {
        self.limits.deadline_ms.map(|ms| u128::from(ms) * 1000)
    }

    fn is_late(&self) -> bool {
        self.deadline().is_some_and(|deadline| self.elapsed >= deadline)
    }

    fn is_pressed(&self) -> bool {
        let rest = self.time(self.left);
        self.deadline()
            .is_some_and(|deadline| self.elapsed + rest < deadline && self.elapsed + rest * 2 >= deadline)
    }

    fn arrive(&mut self) -> Outcome {
        let pause = self.time(self.left);
        self.elapsed += pause;
        self.sent += self.left;
        self.out.blackout_ms = millis(pause).saturating_add(self.inputs.handover_ms);
        self.end(self.inputs.handover_ms)
    }

    fn give_up(&mut self, limit: Limit) -> Outcome {
        self.out.limit = Some(limit);
        if let (Limit::Deadline, Some(deadline)) = (limit, self.deadline()) {
            // It ends when the deadline passes, in the middle of a pass.
            let over = self.elapsed.saturating_sub(deadline);
            self.sent = self.sent.saturating_sub(over * self.speed / MICROS);
            self.elapsed = deadline;
        }
        self.end(0)
    }

    fn end(&self, more_ms: u64) -> Outcome {
        let total_ms = millis(self.elapsed).saturating_add(self.inputs.overhead_ms).saturating_add(more_ms);
        Outcome {
            total_ms,
            guest_bytes: u64::try_from(self.sent).unwrap_or(u64::MAX),
            wire_bytes: on_the_wire(self.sent, self.inputs),
            ..self.out
        }
    }
}

fn millis(micros: u128) -> u64 {
    u64::try_from(micros / 1000).unwrap_or(u64::MAX)
}

fn on_the_wire(bytes: u128, inputs: &Inputs) -> u64 {
    u64::try_from(bytes * u128::from(inputs.wire_ppm) / MILLION).unwrap_or(u64::MAX)
}
