//! What a migration needs of the rest of the agent, as traits: the hypervisor, the machine's files, the machine's
//! owner, and the journal. The real ones are in `adapters`; tests bring their own.

use super::journal::Record;
use crate::hypervisor::{Definition, HvError, MachineFiles};
use async_trait::async_trait;
use novacron_common::{
    ids::{MigrationId, VmId},
    record::{DirtyRate, GuestTraits, PreflightFault, VmAssignment, VmState},
    spec::VmSpec,
    units::Epoch,
    wire::Denial,
};
use std::{io, num::NonZeroU8, time::Duration};

/// An error with its causes, from behind a port.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a hypervisor holds of a machine: the fact on which a migration's outcome is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing, or no more than the definition of a machine whose guest was sent elsewhere, all of it.
    Absent,
    /// Its processors run.
    Running,
    /// Its processors are held.
    Paused {
        /// Whether it stays defined when it stops. An arriving machine becomes so when it is complete.
        persistent: bool,
    },
    /// Defined, not running.
    Stopped,
    /// Its memory is on two hosts (post-copy). On the source its processors are held for good, on the target they run as far
    /// as the memory that is there lets them.
    Split {
        /// Memory does not follow any more.
        broken: bool,
    },
    /// The hypervisor does not say just now: ask again.
    Unclear,
}

/// Where the source's libvirtd and QEMU find their ways out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// For the source's libvirtd, to the target's.
    pub control_uri: String,
    /// For memory; the same string on both hosts.
    pub migrate_uri: String,
    /// For disks; the same string on both hosts.
    pub disks_uri: String,
    /// The disk that travels, by its name in the domain; `None` if the machine has none.
    pub disk: Option<&'static str>,
}

/// How hard the hypervisor may push a copy by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Push {
    /// The pause that it may plan for at first, milliseconds ([`Mover::allow_pause`]).
    pub pause_ms: u32,
    /// How much of its processors' time it may withhold from a guest that writes too fast, percent; 0: none.
    pub slowdown_pct: u8,
    /// Whether the guest may go over before all of its memory has ([`Mover::go_over`]). Then the hypervisor at the other end
    /// does not hold it: the control lane does.
    pub post_copy: bool,
    /// On how many channels it sends memory beside the main one; not together with post-copy.
    pub channels: Option<NonZeroU8>,
}

/// How far the hypervisor is with a copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Bytes sent, memory and disks.
    pub processed: u64,
    /// Bytes yet to be sent, as far as is known now.
    pub remaining: u64,
    /// Passes over memory.
    pub iteration: u64,
    /// Pages that the guest dirties each second.
    pub dirty_pages_per_second: u64,
    /// The hypervisor's figure for the pause, milliseconds.
    pub downtime_ms: Option<u64>,
    /// How much is withheld of the guest's processors' time just now, percent.
    pub throttle_pct: u8,
}

/// The hypervisor, as a migration uses it. Every method is idempotent.
#[async_trait]
pub trait Mover: Send + Sync {
    /// What it holds of the machine, now.
    async fn standing(&self, vm: VmId) -> Result<Standing, HvError>;
    /// Copies the running machine to the other end of `route`; there it stays paused, unless it goes over. Returns when the hypervisor
    /// says that it is over; whether it is there or here is for [`Mover::standing`] to say.
    async fn send(&self, vm: VmId, route: Route, push: Push) -> Result<(), HvError>;
    /// Lets a copy that is under way plan for another pause, milliseconds. With none under way it means nothing.
    async fn allow_pause(&self, vm: VmId, pause_ms: u32) -> Result<(), HvError>;
    /// Holds the guest of a copy that is under way. If the copy fails it is for [`Mover::resume`] to let it run on.
    async fn hold(&self, vm: VmId) -> Result<(), HvError>;
    /// Holds the guest of a copy that is under way, and lets it go over before all of its memory has (post-copy). The hypervisor
    /// takes it as a wish: [`Standing::Split`] says that it is so. One that is held and does not go over is copied as it is.
    async fn go_over(&self, vm: VmId) -> Result<(), HvError>;
    /// Ends a copy that is under way. Nothing to end is no error.
    async fn abort(&self, vm: VmId) -> Result<(), HvError>;
    /// How far the copy is; `None` if none is under way.
    async fn copied(&self, vm: VmId) -> Result<Option<Copied>, HvError>;
    /// Lets a paused machine run on.
    async fn resume(&self, vm: VmId) -> Result<(), HvError>;
    /// Starts a stopped one.
    async fn start(&self, vm: VmId) -> Result<(), HvError>;
    /// Asks the guest to shut down, waits, then cuts its power.
    async fn stop(&self, vm: VmId, grace: Duration) -> Result<(), HvError>;
    /// Makes it known, stopped.
    async fn define(&self, definition: &Definition) -> Result<(), HvError>;
    /// Cuts its power and forgets it. Unknown is no error.
    async fn undefine(&self, vm: VmId) -> Result<(), HvError>;
    /// On the target: an ear for a guest that is to go over (post-copy). To be had before it runs there: a hypervisor that
    /// waits for a page of its guest takes nobody's call.
    async fn ear(&self, vm: VmId, files: &MachineFiles) -> Result<Box<dyn Ear>, HvError>;
    /// An ear for it is of no use any more. What a hypervisor keeps of one over the agent's end it keeps no longer.
    fn forget_ear(&self, _vm: VmId) {}
    /// On the source: has the half of a guest that is left here send on, to whoever listens at `migrate_uri`.
    async fn send_again(&self, vm: VmId, files: &MachineFiles, migrate_uri: &str) -> Result<Rest, HvError>;
    /// The domain document that this host would define.
    fn document(&self, definition: &Definition) -> Result<String, HvError>;
}

/// What becomes of the memory that could not follow a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// It follows.
    Follows,
    /// It never will: the hypervisor has ended its copy, though not all has arrived.
    GivenUp,
}

/// Of the hypervisor of a guest whose memory is on two hosts; heeded whatever the guest waits for.
#[async_trait]
pub trait Ear: Send + Sync {
    /// Whether it still hears; if not, another is to be had.
    fn hears(&self) -> bool;
    /// Has the half that is cut off here wait at `migrate_uri` for the other. May be said again; [`Mover::standing`] says
    /// whether memory follows.
    async fn listen_again(&mut self, migrate_uri: &str) -> Result<(), HvError>;
}

/// A process in which a guest runs.
#[async_trait]
pub trait GuestProcess: Send + Sync {
    /// Waits for its end.
    async fn ended(&self);
    /// Ends it where it stands (SIGKILL). It executes nothing more then (signal(7)), whenever its end may be seen. One that has
    /// ended is no error.
    ///
    /// # Errors
    /// The system's.
    fn kill(&self) -> io::Result<()>;
}

/// Sees the processes in which guests run.
pub trait Processes: Send + Sync {
    /// The one in which the guest runs now; `None` if it cannot be seen.
    fn of(&self, vm: VmId) -> Option<Box<dyn GuestProcess>>;
}

/// What a forecast asks of the hypervisor. Nothing here changes anything.
#[async_trait]
pub trait Surveyor: Send + Sync {
    /// What it holds of the machine.
    async fn state(&self, vm: VmId) -> Result<VmState, HvError>;
    /// Memory in use by the running guest, bytes.
    async fn in_use(&self, vm: VmId) -> Result<u64, HvError>;
    /// How fast the guest writes to it; `None` if that cannot be said. Takes some seconds.
    async fn dirty_rate(&self, vm: VmId) -> Result<Option<DirtyRate>, HvError>;
    /// What the running machine needs of its next host.
    async fn traits(&self, vm: VmId) -> Result<GuestTraits, HvError>;
    /// What this host lacks for such a machine.
    async fn compare(&self, traits: &GuestTraits) -> Result<Vec<PreflightFault>, HvError>;
}

/// Makes and removes a machine's files. Both are idempotent.
#[async_trait]
pub trait Landing: Send + Sync {
    /// Fetches missing images, makes an overlay over them and a seed, unless they are there.
    async fn prepare(&self, vm: VmId, spec: &VmSpec) -> Result<MachineFiles, Failure>;
    /// Removes the machine's folder; images stay.
    async fn remove(&self, vm: VmId) -> Result<(), Failure>;
}

/// Who owns the machines of this host.
#[async_trait]
pub trait Residents: Send + Sync {
    /// Puts the machine in this migration's hands, if it is here under `epoch`. The same may borrow again.
    async fn lend(&self, vm: VmId, migration: MigrationId, epoch: Epoch) -> Result<(), Denial>;
    /// It ended here: the machine is its owner's again. `halted`: it may have been stopped for the move, and if it is wanted
    /// running it is to run again.
    async fn give_back(&self, vm: VmId, migration: MigrationId, halted: bool) -> Result<(), Denial>;
    /// The machine is here, as `assignment` says: one that is to run, or one that came stopped.
    async fn arrived(&self, assignment: VmAssignment) -> Result<(), Denial>;
    /// Waits until this migration has the machine in hand no more: it was given back, or the coordinator has decided by a
    /// higher epoch that it is this host's.
    ///
    /// # Errors
    /// [`Denial`] if nobody can know.
    async fn settled(&self, vm: VmId, migration: MigrationId) -> Result<(), Denial>;
    /// The machine runs elsewhere under `epoch`.
    async fn left(&self, vm: VmId, epoch: Epoch) -> Result<(), Denial>;
    /// Whether the machine belongs here, by what is written down: what the hypervisor shows may not be known yet.
    ///
    /// # Errors
    /// [`Denial`] if that cannot be read.
    async fn holds(&self, vm: VmId) -> Result<bool, Denial>;
}

/// Keeps what a restarted agent must know. A record is on stable storage when `put` returns. Blocking.
pub trait Journal: Send + Sync {
    /// Writes a migration's record in place of the one before.
    fn put(&self, migration: MigrationId, record: &Record) -> Result<(), Failure>;
    /// Forgets one.
    fn remove(&self, migration: MigrationId) -> Result<(), Failure>;
    /// All of them.
    fn list(&self) -> Result<Vec<(MigrationId, Record)>, Failure>;
}
