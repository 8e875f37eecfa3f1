//! Process 1 of a node: makes the namespaces, furnishes them, and then only reaps orphans until its lifeline is cut.
//!
//! It is a program of its own (`lab-init`) because a PID namespace is entered by forking, and a test process has threads.

use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use serde::{Deserialize, Serialize};

use super::cgroup;

/// What a node looks like from inside. Passed as JSON in the only argument.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Furniture {
    /// Host name.
    pub hostname: String,
    /// The node's folder on the machine.
    pub dir: PathBuf,
    /// (folder on the machine, where the node sees it).
    pub binds: Vec<(PathBuf, PathBuf)>,
    /// (cgroup of the node on the machine, mount point of its hierarchy).
    pub cgroups: Vec<(PathBuf, PathBuf)>,
}

/// A byte on the lifeline that says: live on when it ends.
pub const KEEP: u8 = b'k';

/// What a node adds to, and so gets an overlay of its own over.
const PRIVATE_TREES: [&str; 2] = ["/etc", "/var"];

/// Runs as the node's first process, or as that process's parent, until the node ends.
///
/// # Errors
/// When the argument is not [`Furniture`] or the kernel refuses a namespace or mount.
pub fn main() -> Result<()> {
    let argument = std::env::args().nth(1).context("usage: lab-init JSON (the lab starts this program)")?;
    let furniture: Furniture = serde_json::from_str(&argument).context("reading the node's description")?;
    let owner = nix::unistd::getppid();
    // Out of the terminal's reach: an interrupted test still has its nodes cleaned up by this process.
    let _ = nix::unistd::setsid();
    unshare(CloneFlags::CLONE_NEWPID).context("making a PID namespace")?;
    // SAFETY: this process has one thread, so the child may do anything.
    match unsafe { fork() }.context("starting process 1")? {
        ForkResult::Parent { child } => {
            say(&format!("pid {child}"))?;
            waitpid(child, None).context("waiting for process 1")?;
            clean_up(&furniture, owner);
            Ok(())
        }
        ForkResult::Child => {
            furnish(&furniture)?;
            say("ready")?;
            reap_until_cut(std::io::stdin().as_fd())
        }
    }
}

/// Removes what a node leaves on the machine. Its files stay for the next boot, unless nobody is there any more to boot it.
fn clean_up(furniture: &Furniture, owner: Pid) {
    cgroup::remove(&furniture.cgroups);
    if nix::unistd::getppid() != owner {
        let _ = fs::remove_dir_all(&furniture.dir);
        // The last node of the lab succeeds.
        let _ = furniture.dir.parent().map(fs::remove_dir);
    }
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("telling the lab")
}

fn furnish(furniture: &Furniture) -> Result<()> {
    join_cgroups(&furniture.cgroups)?;
    let spaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(spaces).context("making the node's namespaces")?;
    remount("/", MsFlags::MS_PRIVATE | MsFlags::MS_REC).context("making mounts private")?;
    nix::unistd::sethostname(&furniture.hostname).context("setting the host name")?;
    let scratch = furniture.dir.join("scratch");
    mount_special("tmpfs", &scratch)?;
    for tree in PRIVATE_TREES {
        overlay(&scratch, Path::new(tree))?;
    }
    for (from, to) in &furniture.binds {
        fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
        bind(from, to)?;
    }
    mount_special("proc", Path::new("/proc"))?;
    remount_sys(&scratch, &furniture.cgroups)?;
    open_kvm(&scratch)?;
    start_network()
}

/// Moves this process into the node's cgroups, so that all its children are born there.
fn join_cgroups(cgroups: &[(PathBuf, PathBuf)]) -> Result<()> {
    for (cgroup, _) in cgroups {
        fs::write(cgroup.join("cgroup.procs"), "0")
            .with_context(|| format!("joining {}", cgroup.display()))?;
    }
    Ok(())
}

/// A private copy-on-write view of a tree, in which mount points can be made without a trace on the machine.
fn overlay(scratch: &Path, tree: &Path) -> Result<()> {
    let name = tree.file_name().context("a tree without a name")?;
    let (upper, work) = (scratch.join(name).join("upper"), scratch.join(name).join("work"));
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(&work)?;
    let options =
        format!("lowerdir={},upperdir={},workdir={}", tree.display(), upper.display(), work.display());
    mount(Some("overlay"), tree, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .with_context(|| format!("laying an overlay over {}", tree.display()))
}

/// A /sys of the node's own network namespace, with the node's cgroups as the roots of their hierarchies.
fn remount_sys(scratch: &Path, cgroups: &[(PathBuf, PathBuf)]) -> Result<()> {
    let aside = scratch.join("cgroup");
    fs::create_dir_all(&aside)?;
    let root = Path::new("/sys/fs/cgroup");
    mount(Some(root), &aside, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .context("setting the cgroup mounts aside")?;
    mount_special("sysfs", Path::new("/sys"))?;
    mount(Some(&aside), root, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .context("putting the cgroup mounts back")?;
    for (cgroup, hierarchy) in cgroups {
        bind(cgroup, hierarchy)?;
    }
    umount2(&aside, MntFlags::MNT_DETACH).context("letting go of the cgroup mounts")
}

/// A `/dev/kvm` that QEMU's own user may open too. The lab's guests are emulated, but libvirt probes QEMU anew at every
/// call (10 s and more a start) unless KVM looks the same to root and to that user.
fn open_kvm(scratch: &Path) -> Result<()> {
    let kvm = Path::new("/dev/kvm");
    if !kvm.exists() {
        return Ok(());
    }
    let own = scratch.join("kvm");
    let (everybody, number) = (Mode::from_bits_truncate(0o666), makedev(10, 232));
    mknod(&own, SFlag::S_IFCHR, everybody, number).context("making a device node for KVM")?;
    fs::set_permissions(&own, fs::Permissions::from_mode(0o666)).context("opening the device node")?;
    bind(&own, kvm)
}

fn start_network() -> Result<()> {
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("starting ip")?;
    ensure!(status.success(), "ip could not bring up lo: {status}");
    for scope in ["all", "default"] {
        // Machines without IPv6 have no such file, and need none.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1");
    }
    Ok(())
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("binding {} to {}", from.display(), to.display()))
}

fn mount_special(kind: &str, at: &Path) -> Result<()> {
    mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mounting {kind} on {}", at.display()))
}

fn remount(at: &str, flags: MsFlags) -> nix::Result<()> {
    mount(None::<&str>, at, None::<&str>, flags, None::<&str>)
}

/// Reaps orphans. Ends, and with it every process of the node, when the other end of the lifeline is closed.
fn reap_until_cut(lifeline: BorrowedFd<'_>) -> Result<()> {
    const LOOK_EVERY_MS: u16 = 100;
    let mut kept = false;
    loop {
        let mut watched = [PollFd::new(lifeline, PollFlags::POLLIN)];
        let watched = if kept { &mut [][..] } else { &mut watched[..] };
        let ready = poll(watched, PollTimeout::from(LOOK_EVERY_MS)).context("watching the lifeline")?;
        if ready > 0 {
            let mut byte = [0];
            match nix::unistd::read(lifeline, &mut byte).context("reading the lifeline")? {
                0 => return Ok(()),
                _ if byte[0] == KEEP => kept = true,
                _ => bail!("a byte on the lifeline that means nothing: {byte:?}"),
            }
        }
        reap_all();
    }
}

fn reap_all() {
    let any = Pid::from_raw(-1);
    while matches!(waitpid(any, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {
    }
}
