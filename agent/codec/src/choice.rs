//! Which means pay: decided by how long QEMU's bytes took with each, measured.
//!
//! Whatever holds a lane up (the processors, the link, or both in turn) shows in the time that its bytes take, so that is
//! what is compared: nanoseconds for each byte that QEMU wrote, the time in which QEMU wrote nothing left out. Whatever is
//! not in use is tried for a moment now and then, because what a guest's memory holds changes; unless the link is
//! known to carry too little for what a trial would send.

use crate::effort::Effort;
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

impl Means {
    const ALL: [Self; 3] = [Self::Off, Self::Pages, Self::Full];
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measured {
    /// Bytes that were pushed.
    pub plain: u64,
    /// How long it took until they were handed on; not how long QEMU took to write them.
    pub busy: Duration,
    /// How much of that was spent waiting for the link.
    pub blocked: Duration,
    /// How long zstd took, on whatever threads, be it meanwhile.
    pub packing: Duration,
}

impl Measured {
    fn add(&mut self, more: Self) {
        self.plain += more.plain;
        self.busy += more.busy;
        self.blocked += more.blocked;
        self.packing += more.packing;
    }

    /// Whether the link held the lane up, rather than the processors.
    pub(crate) fn is_held_up(&self) -> bool {
        self.blocked * 2 > self.busy
    }
}

/// What became of one batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What QEMU wrote.
    pub plain: usize,
    /// What was left of it before zstd.
    pub blob: usize,
    /// What zstd made of that, if it was used and worth it.
    pub compressed: Option<usize>,
    /// What crossed the wire.
    pub wire: usize,
    /// Whether zstd was tried.
    pub full: bool,
    /// Pages in it.
    pub pages: u32,
    /// Those of them that were sent before.
    pub again: u32,
}

/// A dearer means leaves at most so much of the bytes that a cheaper one does …
const FEWER: f64 = 0.95;
/// … and takes at most so much of its time.
const SLOWER: f64 = 1.25;
/// A link that is known to take longer than this for what a trial would send is spared the trial.
const WORTH: f64 = 0.97;
/// What is measured at once, bytes: many batches.
const SEGMENT: u64 = 4 << 20;
/// Segments behind a change that do not count: what waits between encoder and link is still of the means before, or, where
/// that never filled what may wait, takes in the new one's bytes as if the link were without bounds.
const SETTLING: u32 = 2;
/// A cheaper means that was measured less often takes over only by a lead that no accident gives ([`HOPELESS`]): on full
/// processors two measurements of the same differ by half.
const SURE: u32 = 3;
/// A smaller lead is looked at again after so many segments.
const DOUBTFUL_AGAIN: u32 = 4;
/// What the target offers is looked for in so many segments (64 MiB) before pages are left alone, and as often again.
const OFFER_LOOKS: u32 = 16;
/// Segments of a trial.
const TRIAL: u32 = SETTLING + 1;
/// Segments between two trials: one takes 5 % of the bytes.
const TRIAL_EVERY: u32 = 64;
/// Segments before the first. The very first ones cost more than those behind them: both ends touch their memory first.
const FIRST_TRIAL: u32 = 16;
/// When pages come back that were sent while nothing was kept, keeping is tried for so many segments (128 MiB): a delta
/// needs the page to come twice. Then not again for so many (1 GiB).
const KEEP_TRIAL: u32 = 32;
const KEEP_TRIAL_EVERY: u32 = 256;
/// Pages that came back, from which on keeping is tried: one in four.
const AGAIN_SHARE: u32 = 4;
/// What is known is taken to be as it was for so many trials that are left out because of it (2 GiB).
const KNOWN_FOR: u32 = 8;
/// A means that took so many times as long as the one in use is left out.
const HOPELESS: f64 = 2.0;
/// A batch of which at most this part is left before zstd says nothing of what zstd finds in pages: they were all known.
const LITTLE: f64 = 0.05;
/// How much of an average the newest value is, and how far above the average it counts: a link that was cut for seconds
/// says nothing of the means in use.
const NEWEST: f64 = 0.25;
const OUTLIER: f64 = 2.0;

/// What is known of one means.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// Nanoseconds a byte; `None` before it was measured.
    nanos: Option<f64>,
    /// How often it was measured.
    times: u32,
    /// Trials of it that were left out.
    left_out: u32,
}

/// The choice for one lane.
#[derive(Debug, Clone)]
pub struct Choice {
    known: [Known; 3],
    /// What references and deltas leave of a byte that QEMU wrote.
    left: Option<f64>,
    /// What zstd leaves of a byte of that.
    packed: Option<f64>,
    means: Means,
    effort: Effort,
    segment: Measured,
    /// Segments until what is measured is the doing of the means in use.
    unsettled: u32,
    trial: Option<Trial>,
    /// Segments until the next one, and what is tried then.
    until_trial: u32,
    next_trial: Means,
    until_keeping: u32,
    /// The target offers pages; they are looked for in so many segments yet, whatever became of those before.
    offered: bool,
    looks: u32,
    /// Nanoseconds that the link took for a byte when it held the lane up last.
    link: Option<f64>,
    pages: u32,
    again: u32,
}

#[derive(Debug, Clone, Copy)]
struct Trial {
    means: Means,
    segments: u32,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            known: [Known::default(); 3],
            left: None,
            packed: None,
            means: Means::Full,
            effort: Effort::default(),
            segment: Measured::default(),
            unsettled: SETTLING,
            trial: None,
            until_trial: FIRST_TRIAL,
            next_trial: Means::Off,
            until_keeping: 0,
            offered: false,
            looks: 0,
            link: None,
            pages: 0,
            again: 0,
        }
    }
}

impl Choice {
    /// As it is, where the target offers pages to refer to: they may begin anywhere in the guest's memory.
    #[must_use]
    pub fn with_offer(self) -> Self {
        Self { offered: true, looks: OFFER_LOOKS, ..self }
    }

    /// What the next batch is treated with.
    #[must_use]
    pub fn means(&self) -> Means {
        self.trial.map_or(self.means, |trial| trial.means)
    }

    /// How hard zstd tries, if it is used.
    #[must_use]
    pub fn effort(&self) -> Effort {
        self.effort
    }

    /// Bytes a second with these means, as far as is known.
    #[must_use]
    pub fn rate(&self, means: Means) -> Option<f64> {
        self.cost(means).filter(|nanos| *nanos > 0.0).map(|nanos| 1e9 / nanos)
    }

    /// Takes in what became of a batch.
    pub fn sent(&mut self, outcome: &Outcome) {
        self.pages += outcome.pages;
        self.again += outcome.again;
        if outcome.plain == 0 || !outcome.full {
            return;
        }
        // What is left before zstd is what would cross the wire without it.
        let left = outcome.blob as f64 / outcome.plain as f64;
        average(&mut self.left, left);
        if left > LITTLE {
            average(&mut self.packed, outcome.wire as f64 / outcome.blob as f64);
        }
    }

    /// Takes in what the pump measured.
    pub fn measured(&mut self, measured: Measured) {
        self.segment.add(measured);
        if self.segment.plain < SEGMENT {
            return;
        }
        let segment = std::mem::take(&mut self.segment);
        let used = self.means();
        if used == Means::Full {
            self.effort = self.effort.after(&segment);
        }
        match self.unsettled.checked_sub(1) {
            Some(left) => self.unsettled = left,
            None => self.learn(used, segment),
        }
        self.go_on(used);
        if self.means() != used {
            self.unsettled = SETTLING;
        }
    }

    fn learn(&mut self, used: Means, segment: Measured) {
        let nanos = segment.busy.as_nanos() as f64 / segment.plain as f64;
        let known = &mut self.known[used as usize];
        average(&mut known.nanos, nanos);
        known.times += 1;
        if let Some(ratio) = self.ratio(used).filter(|ratio| *ratio > 0.0 && segment.is_held_up()) {
            self.link = Some(nanos / ratio);
            self.known[..used as usize].iter_mut().for_each(|cheaper| cheaper.left_out = 0);
        }
    }

    fn go_on(&mut self, used: Means) {
        let comes_back = self.pages > 0 && self.again * AGAIN_SHARE >= self.pages;
        (self.pages, self.again) = (0, 0);
        self.until_keeping = self.until_keeping.saturating_sub(1);
        self.looks = self.looks.saturating_sub(1);
        if let Some(trial) = &mut self.trial {
            trial.segments -= 1;
            if trial.segments > 0 {
                return;
            }
            self.trial = None;
        }
        self.means = self.best().max(if self.looks > 0 { Means::Pages } else { Means::Off });
        self.until_trial = self.until_trial.saturating_sub(1);
        if self.is_doubtful(used) {
            (self.until_trial, self.next_trial) = (self.until_trial.min(DOUBTFUL_AGAIN), used);
        }
        if used == Means::Off && comes_back && self.until_keeping == 0 {
            self.until_keeping = KEEP_TRIAL_EVERY;
            self.trial = Some(Trial { means: Means::Full, segments: KEEP_TRIAL });
        } else if self.until_trial == 0 && self.cost(self.means).is_some() {
            self.until_trial = if self.offered { OFFER_LOOKS } else { TRIAL_EVERY };
            self.trial = self.tried_next().map(|means| Trial { means, segments: TRIAL });
        }
    }

    /// The means that is tried next, in turn; none if it is known before that it would not pay.
    fn tried_next(&mut self) -> Option<Means> {
        let others = Means::ALL.into_iter().filter(|means| *means != self.means);
        let means = others.clone().find(|means| *means >= self.next_trial).or(others.min())?;
        self.next_trial = Means::ALL[(means as usize + 1) % Means::ALL.len()];
        let is_hopeless = self.is_hopeless(means);
        let known = &mut self.known[means as usize];
        let is_left_out = is_hopeless && known.left_out < KNOWN_FOR;
        known.left_out = if is_left_out { known.left_out + 1 } else { 0 };
        (!is_left_out).then_some(means)
    }

    /// Whether the link would take longer for what these means send than the ones in use take, or they took far longer before.
    fn is_hopeless(&self, means: Means) -> bool {
        let Some(now) = self.cost(self.means) else { return false };
        // A means without zstd sends what it is known to send; what zstd would make of the pages may have changed.
        let ratio = self.ratio(means).filter(|_| means < self.means);
        let on_the_link = self.link.zip(ratio).map(|(link, ratio)| link * ratio);
        on_the_link.is_some_and(|least| now < least * WORTH)
            || self.cost(means).is_some_and(|before| before > now * HOPELESS)
    }

    fn best(&self) -> Means {
        let better = |best: Means, next: Means| if self.is_worth(next, best) { next } else { best };
        Means::ALL.into_iter().reduce(better).unwrap_or(self.means)
    }

    /// Whether a dearer means gains anything over a cheaper one.
    fn is_worth(&self, dearer: Means, cheaper: Means) -> bool {
        let Some((left, left_cheaply)) = self.ratio(dearer).zip(self.ratio(cheaper)) else {
            return dearer == self.means;
        };
        let is_in_time = match (self.cost(dearer), self.cost(cheaper)) {
            (Some(takes), Some(takes_cheaply)) if self.is_sure(cheaper) => takes < takes_cheaply * SLOWER,
            (Some(takes), Some(takes_cheaply)) => takes < takes_cheaply * HOPELESS,
            // What was not tried yet is for a trial to find out.
            (Some(_), None) => true,
            // It takes no more than the one in use, which is dearer still.
            (None, _) => dearer <= self.means,
        };
        left < left_cheaply * FEWER && is_in_time
    }

    fn is_sure(&self, means: Means) -> bool {
        self.known[means as usize].times >= SURE
    }

    /// Whether this cheaper means has a lead over the one in use that is yet to be confirmed.
    fn is_doubtful(&self, cheaper: Means) -> bool {
        let costs = self.cost(self.means).zip(self.cost(cheaper)).filter(|_| cheaper < self.means);
        !self.is_sure(cheaper) && costs.is_some_and(|(now, then)| now >= then * SLOWER)
    }

    /// Wire bytes for each byte.
    fn ratio(&self, means: Means) -> Option<f64> {
        match means {
            Means::Off => Some(1.0),
            Means::Pages => self.left,
            Means::Full => self.left.zip(self.packed).map(|(left, packed)| left * packed),
        }
    }

    /// Nanoseconds for each byte.
    fn cost(&self, means: Means) -> Option<f64> {
        self.known[means as usize].nanos
    }
}

fn average(value: &mut Option<f64>, newest: f64) {
    *value = Some(value.map_or(newest, |value| value + (newest.min(value * OUTLIER) - value) * NEWEST));
}

#[cfg(test)]
mod tests;
