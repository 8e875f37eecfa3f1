//! Which fires may be tried now, where, and what the host is told.

mod backoff;
mod work;

pub use backoff::{backoff, is_retried};
pub use work::{Work, work_of};

use crate::{record::FireRecord, state::State};
use novacron_common::{
    api::FireState,
    ids::{FireKey, HostId},
    spec::JobTarget,
    units::UnixMillis,
    wire::AttemptStart,
};

/// Fires that may have an attempt now, at most `limit`; the longest due first.
pub fn due(state: &State, now: UnixMillis, limit: usize) -> Vec<FireKey> {
    state.index().waiting().take_while(|(at, _)| *at <= now).take(limit).map(|(_, fire)| fire).collect()
}

/// When the next waiting fire may have an attempt.
pub fn next_due(state: &State) -> Option<UnixMillis> {
    state.index().waiting().next().map(|(at, _)| at)
}

/// The host for an attempt: up, not cordoned, able to run namespace machines, and with the fewest attempts on it.
pub fn choose_host(state: &State) -> Option<HostId> {
    let able = state.hosts().iter().filter(|h| h.is_up() && !h.cordoned && may_run(h.hello.as_ref()));
    able.min_by_key(|h| (state.index().attempts_on(h.id), h.id)).map(|h| h.id)
}

pub(crate) fn may_run(hello: Option<&novacron_common::record::HostHello>) -> bool {
    hello.is_some_and(|h| h.can_namespace)
}

/// What the host of the fire's attempt is told. Idempotent there: sent again after each reconnect.
pub fn start(state: &State, fire: FireKey) -> Option<(HostId, AttemptStart)> {
    let record = state.fire(fire).filter(|f| !f.is_final())?;
    let (attempt, host) = record.attempt().zip(record.host)?;
    let work = work_of(state, fire)?;
    let start = AttemptStart {
        attempt,
        epoch: record.epoch,
        target: work.target.clone(),
        timeout_ms: work.timeout_ms,
        scheduled_at: fire.scheduled_at,
        lease: None,
        on_lease_lost: work.on_lease_lost,
        env: work.env.clone(),
    };
    Some((host, start))
}

/// Whether the attempt under way is to be killed.
pub const fn is_to_be_killed(fire: &FireRecord) -> bool {
    fire.cancel_requested && matches!(fire.state, FireState::Running | FireState::Unknown)
}

/// Whether a target needs a host at all.
pub const fn needs_host(target: &JobTarget) -> bool {
    match target {
        JobTarget::Noop => false,
        JobTarget::Record
        | JobTarget::Command(_)
        | JobTarget::VmCommand(_)
        | JobTarget::Vm(_)
        | JobTarget::Http(_) => true,
    }
}
