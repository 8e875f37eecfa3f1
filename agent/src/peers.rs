//! Who may be talked to: the coordinator's directory, kept across restarts.

use crate::ledger::{LedgerError, Shelf};
use novacron_common::{
    ids::HostId,
    wire::{CoordinatorAddress, Directory, PeerHost},
};
use novacron_transport::Role;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::watch;

const KEY: &[u8] = b"directory";

/// The directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Peers {
    directory: Arc<RwLock<Directory>>,
    shelf: Shelf<Directory>,
    version: Arc<watch::Sender<u64>>,
}

impl Peers {
    /// The directory as last known, or `coordinators` alone before the first session.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn load(shelf: Shelf<Directory>, coordinators: &[CoordinatorAddress]) -> Result<Self, LedgerError> {
        let directory = shelf
            .get(KEY)?
            .unwrap_or_else(|| Directory { coordinators: coordinators.to_vec(), hosts: Vec::new() });
        Ok(Self {
            directory: Arc::new(RwLock::new(directory)),
            shelf,
            version: Arc::new(watch::Sender::new(0)),
        })
    }

    /// Takes a newer directory.
    pub fn update(&self, directory: Directory) {
        if *self.read() == directory {
            return;
        }
        if let Err(error) = tokio::task::block_in_place(|| self.shelf.put(KEY, &directory)) {
            tracing::error!(%error, "the directory could not be kept: after a restart the old one is used");
        }
        *self.directory.write().unwrap_or_else(PoisonError::into_inner) = directory;
        self.version.send_modify(|v| *v += 1);
    }

    /// The coordinators.
    pub fn coordinators(&self) -> Vec<CoordinatorAddress> {
        self.read().coordinators.clone()
    }

    /// The other hosts.
    pub fn hosts(&self) -> Vec<PeerHost> {
        self.read().hosts.clone()
    }

    /// One host.
    pub fn host(&self, host: HostId) -> Option<PeerHost> {
        self.read().hosts.iter().find(|h| h.host == host).cloned()
    }

    /// Whether `role` is a member as far as is known. Before the first directory, every coordinator is.
    pub fn is_member(&self, role: &Role) -> bool {
        let directory = self.read();
        match role {
            Role::Coordinator { node } => {
                directory.coordinators.is_empty() || directory.coordinators.iter().any(|c| c.node == *node)
            }
            Role::Agent { host } => directory.hosts.iter().any(|h| h.host == *host),
        }
    }

    /// Changes with the directory.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Directory> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner)
    }
}
