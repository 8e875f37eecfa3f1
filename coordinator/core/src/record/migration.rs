//! A migration as the ledger keeps it: the journal of its saga.

use crate::placement::Placement;
use novacron_common::{
    api::{Actual, MigrationState},
    ids::{GangId, HostId, MigrationId, VmId},
    record::{
        Climb, Forecast, InboundState, MigrationProgress, MigrationReport, MoveLimits, OutboundState, Ticket,
        TransferCounts,
    },
    units::{ByteCount, Epoch, Generation, UnixMillis},
};
use serde::{Deserialize, Serialize};

/// What a machine takes of a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Virtual CPUs.
    pub cpus: u32,
    /// RAM.
    pub memory: ByteCount,
    /// Disk.
    pub storage: ByteCount,
}

/// One migration.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationRecord {
    /// Its id.
    pub id: MigrationId,
    /// What moves.
    pub vm: VmId,
    /// From where.
    pub source: HostId,
    /// To where.
    pub target: HostId,
    /// Whether the guest runs while it moves.
    pub live: bool,
    /// What it has to keep to.
    pub limits: MoveLimits,
    /// The machines with which it moves, in turn.
    pub gang: Option<GangId>,
    /// The epoch under which the source holds the machine.
    pub epoch: Epoch,
    /// The last wish for it; there is no other while it moves.
    pub generation: Generation,
    /// The ticket's 256 random bits.
    pub secret: [u8; 32],
    /// After this the ticket is worth nothing.
    pub ticket_expires_at: UnixMillis,
    /// What the machine takes on the host that does not own it (target before the hand-over, source after it).
    pub claim: Claim,
    /// Where the saga is.
    pub state: MigrationState,
    /// Raised by each change of `state`: an answer to a question asked in an earlier state is known as such.
    pub step: u64,
    /// Whether the guest has to stop before anything else (`live: false` on a running machine).
    pub awaits_stop: bool,
    /// Whether others of its gang go first, over the same way.
    pub awaits_turn: bool,
    /// What the source last said.
    pub outbound: OutboundState,
    /// The step in which the source was asked, if its last word was "unknown".
    pub outbound_unknown_at: Option<u64>,
    /// What the target last said.
    pub inbound: InboundState,
    /// The step in which the target was asked, if its last word was "unknown".
    pub inbound_unknown_at: Option<u64>,
    /// Whether the source may ever have been told to start.
    pub started: bool,
    /// Whether the hand-over is committed.
    pub handed_over: bool,
    /// Whether somebody asked to cancel it.
    pub cancel_requested: bool,
    /// Whether an agent refused a step that it cannot do without.
    pub abandoned: bool,
    /// Why it goes the way it goes, for people.
    pub message: String,
    /// The last figures while it copied.
    pub progress: MigrationProgress,
    /// The source's figures at the end of the copy.
    pub report: Option<MigrationReport>,
    /// Why the target was chosen, if the placement chose it.
    pub placement: Option<Placement>,
    /// What it was expected to take, when it was asked for.
    pub forecast: Option<Forecast>,
    /// When it was asked for.
    pub started_at: UnixMillis,
    /// When it ended.
    pub ended_at: Option<UnixMillis>,
}

impl MigrationRecord {
    /// The right to carry it out, as both agents get it.
    pub fn ticket(&self) -> Ticket {
        Ticket {
            migration: self.id,
            vm: self.vm,
            source: self.source,
            target: self.target,
            epoch: self.epoch,
            generation: self.generation,
            live: self.live,
            gang: self.gang,
            secret: self.secret,
            expires_at: self.ticket_expires_at,
        }
    }

    /// What was sent: as reported at the end, or so far.
    pub fn counts(&self) -> TransferCounts {
        self.report.as_ref().map_or(self.progress.counts, |report| report.counts)
    }

    /// How far up the ladder it went: as reported at the end, or so far.
    pub fn climb(&self) -> Climb {
        self.report.as_ref().map_or(self.progress.climb, |report| report.climb)
    }

    /// What it took, once it has arrived.
    pub fn actual(&self) -> Option<Actual> {
        let (ended_at, report) = self.ended_at.zip(self.report.as_ref())?;
        let took = ended_at.since(self.started_at).as_millis();
        (self.state == MigrationState::Completed).then(|| Actual {
            total_ms: u64::try_from(took).unwrap_or(u64::MAX),
            blackout_ms: report.qemu_downtime_ms,
            wire_bytes: report.counts.total(),
        })
    }

    /// Whether they take turns: of one gang, over the same way.
    pub fn shares_turns_with(&self, other: &Self) -> bool {
        let way = |record: &Self| (record.gang, record.source, record.target);
        self.gang.is_some() && way(self) == way(other)
    }

    /// Whether nothing more will happen.
    pub const fn is_final(&self) -> bool {
        self.state.is_final()
    }

    /// The host on which room is kept beside the machine's own place.
    pub fn claims_on(&self) -> Option<HostId> {
        match (self.is_final(), self.handed_over) {
            (true, _) => None,
            (false, false) => Some(self.target),
            (false, true) => Some(self.source),
        }
    }
}

/// Leaves the ticket's secret out.
impl std::fmt::Debug for MigrationRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MigrationRecord")
            .field("ticket", &self.ticket())
            .field("state", &self.state)
            .field("step", &self.step)
            .field("awaits_stop", &self.awaits_stop)
            .field("awaits_turn", &self.awaits_turn)
            .field("outbound", &self.outbound)
            .field("inbound", &self.inbound)
            .field("started", &self.started)
            .field("handed_over", &self.handed_over)
            .field("cancel_requested", &self.cancel_requested)
            .field("abandoned", &self.abandoned)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}
