//! The first process of a tree, as small as it can be: it runs the command, reaps whatever is orphaned, passes on
//! the request to end, and reports the command's status. When it ends, the kernel ends the rest of the tree.

use super::{
    identity::Identity,
    request::{Isolated, PATH},
    result,
    spawn::{Channel, Word},
    step::{Doing, StepError},
};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::{
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction},
        stat::{Mode, umask},
        wait::WaitPidFlag,
    },
    unistd::{ForkResult, Pid, chdir, execve, fork, pipe2, setsid, write},
};
use novacron_common::spec::Program;
use std::{ffi::CString, fs::File, io::Read, os::fd::OwnedFd};

/// What login shells and container engines start with; the agent's own is stricter.
const UMASK: Mode = Mode::from_bits_truncate(0o022);

/// Runs the command and reaps until it ends. Returns init's own exit code.
pub fn run(isolated: &Isolated, channel: &Channel) -> i32 {
    match start(isolated) {
        Ok(main) => {
            channel.say(&Word::Started);
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

/// The other end of the pipe closes when the command replaces init's copy, or carries the reason why it could not.
fn until_executed(hear: OwnedFd) -> Result<(), StepError> {
    let mut reason = String::new();
    File::from(hear).read_to_string(&mut reason).doing("start the command")?;
    if reason.is_empty() { Ok(()) } else { Err(StepError::new("start the command", reason)) }
}

fn signals() -> SigSet {
    [Signal::SIGCHLD, Signal::SIGTERM].into_iter().collect()
}

/// Waits for the end of the command, or, where there is none, for the request to end. Returns its wait status.
fn reap_until(main: Option<Pid>) -> i32 {
    loop {
        match (signals().wait(), main) {
            (Ok(Signal::SIGTERM), None) => return 0,
            (Ok(Signal::SIGTERM), Some(main)) => {
                let _already_ended = kill(main, Signal::SIGTERM);
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

/// Everything that `execve` needs, made before the fork.
struct Command {
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
    folder: CString,
    identity: Option<Identity>,
}

impl Command {
    fn prepare(program: &Program, identity: Option<Identity>) -> Result<Self, StepError> {
        let path = program.variable("PATH").unwrap_or(PATH);
        let name = program.argv.first().map(String::as_str).unwrap_or_default();
        let home = identity
            .as_ref()
            .and_then(|identity| identity.home.as_ref())
            .filter(|_| program.variable("HOME").is_none());
        let home = home.map(|home| format!("HOME={home}"));
        let env = program.env.iter().map(|(name, value)| format!("{name}={value}")).chain(home);
        Ok(Self {
            candidates: candidates(name, path).into_iter().map(c_string).collect::<Result<_, _>>()?,
            argv: program.argv.iter().cloned().map(c_string).collect::<Result<_, _>>()?,
            env: env.map(c_string).collect::<Result<_, _>>()?,
            folder: c_string(program.working_dir.clone().unwrap_or_else(|| "/".into()))?,
            identity,
        })
    }

    /// Becomes the command. Returns only if it cannot.
    fn exec(&self) -> StepError {
        match self.try_exec() {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn try_exec(&self) -> Result<std::convert::Infallible, StepError> {
        setsid().doing("start a session")?;
        restore_signals().doing("restore signals")?;
        umask(UMASK);
        chdir(self.folder.as_c_str()).doing(&format!("enter {}", self.folder.to_string_lossy()))?;
        self.identity.as_ref().map_or(Ok(()), Identity::assume)?;
        let mut cause = Errno::ENOENT;
        for candidate in &self.candidates {
            match execve(candidate, &self.argv, &self.env) {
                Ok(never) => match never {},
                // As execvp(3): what is not there is looked for further on, and "may not" outlives "is not".
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(Errno::EACCES) => cause = Errno::EACCES,
                Err(other) => {
                    cause = other;
                    break;
                }
            }
        }
        let name = self.argv.first().map(|name| name.to_string_lossy()).unwrap_or_default();
        Err(StepError::new(format!("run {name}"), cause))
    }
}

/// Rust's runtime ignores SIGPIPE, and init blocks what it waits for; the command gets neither.
fn restore_signals() -> nix::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action is no handler of ours, so there is nothing it could break.
    unsafe { sigaction(Signal::SIGPIPE, &default) }?;
    SigSet::all().thread_unblock()
}

/// Where a program may be, in order: as it stands if it has a slash, else in each folder of the search path.
fn candidates(program: &str, path: &str) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    path.split(':')
        .filter(|folder| folder.starts_with('/'))
        .map(|folder| format!("{folder}/{program}"))
        .collect()
}

fn c_string(text: impl Into<String>) -> Result<CString, StepError> {
    CString::new(text.into()).map_err(|cause| StepError::new("prepare the command", cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_slash_is_not_searched_for() {
        assert_eq!(candidates("./run", "/bin"), ["./run"]);
        assert_eq!(candidates("sh", "/usr/bin:/bin"), ["/usr/bin/sh", "/bin/sh"]);
        assert!(candidates("sh", "relative::").is_empty());
    }

    #[test]
    fn a_null_byte_is_an_error_and_not_a_shorter_argument() {
        assert!(c_string("a\0b").is_err());
    }
}
