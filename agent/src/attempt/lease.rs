//! The agent's side of leases: which attempts are due for a renewal, and what a grant means for each.
//!
//! Only a *granted* request moves a deadline, and only to its own sending plus the duration. A request that is late,
//! an answer that is lost, an agent that sleeps in between: all of them only make a lease shorter than it could be.

use crate::hypervisor::namespace::{lease::BootTime, request::Terms};
use novacron_common::{
    ids::AttemptKey,
    planted::{self, Mistake},
    spec::OnLeaseLost,
    units::Epoch,
    wire::{Lease, LeasesGranted},
};
use std::time::Duration;
use tokio::sync::watch;

use super::table::Live;

/// The lease of one living attempt.
#[derive(Debug)]
pub struct LiveLease {
    duration: Duration,
    on_lost: OnLeaseLost,
    /// When the last request that was granted was sent.
    renewed_at: Option<BootTime>,
    /// Becomes `true` with the first grant.
    granted: watch::Sender<bool>,
}

impl LiveLease {
    /// Not granted yet.
    pub fn new(lease: Lease, on_lost: OnLeaseLost) -> Self {
        Self::of(Terms { duration: Duration::from_millis(lease.duration_ms), on_lost })
    }

    /// That of an attempt which was found running.
    pub fn of(terms: Terms) -> Self {
        let Terms { duration, on_lost } = terms;
        Self { duration, on_lost, renewed_at: None, granted: watch::Sender::new(false) }
    }

    /// Tells when it is granted for the first time.
    pub fn granted(&self) -> watch::Receiver<bool> {
        self.granted.subscribe()
    }

    /// Its duration.
    pub const fn duration(&self) -> Duration {
        self.duration
    }

    /// Notes a grant of a request sent at `asked_at`. The new deadline, if the supervisor is to be told of one.
    pub fn renew(&mut self, asked_at: BootTime) -> Option<BootTime> {
        self.renewed_at = self.renewed_at.max(Some(asked_at));
        match self.on_lost {
            OnLeaseLost::Keep => None,
            OnLeaseLost::Kill if planted::is(Mistake::LostLeaseIgnored) => Some(BootTime(u64::MAX)),
            OnLeaseLost::Kill => self.renewed_at.map(|at| at.plus(self.duration)),
        }
    }

    /// To be called once the deadline is where the supervisor looks for it.
    pub fn announce(&self) {
        self.granted.send_replace(true);
    }

    /// How long until its next renewal: a third of the duration after the last, so that two may fail.
    fn due_in(&self, now: BootTime) -> Duration {
        let Some(renewed_at) = self.renewed_at else { return Duration::ZERO };
        (self.duration / 3).saturating_sub(now.since(renewed_at))
    }

    /// Whether it goes along with a request that another one makes due.
    fn may_go_along(&self, now: BootTime) -> bool {
        self.due_in(now) <= self.duration / 6
    }
}

/// What is to be done about leases now.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask for these.
    Ask(Vec<(AttemptKey, Epoch)>),
    /// Nothing, for so long; `None` until there is an attempt with a lease.
    Wait(Option<Duration>),
}

/// Decides. One request for all that are due or nearly so.
pub fn next<'a>(live: impl Iterator<Item = (&'a AttemptKey, &'a Live)> + Clone, now: BootTime) -> Next {
    let leased = live.filter_map(|(key, live)| Some((*key, live.epoch, live.lease.as_ref()?)));
    match leased.clone().map(|(_, _, lease)| lease.due_in(now)).min() {
        Some(Duration::ZERO) => {
            let along = leased.filter(|(_, _, lease)| lease.may_go_along(now));
            Next::Ask(along.map(|(key, epoch, _)| (key, epoch)).take(LeasesGranted::ASKED_MAX).collect())
        }
        wait => Next::Wait(wait),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::{
        ids::{FireCause, FireKey, JobId},
        units::UnixMillis,
    };
    use std::collections::BTreeMap;

    fn attempt(at: i64) -> AttemptKey {
        let fire =
            FireKey { job: JobId::from_u128(1), scheduled_at: UnixMillis(at), cause: FireCause::Schedule };
        AttemptKey { fire, number: 1 }
    }

    fn live(seconds: u64, renewed_at: Option<u64>) -> Live {
        let mut lease = LiveLease::new(Lease { duration_ms: seconds * 1000 }, OnLeaseLost::Kill);
        lease.renewed_at = renewed_at.map(BootTime);
        Live { epoch: Epoch(1), slot: None, supervisor: None, lease: Some(lease) }
    }

    fn decide(live: Vec<Live>, now: u64) -> Next {
        let live: BTreeMap<_, _> = (0..).map(attempt).zip(live).collect();
        next(live.iter(), BootTime(now))
    }

    #[test]
    fn without_leases_there_is_nothing_to_wait_for() {
        let without = Live { lease: None, ..live(30, None) };
        assert_eq!(decide(vec![without], 0), Next::Wait(None));
    }

    #[test]
    fn a_new_attempt_is_asked_for_at_once_and_a_third_of_the_duration_later_again() {
        assert_eq!(decide(vec![live(30, None)], 0), Next::Ask(vec![(attempt(0), Epoch(1))]));
        assert_eq!(decide(vec![live(30, Some(1000))], 4000), Next::Wait(Some(Duration::from_secs(7))));
        assert_eq!(decide(vec![live(30, Some(1000))], 11_000), Next::Ask(vec![(attempt(0), Epoch(1))]));
    }

    #[test]
    fn one_request_carries_all_that_are_nearly_due_and_leaves_out_what_is_fresh() {
        let (due, nearly, fresh) = (live(30, Some(0)), live(30, Some(5000)), live(30, Some(9999)));
        let asked = decide(vec![due, nearly, fresh], 10_000);
        assert_eq!(asked, Next::Ask(vec![(attempt(0), Epoch(1)), (attempt(1), Epoch(1))]));
    }

    #[test]
    fn a_grant_counts_from_the_asking_and_never_backwards() {
        let mut lease = LiveLease::new(Lease { duration_ms: 30_000 }, OnLeaseLost::Kill);
        assert_eq!(lease.renew(BootTime(5000)), Some(BootTime(35_000)));
        assert_eq!(lease.renew(BootTime(1000)), Some(BootTime(35_000)), "an answer that was overtaken");
        let mut kept = LiveLease::new(Lease { duration_ms: 30_000 }, OnLeaseLost::Keep);
        assert_eq!(kept.renew(BootTime(5000)), None, "its supervisor does not ask");
    }
}
