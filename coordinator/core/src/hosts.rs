//! What of a host's periodic report is worth committing.

use crate::{command::HostSeen, record::HostRecord, state::State};
use novacron_common::{
    ids::HostId,
    record::HostStatus,
    units::{Incarnation, UnixMillis},
};
use std::time::Duration;

/// Domains that are kept by name.
pub const FOREIGN_MAX: usize = 100;
/// Longest name that is kept of them, in characters.
pub const FOREIGN_NAME_MAX: usize = 128;
/// The load average is committed when it moved by this much (thousandths).
const LOAD_STEP: u32 = 500;

/// The command to propose for a status report, if it says anything new: capacity, foreign domains, available RAM
/// (by an eighth), load (by half a processor), or that a host thought down is alive.
pub fn news(state: &State, host: HostId, status: &HostStatus) -> Option<HostSeen> {
    let record = state.host(host)?;
    let seen = HostSeen {
        host,
        incarnation: status.incarnation,
        capacity: status.capacity,
        load_millis: status.load_millis,
        memory_available: status.memory_available,
        foreign_domains: trimmed(&status.foreign_domains),
    };
    (is_current(record, status.incarnation) && differs(record, &seen)).then_some(seen)
}

/// Hosts that are up in the ledger and of which `heard` (the sessions' own record) knows nothing since `limit`.
pub fn is_silent(record: &HostRecord, heard: Option<UnixMillis>, now: UnixMillis, limit: Duration) -> bool {
    let last = heard.max(record.last_seen);
    record.is_up() && last.is_none_or(|at| now.since(at) >= limit)
}

pub(crate) fn is_current(record: &HostRecord, incarnation: Incarnation) -> bool {
    record.hello.as_ref().is_some_and(|hello| hello.incarnation == incarnation)
}

pub(crate) fn trimmed(domains: &[String]) -> Vec<String> {
    domains.iter().take(FOREIGN_MAX).map(|d| d.chars().take(FOREIGN_NAME_MAX).collect()).collect()
}

fn differs(record: &HostRecord, seen: &HostSeen) -> bool {
    !record.is_up()
        || record.capacity != seen.capacity
        || record.foreign_domains != seen.foreign_domains
        || record.load_millis.abs_diff(seen.load_millis) >= LOAD_STEP
        || record.memory_available.0.abs_diff(seen.memory_available.0) > record.capacity.memory.0 / 8
}
