//! Into a machine: its first process is found and made sure of, then its cgroup and its namespaces are entered.

use crate::{
    hypervisor::namespace::{
        cgroup::Group,
        enter::become_inner_root,
        folder::Folder,
        privileges::hide_memory,
        request::Isolated,
        step::{Doing, StepError},
    },
    pidfd,
};
use nix::{
    sched::{CloneFlags, setns},
    sys::resource::{Resource, setrlimit},
    unistd::Pid,
};
use novacron_common::spec::Signal;
use std::os::fd::OwnedFd;

/// A machine that runs.
pub struct Machine {
    /// Its walls, as it was started.
    pub isolated: Isolated,
    init: OwnedFd,
}

impl Machine {
    /// The machine of this supervisor's folder.
    ///
    /// # Errors
    /// [`StepError`] if it does not run.
    pub fn find(folder: &Folder) -> Result<Self, StepError> {
        let failed = |cause| StepError::new("find the machine", cause);
        let request = folder.request().map_err(failed)?;
        let isolated =
            request.as_ref().and_then(|request| request.work.isolated()).cloned().ok_or_else(not_running)?;
        let pid = folder.init().map_err(failed)?.ok_or_else(not_running)?;
        let init = pidfd::open(Pid::from_raw(pid)).doing("find the machine's first process")?;
        // The number may be somebody else's by now. It is not if the process behind the descriptor is a child of the
        // supervisor, and that one lives: it collects its child last of all.
        let is_its_child = parent_of(pid).is_some_and(|parent| folder.pid() == Some(parent));
        if !is_its_child || folder.try_lock().map_err(failed)?.is_some() {
            return Err(not_running());
        }
        Ok(Self { isolated, init })
    }

    /// Sends this to its first process.
    ///
    /// # Errors
    /// [`StepError`] if it has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), StepError> {
        pidfd::signal(&self.init, signal.number()).doing("signal the machine's first process")
    }

    /// Brings the calling process into it, as its user 0 with every capability there, and whatever it forks from then on
    /// into its pid namespace too.
    ///
    /// # Errors
    /// [`StepError`] if the kernel refuses.
    pub fn enter(&self) -> Result<(), StepError> {
        // Before the machine's ids become ours: none of its processes may look at this memory or its descriptors.
        hide_memory()?;
        setrlimit(Resource::RLIMIT_CORE, 0, 0).doing("forbid core files")?;
        // While the host's cgroups are still in sight.
        Group::load(&self.isolated.cgroup).doors()?.enter()?;
        setns(&self.init, namespaces()).doing("enter the machine's namespaces")?;
        become_inner_root()?;
        // Changing ids may have shown it again.
        hide_memory()
    }
}

fn namespaces() -> CloneFlags {
    CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP
}

fn not_running() -> StepError {
    StepError::new("enter the machine", "it does not run, or was started before this agent could do this")
}

/// The fourth field of `/proc/PID/stat` (`proc_pid_stat(5)`), behind the name in brackets, which may hold anything.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_parent_is_read_from_the_kernel() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(parent_of(own), i32::try_from(std::os::unix::process::parent_id()).ok());
        assert_eq!(parent_of(0), None);
    }
}
