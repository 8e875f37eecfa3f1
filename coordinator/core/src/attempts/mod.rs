//! Which fires may be tried now, where, and what the host is told.

mod backoff;
mod plan;
mod work;

pub use backoff::{backoff, declined_wait, is_retried, jitter};
pub use plan::{Places, next_due, plan};
pub use work::{Work, work_of};

use crate::{record::FireRecord, state::State, verbs::find_vm};
use novacron_common::{
    ids::{FireKey, HostId},
    record::HostHello,
    spec::{JobTarget, OnLeaseLost, VmCommandTarget},
    units::UnixMillis,
    wire::{AttemptStart, Lease},
};

pub(crate) fn may_run(hello: Option<&HostHello>) -> bool {
    hello.is_some_and(|h| h.can_namespace)
}

/// What the host of the fire's attempt is told. Idempotent there: sent again after each reconnect.
pub fn start(state: &State, fire: FireKey, lease: Lease) -> Option<(HostId, AttemptStart)> {
    let record = state.fire(fire).filter(|f| !f.is_final())?;
    let (attempt, host) = record.attempt().zip(record.host)?;
    let work = work_of(state, fire)?;
    let start = AttemptStart {
        attempt,
        epoch: record.epoch,
        target: with_ids(state, work.target),
        timeout_ms: work.timeout_ms,
        scheduled_at: fire.scheduled_at,
        lease: (work.on_lease_lost == OnLeaseLost::Kill).then_some(lease),
        on_lease_lost: work.on_lease_lost,
        env: work.env,
    };
    Some((host, start))
}

/// Hosts know machines by their ids.
fn with_ids(state: &State, target: &JobTarget) -> JobTarget {
    match target {
        JobTarget::VmCommand(command) => {
            let vm = find_vm(state, &command.vm).map_or_else(|| command.vm.clone(), |vm| vm.id.to_string());
            JobTarget::VmCommand(VmCommandTarget { vm, ..command.clone() })
        }
        other => other.clone(),
    }
}

/// Whether the attempt under way is to be killed.
pub const fn is_to_be_killed(fire: &FireRecord) -> bool {
    fire.cancel_requested && fire.is_under_way()
}

/// Fires with a deadline that has passed, at most `limit`.
pub fn alarms(state: &State, now: UnixMillis, limit: usize) -> Vec<FireKey> {
    let passed = state.index().fires().alarms().take_while(|(at, _)| *at <= now);
    passed.take(limit).map(|(_, fire)| fire).collect()
}

/// When the next deadline of a fire passes.
pub fn next_alarm(state: &State) -> Option<UnixMillis> {
    state.index().fires().alarms().next().map(|(at, _)| at)
}

/// Whether a fire is anything but its own record.
pub const fn needs_attempt(target: &JobTarget) -> bool {
    match target {
        JobTarget::Noop => false,
        JobTarget::Record
        | JobTarget::Command(_)
        | JobTarget::VmCommand(_)
        | JobTarget::Vm(_)
        | JobTarget::Http(_) => true,
    }
}
