//! What this agent leaves to the one that is started in its place (systemd's file-descriptor store holds it meanwhile), so that
//! a planned restart ends no migration.
//!
//! Only live copies under way are left: everything after them is in the journal, and is taken up from there as after a crash.
//! What is not that far, a stopped machine's disk and a guest that goes over (post-copy) are waited for, within bounds. What
//! cannot be left then ends as if the agent had been killed.

use super::{
    journal::Record,
    lane::{saved::Descriptors, source::SavedSource, target::SavedDoor},
};
use novacron_common::{
    ids::MigrationId,
    record::{InboundState, MoveLimits, OutboundState, SideState, Ticket},
    units::Epoch,
};
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// One copy as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SavedMigration {
    /// Away from this host.
    Outbound(SavedDeparture),
    /// To this host.
    Inbound(SavedArrival),
}

/// A live copy away from this host, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedDeparture {
    /// The right to it.
    pub ticket: Ticket,
    /// What it must keep to.
    pub limits: MoveLimits,
    /// Since it began, milliseconds.
    pub elapsed_ms: u64,
    /// Its lanes.
    pub lanes: SavedSource,
}

/// A live copy to this host, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedArrival {
    /// The right to it.
    pub ticket: Ticket,
    /// The hand-over that was committed in advance (post-copy).
    pub opened: Option<Epoch>,
    /// Its lanes.
    pub door: SavedDoor,
}

impl SavedMigration {
    /// The right to it.
    pub fn ticket(&self) -> &Ticket {
        match self {
            Self::Outbound(saved) => &saved.ticket,
            Self::Inbound(saved) => &saved.ticket,
        }
    }

    /// Whether it is the one that was written down.
    pub fn is_of(&self, record: &Record) -> bool {
        match (self, record) {
            (Self::Outbound(saved), Record::Outbound { ticket, .. }) => saved.ticket == *ticket,
            (Self::Inbound(saved), Record::Inbound { ticket, .. }) => saved.ticket == *ticket,
            _ => false,
        }
    }
}

/// One copy with its sockets.
#[derive(Debug)]
pub struct Inheritance {
    /// As it stands.
    pub saved: SavedMigration,
    /// Its sockets.
    pub descriptors: Descriptors,
}

impl Inheritance {
    /// Whose.
    pub fn migration(&self) -> MigrationId {
        self.saved.ticket().migration
    }
}

/// What a planned restart does about one side of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    /// Nothing: the journal has all that a successor needs.
    None,
    /// Waits: a successor could not go on here, and soon it can, or need not.
    Wait,
    /// Leaves it to the successor as it stands.
    Leave,
}

/// What `state` needs of a planned restart; `live` if the guest runs meanwhile.
pub(super) fn care(state: &SideState, live: bool) -> Care {
    match state {
        SideState::Outbound(OutboundState::Copying(_)) | SideState::Inbound(InboundState::Receiving)
            if live =>
        {
            Care::Leave
        }
        SideState::Outbound(
            OutboundState::Connecting
            | OutboundState::Copying(_)
            | OutboundState::Poised(_)
            | OutboundState::Split(_),
        )
        | SideState::Inbound(
            InboundState::Preparing | InboundState::Ready | InboundState::Receiving | InboundState::Split,
        ) => Care::Wait,
        SideState::Outbound(_) | SideState::Inbound(_) => Care::None,
    }
}

/// Where the tasks of copies put what they leave.
#[derive(Debug, Default)]
pub(super) struct Legacy {
    called: CancellationToken,
    left: Mutex<Vec<Inheritance>>,
}

impl Legacy {
    /// Asks all copies to be left. A task that does so ends.
    pub fn call(&self) {
        self.called.cancel();
    }

    /// Waits for [`Legacy::call`].
    pub async fn called(&self) {
        self.called.cancelled().await;
    }

    /// One copy's answer: what it leaves, if it can.
    pub fn leave(&self, inheritance: Option<Inheritance>) {
        self.lock().extend(inheritance);
    }

    /// What was left.
    pub fn take(&self) -> Vec<Inheritance> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Inheritance>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
