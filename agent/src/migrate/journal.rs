//! What is written down of a migration, so that a restarted agent knows where it stood.
//!
//! Written before the step that it announces is taken. A record is small: it is kept after the end, so that a
//! coordinator that asks late gets the true answer, and forgotten when there are too many newer ones.

use super::ports::{Failure, Journal};
use novacron_common::{
    ids::MigrationId,
    record::{InboundState, MigrationProgress, MigrationReport, OutboundState, SideState, Ticket},
    spec::VmSpec,
    units::Epoch,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The journal's shelf in the agent's ledger.
pub const SHELF: &str = "migrations";

/// Ended migrations that are remembered.
pub const ENDED_MAX: usize = 256;

/// One migration, from this host's side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// This host is the source.
    Outbound {
        /// The right to it.
        ticket: Ticket,
        /// What moves.
        spec: VmSpec,
        /// How far.
        mark: OutboundMark,
    },
    /// This host is the target.
    Inbound {
        /// The right to it.
        ticket: Ticket,
        /// What moves.
        spec: VmSpec,
        /// How far.
        mark: InboundMark,
    },
    /// Nothing more is to be done here. Also written for a migration that was called off before it began.
    Ended(SideState),
}

/// How far a source is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutboundMark {
    /// It may have begun.
    Begun,
    /// The target's hypervisor has said that it has all of the guest. If the guest is not seen to run here, it has left.
    Complete,
    /// In post-copy, by a hand-over with this epoch: the target's libvirtd was let run the guest.
    Split(Epoch),
    /// The machine was observed gone; the hand-over is awaited.
    Gone(MigrationReport),
    /// The hand-over is committed with this epoch; leftovers are being removed.
    Releasing(Epoch),
    /// The guest did not go over, by a hand-over that was committed in advance (post-copy): what this host says of that. The
    /// machine is this host's once that is taken back, by another epoch.
    Returning(OutboundState),
    /// The hand-over is committed in advance: the guest may be on its way over (post-copy).
    GivenAway,
}

/// How far a target is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InboundMark {
    /// Files and sockets may be there, a copy may be arriving.
    Begun,
    /// The machine was observed here, complete and held.
    Arrived {
        /// Whether it is to run after the hand-over, or was a stopped machine and stays one.
        run: bool,
    },
    /// The hand-over is committed; from here on it only goes forward.
    Resuming {
        /// The epoch that the hand-over committed.
        epoch: Epoch,
        /// As in `Arrived`.
        run: bool,
    },
    /// In post-copy, by a hand-over with this epoch: the guest was let run before all of its memory was here.
    Split {
        /// The epoch that the hand-over committed.
        epoch: Epoch,
    },
    /// What is here is being removed.
    Discarding {
        /// Why, for people.
        reason: String,
    },
}

/// Migrations that have begun here and have not ended. Blocking.
///
/// # Errors
/// If the journal cannot be read.
pub fn under_way(journal: &dyn Journal) -> Result<BTreeSet<MigrationId>, Failure> {
    let open = journal.list()?.into_iter().filter(|(_, record)| !matches!(record, Record::Ended(_)));
    Ok(open.map(|(id, _)| id).collect())
}

impl Record {
    /// What a coordinator is told on the strength of this record alone.
    pub fn state(&self) -> SideState {
        match self {
            Self::Outbound {
                mark: OutboundMark::Begun | OutboundMark::Complete | OutboundMark::GivenAway,
                ..
            } => SideState::Outbound(OutboundState::Connecting),
            Self::Outbound { mark: OutboundMark::Split(_), .. } => {
                SideState::Outbound(OutboundState::Split(MigrationProgress::default()))
            }
            Self::Outbound { mark: OutboundMark::Gone(report), .. } => {
                SideState::Outbound(OutboundState::Gone(report.clone()))
            }
            Self::Outbound { mark: OutboundMark::Releasing(_), .. } => {
                SideState::Outbound(OutboundState::Gone(MigrationReport::default()))
            }
            Self::Outbound { mark: OutboundMark::Returning(back), .. } => SideState::Outbound(back.clone()),
            Self::Inbound { mark: InboundMark::Begun | InboundMark::Discarding { .. }, .. } => {
                SideState::Inbound(InboundState::Preparing)
            }
            Self::Inbound { mark: InboundMark::Arrived { .. } | InboundMark::Resuming { .. }, .. } => {
                SideState::Inbound(InboundState::Arrived)
            }
            Self::Inbound { mark: InboundMark::Split { .. }, .. } => SideState::Inbound(InboundState::Split),
            Self::Ended(state) => state.clone(),
        }
    }
}
