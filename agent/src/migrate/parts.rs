//! What every migration of this host shares, and how each tells of its state.

use super::{
    checkpoint::Checkpoints,
    journal::Record,
    ports::{Failure, Journal, Landing, Mover, Processes, Residents},
    road::Roads,
};
use crate::{hypervisor::Definition, hypervisor::MachineFiles, text::describe};
use novacron_common::{
    ids::{HostId, MigrationId, VmId},
    planted::{self, Mistake},
    record::{InboundState, OutboundState, SideState},
    spec::VmSpec,
    units::UnixMillis,
};
use novacron_runtime::spawn_blocking;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// What migrations are made with.
pub struct MigrationsParts {
    /// This host.
    pub host: HostId,
    /// The ways to other hosts.
    pub roads: Arc<dyn Roads>,
    /// The hypervisor; `None` where machines cannot be moved.
    pub mover: Option<Arc<dyn Mover>>,
    /// The machines' files.
    pub files: Arc<dyn Landing>,
    /// The machines' owner.
    pub residents: Arc<dyn Residents>,
    /// Where it is written down.
    pub journal: Arc<dyn Journal>,
    /// The guests' processes.
    pub processes: Arc<dyn Processes>,
    /// The bridge for machines that name none.
    pub bridge: String,
    /// What is kept of machines that left.
    pub checkpoints: Checkpoints,
    /// The host's clock.
    pub now: fn() -> UnixMillis,
    /// Told of each change. When it is full a change is left out: who wants to be sure asks.
    pub changes: mpsc::Sender<(MigrationId, SideState)>,
}

impl MigrationsParts {
    /// The machine as this host defines it.
    pub(super) fn definition(&self, vm: VmId, spec: &VmSpec, files: MachineFiles) -> Definition {
        let bridge =
            spec.network.bridge.as_ref().map_or_else(|| self.bridge.clone(), |b| b.as_str().to_owned());
        Definition { vm, spec: spec.clone(), files, bridge: Some(bridge) }
    }

    /// Writes a record on a thread that may block.
    pub(super) async fn write(
        self: &Arc<Self>,
        migration: MigrationId,
        record: Record,
    ) -> Result<(), Failure> {
        let parts = self.clone();
        spawn_blocking(move || parts.journal.put(migration, &record)).await?
    }

    /// Writes what was already done: without it a restarted agent finds out by looking, so failing is no reason
    /// to stop.
    pub(super) async fn note(self: &Arc<Self>, migration: MigrationId, record: Record) {
        let ran = |record: &Record| *record == Record::Ended(SideState::Inbound(InboundState::Running));
        if planted::is(Mistake::ArrivalNotWritten) && ran(&record) {
            return;
        }
        if let Err(error) = self.write(migration, record).await {
            tracing::error!(%migration, reason = describe(&*error), "a migration's step could not be written down");
        }
    }
}

/// Where one migration's state is shown.
#[derive(Clone)]
pub(super) struct Post {
    migration: MigrationId,
    state: watch::Sender<SideState>,
    changes: mpsc::Sender<(MigrationId, SideState)>,
}

impl Post {
    pub(super) fn new(
        migration: MigrationId,
        state: SideState,
        changes: mpsc::Sender<(MigrationId, SideState)>,
    ) -> Self {
        tracing::info!(%migration, state = told(&state), "migration taken up");
        Self { migration, state: watch::Sender::new(state), changes }
    }

    pub(super) fn show(&self, state: SideState) {
        let before = self.state.send_replace(state.clone());
        // Figures are no event.
        if told(&before) != told(&state) {
            tracing::info!(migration = %self.migration, state = told(&state), "migration");
        }
        let _ = self.changes.try_send((self.migration, state));
    }

    pub(super) fn seen(&self) -> watch::Receiver<SideState> {
        self.state.subscribe()
    }
}

/// A side's state for the log.
fn told(state: &SideState) -> String {
    match state {
        SideState::Outbound(state) => match state {
            OutboundState::Unknown => "outbound: unknown".to_owned(),
            OutboundState::Connecting => "outbound: connecting".to_owned(),
            OutboundState::Copying(progress) if progress.link_lost => {
                "outbound: link lost, waiting".to_owned()
            }
            OutboundState::Copying(progress) if progress.cuts > 0 => {
                format!("outbound: copying, resumed after {} cuts", progress.cuts)
            }
            OutboundState::Copying(_) => "outbound: copying".to_owned(),
            OutboundState::Poised(_) => "outbound: ready to go over".to_owned(),
            OutboundState::Split(_) => "outbound: the guest went over, memory follows".to_owned(),
            OutboundState::Stranded { reason } => format!("outbound: stranded: {reason}"),
            OutboundState::Lost { reason } => format!("outbound: lost: {reason}"),
            OutboundState::Gone(report) => {
                format!("outbound: gone after {} bytes", report.counts.total())
            }
            OutboundState::Back { reason, .. } => format!("outbound: stays here: {reason}"),
            OutboundState::Released => "outbound: released".to_owned(),
        },
        SideState::Inbound(state) => match state {
            InboundState::Unknown => "inbound: unknown".to_owned(),
            InboundState::Preparing => "inbound: preparing".to_owned(),
            InboundState::Ready => "inbound: ready".to_owned(),
            InboundState::Receiving => "inbound: receiving".to_owned(),
            InboundState::Split => "inbound: running here, memory follows".to_owned(),
            InboundState::Stranded { reason } => format!("inbound: stranded: {reason}"),
            InboundState::Lost { reason } => format!("inbound: lost: {reason}"),
            InboundState::Arrived => "inbound: arrived".to_owned(),
            InboundState::Running => "inbound: running here".to_owned(),
            InboundState::Discarded { reason } => format!("inbound: discarded: {reason}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::record::{Climb, MigrationProgress};

    #[test]
    fn figures_are_no_event_and_reasons_are_told() {
        let copying = |permille| {
            told(&SideState::Outbound(OutboundState::Copying(MigrationProgress {
                permille,
                ..Default::default()
            })))
        };
        assert_eq!(copying(1), copying(900));
        let back = OutboundState::Back {
            reason: "the link broke".to_owned(),
            cancelled: false,
            climb: Climb::default(),
        };
        assert_eq!(told(&SideState::Outbound(back)), "outbound: stays here: the link broke");
    }
}
