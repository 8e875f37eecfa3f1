//! The port to whatever runs machines, and its adapters.
//!
//! Everything above this folder speaks of machines; `libvirt` and kernel types stop here. An adapter is
//! stateless towards its caller: what exists is what the hypervisor lists. Every method is idempotent, so that
//! an agent that crashed in the middle simply asks again.

pub mod fake;
pub mod libvirt;
pub mod namespace;

use async_trait::async_trait;
use novacron_common::{
    ids::VmId,
    record::{Accel, HealthState, VmState, VmStatistics},
    spec::{ImageFormat, ImageRun, MachineKind, Signal, StopTerms, VmSpec},
    units::ByteCount,
    wire::{ExecCommand, LogChunk},
};
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, path::PathBuf, pin::Pin, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite};

/// A root file system that is ready to be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootImage {
    /// The folders of its layers, the lowest first. Shared with other machines, and written to by none.
    pub layers: Vec<PathBuf>,
    /// What runs in it.
    pub run: ImageRun,
}

/// The files of a machine on this host, made ready before [`Hypervisor::define`] is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineFiles {
    /// The machine's own folder.
    pub folder: PathBuf,
    /// Its disk (always qcow2, over the template's image or blank), if it has one.
    pub disk: Option<PathBuf>,
    /// The shared image under `disk`, read-only, with its format; `None` if the disk is blank.
    pub backing: Option<(PathBuf, ImageFormat)>,
    /// Its NoCloud seed image, if it has one.
    pub seed: Option<PathBuf>,
    /// Kernel and initramfs for direct kernel boot.
    pub kernel: Option<(PathBuf, Option<PathBuf>)>,
    /// The root file system of a namespace machine; without one it is over the host's.
    pub root: Option<RootImage>,
    /// Where its console is logged.
    pub console_log: PathBuf,
    /// Where its QEMU has a monitor beside libvirt's, if the machine allows post-copy. The folder is QEMU's.
    pub monitor: Option<PathBuf>,
}

impl MachineFiles {
    /// Of a machine that has a folder, with its console's log in it, and nothing else.
    pub fn bare(folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        Self {
            disk: None,
            backing: None,
            seed: None,
            kernel: None,
            root: None,
            console_log: folder.join("console.log"),
            monitor: None,
            folder,
        }
    }
}

/// What a hypervisor is asked to know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Which.
    pub vm: VmId,
    /// What.
    pub spec: VmSpec,
    /// Its files.
    pub files: MachineFiles,
    /// The bridge that its card is attached to, where it has one.
    pub bridge: Option<String>,
}

/// How a machine that was stopped came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Halt {
    /// It was down.
    WasDown,
    /// It ended on being asked: by this signal, or, where there is none, by its power button.
    OnAsking(Option<Signal>),
    /// It was asked so, did not end in time, and was ended.
    Overdue {
        /// By this signal, or, where there is none, by its power button.
        signal: Option<Signal>,
        /// How long it was given.
        grace: Duration,
    },
    /// It was ended unasked: as was wanted, or since it was paused and could not hear.
    Unasked,
}

/// What a hypervisor can do, found by trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Which machines.
    pub kind: MachineKind,
    /// How they run.
    pub accel: Accel,
    /// Whether [`Hypervisor::console`] works.
    pub console: bool,
    /// Whether [`Hypervisor::exec`] works.
    pub exec: bool,
    /// Whether [`Hypervisor::printed`] works.
    pub printed: bool,
    /// Whether machines can be moved while they run.
    pub live_migration: bool,
}

/// Statistics of a running machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since start.
    pub cpu: Duration,
    /// Resident memory.
    pub memory: ByteCount,
}

/// Whether a machine is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// By its check.
    pub state: HealthState,
    /// Why it is unhealthy.
    pub word: Option<String>,
}

/// A machine that the hypervisor lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// One of ours, by the metadata that we wrote into it.
    Ours(VmId, VmState),
    /// Somebody else's, by its name. It is reported and left alone.
    Foreign(String),
}

/// Something changed without being asked. A hint to look, never a fact to act on alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HypervisorEvent {
    /// This machine's state changed.
    Changed(VmId),
    /// The connection was lost or came back: look at everything.
    Resync,
}

/// A byte stream into a machine: its serial console, or the frames of a command.
pub trait ConsoleStream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> ConsoleStream for T {}

/// What a machine prints, as it comes; ends when there is no more.
pub type Printed = tokio::sync::mpsc::Receiver<std::io::Result<LogChunk>>;

/// Why a hypervisor did not do it.
#[derive(Debug, thiserror::Error)]
pub enum HvError {
    /// Nothing here has that id.
    #[error("{vm} is not known here")]
    Unknown {
        /// Which.
        vm: VmId,
    },
    /// This adapter cannot do such a thing at all.
    #[error("{what} is not possible with this hypervisor")]
    Unsupported {
        /// What was asked.
        what: &'static str,
    },
    /// It is not possible as the machine is now.
    #[error("{vm} is {}: {remedy}", format!("{state:?}").to_lowercase())]
    State {
        /// Which.
        vm: VmId,
        /// What it does.
        state: VmState,
        /// What to do first.
        remedy: &'static str,
    },
    /// It failed.
    #[error("could not {doing}")]
    Failed {
        /// What was being done, e.g. "define vm-…".
        doing: String,
        /// The hypervisor's or kernel's error.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl HvError {
    /// A failure with its cause.
    pub fn failed(
        doing: impl Into<String>,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Failed { doing: doing.into(), cause: cause.into() }
    }
}

/// Runs machines of one kind. The contract suite (`tests/tests/hypervisor_contract.rs`) says what each method
/// promises; every adapter passes it.
#[async_trait]
pub trait Hypervisor: Send + Sync {
    /// What it can do here.
    fn capabilities(&self) -> Capabilities;

    /// Makes the machine known, stopped. Defining it again with the same content changes nothing.
    async fn define(&self, definition: &Definition) -> Result<(), HvError>;

    /// Starts it. A running machine is left running.
    async fn start(&self, vm: VmId) -> Result<(), HvError>;

    /// Asks the guest to shut down, waits, then cuts its power. Returns once it is not running.
    async fn stop(&self, vm: VmId, terms: StopTerms) -> Result<Halt, HvError>;

    /// Holds a running machine where it is: its memory stays, its time stands still. A held one stays held.
    async fn pause(&self, vm: VmId) -> Result<(), HvError>;

    /// Sends a signal to the command of a running machine. [`Signal::Kill`] ends the machine at once, as if its power were cut;
    /// also a held one, and of every kind.
    async fn signal(&self, vm: VmId, signal: Signal) -> Result<(), HvError>;

    /// Lets a paused machine run on.
    async fn resume(&self, vm: VmId) -> Result<(), HvError>;

    /// Saves the processes and memory of a running machine to its own folder, in place of what was saved there before. It runs on, or
    /// else it is [`VmState::Paused`] then, is nowhere but there, and outlives the host. A failure leaves it running.
    async fn checkpoint(&self, _vm: VmId, _leave_running: bool) -> Result<(), HvError> {
        Err(HvError::Unsupported { what: "saving a running machine" })
    }

    /// Has it run again as it was when it was saved. One that ran on goes back to that, with its disk.
    async fn restore(&self, _vm: VmId) -> Result<(), HvError> {
        Err(HvError::Unsupported { what: "restoring a machine" })
    }

    /// Cuts its power if need be and forgets it. A machine that is not known is no error. Files stay.
    async fn undefine(&self, vm: VmId) -> Result<(), HvError>;

    /// What it does; [`VmState::Missing`] if it is not known.
    async fn state(&self, vm: VmId) -> Result<VmState, HvError>;

    /// Everything that is known here.
    async fn list(&self) -> Result<Vec<Listed>, HvError>;

    /// What it uses; zero if it is not running.
    async fn usage(&self, vm: VmId) -> Result<Usage, HvError>;

    /// Whether it is well, by the check that its image or its spec names; `None` where there is none, or it does not run.
    fn health(&self, _vm: VmId) -> Option<Health> {
        None
    }

    /// All that is counted of it; zeros if it does not run.
    async fn statistics(&self, vm: VmId) -> Result<VmStatistics, HvError>;

    /// The guest's addresses, as far as this host can see them.
    async fn addresses(&self, vm: VmId) -> Result<Vec<IpAddr>, HvError>;

    /// Its serial console, both ways. A second caller takes it over from the first.
    async fn console(&self, vm: VmId) -> Result<Pin<Box<dyn ConsoleStream>>, HvError>;

    /// Runs a command within a running machine, under the same limits and with the rights of the machine's own processes.
    /// What is written are [`ExecInput`](novacron_common::wire::ExecInput) frames, what is read
    /// [`ExecOutput`](novacron_common::wire::ExecOutput) frames, the first of which says whether it runs. The command is
    /// ended when the stream is dropped or the machine ends.
    async fn exec(&self, vm: VmId, command: &ExecCommand) -> Result<Pin<Box<dyn ConsoleStream>>, HvError>;

    /// What the machine's command prints, from the oldest byte at hand or from the last `lines` lines: up to now, or, if it
    /// is to be followed, until this run of the machine has ended. What its last run printed can be had until it is started
    /// again.
    async fn printed(&self, vm: VmId, lines: Option<u32>, follow: bool) -> Result<Printed, HvError>;

    /// Changes that nobody here asked for. The channel is bounded; when it is full a `Resync` stands for the rest.
    fn events(&self) -> tokio::sync::broadcast::Receiver<HypervisorEvent>;
}
