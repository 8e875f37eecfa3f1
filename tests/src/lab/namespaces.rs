//! The way into a node: starts programs inside all of its namespaces, or inside its network alone.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};

/// Open handles to a running node's namespaces and cgroups. They keep nothing alive but the handles.
pub struct Namespaces {
    pid: File,
    net: File,
    rest: Vec<(File, CloneFlags)>,
    cgroups: Vec<File>,
}

impl Namespaces {
    /// Opens the namespaces of the process `init` and the `cgroup.procs` of its cgroups.
    pub fn of(init: u32, cgroups: &[(std::path::PathBuf, std::path::PathBuf)]) -> Result<Self> {
        let open = |name: &str| {
            let path = format!("/proc/{init}/ns/{name}");
            File::open(&path).with_context(|| format!("opening {path}"))
        };
        // The mount namespace comes last: after it, paths mean something else.
        let rest = [
            ("cgroup", CloneFlags::CLONE_NEWCGROUP),
            ("uts", CloneFlags::CLONE_NEWUTS),
            ("ipc", CloneFlags::CLONE_NEWIPC),
            ("net", CloneFlags::CLONE_NEWNET),
            ("mnt", CloneFlags::CLONE_NEWNS),
        ];
        let rest = rest.into_iter().map(|(name, kind)| Ok((open(name)?, kind))).collect::<Result<_>>()?;
        let cgroups = cgroups.iter().map(|(cgroup, _)| open_procs(cgroup)).collect::<Result<_>>()?;
        Ok(Self { pid: open("pid")?, net: open("net")?, rest, cgroups })
    }

    /// Starts `command` as a process of the node.
    pub fn spawn(&self, mut command: Command) -> Result<Child> {
        let program = command.get_program().to_string_lossy().into_owned();
        let spaces: Vec<(RawFd, CloneFlags)> =
            self.rest.iter().map(|(file, kind)| (file.as_raw_fd(), *kind)).collect();
        let cgroups: Vec<RawFd> = self.cgroups.iter().map(AsRawFd::as_raw_fd).collect();
        // SAFETY: between fork and exec the closure makes only system calls (write, setns) on descriptors that `self`
        // keeps open until spawn returns; it allocates nothing and takes no lock.
        unsafe {
            command.pre_exec(move || {
                cgroups.iter().try_for_each(|&fd| join_cgroup(fd))?;
                spaces.iter().try_for_each(|&(fd, kind)| Ok(setns(BorrowedFd::borrow_raw(fd), kind)?))
            });
        }
        // setns into a PID namespace changes where this thread's children are born, so the thread is one that ends here.
        let born = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(self.pid.as_fd(), CloneFlags::CLONE_NEWPID).context("entering the PID namespace")?;
                command.spawn().with_context(|| format!("starting {program} in the node"))
            });
            thread.join()
        });
        born.map_err(|_| anyhow!("the starting thread panicked"))?
    }

    /// Runs `command` with the node's network but the machine's processes and files, as wiring needs it.
    pub fn with_network(&self, command: &mut Command) -> Result<String> {
        let net = self.net.as_raw_fd();
        // SAFETY: the closure makes one system call on a descriptor that `self` keeps open until the command has ended.
        unsafe {
            command.pre_exec(move || Ok(setns(BorrowedFd::borrow_raw(net), CloneFlags::CLONE_NEWNET)?));
        }
        crate::guest_image::run(command)
    }

    /// Runs `work` on a thread inside the node's network: a socket made there stays there.
    pub fn on_network<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let done = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(self.net.as_fd(), CloneFlags::CLONE_NEWNET)
                    .context("entering the network namespace")?;
                work()
            });
            thread.join()
        });
        done.map_err(|_| anyhow!("the thread on the node's network panicked"))?
    }
}

fn open_procs(cgroup: &Path) -> Result<File> {
    let path = cgroup.join("cgroup.procs");
    OpenOptions::new().write(true).open(&path).with_context(|| format!("opening {}", path.display()))
}

fn join_cgroup(procs: RawFd) -> std::io::Result<()> {
    // SAFETY: the descriptor is open (see `spawn`).
    let procs = unsafe { BorrowedFd::borrow_raw(procs) };
    // "0" is the process that writes.
    nix::unistd::write(procs, b"0")?;
    Ok(())
}

/// Whether a process of this number (in the machine's count) exists and is no zombie.
pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // The state follows the program's name, which stands in brackets and may hold anything.
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    !matches!(state, Some(Some('Z' | 'X')))
}
