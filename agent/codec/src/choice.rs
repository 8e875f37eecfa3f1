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

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: usize = 256 << 10;
    const MIB: u64 = 1 << 20;

    /// A guest's memory, a processor and a link.
    struct World {
        /// What zstd leaves of a byte.
        packs_to: f64,
        /// What references and deltas leave of a byte, of pages that came back.
        again_to: f64,
        /// Pages that come back, of 64 in a batch.
        again: u32,
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
                let outcome = Outcome {
                    plain: BATCH,
                    blob: of(kept),
                    wire: of(kept * packed),
                    pages: 64,
                    again: self.again,
                };
                choice.sent(outcome);
                let nanos = [80, 400, 2500][means as usize] * (BATCH as u64 / 1024);
                let encoding = Duration::from_nanos(nanos);
                choice.measured(Measured { link: Some(self.link), encoding, plain: BATCH as u64 });
            }
            used
        }
    }

    #[test]
    fn text_on_a_slow_link_is_compressed() {
        let [_, _, full] = TEXT.run(&mut Choice::default(), 1000);
        assert!(full > 990, "{full}");
    }

    #[test]
    fn noise_costs_a_few_trials() {
        let [off, _, full] = World { packs_to: 1.0, ..TEXT }.run(&mut Choice::default(), 1000);
        assert!(off > 950 && full < 50, "{off} off, {full} full");
    }

    #[test]
    fn a_link_faster_than_zstd_gets_bytes() {
        let [off, ..] = World { link: 5_000 * MIB, ..TEXT }.run(&mut Choice::default(), 1000);
        assert!(off > 950, "{off}");
    }

    #[test]
    fn what_has_changed_is_noticed() {
        let mut choice = Choice::default();
        World { packs_to: 1.0, ..TEXT }.run(&mut choice, 1000);
        assert_eq!(choice.means(), Means::Off);
        TEXT.run(&mut choice, 200);
        assert_eq!(choice.means(), Means::Full);
    }

    #[test]
    fn noise_that_comes_back_nearly_the_same_is_kept() {
        let mut choice = Choice::default();
        let noise = World { packs_to: 1.0, ..TEXT };
        noise.run(&mut choice, 1000);
        let [off, ..] = World { again: 60, again_to: 0.02, ..noise }.run(&mut choice, 1000);
        assert!(off < 10 && choice.means() != Means::Off, "{off}");
    }

    #[test]
    fn keeping_what_gains_nothing_is_given_up() {
        let comes_back = World { packs_to: 1.0, again: 60, again_to: 1.0, ..TEXT };
        let mut choice = Choice::default();
        let [off, ..] = comes_back.run(&mut choice, 4096);
        assert!(off > 3400, "{off}");
    }

    #[test]
    fn without_a_measured_link_the_fewest_bytes_win() {
        let mut choice = Choice::default();
        choice.sent(Outcome { plain: BATCH, blob: BATCH, wire: BATCH / 3, pages: 64, again: 0 });
        choice.measured(Measured { link: None, encoding: Duration::from_secs(9), plain: 1 });
        assert_eq!(choice.means(), Means::Full);
    }
}
