//! Between coordinator and agents, and between agents.

use super::CoordinatorAddress;
use crate::{
    ids::{AttemptKey, HostId, MigrationId, VmId},
    record::{
        AttemptReport, DiskDigest, GuestMeasure, GuestTraits, LinkMeasure, MoveLimits, PreflightFault,
        SideState, Ticket, VmAssignment, VmObservation, VmStatistics, VolumeSeen,
    },
    spec::{ImageRef, JobTarget, Name, OnLeaseLost, Sha256Digest, Signal, VmSpec},
    units::{Epoch, UnixMillis},
};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// First frame of the coordinator on a `Session` stream. The agent's first frame there is a
/// [`HostHello`](crate::record::HostHello); periodic [`HostStatus`](crate::record::HostStatus) frames follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionOpened {
    /// This coordinator leads; more [`Directory`] frames follow on the same stream when members change.
    Welcome(Directory),
    /// Ask this one, or try the others if nobody leads.
    NotLeader(Option<CoordinatorAddress>),
    /// The host was removed, or its hello contradicts its certificate.
    Refused(String),
}

/// Everybody who may be talked to. A host that is not in it is cut off.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// The coordinators.
    pub coordinators: Vec<CoordinatorAddress>,
    /// The other hosts.
    pub hosts: Vec<PeerHost>,
}

/// One host of the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHost {
    /// Its id, which its certificate must carry.
    pub host: HostId,
    /// Its name.
    pub name: Name,
    /// Where it serves QUIC.
    pub quic: SocketAddr,
}

/// One request of an agent, on a stream of its own; answered by an empty frame once it is committed, but
/// `RenewLeases` by [`LeasesGranted`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlRequest {
    /// A machine changed.
    Vm(VmObservation),
    /// An attempt ended. Sent until acknowledged.
    AttemptEnded(AttemptReport),
    /// A migration's side changed. Ends are sent until acknowledged.
    Migration {
        /// Which.
        migration: MigrationId,
        /// What this side sees.
        state: SideState,
    },
    /// These attempts run here, under these epochs: may they go on? At most [`LeasesGranted::ASKED_MAX`].
    RenewLeases(Vec<(AttemptKey, Epoch)>),
    /// Of these machines memory is kept here: which of them are no more? At most [`Departed::ASKED_MAX`].
    Checkpoints(Vec<VmId>),
}

/// The answer to `Checkpoints`: machines that the ledger does not have. What is kept of them is erased.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departed(pub Vec<VmId>);

impl Departed {
    /// Most machines in one request.
    pub const ASKED_MAX: usize = 4096;
}

/// The answer to `RenewLeases`, given by the leader only, after a majority has confirmed that it still leads: these
/// may run until their lease's duration after the *asking*, by the host's own clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeasesGranted(pub Vec<AttemptKey>);

impl LeasesGranted {
    /// Most attempts in one request.
    pub const ASKED_MAX: usize = 4096;
}

/// One request of the coordinator. Every one is idempotent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentCommand {
    /// Make it so. Answered `Accepted` once it is in the agent's ledger; the outcome is an observation.
    AssignVm(VmAssignment),
    /// What do you see of this machine?
    ObserveVm(VmId),
    /// The last bytes of a machine's console log.
    ConsoleLog {
        /// Which.
        vm: VmId,
        /// At most this many bytes from the end.
        bytes_max: u32,
    },
    /// Have these images at hand.
    FetchImages(Vec<ImageRef>),
    /// Run this attempt.
    StartAttempt(AttemptStart),
    /// End it.
    KillAttempt {
        /// Which.
        attempt: AttemptKey,
        /// The epoch under which it was started.
        epoch: Epoch,
    },
    /// What an attempt prints, from the oldest byte still at hand. After an `Accepted` reply come [`LogChunk`] frames
    /// to the end of the stream.
    AttemptLog {
        /// Which.
        attempt: AttemptKey,
        /// Whether to go on until it has ended, or to stop at what is there now.
        follow: bool,
    },
    /// Get ready to receive (target). Answered once sockets are served.
    PrepareInbound {
        /// The right to it.
        ticket: Ticket,
        /// What arrives.
        spec: VmSpec,
        /// Whether it may come by post-copy: its machine allows it, and so do the move's limits.
        post_copy: bool,
    },
    /// Send it (source).
    StartOutbound {
        /// The right to it.
        ticket: Ticket,
        /// What is sent.
        spec: VmSpec,
        /// Where the target serves QUIC.
        target: SocketAddr,
        /// What a live copy must keep to.
        limits: MoveLimits,
    },
    /// End the copy and go back (source).
    CancelOutbound {
        /// Which.
        migration: MigrationId,
        /// Why, for people.
        reason: String,
    },
    /// Remove what arrived (target). Refused once resumed.
    DiscardInbound {
        /// Which.
        migration: MigrationId,
        /// Whose machine, where the agent has lost the rest.
        vm: VmId,
        /// Why, for people.
        reason: String,
    },
    /// The hand-over is committed: run the guest (target).
    ResumeInbound {
        /// Which.
        migration: MigrationId,
        /// Which machine.
        vm: VmId,
        /// The epoch that the hand-over committed.
        epoch: Epoch,
        /// What it is, where the agent has lost the rest.
        spec: VmSpec,
        /// What its disk has to hold, if that is to be compared first.
        disk: Option<DiskDigest>,
    },
    /// The hand-over is committed, before the guest goes over (post-copy): it may run here once it does (target).
    OpenInbound {
        /// Which.
        migration: MigrationId,
        /// The epoch that the hand-over committed.
        epoch: Epoch,
    },
    /// The hand-over is committed and the target knows: the guest may go over (source).
    SplitOutbound {
        /// Which.
        migration: MigrationId,
        /// The epoch that the hand-over committed.
        epoch: Epoch,
    },
    /// The source lost its half in post-copy: end what is here, and keep the machine, stopped (target).
    AbandonInbound {
        /// Which.
        migration: MigrationId,
        /// Why, for people.
        reason: String,
    },
    /// The hand-over is committed: remove what is left (source).
    ReleaseOutbound {
        /// Which.
        migration: MigrationId,
        /// Which machine.
        vm: VmId,
        /// The epoch that the hand-over committed.
        epoch: Epoch,
    },
    /// What do you see of this migration?
    ObserveMigration(MigrationId),
    /// The members changed.
    Directory(Directory),
    /// Measure this machine, and the way to these hosts, for the forecast of a move (source). Nothing is begun.
    MeasureGuest {
        /// Which.
        vm: VmId,
        /// What it is.
        spec: VmSpec,
        /// At most [`AgentCommand::CANDIDATES_MAX`]; one that is no member is not called.
        candidates: Vec<HostId>,
    },
    /// Could this machine arrive here (target)? Nothing is begun.
    CheckInbound {
        /// Which.
        vm: VmId,
        /// What it is.
        spec: VmSpec,
        /// Whether it may come by post-copy.
        post_copy: bool,
        /// What it needs, if it runs.
        traits: Option<GuestTraits>,
    },
    /// What a machine's command prints. After an `Accepted` reply come [`LogChunk`] frames to the end of the stream.
    MachineLog {
        /// Which.
        vm: VmId,
        /// From the last lines only, this many.
        lines: Option<u32>,
        /// Whether to go on until this run of the machine has ended, or to stop at what is there now.
        follow: bool,
    },
    /// Do something to a machine that runs, and that the ledger knows nothing of. Answered once it is done.
    ActOnVm {
        /// Which.
        vm: VmId,
        /// The epoch under which it is there.
        epoch: Epoch,
        /// What.
        act: VmAct,
    },
    /// What a machine has used since it was started.
    CountVm(VmId),
    /// Which volumes are there?
    ListVolumes,
    /// Remove a volume with all that is in it. Refused while a machine runs with it.
    RemoveVolume(Name),
}

impl AgentCommand {
    /// Most ways that are measured for one forecast.
    pub const CANDIDATES_MAX: usize = 8;
}

/// What a started attempt needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptStart {
    /// Which.
    pub attempt: AttemptKey,
    /// The right to run it.
    pub epoch: Epoch,
    /// What to do.
    pub target: JobTarget,
    /// Ends it, milliseconds.
    pub timeout_ms: u64,
    /// For `NOVACRON_SCHEDULED_AT`.
    pub scheduled_at: UnixMillis,
    /// How long it may run on without word from the leader; `None` for ever.
    pub lease: Option<Lease>,
    /// What happens when the lease has run out. `Kill` needs a lease.
    pub on_lease_lost: OnLeaseLost,
    /// Further `NOVACRON_` variables, beside those that the agent makes itself.
    pub env: Vec<(String, String)>,
}

/// What can be done to a machine that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VmAct {
    /// Hold it where it is. One that is held stays held.
    Pause,
    /// Let it run on. One that runs goes on.
    Resume,
    /// Send this to its command. The only one that is not idempotent: nobody sends it again by himself.
    Signal(Signal),
    /// Save its processes on its host.
    Checkpoint {
        /// Whether it runs on; else it is nowhere but in its checkpoint then.
        leave_running: bool,
    },
    /// Have it run again as it was when it was saved.
    Restore,
}

/// The terms of an attempt's lease. It begins with the agent's own first `RenewLeases` for the attempt, never with
/// the start command, which may have been on its way for any length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Milliseconds from the asking to the end; renewed at every third of it.
    pub duration_ms: u64,
}

/// A part of what an attempt printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChunk {
    /// Bytes printed before the first of `bytes`; more than were sent so far where some were no longer at hand.
    pub at: u64,
    /// What was printed; at most [`LogChunk::BYTES_MAX`]. None: a sign of life.
    pub bytes: Vec<u8>,
}

impl LogChunk {
    /// Most bytes in one.
    pub const BYTES_MAX: usize = 64 * 1024;
}

/// The agent's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentReply {
    /// Written down; it will be done.
    Accepted,
    /// It is so already.
    AlreadySo,
    /// It will not be done.
    Denied(Denial),
    /// To `ObserveVm`.
    Vm(Option<VmObservation>),
    /// To `ConsoleLog`.
    Bytes(Vec<u8>),
    /// To `ObserveMigration`: what this host holds of it, as source and as target.
    Migration(Vec<SideState>),
    /// To `MeasureGuest`.
    Measured(Box<GuestMeasure>, Vec<LinkMeasure>),
    /// To `CheckInbound`: what speaks against it.
    Checked(Vec<PreflightFault>),
    /// To `CountVm`.
    Counted(VmStatistics),
    /// To `ListVolumes`, by their names.
    Volumes(Vec<VolumeSeen>),
}

/// Why an agent will not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code:?}: {text}")]
pub struct Denial {
    /// For programs.
    pub code: DenialCode,
    /// For people.
    pub text: String,
}

/// Kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DenialCode {
    /// The epoch is older than one that this host has seen.
    StaleEpoch,
    /// Nothing here has that id.
    Unknown,
    /// It contradicts what is going on.
    Conflict,
    /// CPU, memory, disk or sockets are short.
    NoRoom,
    /// This host cannot do such things.
    Unsupported,
    /// The request itself is wrong.
    Invalid,
    /// The image could not be had or is not what it should be.
    Image,
    /// The hypervisor or kernel refused.
    Failed,
}

/// First frame of an `Image` stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRequest {
    /// Which content.
    pub sha256: Sha256Digest,
}

/// The answer: its length, then that many plain bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageResponse {
    /// This many bytes follow.
    Bytes(u64),
    /// Not here.
    Absent,
}

/// First frame of a `Console` stream, from the coordinator. After an `Accepted` reply it is plain bytes both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleOpen {
    /// Whose console.
    pub vm: VmId,
}
