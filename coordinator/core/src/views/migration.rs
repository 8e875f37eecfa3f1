//! A migration, as shown.

use crate::{
    migration::saga::{self, SagaAction},
    record::{HostRecord, MigrationRecord},
    state::State,
};
use novacron_common::{
    api::{MigrationState, MigrationStatus, MigrationView},
    record::{DiskDigest, InboundState, OutboundState},
};

/// The view of a migration.
pub fn migration(state: &State, record: &MigrationRecord) -> MigrationView {
    let counts = record.counts();
    let copying = record.state == MigrationState::Copying;
    let now = |figure: u64| if copying || is_split(record) { figure } else { 0 };
    let progress = &record.progress;
    MigrationView {
        id: record.id,
        vm: record.vm,
        source_host: record.source,
        target_host: record.target,
        live: record.live,
        gang: record.gang,
        limits: record.limits,
        climb: record.climb(),
        status: status(state, record),
        memory_bytes: counts.memory_bytes,
        memory: counts.memory,
        disk_bytes: counts.disk_bytes,
        total_bytes: counts.total(),
        rate: now(progress.rate),
        iteration: record.report.as_ref().map_or(progress.iteration, |r| r.iterations),
        dirty_pages_per_second: now(progress.dirty_pages_per_second),
        remaining_bytes: now(progress.remaining_bytes),
        remaining_ms: progress.remaining_ms.filter(|_| copying),
        qemu_downtime_ms: record.report.as_ref().and_then(|r| r.qemu_downtime_ms),
        cuts_survived: record.report.as_ref().map_or(progress.cuts, |r| r.cuts),
        memory_channels: record.report.as_ref().and_then(|r| r.channels),
        compared_bytes: compared(record).map(|disk| disk.data.0),
        forecast: record.forecast,
        actual: record.actual(),
        placement: record.placement.as_ref().map(ToString::to_string),
    }
}

/// The disk that both hosts hold, if that was asked for: the target runs nothing before.
fn compared(record: &MigrationRecord) -> Option<DiskDigest> {
    let report = record.report.as_ref().filter(|_| record.state == MigrationState::Completed)?;
    report.disk
}

fn status(state: &State, record: &MigrationRecord) -> MigrationStatus {
    let message = match record.message.as_str() {
        "" => standard_message(record),
        message => message.to_owned(),
    };
    let message = match record.state {
        MigrationState::Stranded => format!("{message}; {WAYS_OUT}"),
        _ => message,
    };
    let message = match awaited(state, record) {
        Some(host) => format!("{message}; {}", waiting_for(host)),
        None => message,
    };
    MigrationStatus {
        state: record.state,
        start_time: record.started_at,
        end_time: record.ended_at,
        progress_pct: percent(record),
        message,
    }
}

/// What an operator can do for a stranded guest.
const WAYS_OUT: &str = "they meet again by themselves as soon as both hosts are up and reach each other; to give the guest up \
                        instead: `novactl migration give-up`, and if a host is off and stays off, \
                        `novactl host remove --force` (coordinator/MIGRATIONS.md, Post-copy)";

/// The host without which it cannot go on, if that host is down.
fn awaited<'a>(state: &'a State, record: &MigrationRecord) -> Option<&'a HostRecord> {
    let hosts = saga::next(record).into_iter().filter_map(|action| match action {
        SagaAction::AwaitTurn => None,
        SagaAction::PrepareInbound
        | SagaAction::ObserveTarget
        | SagaAction::OpenInbound
        | SagaAction::ResumeInbound
        | SagaAction::AbandonInbound
        | SagaAction::DiscardInbound => Some(record.target),
        SagaAction::AwaitStop
        | SagaAction::StartOutbound
        | SagaAction::ObserveSource
        | SagaAction::SplitOutbound
        | SagaAction::ReleaseOutbound
        | SagaAction::CancelOutbound
        | SagaAction::Handover => Some(record.source),
    });
    hosts.filter_map(|host| state.host(host)).find(|host| !host.is_up())
}

/// No time-out decides whether a guest runs: until the host is back, or somebody vouches that it is off, the machine
/// stays as it is, so the message says how to vouch.
fn waiting_for(host: &HostRecord) -> String {
    let name = &host.name;
    format!(
        "{name} is down, and until it is back the machine cannot be changed. If {name} is off and stays off: \
         `novactl host remove {name} --force`"
    )
}

/// The copy makes up all but the last percent.
fn percent(record: &MigrationRecord) -> f32 {
    match record.state {
        MigrationState::Completed => 100.0,
        MigrationState::HandingOver | MigrationState::Finishing if !is_split(record) => 99.0,
        _ => f32::from(record.progress.permille.min(1000)) / 1000.0 * 99.0,
    }
}

fn standard_message(record: &MigrationRecord) -> String {
    let text = match record.state {
        MigrationState::Pending if record.awaits_turn => "waiting for its turn in its gang",
        MigrationState::Pending if record.awaits_stop => "the guest is asked to stop",
        MigrationState::Pending => "waiting to begin",
        MigrationState::Preparing => "the target gets ready",
        MigrationState::Copying if record.progress.link_lost => {
            "the link between the two hosts is lost: the copy waits for it, and goes on where it was"
        }
        MigrationState::Copying if record.progress.cuts > 0 => {
            "disk and memory are copied; the link was lost, and the copy has resumed"
        }
        MigrationState::Copying => "disk and memory are copied",
        MigrationState::HandingOver => "the hand-over is committed",
        MigrationState::Finishing if is_split(record) => {
            "the guest runs on the target, and the rest of its memory follows (post-copy)"
        }
        MigrationState::Finishing if matches!(record.outbound, OutboundState::Poised(_)) => {
            "the guest is about to go over (post-copy)"
        }
        MigrationState::Finishing => "the guest is resumed on the target",
        MigrationState::Stranded => "post-copy broke: a half of the guest is on each host",
        MigrationState::Completed => "the machine is on the target",
        MigrationState::Reverting => "what was begun is undone",
        MigrationState::Failed | MigrationState::Cancelled => "the machine is on the source, as before",
        MigrationState::Lost => "the guest is lost; its machine is on the target, with its disk",
    };
    text.to_owned()
}

/// Whether the guest runs on the target while memory still follows.
fn is_split(record: &MigrationRecord) -> bool {
    let arrived = matches!(record.inbound, InboundState::Running | InboundState::Lost { .. });
    let left = matches!(record.outbound, OutboundState::Split(_));
    !arrived && (left || record.inbound == InboundState::Split)
}
