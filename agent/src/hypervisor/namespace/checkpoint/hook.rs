//! What CRIU has done at its steps (`--action-script`): the own program once more, a process of its own in the supervisor's mount
//! namespace. Where it fails, CRIU does not go on: a machine that was to be saved runs on.

use super::record::Checkpoint;
use crate::hypervisor::namespace::{
    folder::Folder,
    root, sparse,
    step::{Doing, StepError},
};
use nix::{
    fcntl::{OFlag, open},
    sched::{CloneFlags, setns},
    sys::stat::Mode,
    unistd::{Pid, syncfs},
};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Names the machine's run folder to the own program where CRIU runs that, without any words, as its hook.
pub const VARIABLE: &str = "NOVACRON_HOOK";

/// Where it says why it failed, in the folder of the images.
pub const FAILED: &str = "hook.failed";

/// The machine's run folder, as CRIU sees it: it works in the folder of its images, which is beside that.
pub const RUN: &str = "../run";

/// What CRIU tells its hook: where it is, and the number of the first process.
const STEP: &str = "CRTOOLS_SCRIPT_ACTION";
const INIT: &str = "CRTOOLS_INIT_PID";

/// The own program, for CRIU to run.
///
/// # Errors
/// [`StepError`] if the system does not say which that is.
pub fn program() -> Result<PathBuf, StepError> {
    std::env::current_exe().doing("find the own program")
}

/// Does what is to be done at the step that CRIU is at, if it is CRIU who has called. Before any thread exists.
pub fn called() -> Option<ExitCode> {
    let run = PathBuf::from(std::env::var_os(VARIABLE)?);
    let done = match std::env::var(STEP).as_deref() {
        Ok("post-dump") => keep(&run),
        Ok("setup-namespaces") => connect(&run),
        _ => Ok(()),
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _nobody_can_be_told = std::fs::write(FAILED, error.chain());
            ExitCode::FAILURE
        }
    })
}

/// All is in the images, and the processes still stand: their disk is kept, if they run on, and the checkpoint becomes the one.
fn keep(run: &Path) -> Result<(), StepError> {
    let checkpoint = Checkpoint::of(run.parent().unwrap_or(run));
    let made = checkpoint.begun().doing("read what was begun")?;
    let made = made.ok_or_else(|| StepError::new("read what was begun", "there is nothing"))?;
    if made.keeps_disk {
        let doing = "keep the machine's disk";
        let layer =
            open(&root::own_place(), OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        syncfs(layer.doing(doing)?).doing(doing)?;
        sparse::copy(
            &run.with_file_name(crate::hypervisor::namespace::machine::UPPER),
            &checkpoint.disk_begun(),
        )
        .doing(doing)?;
    }
    checkpoint.finish(!made.keeps_disk).doing("finish the checkpoint")
}

/// The machine's namespaces are there, and nobody in them yet: it gets its card, with the addresses that it had.
fn connect(run: &Path) -> Result<(), StepError> {
    let doing = "find the machine that is restored";
    let request = Folder::at(run).request().doing(doing)?;
    let isolated = request.as_ref().and_then(|request| request.work.isolated());
    let isolated = isolated.ok_or_else(|| StepError::new(doing, "there is no request"))?;
    let Some(card) = &isolated.card else { return Ok(()) };
    let init = std::env::var(INIT).doing(doing)?.parse().map(Pid::from_raw).doing(doing)?;
    card.attach(init)?;
    let network =
        open(format!("/proc/{init}/ns/net").as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
    setns(network.doing(doing)?, CloneFlags::CLONE_NEWNET).doing("enter the machine's network")?;
    card.configure()
}
