//! The leader's grants of leases to attempts, and when each was given last.
//!
//! A grant says: a majority has confirmed, after this request had come, that this coordinator leads, and its state
//! names this attempt as the fire's current one. The agent counts the lease from *before* it sent the request, on its
//! host's `CLOCK_BOOTTIME`; so a lease has ended, by any clock of the right rate, once its duration has passed here
//! since the grant. This clock (`CLOCK_MONOTONIC`) stands still while the coordinator's host sleeps, which only makes
//! the wait longer.
//!
//! The table is this process' own. A new leader knows nothing of its forerunner's grants, but none of them is younger
//! than its own term: a majority had to confirm the forerunner when it was asked.
//!
//! [`Leases::expire`] is the way to decide that an attempt is over: it looks at the last grant and shuts the door to
//! another one under one lock. Reading [`Leases::last_grant`] and deciding later would race with the next renewal.

use crate::raft::{Ledger, LedgerError};
use novacron_common::{
    ids::{AttemptKey, HostId},
    planted::{self, Mistake},
    units::Epoch,
    wire::LeasesGranted,
};
use novacron_core::State;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Attempts in the table before those that have ended are looked for.
const SWEEP_FIRST: usize = 1024;

/// What is known of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// Granted last at this moment.
    Granted(Instant),
    /// Declared over: it gets no grant any more.
    Expired,
}

/// The grants of this coordinator.
#[derive(Debug, Default)]
pub struct Leases(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<AttemptKey, Entry>,
    swept_to: usize,
}

impl Leases {
    /// Which of these attempts of `host` may run on. To be called by the leader; any other grants none.
    ///
    /// # Errors
    /// [`LedgerError`] if no majority confirms that this coordinator is up to date.
    pub async fn grant(
        &self,
        ledger: &Ledger,
        host: HostId,
        asked: &[(AttemptKey, Epoch)],
    ) -> Result<LeasesGranted, LedgerError> {
        let term_before = ledger.leadership().borrow().clone();
        if !term_before.is_leader() {
            return Ok(LeasesGranted::default());
        }
        ledger.linearizable().await?;
        // Another leader may have confirmed the read; then the grant would be written in the wrong table.
        if *ledger.leadership().borrow() != term_before {
            return Ok(LeasesGranted::default());
        }
        Ok(ledger.read(|state| self.note(state, host, asked, Instant::now())))
    }

    fn note(
        &self,
        state: &State,
        host: HostId,
        asked: &[(AttemptKey, Epoch)],
        now: Instant,
    ) -> LeasesGranted {
        let mut table = self.lock();
        let current = asked.iter().filter(|(attempt, epoch)| is_current(state, host, *attempt, *epoch));
        let granted: Vec<_> =
            current.map(|(attempt, _)| *attempt).filter(|key| table.renew(*key, now)).collect();
        table.sweep(state);
        LeasesGranted(granted)
    }

    /// When the attempt was granted a lease last, if it was by this process.
    pub fn last_grant(&self, attempt: AttemptKey) -> Option<Instant> {
        match self.lock().entries.get(&attempt) {
            Some(Entry::Granted(at)) => Some(*at),
            Some(Entry::Expired) | None => None,
        }
    }

    /// Declares an attempt over if `wait` (its lease's duration and a margin) has passed since the last grant, and
    /// since `leads_since`, for the grants of others. If `true`, it gets no grant any more, and nothing of it lives.
    pub fn expire(&self, attempt: AttemptKey, leads_since: Instant, wait: Duration, now: Instant) -> bool {
        let mut table = self.lock();
        let last = match table.entries.get(&attempt) {
            Some(Entry::Expired) => return true,
            Some(Entry::Granted(at)) => leads_since.max(*at),
            None => leads_since,
        };
        let wait = if planted::is(Mistake::LeaseNotWaitedFor) { Duration::ZERO } else { wait };
        let over = now.saturating_duration_since(last) >= wait;
        if over {
            table.entries.insert(attempt, Entry::Expired);
        }
        over
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn renew(&mut self, attempt: AttemptKey, now: Instant) -> bool {
        let entry = self.entries.entry(attempt).or_insert(Entry::Granted(now));
        match entry {
            Entry::Granted(at) => {
                *at = now;
                true
            }
            Entry::Expired => false,
        }
    }

    /// Forgets attempts that are no longer any fire's current one, whenever the table has doubled.
    fn sweep(&mut self, state: &State) {
        if self.entries.len() < SWEEP_FIRST.max(2 * self.swept_to) {
            return;
        }
        self.entries.retain(|attempt, _| is_under_way(state, *attempt));
        self.swept_to = self.entries.len();
    }
}

fn is_under_way(state: &State, attempt: AttemptKey) -> bool {
    state.fire(attempt.fire).is_some_and(|fire| !fire.is_final() && fire.attempt() == Some(attempt))
}

fn is_current(state: &State, host: HostId, attempt: AttemptKey, epoch: Epoch) -> bool {
    let fire = state.fire(attempt.fire).filter(|fire| !fire.is_final());
    fire.is_some_and(|fire| fire.attempt() == Some(attempt) && fire.epoch == epoch && fire.host == Some(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::{
        ids::{FireCause, FireKey, JobId},
        units::UnixMillis,
    };

    const WAIT: Duration = Duration::from_secs(32);

    fn attempt(number: u32) -> AttemptKey {
        let fire =
            FireKey { job: JobId::from_u128(1), scheduled_at: UnixMillis(1), cause: FireCause::Schedule };
        AttemptKey { fire, number }
    }

    #[test]
    fn an_attempt_is_over_only_when_the_wait_has_passed_since_the_last_grant() {
        let (leases, began) = (Leases::default(), Instant::now());
        let granted = began + Duration::from_secs(20);
        assert!(leases.lock().renew(attempt(1), granted));
        assert_eq!(leases.last_grant(attempt(1)), Some(granted));
        assert!(!leases.expire(attempt(1), began, WAIT, granted + WAIT - Duration::from_millis(1)));
        assert!(leases.expire(attempt(1), began, WAIT, granted + WAIT));
    }

    #[test]
    fn a_forerunners_grants_are_waited_for_from_the_start_of_the_term() {
        let (leases, began) = (Leases::default(), Instant::now());
        assert!(!leases.expire(attempt(1), began, WAIT, began + WAIT - Duration::from_millis(1)));
        assert!(leases.expire(attempt(1), began, WAIT, began + WAIT));
        // An old grant of this process does not shorten the wait for those that came between.
        assert!(leases.lock().renew(attempt(2), began));
        let later = began + 4 * WAIT;
        assert!(!leases.expire(attempt(2), later, WAIT, later));
    }

    #[test]
    fn what_was_declared_over_gets_no_grant_any_more() {
        let (leases, began) = (Leases::default(), Instant::now());
        assert!(leases.expire(attempt(1), began, WAIT, began + WAIT));
        assert!(!leases.lock().renew(attempt(1), began + WAIT));
        assert!(leases.expire(attempt(1), began, WAIT, began));
        assert_eq!(leases.last_grant(attempt(1)), None);
    }
}
