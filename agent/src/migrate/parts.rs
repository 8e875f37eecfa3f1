//! What every migration of this host shares, and how each tells of its state.

use super::{
    journal::Record,
    lane::sockets::SocketRoom,
    ports::{Failure, Journal, Landing, Mover, Residents},
};
use crate::{hypervisor::Definition, hypervisor::MachineFiles, text::describe};
use novacron_common::{
    ids::{HostId, MigrationId, VmId},
    record::SideState,
    spec::VmSpec,
    units::UnixMillis,
};
use novacron_transport::Endpoint;
use std::{path::PathBuf, sync::Arc};
use tokio::sync::{mpsc, watch};

/// What migrations are made with.
pub struct MigrationsParts {
    /// This host.
    pub host: HostId,
    /// For the links to other agents.
    pub endpoint: Endpoint,
    /// The hypervisor; `None` where machines cannot be moved.
    pub mover: Option<Arc<dyn Mover>>,
    /// The machines' files.
    pub files: Arc<dyn Landing>,
    /// The machines' owner.
    pub residents: Arc<dyn Residents>,
    /// Where it is written down.
    pub journal: Arc<dyn Journal>,
    /// Where sockets go.
    pub sockets: SocketRoom,
    /// The socket of this host's libvirtd.
    pub libvirt_socket: PathBuf,
    /// The bridge for machines that name none.
    pub bridge: String,
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
        tokio::task::spawn_blocking(move || parts.journal.put(migration, &record)).await?
    }

    /// Writes what was already done: without it a restarted agent finds out by looking, so failing is no reason
    /// to stop.
    pub(super) async fn note(self: &Arc<Self>, migration: MigrationId, record: Record) {
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
        Self { migration, state: watch::Sender::new(state), changes }
    }

    pub(super) fn show(&self, state: SideState) {
        self.state.send_replace(state.clone());
        let _ = self.changes.try_send((self.migration, state));
    }

    pub(super) fn seen(&self) -> watch::Receiver<SideState> {
        self.state.subscribe()
    }
}
