//! The way to the agent inside a machine: one command and its answer, over libvirt's channel to it.
//!
//! Used by the supervisor of an attempt, which is a process of its own: it opens a connection of its own, and keeps it
//! while libvirtd lives. Calls block; libvirt bounds each by the time that it is given.

use super::ffi::{Listener, Session};
use novacron_common::ids::VmId;
use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use uuid::Uuid;
use virt::error::{Error as VirtError, ErrorNumber};

/// A libvirtd that is silent for interval × (count + 1) is given up.
const KEEP_ALIVE: (Duration, u32) = (Duration::from_secs(5), 3);

type Cause = Box<dyn Error + Send + Sync>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// This host has no such machine.
    #[error("{vm} is not on this host")]
    NotHere {
        /// Which.
        vm: VmId,
    },
    /// It is switched off.
    #[error("{vm} does not run")]
    NotRunning {
        /// Which.
        vm: VmId,
    },
    /// Nothing in the machine answers.
    #[error("no guest agent answers in {vm}: install qemu-guest-agent in the machine, and see that it runs")]
    NoAgent {
        /// Which.
        vm: VmId,
        /// What libvirt says.
        #[source]
        cause: Cause,
    },
    /// The guest agent answers that it will not.
    #[error("the guest agent refused it")]
    Refused {
        /// What it says.
        #[source]
        cause: Cause,
    },
    /// libvirt itself.
    #[error("libvirt could not ask the guest agent of {vm}")]
    Libvirt {
        /// Which.
        vm: VmId,
        /// Why.
        #[source]
        cause: Cause,
    },
}

/// libvirt has one code for every refusal of a guest agent, and uses it for much else: only this text tells
/// (`qemuAgentCheckError` in src/qemu/qemu_agent.c).
const REFUSAL: &str = "unable to execute QEMU agent command";

fn no_answer(vm: VmId, cause: VirtError) -> NoAnswer {
    let code = cause.code();
    if code.is(ErrorNumber::NoDomain) {
        NoAnswer::NotHere { vm }
    } else if code.is(ErrorNumber::OperationInvalid) {
        NoAnswer::NotRunning { vm }
    } else if code.is(ErrorNumber::AgentUnresponsive) || code.is(ErrorNumber::ArgumentUnsupported) {
        NoAnswer::NoAgent { vm, cause: cause.into() }
    } else if cause.message().contains(REFUSAL) {
        NoAnswer::Refused { cause: cause.into() }
    } else {
        NoAnswer::Libvirt { vm, cause: cause.into() }
    }
}

/// What carries commands into a machine. Blocks.
pub trait Channel: Send {
    /// Sends one command and waits at most so long for its answer; both are JSON (QEMU's `docs/interop/qemu-ga-ref`).
    ///
    /// # Errors
    /// [`NoAnswer`].
    fn ask(&mut self, command: &str, patience: Duration) -> Result<String, NoAnswer>;
}

/// Notes that a connection is gone.
#[derive(Default)]
struct Ear {
    gone: AtomicBool,
}

impl Listener for Ear {
    fn domain_changed(&self, _: Uuid) {}

    fn closed(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

/// The channel of one machine, over a connection to libvirtd that is opened when it is needed.
pub struct GuestChannel {
    uri: String,
    vm: VmId,
    session: Option<(Session, Arc<Ear>)>,
}

impl GuestChannel {
    /// That of `vm`, through the libvirtd at `uri`.
    pub fn new(uri: &str, vm: VmId) -> Self {
        Self { uri: uri.to_owned(), vm, session: None }
    }

    fn session(&mut self) -> Result<&Session, VirtError> {
        let kept = self.session.take().filter(|(_, ear)| !ear.gone.load(Ordering::Relaxed));
        let (session, ear) = match kept {
            Some(kept) => kept,
            None => {
                let ear = Arc::new(Ear::default());
                (Session::open(&self.uri, KEEP_ALIVE, Arc::clone(&ear) as Arc<dyn Listener>)?, ear)
            }
        };
        Ok(&self.session.insert((session, ear)).0)
    }
}

impl Channel for GuestChannel {
    fn ask(&mut self, command: &str, patience: Duration) -> Result<String, NoAnswer> {
        let vm = self.vm;
        let seconds = i32::try_from(patience.as_secs().max(1)).unwrap_or(i32::MAX);
        let session = self.session().map_err(|cause| no_answer(vm, cause))?;
        let domain = session.connect().lookup_domain_by_uuid(vm.uuid());
        let answer = domain.and_then(|domain| domain.qemu_agent_command(command, seconds, 0));
        answer.map_err(|cause| no_answer(vm, cause))
    }
}
