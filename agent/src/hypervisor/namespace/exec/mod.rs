//! One more command in a machine that runs: `novacron-agent exec FOLDER`, a process of its own for each.
//!
//! ```text
//! agent ── socket: ExecCommand, ExecInput ──▶ porter ── setns, fork ──▶ the command
//!       ◀────────── ExecOutput ───────────     │ cgroup, namespaces      │ user, capabilities, seccomp
//!                                              └ pipes or a terminal ────┘
//! ```
//!
//! The **porter** has one thread, so that it can enter the machine's user namespace and fork; it inherits one descriptor of
//! the agent, the socket. It enters the machine's cgroup and namespaces ([`join`]), forks, and the child gives up the same
//! rights in the same order as the machine's init before it becomes the command (`start.rs`). What the porter does from
//! then on ([`porter`]) it does as the machine's own user 0, unseen by its processes: it is not in their pid namespace.
//! The words on the socket are those of [`novacron_common::wire`], which the agent passes on unread.
//!
//! A command ends with whoever asked for it: when the socket is closed its process group gets SIGHUP, and after a moment
//! SIGKILL. It ends with its machine, as everything in the machine's pid namespace and cgroup does.

mod files;
mod frames;
mod join;
mod launch;
mod porter;
mod start;
mod terminal;

pub use join::Machine;
pub use launch::launch;

use super::{
    folder::Folder,
    step::{Doing, StepError},
};
use frames::Frames;
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl, open},
    sys::stat::Mode,
    unistd::dup2_stdin,
};
use novacron_common::wire::{ExecCommand, ExecOutput};
use porter::Porter;
use start::start;
use std::{
    ffi::OsString,
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
};

/// `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;

/// Runs one command to its end. To be called before the process has a second thread, and with the words that follow
/// `exec`: the folder of the machine's supervisor. Standard input is the socket.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let [folder] = arguments else {
        tracing::error!("exec takes one folder, and is called by the agent");
        return ExitCode::from(USAGE);
    };
    let socket = match take_socket() {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(error = error.chain(), "not started by an agent");
            return ExitCode::from(USAGE);
        }
    };
    let mut frames = Frames::new(socket);
    match run(&Folder::at(folder), &mut frames) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            frames.put(&ExecOutput::Failed(error.chain()));
            frames.flush();
            ExitCode::FAILURE
        }
    }
}

fn run(folder: &Folder, frames: &mut Frames) -> Result<(), StepError> {
    let Some(command) = frames.wait_for::<ExecCommand>()? else { return Ok(()) };
    let machine = Machine::find(folder)?;
    let running = start(&machine, &command)?;
    frames.put(&ExecOutput::Started);
    Porter::new(frames, running)?.until_ended()
}

/// Takes over the socket that the agent handed on as standard input, so that the command cannot inherit it as that.
fn take_socket() -> Result<UnixStream, StepError> {
    let socket = fcntl(std::io::stdin(), FcntlArg::F_DUPFD_CLOEXEC(3)).doing("take the agent's socket")?;
    // SAFETY: F_DUPFD_CLOEXEC has just made this descriptor, and nothing else owns it.
    let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(socket) });
    socket.peer_addr().doing("take the agent's socket")?;
    let null =
        open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).doing("open /dev/null")?;
    dup2_stdin(&null).doing("let go of standard input")?;
    Ok(socket)
}
