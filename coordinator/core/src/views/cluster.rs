//! The cluster's members, tokens and templates, as shown; and the directory that agents get.

use crate::{
    record::{AlarmRecord, ApiTokenRecord, CoordinatorRecord, TemplateRecord},
    state::State,
};
use novacron_common::{
    api::{AlarmView, TemplateView, TokenView},
    wire::{CoordinatorAddress, Directory, PeerHost},
};

/// The view of a template.
pub fn template(record: &TemplateRecord) -> TemplateView {
    TemplateView::new(record.id, &record.spec, record.created_at)
}

/// The view of an API token: never its secret's digest.
pub fn token(record: &ApiTokenRecord) -> TokenView {
    TokenView {
        id: record.id,
        name: record.name.to_string(),
        role: record.role,
        created_at: record.created_at,
    }
}

/// The coordinators' addresses.
pub fn coordinators(state: &State) -> Vec<CoordinatorAddress> {
    state.coordinators().iter().map(CoordinatorRecord::address).collect()
}

/// Everybody who may be talked to. Hosts that have never opened a session are left out: their address is not known.
pub fn directory(state: &State) -> Directory {
    let peer = |h: &crate::record::HostRecord| {
        let quic = h.hello.as_ref()?.addresses.quic;
        Some(PeerHost { host: h.id, name: h.name.clone(), quic })
    };
    Directory { coordinators: coordinators(state), hosts: state.hosts().iter().filter_map(peer).collect() }
}

/// The view of an alarm.
pub fn alarm(record: &AlarmRecord) -> AlarmView {
    AlarmView {
        node: record.node,
        cause: format!(
            "the clock of coordinator {} is {} ms {} the majority's: while it leads, nothing fires",
            record.node,
            record.median_ahead_ms.unsigned_abs(),
            if record.median_ahead_ms > 0 { "behind" } else { "ahead of" },
        ),
        median_ahead_ms: record.median_ahead_ms,
        since: record.since,
    }
}
