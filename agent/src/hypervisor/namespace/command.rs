//! The last step of every command in a machine: becoming it. Everything that needs memory is made before the fork.

use super::{
    identity::Identity,
    request::PATH,
    step::{Doing, StepError, checked},
};
use nix::{
    errno::Errno,
    sys::{
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
        stat::{Mode, umask},
    },
    unistd::{chdir, execve, setsid},
};
use novacron_common::spec::Program;
use std::{ffi::CString, fs::File, io::Read, os::fd::OwnedFd};

/// What login shells and container engines start with; the agent's own is stricter.
pub(super) const UMASK: Mode = Mode::from_bits_truncate(0o022);

/// Waits until the command has replaced the copy of its parent: then the other end of the pipe closes. Before that it may
/// carry the reason why it could not.
pub(super) fn until_executed(hear: OwnedFd) -> Result<(), StepError> {
    let mut reason = String::new();
    File::from(hear).read_to_string(&mut reason).doing("start the command")?;
    if reason.is_empty() { Ok(()) } else { Err(StepError::new("start the command", reason)) }
}

/// Everything that `execve` needs, made before the fork.
pub(super) struct Command {
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
    folder: CString,
    identity: Option<Identity>,
    has_terminal: bool,
}

impl Command {
    pub(super) fn prepare(program: &Program, identity: Option<Identity>) -> Result<Self, StepError> {
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
            has_terminal: false,
        })
    }

    /// Its standard input is a terminal, which is to be that of its session.
    pub(super) fn on_terminal(self) -> Self {
        Self { has_terminal: true, ..self }
    }

    /// Becomes the command. Returns only if it cannot.
    pub(super) fn exec(&self) -> StepError {
        match self.try_exec() {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn try_exec(&self) -> Result<std::convert::Infallible, StepError> {
        setsid().doing("start a session")?;
        if self.has_terminal {
            // SAFETY: takes numbers only; 0 has no terminal taken from another session.
            let taken = unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) };
            checked(taken.into()).doing("take the terminal")?;
        }
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
