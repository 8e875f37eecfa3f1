//! The first process of a tree, as small as it can be: it runs the command, reaps whatever is orphaned, passes on
//! the request to end, and reports the command's status. When it ends, the kernel ends the rest of the tree.

use super::{
    checkpoint::reaper,
    command::{Command, until_executed},
    identity::Identity,
    request::Isolated,
    result,
    spawn::{Channel, Word},
    step::{Doing, StepError},
};
use nix::{
    fcntl::OFlag,
    sys::{
        signal::{SigSet, Signal, kill},
        wait::WaitPidFlag,
    },
    unistd::{ForkResult, Pid, fork, pipe2, write},
};
use std::os::fd::OwnedFd;

/// Runs the command and reaps until it ends. Returns init's own exit code. One that has a way for its last word becomes the
/// [`reaper`] instead.
pub fn run(isolated: &Isolated, channel: &Channel, word: Option<OwnedFd>) -> i32 {
    match start(isolated) {
        Ok(main) => {
            channel.say(&Word::Started);
            if let Some(word) = word {
                return match reaper::become_it(main, &word) {
                    Ok(never) => match never {},
                    Err(error) => {
                        channel.say(&Word::Failed(error.chain()));
                        1
                    }
                };
            }
            let status = reap_until(main);
            result::left_by(isolated).into_iter().for_each(|word| channel.say(&word));
            channel.say(&Word::Ended(status));
            0
        }
        Err(error) => {
            channel.say(&Word::Failed(error.chain()));
            1
        }
    }
}

/// The command's process; without a command, none.
fn start(isolated: &Isolated) -> Result<Option<Pid>, StepError> {
    // Blocked, not handled: a blocked signal reaches even a pid 1 (it waits for sigwait), an ignored one never does.
    signals().thread_block().doing("block signals")?;
    if isolated.program.argv.is_empty() {
        return Ok(None);
    }
    let identity = isolated.user.as_deref().map(Identity::find).transpose()?;
    let command = Command::prepare(&isolated.program, identity)?;
    let (hear, tell) = pipe2(OFlag::O_CLOEXEC).doing("prepare the command")?;
    // SAFETY: this process has one thread, so the child may do whatever it likes.
    match unsafe { fork() }.doing("fork the command")? {
        ForkResult::Parent { child } => {
            drop(tell);
            until_executed(hear).map(|()| Some(child))
        }
        ForkResult::Child => {
            let reason = command.exec();
            let _told = write(&tell, reason.chain().as_bytes());
            // SAFETY: nothing of this copy of init may run on.
            unsafe { libc::_exit(127) }
        }
    }
}

/// What is passed on to the command: all that it can be sent from outside, but SIGKILL, which ends the machine.
const PASSED_ON: [Signal; 9] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGTERM,
    Signal::SIGCONT,
    Signal::SIGWINCH,
];

fn signals() -> SigSet {
    PASSED_ON.into_iter().chain([Signal::SIGCHLD]).collect()
}

/// Waits for the end of the command, or, where there is none, for the request to end. Returns its wait status.
fn reap_until(main: Option<Pid>) -> i32 {
    loop {
        match (signals().wait(), main) {
            (Ok(Signal::SIGTERM), None) => return 0,
            (Ok(signal), Some(main)) if signal != Signal::SIGCHLD => {
                let _already_ended = kill(main, signal);
            }
            _ => {
                if let Some(status) = reap_all(main) {
                    return status;
                }
            }
        }
    }
}

/// Collects every process that has ended; the status of `main`, if it is among them.
fn reap_all(main: Option<Pid>) -> Option<i32> {
    let mut found = None;
    loop {
        let mut status = 0;
        // SAFETY: waitpid writes one int to the place given. (nix' own wrapper loses the raw status.)
        let pid = unsafe { libc::waitpid(-1, &raw mut status, WaitPidFlag::WNOHANG.bits()) };
        match pid {
            1.. if main == Some(Pid::from_raw(pid)) => found = Some(status),
            1.. => {}
            _ => return found,
        }
    }
}
