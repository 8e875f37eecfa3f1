//! `novacron-agent supervise FOLDER`: the entry of a supervisor's own process.

use super::{call::Call, record};
use crate::hypervisor::namespace::{
    folder::Folder,
    lease::{LeaseHold, Standing},
    request::{Migratable, Request, Work},
    supervise::{failed_to_start, hold_back_signals, never_ran, supervise},
};
use crate::text::describe;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl, open},
    sys::stat::{Mode, fstat, stat},
    unistd::{dup2_stdin, setsid},
};
use novacron_common::record::{AttemptEnd, AttemptOutcome};
use std::{
    ffi::OsString,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;

/// The small program beside the running one, if it is installed; the running one (the agent) if not.
pub const PROGRAM: &str = "novacron-supervisor";

/// Makes a call and returns what is to be written down: [`super::call::run`].
pub type Caller = fn(&Folder, &Call, Option<LeaseHold>) -> AttemptEnd;

/// What to give to [`super::AttemptRunner::open`] as the supervisor's program.
///
/// # Errors
/// If the system does not say which program this is.
pub fn program() -> std::io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let small = own.with_file_name(PROGRAM);
    Ok(if small.is_file() { small } else { own })
}

/// Runs one supervisor to its end. To be called before the process has a second thread, and with the words that
/// follow `supervise`. Exit 0 means that the outcome is written down, whatever it is.
///
/// `caller` makes calls; the small program has none, and is never given a call.
pub fn main(arguments: &[OsString], caller: Option<Caller>) -> ExitCode {
    let [folder] = arguments else {
        tracing::error!("supervise takes one folder, and is called by the agent");
        return ExitCode::from(USAGE);
    };
    let folder = Folder::at(folder);
    let lock = match take_lock(&folder) {
        Ok(lock) => lock,
        Err(error) => {
            tracing::error!(%error, folder = %folder.path().display(), "not started by an agent");
            return ExitCode::from(USAGE);
        }
    };
    let written = run(&folder, caller);
    drop(lock);
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, folder = %folder.path().display(), "could not leave an outcome");
            ExitCode::FAILURE
        }
    }
}

/// Takes over the lock that the agent handed on as standard input.
fn take_lock(folder: &Folder) -> Result<OwnedFd, Errno> {
    let (given, wanted) = (fstat(std::io::stdin())?, stat(&folder.lock_path())?);
    if (given.st_dev, given.st_ino) != (wanted.st_dev, wanted.st_ino) {
        return Err(Errno::EBADF);
    }
    let lock = fcntl(std::io::stdin(), FcntlArg::F_DUPFD_CLOEXEC(3))?;
    dup2_stdin(open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)?;
    // SAFETY: F_DUPFD_CLOEXEC has just made this descriptor, and nothing else owns it.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(lock) })
}

fn run(folder: &Folder, caller: Option<Caller>) -> Result<(), String> {
    // Out of the agent's session and process group: a signal to those is not for us. It fails only for a leader.
    let _leads_already = setsid();
    // Before the agent knows whom to signal.
    hold_back_signals().map_err(|cause| describe(&cause))?;
    // Relative from here on, as the stage covers a folder that may be above this one.
    std::env::set_current_dir(folder.path()).map_err(|cause| describe(&cause))?;
    let folder = Folder::at(Path::new("."));
    folder.write_pid().map_err(|cause| describe(&cause))?;
    let end = end_of(&folder, caller);
    // Of a machine's run nothing outlives the host; an attempt's end has to be reported.
    let is_machine = matches!(folder.request(), Ok(Some(Request { claim: None, .. })));
    let written = if is_machine { folder.write_outcome_loosely(&end) } else { folder.write_outcome(&end) };
    written.map_err(|cause| describe(&cause))
}

fn end_of(folder: &Folder, caller: Option<Caller>) -> AttemptEnd {
    match (folder.request(), folder.kill_request()) {
        (_, Ok(Some(_))) => never_ran(AttemptOutcome::Killed),
        (Ok(Some(request)), _) => under_lease(folder, &request, caller),
        (Ok(None), _) => failed_to_start("there is no request".into()),
        (Err(error), _) => failed_to_start(describe(&error)),
    }
}

/// Nothing is done without a lease where one is needed, however late this process came to run.
fn under_lease(folder: &Folder, request: &Request, caller: Option<Caller>) -> AttemptEnd {
    if !request.dies_with_lease() {
        return work(folder, &request.work, None, caller);
    }
    match LeaseHold::new() {
        Ok(hold) if hold.look(folder) == Standing::Holds => work(folder, &request.work, Some(hold), caller),
        Ok(_) => never_ran(AttemptOutcome::LeaseLost),
        Err(error) => failed_to_start(error.chain()),
    }
}

fn work(folder: &Folder, work: &Work, lease: Option<LeaseHold>, caller: Option<Caller>) -> AttemptEnd {
    match work {
        Work::Nothing => never_ran(AttemptOutcome::Exited(0)),
        Work::Record { line } => record::append(folder, line),
        Work::Isolated(isolated) => supervise(folder, isolated, None, lease),
        Work::Migratable(Migratable { isolated, origin }) => {
            supervise(folder, isolated, Some(*origin), lease)
        }
        Work::Call(call) => match caller {
            Some(make) => make(folder, call, lease),
            None => failed_to_start(format!("{PROGRAM} makes no calls: the agent must run its own program")),
        },
    }
}
