//! Limits and accounting of one process tree, on cgroup v1, hybrid and v2 alike (`cgroups(7)`), and the certainty
//! that nothing of it is left.

use super::{
    request::Limits,
    step::{Doing, StepError},
};
use cgroups_rs::{
    FreezerState,
    fs::{
        Cgroup, MaxValue, Resources, cpuacct::CpuAcctController, freezer::FreezerController, hierarchies,
        memory::MemController, pid::PidController,
    },
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use novacron_common::units::ByteCount;
use std::{
    fs::File,
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Over which time a CPU quota is counted: 100 ms, the kernel's default (`sched-bwc`).
const CPU_PERIOD_US: u64 = 100_000;

/// How long killed processes may take to be gone. Only the kernel's uninterruptible sleep outlives it.
const DEATH_MAX: Duration = Duration::from_secs(10);

/// What a tree uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupUsage {
    /// Processor time since it was made.
    pub cpu: Duration,
    /// RAM, page cache included.
    pub memory: ByteCount,
    /// Processes and threads.
    pub pids: u64,
}

/// One cgroup of ours, in every hierarchy that limits or accounts something.
#[derive(Debug)]
pub struct Group {
    cgroup: Cgroup,
}

impl Group {
    /// Makes it, with limits.
    ///
    /// # Errors
    /// [`StepError`] if a controller is missing or refuses a limit.
    pub fn create(name: &str, limits: &Limits) -> Result<Self, StepError> {
        let group = Self::load(name);
        group.cgroup.create().doing("make the cgroup")?;
        group.cgroup.apply(&resources(limits)).doing("limit the cgroup")?;
        group.require_limits()?;
        group.forbid_swap(limits.memory_max);
        Ok(group)
    }

    /// A handle on it, whether or not it exists. `name` is relative to the hierarchy's root.
    ///
    /// Not to the agent's own group: on v2 a service whose group has groups with limits below it cannot be started
    /// again while they live ("no internal processes", cgroup-v2.rst), and these must outlive the agent.
    pub fn load(name: &str) -> Self {
        let hierarchy = hierarchies::auto();
        let controllers: &[&str] = if hierarchy.v2() {
            &["cpu", "memory", "pids"]
        } else {
            &["cpu", "cpuacct", "freezer", "memory", "pids"]
        };
        let controllers = controllers.iter().map(ToString::to_string).collect();
        Self { cgroup: Cgroup::load_with_specified_controllers(hierarchy, name, controllers) }
    }

    /// Opens it for processes that are to move in.
    ///
    /// # Errors
    /// [`StepError`] if it is not there.
    pub fn doors(&self) -> Result<Doors, StepError> {
        let open = |path: PathBuf| File::options().write(true).open(path).doing("open the cgroup");
        if self.cgroup.v2() {
            return Ok(Doors(vec![open(self.v2_file("cgroup.procs"))?]));
        }
        let folders = self.cgroup.subsystems().iter().map(|subsystem| subsystem.to_controller().path());
        folders.map(|folder| open(folder.join("tasks"))).collect::<Result<_, _>>().map(Doors)
    }

    /// Ends every process in it, however it got there, and waits until none is left.
    ///
    /// # Errors
    /// [`StepError`] if one is still there after ten seconds.
    pub fn kill_all(&self) -> Result<(), StepError> {
        let deadline = Instant::now() + DEATH_MAX;
        loop {
            let living = self.living();
            if living.is_empty() {
                return Ok(());
            }
            // One write on v2 (`cgroup.kill`, Linux 5.14); one signal each on v1, again until the last is gone.
            if self.cgroup.kill().is_err() {
                for pid in living.iter().copied() {
                    let _already_gone = kill(pid, Signal::SIGKILL);
                }
            }
            // A frozen process dies only once it is let go (v1; v2 does so itself).
            if self.is_frozen() {
                self.thaw()?;
            }
            if Instant::now() > deadline {
                return Err(StepError::new(
                    "end every process of the cgroup",
                    format!("{} are left", living.len()),
                ));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The numbers of its processes.
    pub fn members(&self) -> Vec<i32> {
        self.living().into_iter().map(Pid::as_raw).collect()
    }

    /// Its processes. The kernel shows those of a foreign pid namespace as 0, which would be ourselves to `kill(2)`.
    fn living(&self) -> Vec<Pid> {
        let pids = self.cgroup.procs().into_iter().filter_map(|pid| i32::try_from(pid.pid).ok());
        let mut pids: Vec<i32> = pids.filter(|pid| *pid > 0).collect();
        pids.sort_unstable();
        pids.dedup();
        pids.into_iter().map(Pid::from_raw).collect()
    }

    /// Holds all its processes where they are.
    ///
    /// # Errors
    /// [`StepError`] if the kernel refuses.
    pub fn freeze(&self) -> Result<(), StepError> {
        match self.freezer() {
            Some(freezer) => freezer.freeze().doing("freeze the cgroup"),
            None => std::fs::write(self.v2_file("cgroup.freeze"), "1").doing("freeze the cgroup"),
        }
    }

    /// Lets them run on.
    ///
    /// # Errors
    /// [`StepError`] if the kernel refuses.
    pub fn thaw(&self) -> Result<(), StepError> {
        match self.freezer() {
            Some(freezer) => freezer.thaw().doing("thaw the cgroup"),
            None => std::fs::write(self.v2_file("cgroup.freeze"), "0").doing("thaw the cgroup"),
        }
    }

    /// Whether they are held, or about to be.
    pub fn is_frozen(&self) -> bool {
        match self.freezer() {
            Some(freezer) => freezer.state().is_ok_and(|state| !matches!(state, FreezerState::Thawed)),
            None => {
                std::fs::read_to_string(self.v2_file("cgroup.freeze")).is_ok_and(|text| text.trim() == "1")
            }
        }
    }

    /// Whether they are held and none of them is still on its way there.
    pub fn is_still(&self) -> bool {
        match self.freezer() {
            Some(freezer) => freezer.state().is_ok_and(|state| matches!(state, FreezerState::Frozen)),
            None => std::fs::read_to_string(self.v2_file("cgroup.events"))
                .is_ok_and(|text| field(&text, "frozen") == 1),
        }
    }

    /// A controller of its own on v1; part of every group on v2.
    fn freezer(&self) -> Option<&FreezerController> {
        self.cgroup.controller_of()
    }

    fn v2_file(&self, name: &str) -> PathBuf {
        PathBuf::from(hierarchies::UNIFIED_MOUNTPOINT).join(self.cgroup.path()).join(name)
    }

    /// How many of its processes the kernel killed for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let Some(memory) = self.cgroup.controller_of::<MemController>() else { return 0 };
        if !self.cgroup.v2() {
            return memory.memory_stat().oom_control.oom_kill;
        }
        oom_kills_in(&std::fs::read_to_string(self.v2_file("memory.events")).unwrap_or_default())
    }

    /// How many forks were refused for its limit of processes.
    pub fn forks_refused(&self) -> u64 {
        let pids = self.cgroup.controller_of::<PidController>();
        pids.and_then(|controller| controller.get_pid_events().ok()).unwrap_or_default()
    }

    /// What it uses; zeros if it does not exist.
    pub fn usage(&self) -> GroupUsage {
        let memory = self.cgroup.controller_of::<MemController>().map(|c| c.memory_stat().usage_in_bytes);
        let pids = self.cgroup.controller_of::<PidController>().and_then(|c| c.get_pid_current().ok());
        GroupUsage {
            cpu: self.cpu_time(),
            memory: ByteCount(memory.unwrap_or_default()),
            pids: pids.unwrap_or_default(),
        }
    }

    fn cpu_time(&self) -> Duration {
        if let Some(accounting) = self.cgroup.controller_of::<CpuAcctController>() {
            return Duration::from_nanos(accounting.cpuacct().usage);
        }
        Duration::from_micros(field(
            &std::fs::read_to_string(self.v2_file("cpu.stat")).unwrap_or_default(),
            "usage_usec",
        ))
    }

    /// Removes it. One that does not exist is no error; one that has processes is.
    ///
    /// # Errors
    /// [`StepError`] if it is busy.
    pub fn remove(&self) -> Result<(), StepError> {
        if self.cgroup.exists() { self.cgroup.delete().doing("remove the cgroup") } else { Ok(()) }
    }

    /// The names of the groups directly below it, in any hierarchy.
    pub fn children(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .cgroup
            .subsystems()
            .iter()
            .filter_map(|subsystem| std::fs::read_dir(subsystem.to_controller().path()).ok())
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// A limit that is silently absent would be worse than an error.
    fn require_limits(&self) -> Result<(), StepError> {
        let has_both = self.cgroup.controller_of::<MemController>().is_some()
            && self.cgroup.controller_of::<PidController>().is_some();
        if has_both {
            Ok(())
        } else {
            Err(StepError::new("limit the cgroup", "this host has no memory or no pids controller"))
        }
    }

    /// Swap counts into the limit where the kernel accounts for it (`swapaccount`); where it does not, this fails
    /// and changes nothing.
    fn forbid_swap(&self, memory_max: ByteCount) {
        let Some(memory) = self.cgroup.controller_of::<MemController>() else { return };
        let limit = if self.cgroup.v2() { 0 } else { i64::try_from(memory_max.0).unwrap_or(i64::MAX) };
        let _unaccounted = memory.set_memswap_limit(limit);
    }
}

/// The files through which a process moves itself in, in every hierarchy.
#[derive(Debug)]
pub struct Doors(Vec<File>);

impl Doors {
    /// Moves the calling process in, which has one thread.
    ///
    /// On v1 by thread, and as itself: for any other move the kernel first waits until no process of the whole host can be
    /// forking (`cgroup_attach_lock` in `kernel/cgroup/cgroup.c`), which takes 5 to 20 ms.
    ///
    /// # Errors
    /// [`StepError`] if the kernel refuses.
    pub fn enter(&self) -> Result<(), StepError> {
        self.0.iter().try_for_each(|mut door| door.write_all(b"0")).doing("enter the cgroup")
    }
}

fn oom_kills_in(events: &str) -> u64 {
    field(events, "oom_kill")
}

fn field(text: &str, name: &str) -> u64 {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse().ok()).unwrap_or(0)
}

fn resources(limits: &Limits) -> Resources {
    let mut resources = Resources::default();
    resources.memory.memory_hard_limit = Some(i64::try_from(limits.memory_max.0).unwrap_or(i64::MAX));
    resources.pid.maximum_number_of_processes = Some(MaxValue::Value(limits.pids_max.into()));
    resources.cpu.period = Some(CPU_PERIOD_US);
    resources.cpu.quota = Some(i64::from(limits.cpu_millis.max(10)) * 100);
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_whole_name() {
        let events = "low 0\nhigh 0\nmax 7\noom 2\noom_kill 3\noom_group_kill 0\n";
        assert_eq!(oom_kills_in(events), 3);
        assert_eq!(field("usage_usec 1200\nuser_usec 7\n", "usage_usec"), 1200);
        assert_eq!(field("", "usage_usec"), 0);
    }

    #[test]
    fn limits_become_what_the_kernel_counts_in() {
        let limits = Limits {
            memory_max: ByteCount::mib(64),
            pids_max: 32,
            cpu_millis: 500,
            scratch_max: ByteCount::mib(1),
        };
        let resources = resources(&limits);
        assert_eq!(resources.memory.memory_hard_limit, Some(64 << 20));
        assert_eq!((resources.cpu.quota, resources.cpu.period), (Some(50_000), Some(100_000)));
    }
}
