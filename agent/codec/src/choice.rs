//! Which means pay: decided from what they cost in time and save in bytes, both measured.
//!
//! Encoding and sending overlap, so a means is as slow as the slower of the two: nanoseconds of processor or nanoseconds
//! of link, for each byte that QEMU wrote. Whatever is not in use is tried for a moment now and then, because what a
//! guest's memory holds changes.

use std::time::Duration;

/// How pages are treated, in the order of their cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Means {
    /// As bytes.
    Off,
    /// Zero runs, references and deltas.
    Pages,
    /// The same, and zstd over what is left.
    Full,
}

/// Who chooses the means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// [`Choice`] does.
    Adaptive,
    /// Always these.
    Fixed(Means),
}

/// What the pump around the encoder has measured since it last said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// What the link carries of this lane, in bytes a second; `None` while that is unknown.
    pub link: Option<u64>,
    /// Processor time spent in the encoder.
    pub encoding: Duration,
    /// Bytes that were pushed meanwhile.
    pub plain: u64,
}

/// What became of one batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What QEMU wrote.
    pub plain: usize,
    /// What was left of it before zstd.
    pub blob: usize,
    /// What crossed the wire.
    pub wire: usize,
    /// Pages in it.
    pub pages: u32,
    /// Those of them that were sent before.
    pub again: u32,
}

/// A means must be this much better than a cheaper one.
const WORTH: f64 = 0.97;
/// Batches between two trials of [`Means::Full`], and of one trial: 3 % of the time.
const TRIAL_EVERY: u32 = 128;
const TRIAL: u32 = 4;
/// When pages come back that were sent while nothing was kept, keeping is tried for so many batches (128 MiB): a delta
/// needs the page to come twice. Then not again for so many (1 GiB).
const KEEP_TRIAL: u32 = 512;
const KEEP_TRIAL_EVERY: u32 = 4096;
/// Pages that came back in a batch, from which on keeping is tried: one in four.
const AGAIN_SHARE: u32 = 4;
/// How much of an average the newest value is.
const NEWEST: f64 = 0.25;

/// Expected before anything is measured: nanoseconds a byte, and wire bytes for a byte. Optimistic about what is saved,
/// so that everything is tried.
const EXPECTED: [Cost; 3] =
    [Cost { nanos: 0.3, ratio: 1.0 }, Cost { nanos: 1.0, ratio: 0.9 }, Cost { nanos: 3.0, ratio: 0.4 }];

#[derive(Debug, Clone, Copy)]
struct Cost {
    nanos: f64,
    ratio: f64,
}

/// The choice for one lane.
#[derive(Debug, Clone)]
pub struct Choice {
    costs: [Cost; 3],
    link: Option<u64>,
    means: Means,
    /// Batches until the next trial; during one, what is left of it.
    until_trial: u32,
    trial: u32,
    until_keeping: u32,
    /// Whether every batch since the last measurement used the same means.
    unmixed: bool,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            costs: EXPECTED,
            link: None,
            means: Means::Full,
            until_trial: TRIAL_EVERY,
            trial: TRIAL,
            until_keeping: 0,
            unmixed: true,
        }
    }
}

impl Choice {
    /// What the next batch is treated with.
    #[must_use]
    pub fn means(&self) -> Means {
        if self.trial > 0 { Means::Full } else { self.means }
    }

    /// Takes in what the pump measured.
    pub fn measured(&mut self, measured: Measured) {
        self.link = measured.link.filter(|rate| *rate > 0);
        if self.unmixed && measured.plain > 0 {
            let nanos = measured.encoding.as_nanos() as f64 / measured.plain as f64;
            average(&mut self.costs[self.means() as usize].nanos, nanos);
        }
        self.unmixed = true;
    }

    /// Takes in what became of a batch that was treated with [`Choice::means`].
    pub fn sent(&mut self, outcome: Outcome) {
        let used = self.means();
        if outcome.plain > 0 && used != Means::Off {
            let of = |bytes: usize| bytes as f64 / outcome.plain as f64;
            average(&mut self.costs[Means::Pages as usize].ratio, of(outcome.blob));
            if used == Means::Full {
                average(&mut self.costs[Means::Full as usize].ratio, of(outcome.wire));
            }
        }
        self.count_down(used, outcome);
        self.means = self.best();
        self.unmixed &= self.means() == used;
    }

    fn count_down(&mut self, used: Means, outcome: Outcome) {
        self.until_keeping = self.until_keeping.saturating_sub(1);
        if self.trial > 0 {
            self.trial -= 1;
            return;
        }
        self.until_trial = self.until_trial.saturating_sub(1);
        let comes_back = outcome.pages > 0 && outcome.again * AGAIN_SHARE >= outcome.pages;
        if used == Means::Off && comes_back && self.until_keeping == 0 {
            (self.trial, self.until_keeping) = (KEEP_TRIAL, KEEP_TRIAL_EVERY);
        } else if self.until_trial == 0 && used != Means::Full {
            (self.trial, self.until_trial) = (TRIAL, TRIAL_EVERY);
        }
    }

    fn best(&self) -> Means {
        let all = [Means::Off, Means::Pages, Means::Full];
        let better = |best: Means, next: Means| {
            if self.cost(next) < self.cost(best) * WORTH { next } else { best }
        };
        all.into_iter().reduce(better).unwrap_or(Means::Off)
    }

    /// Nanoseconds for each byte. While the link's rate is unknown, only what crosses it counts.
    fn cost(&self, means: Means) -> f64 {
        let Cost { nanos, ratio } = self.costs[means as usize];
        match self.link {
            Some(rate) => nanos.max(ratio * 1e9 / rate as f64),
            None => ratio,
        }
    }
}

fn average(value: &mut f64, newest: f64) {
    *value += (newest - *value) * NEWEST;
}
