//! What is derived from fires and attempts: who waits, who runs where, what has a deadline. See [`crate::index`].

use crate::record::{AttemptRecord, FireRecord};
use novacron_common::{
    api::FireState,
    ids::{AttemptKey, FireCause, FireKey, HostId, JobId},
    spec::JobSpec,
    units::UnixMillis,
};
use std::collections::{BTreeMap, BTreeSet};

/// Everything derived from fires and attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FireIndex {
    /// By rank (the highest priority first), then by the instant from which they may have an attempt.
    waiting: BTreeSet<(u8, UnixMillis, FireKey)>,
    live: BTreeSet<FireKey>,
    live_of: BTreeMap<JobId, u32>,
    kept_of: BTreeMap<JobId, u32>,
    running: BTreeSet<(HostId, FireKey)>,
    attempts_on: BTreeMap<HostId, u32>,
    unhosted: BTreeSet<FireKey>,
    alarms: BTreeSet<(UnixMillis, FireKey)>,
    orphans: BTreeSet<(HostId, AttemptKey)>,
}

/// The keys of all fires of a job.
pub fn fires_of(job: JobId) -> std::ops::RangeInclusive<FireKey> {
    let first = FireKey { job, scheduled_at: UnixMillis(i64::MIN), cause: FireCause::Schedule };
    let last = FireKey { job, scheduled_at: UnixMillis(i64::MAX), cause: FireCause::Node };
    first..=last
}

const ANY_FIRST: FireKey =
    FireKey { job: JobId::from_u128(0), scheduled_at: UnixMillis(i64::MIN), cause: FireCause::Schedule };

const fn rank(fire: &FireRecord) -> u8 {
    JobSpec::PRIORITY_MAX.saturating_sub(fire.priority)
}

fn up<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K) {
    *counts.entry(key).or_default() += 1;
}

fn down<K: Ord>(counts: &mut BTreeMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl FireIndex {
    /// Fires that may have an attempt at `now`, the highest priority first, then the longest due.
    pub fn ready(&self, now: UnixMillis) -> impl Iterator<Item = FireKey> {
        (0..=JobSpec::PRIORITY_MAX).flat_map(move |rank| {
            let from = (rank, UnixMillis(i64::MIN), ANY_FIRST);
            let ranked = self.waiting.range(from..).take_while(move |(r, at, _)| *r == rank && *at <= now);
            ranked.map(|(_, _, fire)| *fire)
        })
    }

    /// When the next fire may have an attempt that may not have one at `now`.
    pub fn next_ready(&self, now: UnixMillis) -> Option<UnixMillis> {
        let later = (0..=JobSpec::PRIORITY_MAX).filter_map(|rank| {
            let from = (rank, UnixMillis(now.0.saturating_add(1)), ANY_FIRST);
            self.waiting.range(from..).next().filter(|(r, _, _)| *r == rank).map(|(_, at, _)| *at)
        });
        later.min()
    }

    /// How many fires wait for an attempt, not counting those that wait for another fire.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Fires of a job that have not ended, the earliest first.
    pub fn live_of(&self, job: JobId) -> impl Iterator<Item = FireKey> {
        self.live.range(fires_of(job)).copied()
    }

    /// How many fires of a job have not ended.
    pub fn live_count(&self, job: JobId) -> u32 {
        self.live_of.get(&job).copied().unwrap_or(0)
    }

    /// How many fires of a job are on record.
    pub fn kept_of(&self, job: JobId) -> u32 {
        self.kept_of.get(&job).copied().unwrap_or(0)
    }

    /// Fires with an attempt on a host.
    pub fn running_on(&self, host: HostId) -> impl Iterator<Item = FireKey> {
        self.running.range((host, ANY_FIRST)..).take_while(move |(h, _)| *h == host).map(|(_, fire)| *fire)
    }

    /// Fires with an attempt on any host.
    pub fn running(&self) -> impl Iterator<Item = (HostId, FireKey)> {
        self.running.iter().copied()
    }

    /// How many attempts run on a host.
    pub fn attempts_on(&self, host: HostId) -> u32 {
        self.attempts_on.get(&host).copied().unwrap_or(0)
    }

    /// Fires that the coordinators themselves are at.
    pub fn unhosted(&self) -> impl Iterator<Item = FireKey> {
        self.unhosted.iter().copied()
    }

    /// Fires whose deadlines are to be looked at, by when.
    pub fn alarms(&self) -> impl Iterator<Item = (UnixMillis, FireKey)> {
        self.alarms.iter().copied()
    }

    /// Attempts that are to be killed as soon as their host is back.
    pub fn orphans(&self) -> impl Iterator<Item = (HostId, AttemptKey)> {
        self.orphans.iter().copied()
    }

    pub(crate) fn enter(&mut self, fire: &FireRecord) {
        up(&mut self.kept_of, fire.key.job);
        self.alarms.extend(fire.alarm_at().map(|at| (at, fire.key)));
        if !fire.is_final() {
            self.live.insert(fire.key);
            up(&mut self.live_of, fire.key.job);
        }
        match (fire.state, fire.host) {
            (FireState::Waiting, _) if !fire.queued => {
                self.waiting.insert((rank(fire), fire.not_before, fire.key));
            }
            (FireState::Running | FireState::Unknown, Some(host)) => {
                self.running.insert((host, fire.key));
                up(&mut self.attempts_on, host);
            }
            (FireState::Running | FireState::Unknown, None) => {
                self.unhosted.insert(fire.key);
            }
            _ => (),
        }
    }

    pub(crate) fn leave(&mut self, fire: &FireRecord) {
        down(&mut self.kept_of, &fire.key.job);
        if let Some(at) = fire.alarm_at() {
            self.alarms.remove(&(at, fire.key));
        }
        if !fire.is_final() {
            self.live.remove(&fire.key);
            down(&mut self.live_of, &fire.key.job);
        }
        match (fire.state, fire.host) {
            (FireState::Waiting, _) if !fire.queued => {
                self.waiting.remove(&(rank(fire), fire.not_before, fire.key));
            }
            (FireState::Running | FireState::Unknown, Some(host)) => {
                self.running.remove(&(host, fire.key));
                down(&mut self.attempts_on, &host);
            }
            (FireState::Running | FireState::Unknown, None) => {
                self.unhosted.remove(&fire.key);
            }
            _ => (),
        }
    }

    pub(crate) fn enter_attempt(&mut self, attempt: &AttemptRecord) {
        self.orphans.extend(attempt.host.filter(|_| attempt.orphaned).map(|host| (host, attempt.key)));
    }

    pub(crate) fn leave_attempt(&mut self, attempt: &AttemptRecord) {
        if let Some(host) = attempt.host {
            self.orphans.remove(&(host, attempt.key));
        }
    }
}
