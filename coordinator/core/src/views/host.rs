//! A host, as shown.

use crate::{record::HostRecord, state::State};
use novacron_common::{api::HostView, record::Accel};

/// The view of a host.
pub fn host(state: &State, host: &HostRecord) -> HostView {
    let usage = state.index().usage(host.id);
    let hello = host.hello.as_ref();
    HostView {
        id: host.id,
        name: host.name.to_string(),
        state: host.state,
        cordoned: host.cordoned,
        address: hello.map_or_else(String::new, |h| h.addresses.quic.to_string()),
        version: hello.map_or_else(String::new, |h| h.version.clone()),
        accel: hello.map_or(Accel::Tcg, |h| h.accel),
        cpus: host.capacity.cpus,
        memory: host.capacity.memory,
        memory_reserved: usage.memory,
        cpus_reserved: u32::try_from(usage.cpus).unwrap_or(u32::MAX),
        storage: host.capacity.storage,
        storage_reserved: usage.storage,
        vms: usage.vms,
        foreign_domains: host.foreign_domains.clone(),
        load: load(host.load_millis),
        last_seen: host.last_seen,
    }
}

#[allow(clippy::cast_precision_loss)] // a load average has three digits behind the point
fn load(millis: u32) -> f32 {
    millis as f32 / 1000.0
}
