//! Where the next attempts go: many at once, from one look at the ledger, so that a burst of fires costs few commits.

use super::{may_run, work_of};
use crate::{command::AttemptPlace, record::FireRecord, state::State, verbs};
use novacron_common::{
    ids::{AttemptKey, FireKey, HostId},
    record::AttemptOutcome,
    spec::JobTarget,
    units::UnixMillis,
};
use std::collections::{BTreeMap, BTreeSet};

/// What is to be done for fires that may have an attempt now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// To be given to hosts.
    pub places: Vec<AttemptPlace>,
    /// To be done by the coordinators themselves.
    pub verbs: Vec<FireKey>,
    /// Cannot be tried, for this reason.
    pub impossible: Vec<(FireKey, String)>,
    /// Fires wait that no host has room for.
    pub short: bool,
}

impl Places {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty() && self.verbs.is_empty() && self.impossible.is_empty()
    }

    fn len(&self) -> usize {
        self.places.len() + self.verbs.len() + self.impossible.len()
    }
}

/// Fires that are looked at: the search behind full hosts for those that need none has an end.
const SCANNED_MAX: usize = 4096;

/// When the next waiting fire may have an attempt that may not have one at `now`.
pub fn next_due(state: &State, now: UnixMillis) -> Option<UnixMillis> {
    state.index().fires().next_ready(now)
}

/// Hosts with room for attempts: how many each has.
struct Room {
    used: BTreeMap<HostId, u32>,
    /// Those that take only what belongs to their machines.
    cordoned: BTreeSet<HostId>,
    per_host: u32,
}

impl Room {
    /// Hosts that are up and able to run attempts.
    fn of(state: &State, per_host: u32) -> Self {
        let able = || state.hosts().iter().filter(|h| h.is_up() && may_run(h.hello.as_ref()));
        let used = able().map(|h| (h.id, state.index().fires().attempts_on(h.id))).collect();
        let cordoned = able().filter(|h| h.cordoned).map(|h| h.id).collect();
        Self { used, cordoned, per_host }
    }

    /// The host with the fewest attempts, if it has room for another.
    fn take(&mut self, avoid: Option<HostId>) -> Option<HostId> {
        let avoid = avoid.filter(|_| self.used.len() - self.cordoned.len() > 1);
        let open = self.used.iter_mut().filter(|(host, used)| {
            Some(**host) != avoid && **used < self.per_host && !self.cordoned.contains(host)
        });
        let (host, used) = open.min_by_key(|(host, used)| (**used, **host))?;
        *used += 1;
        Some(*host)
    }

    fn take_this(&mut self, host: HostId) -> Option<HostId> {
        let used = self.used.get_mut(&host).filter(|used| **used < self.per_host)?;
        *used += 1;
        Some(host)
    }

    fn is_full(&self) -> bool {
        self.used.values().all(|used| *used >= self.per_host)
    }
}

/// Where the next attempts go, at most `limit` of them: the highest priority first, then the longest due; at most
/// `per_host` at a time on one host.
pub fn plan(state: &State, now: UnixMillis, per_host: u32, limit: usize) -> Places {
    let mut room = Room::of(state, per_host);
    let mut plan = Places::default();
    for fire in state.index().fires().ready(now).take(SCANNED_MAX) {
        if plan.len() >= limit {
            break;
        }
        // Whoever needs no host is not held up by full ones.
        if plan.short && room.is_full() && !is_verb(state, fire) {
            continue;
        }
        place(state, fire, &mut room, &mut plan);
    }
    plan
}

fn is_verb(state: &State, fire: FireKey) -> bool {
    work_of(state, fire).is_some_and(|work| matches!(work.target, JobTarget::Vm(_)))
}

fn place(state: &State, fire: FireKey, room: &mut Room, plan: &mut Places) {
    let Some((work, record)) = work_of(state, fire).zip(state.fire(fire)) else {
        plan.impossible.push((fire, "what it was made for is gone".to_owned()));
        return;
    };
    let host = match work.target {
        JobTarget::Vm(_) => {
            plan.verbs.push(fire);
            return;
        }
        JobTarget::VmCommand(target) => match verbs::host_of_guest(state, &target.vm) {
            Err(reason) => {
                plan.impossible.push((fire, reason));
                return;
            }
            Ok(host) => host.and_then(|host| room.take_this(host)),
        },
        JobTarget::Noop | JobTarget::Record | JobTarget::Command(_) | JobTarget::Http(_) => {
            room.take(record.last_host.filter(|_| work.retry.other_host || was_declined(state, record)))
        }
    };
    match host {
        Some(host) => plan.places.push(AttemptPlace { fire, host }),
        None => plan.short = true,
    }
}

/// Whether the host of the last attempt could not take it.
fn was_declined(state: &State, fire: &FireRecord) -> bool {
    let last = state.attempt(AttemptKey { fire: fire.key, number: fire.attempts });
    let end = last.and_then(|attempt| attempt.end.as_ref());
    end.is_some_and(|end| matches!(end.outcome, AttemptOutcome::Declined { .. }))
}
