//! From the porter to the command: into the machine, a fork, and the order in which the child gives up its rights, which is
//! that of the machine's init ([`super::super::enter`]) as far as it concerns a process that comes later.

use super::{files::copy_files, join::Machine, terminal::Terminal};
use crate::hypervisor::namespace::{
    command::{Command, until_executed},
    enter::{Streams, keep_only},
    identity::Identity,
    privileges::{Rights, die_with_parent, hide_memory, keep_through_change_of_user},
    seccomp::Filters,
    step::{Doing, StepError},
};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl, open},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::stat::Mode,
    unistd::{ForkResult, Pid, fork, pipe2, write},
};
use novacron_common::{
    spec::Program,
    wire::{ExecCommand, FileCopy, WindowSize},
};
use std::os::fd::{AsFd, OwnedFd};

/// Whom a command runs as where nobody says.
const ROOT: &str = "0";

/// What the child becomes.
enum Deed<'a> {
    Run(Command),
    Copy(&'a FileCopy),
}

/// A command that runs, and the porter's ends of its streams.
pub struct Running {
    /// It leads a session and a process group of its own. The number is the host's.
    pub pid: Pid,
    /// What it reads, if anything.
    pub input: Option<OwnedFd>,
    /// What it prints.
    pub output: OwnedFd,
    /// What it complains; without, it does so on its terminal.
    pub errors: Option<OwnedFd>,
}

/// Starts the command in the machine. The calling process is in the machine from then on.
///
/// # Errors
/// [`StepError`] if a wall cannot be built or the command cannot be run.
pub fn start(machine: &Machine, wanted: &ExecCommand) -> Result<Running, StepError> {
    let filters = Filters::compile()?;
    machine.enter()?;
    let whom = wanted.user.as_deref().or(machine.isolated.user.as_deref());
    let identity = Identity::find(whom.unwrap_or(ROOT))?;
    let deed = match &wanted.copy {
        Some(copy) => Deed::Copy(copy),
        None => {
            let program = program(&machine.isolated.program, wanted, identity.home.as_deref());
            let command = Command::prepare(&program, None)?;
            Deed::Run(if wanted.terminal.is_some() { command.on_terminal() } else { command })
        }
    };
    let ends = match wanted.terminal {
        None => Ends::pipes(wanted.input)?,
        Some(size) => Ends::terminal(size, wanted.input)?,
    };
    let (hear, tell) = pipe2(OFlag::O_CLOEXEC).doing("prepare the command")?;
    // SAFETY: this process has one thread, so the child may do whatever it likes.
    match unsafe { fork() }.doing("fork the command")? {
        ForkResult::Parent { child } => {
            drop(tell);
            until_executed(hear)?;
            Ok(ends.of(child))
        }
        ForkResult::Child => {
            let rights = machine.isolated.rights;
            let (tell, reason) =
                become_command(&ends, tell, |tell| give_up_rights(tell, rights, &identity, &filters), &deed);
            let _told = write(&tell, reason.chain().as_bytes());
            // SAFETY: nothing of this copy of the porter may run on.
            unsafe { libc::_exit(127) }
        }
    }
}

/// Returns only if it cannot: what the reason is to be written to, and the reason.
fn become_command(
    ends: &Ends,
    tell: OwnedFd,
    give_up_rights: impl FnOnce(&OwnedFd) -> Result<(), StepError>,
    deed: &Deed<'_>,
) -> (OwnedFd, StepError) {
    let theirs = &ends.theirs;
    let streams = Streams { input: Some(&theirs.input), output: &theirs.output, errors: &theirs.errors };
    let kept = tell.try_clone().doing("keep the channel").and_then(|again| keep_only(streams, again, None));
    match kept {
        Err(error) => (tell, error),
        Ok((kept, _)) => {
            std::mem::forget(tell); // closed by number
            match (give_up_rights(&kept), deed) {
                (Err(error), _) => (kept, error),
                (Ok(()), Deed::Run(command)) => (kept, command.exec()),
                (Ok(()), Deed::Copy(copy)) => copy_files(copy, kept),
            }
        }
    }
}

fn give_up_rights(
    tell: &OwnedFd,
    rights: Rights,
    identity: &Identity,
    filters: &Filters,
) -> Result<(), StepError> {
    match rights {
        // Whoever has none can change no user, so that comes first.
        Rights::None => {
            keep_through_change_of_user()?;
            identity.assume()?;
            rights.drop_others()?;
        }
        // As the machine's own command: whoever is not user 0 has none of user 0's rights.
        Rights::Machine => {
            rights.drop_others()?;
            identity.assume()?;
        }
    }
    // Changing ids clears this tie, so it comes after; the porter may have ended before it was made.
    die_with_parent()?;
    if nobody_reads(tell) {
        return Err(StepError::new("tie the command to its porter", Errno::EPIPE));
    }
    hide_memory()?;
    // Last, as it refuses most of what happened above.
    filters.install()
}

fn nobody_reads(pipe: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
    let _ready = poll(&mut polled, PollTimeout::ZERO);
    polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
}

/// Both ends of the command's streams.
struct Ends {
    input: Option<OwnedFd>,
    output: OwnedFd,
    errors: Option<OwnedFd>,
    theirs: Theirs,
}

struct Theirs {
    input: OwnedFd,
    output: OwnedFd,
    errors: OwnedFd,
}

impl Ends {
    fn pipes(reads: bool) -> Result<Self, StepError> {
        let (output, their_output) = pipe_from()?;
        let (errors, their_errors) = pipe_from()?;
        let (input, their_input) = if reads {
            let (read, write) = pipe2(OFlag::O_CLOEXEC).doing("make an input pipe")?;
            unblock(&write)?;
            (Some(write), read)
        } else {
            let null = open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
            (None, null.doing("open /dev/null")?)
        };
        let theirs = Theirs { input: their_input, output: their_output, errors: their_errors };
        Ok(Self { input, output, errors: Some(errors), theirs })
    }

    fn terminal(size: WindowSize, reads: bool) -> Result<Self, StepError> {
        let Terminal { master, slave } = Terminal::open(size)?;
        let again = |fd: &OwnedFd| fd.try_clone().doing("share a terminal");
        let input = if reads { Some(again(&master)?) } else { None };
        let theirs = Theirs { input: again(&slave)?, output: again(&slave)?, errors: slave };
        Ok(Self { input, output: master, errors: None, theirs })
    }

    /// The porter's ends; the command's are closed here.
    fn of(self, pid: Pid) -> Running {
        Running { pid, input: self.input, output: self.output, errors: self.errors }
    }
}

fn pipe_from() -> Result<(OwnedFd, OwnedFd), StepError> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).doing("make an output pipe")?;
    unblock(&read)?;
    Ok((read, write))
}

fn unblock(end: &OwnedFd) -> Result<(), StepError> {
    fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).doing("make a pipe").map(drop)
}

/// The command with the machine's environment and folder below its own.
fn program(machine: &Program, wanted: &ExecCommand, home: Option<&str>) -> Program {
    let mut env: Vec<(String, String)> = vec![("HOME".into(), home.unwrap_or("/").into())];
    if wanted.terminal.is_some() {
        env.push(("TERM".into(), "xterm".into()));
    }
    for (name, value) in machine.env.iter().chain(&wanted.env) {
        env.retain(|(known, _)| known != name);
        env.push((name.clone(), value.clone()));
    }
    Program {
        argv: wanted.argv.clone(),
        env,
        working_dir: wanted.working_dir.clone().or_else(|| machine.working_dir.clone()),
        stdin: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commands_variables_come_over_the_machines_and_those_over_ours() {
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let machine = Program {
            env: pairs(&[("PATH", "/bin"), ("A", "machine"), ("B", "machine")]),
            working_dir: Some("/srv".into()),
            ..Program::default()
        };
        let wanted = ExecCommand {
            argv: vec!["env".into()],
            env: pairs(&[("A", "own"), ("HOME", "/tmp")]),
            terminal: Some(WindowSize { rows: 24, columns: 80 }),
            ..ExecCommand::default()
        };
        let made = program(&machine, &wanted, Some("/root"));
        let expected =
            [("HOME", "/tmp"), ("A", "own"), ("B", "machine"), ("PATH", "/bin"), ("TERM", "xterm")];
        assert_eq!(made.env.len(), expected.len());
        expected.iter().for_each(|(name, value)| assert_eq!(made.variable(name), Some(*value)));
        assert_eq!(made.working_dir.as_deref(), Some("/srv"));
    }
}
