//! What the processes of a machine hold that CRIU cannot save, found in procfs before anything is done to them. It reads below a
//! path, so that it is tested on made-up trees; what it does not know CRIU still refuses by itself, and the machine runs on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, File},
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
};

/// Most faults that are told; a machine has thousands of processes that may all do the same.
pub const FAULTS_MAX: usize = 16;

/// Longest file of procfs that is read, bytes: the maps of a process with as many mappings as the kernel allows by default.
const FILE_MAX: u64 = 32 << 20;

/// Longest name that is repeated, characters.
const NAME_MAX: usize = 120;

/// Devices that are on every host, and have no state that a process could miss.
const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Descriptors without a file that CRIU knows (`proc_pid_fd(5)`).
const ANONYMOUS: &[&str] =
    &["[eventfd]", "[eventpoll]", "[timerfd]", "[signalfd]", "inotify", "[fanotify]", "[pidfd]"];

/// Namespaces that all processes of a machine share.
const NAMESPACES: &[&str] = &["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// Sockets of these tables can be saved (`proc_pid_net(5)`).
const TABLES: &[(&str, Column)] = &[
    ("unix", Column(6)),
    ("tcp", Column(9)),
    ("tcp6", Column(9)),
    ("udp", Column(9)),
    ("udp6", Column(9)),
    ("netlink", Column(9)),
];

/// Sockets of these cannot.
const REFUSED_TABLES: &[(&str, Column)] =
    &[("packet", Column(8)), ("raw", Column(9)), ("raw6", Column(9)), ("icmp", Column(9))];

/// Of a process that the machine itself did not begin.
const OUTSIDE: &str = "came in from outside";

/// Where a table has a socket's inode, counted from 0.
#[derive(Debug, Clone, Copy)]
struct Column(usize);

/// Something that keeps a machine where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Whose, as the host counts.
    pub pid: i32,
    /// What the process calls itself.
    pub name: String,
    /// What it holds.
    pub what: String,
    /// Why that cannot be saved, and what helps.
    pub why: &'static str,
}

impl Fault {
    /// Whether it may be over in a moment: a command that was run in the machine is through before its last process is gone.
    pub fn may_pass(&self) -> bool {
        self.what == OUTSIDE
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({}) {}: {}", self.pid, self.name, self.what, self.why)
    }
}

/// Looks through the processes of a machine: `members` are all that are in its cgroup, `init` the first. Numbers are the
/// host's. A process that ends meanwhile has no faults.
///
/// # Errors
/// If procfs (`root`) cannot be read.
pub fn scan(root: &Path, init: i32, members: &[i32]) -> io::Result<Vec<Fault>> {
    let tree = Tree::read(root, init, members)?;
    let mut faults = Vec::new();
    for process in &tree.processes {
        tree.look_at(process, &mut faults)?;
        if faults.len() >= FAULTS_MAX {
            break;
        }
    }
    faults.truncate(FAULTS_MAX);
    Ok(faults)
}

struct Process {
    pid: i32,
    name: String,
    parent: i32,
    tracer: i32,
    is_dead: bool,
}

struct Tree {
    root: PathBuf,
    init: i32,
    processes: Vec<Process>,
    sockets: BTreeSet<u64>,
    refused_sockets: BTreeMap<u64, &'static str>,
    namespaces: BTreeMap<&'static str, PathBuf>,
}

impl Tree {
    fn read(root: &Path, init: i32, members: &[i32]) -> io::Result<Self> {
        let mut processes = Vec::new();
        for pid in members {
            processes.extend(gone(process(root, *pid))?);
        }
        let net = root.join(init.to_string()).join("net");
        let mut sockets = BTreeSet::new();
        for (table, column) in TABLES {
            sockets.extend(inodes(&net.join(table), *column)?);
        }
        let mut refused_sockets = BTreeMap::new();
        for (table, column) in REFUSED_TABLES {
            refused_sockets
                .extend(inodes(&net.join(table), *column)?.into_iter().map(|inode| (inode, *table)));
        }
        let of_init = |name: &&'static str| Some((*name, namespace(root, init, name)?));
        let namespaces = NAMESPACES.iter().filter_map(of_init).collect();
        Ok(Self { root: root.to_owned(), init, processes, sockets, refused_sockets, namespaces })
    }

    fn folder(&self, process: &Process) -> PathBuf {
        self.root.join(process.pid.to_string())
    }

    fn look_at(&self, process: &Process, faults: &mut Vec<Fault>) -> io::Result<()> {
        if process.is_dead {
            return Ok(());
        }
        let mut found = |what: String, why| {
            faults.push(Fault { pid: process.pid, name: process.name.clone(), what, why });
        };
        if !self.descends(process) {
            found(
                OUTSIDE.into(),
                "only what the machine itself began is saved; wait for `novactl vm exec` to end, or end it",
            );
            return Ok(());
        }
        if process.tracer != 0 {
            found(format!("is traced by process {}", process.tracer), "CRIU has to trace it itself");
        }
        for (name, own) in &self.namespaces {
            if namespace(&self.root, process.pid, name).is_some_and(|its| its != *own) {
                found(
                    format!("has a {name} namespace of its own"),
                    "only the machine's own namespaces are saved",
                );
            }
        }
        for target in gone(descriptors(&self.folder(process)))?.unwrap_or_default() {
            if let Some(why) = self.descriptor(&target) {
                found(format!("has {} open", shown(&target)), why);
            }
        }
        let maps = gone(read(&self.folder(process).join("maps")))?.unwrap_or_default();
        let mapped: BTreeSet<&str> = maps.lines().filter_map(mapped_file).collect();
        for file in mapped {
            if let Some(why) = mapping(file) {
                found(format!("has {} mapped", shown(file)), why);
            }
        }
        Ok(())
    }

    /// Whether it comes from the machine's first process. What was orphaned belongs to that one, too.
    fn descends(&self, process: &Process) -> bool {
        let parents: BTreeMap<i32, i32> = self.processes.iter().map(|p| (p.pid, p.parent)).collect();
        let mut at = process.pid;
        for _ in 0..=parents.len() {
            match parents.get(&at) {
                _ if at == self.init => return true,
                Some(parent) => at = *parent,
                None => return false,
            }
        }
        false
    }

    fn descriptor(&self, target: &str) -> Option<&'static str> {
        if let Some(inode) = target.strip_prefix("socket:[") {
            return self.socket(inode.trim_end_matches(']').parse().ok()?);
        }
        if let Some(kind) = target.strip_prefix("anon_inode:") {
            return (!ANONYMOUS.contains(&kind)).then(|| anonymous(kind));
        }
        device(target)
    }

    fn socket(&self, inode: u64) -> Option<&'static str> {
        match self.refused_sockets.get(&inode) {
            Some(&"packet") => Some("packet sockets see the network of one host, and are not saved"),
            Some(_) => Some("raw sockets are not saved"),
            None if self.sockets.contains(&inode) => None,
            None => Some("it is of a kind that is not saved, or leads out of the machine"),
        }
    }
}

/// What was there a moment ago.
fn gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn process(root: &Path, pid: i32) -> io::Result<Process> {
    let status = read(&root.join(pid.to_string()).join("status"))?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
            .unwrap_or_default()
    };
    let number = |name| field(name).parse().unwrap_or(0);
    let is_dead = field("State").starts_with(['Z', 'X']);
    Ok(Process {
        pid,
        name: shown(field("Name")),
        parent: number("PPid"),
        tracer: number("TracerPid"),
        is_dead,
    })
}

fn namespace(root: &Path, pid: i32, name: &str) -> Option<PathBuf> {
    fs::read_link(root.join(pid.to_string()).join("ns").join(name)).ok()
}

fn descriptors(folder: &Path) -> io::Result<Vec<String>> {
    let mut targets = Vec::new();
    for entry in fs::read_dir(folder.join("fd"))? {
        let target = gone(entry.and_then(|entry| fs::read_link(entry.path())))?;
        targets.extend(target.map(|target| target.to_string_lossy().into_owned()));
    }
    targets.sort_unstable();
    targets.dedup();
    Ok(targets)
}

/// A kernel without a protocol has no table of it.
fn inodes(table: &Path, column: Column) -> io::Result<Vec<u64>> {
    let text = gone(read(table))?.unwrap_or_default();
    let inode = |line: &str| line.split_ascii_whitespace().nth(column.0)?.parse().ok();
    Ok(text.lines().skip(1).filter_map(inode).collect())
}

fn anonymous(kind: &str) -> &'static str {
    match kind {
        "[io_uring]" => {
            "io_uring's queues are shared with the kernel, and are not saved; have the program use epoll"
        }
        "[perf_event]" => "counters of the processor are not saved",
        "[userfaultfd]" => "whoever handles its page faults is not saved",
        kind if kind.starts_with("bpf") || kind.starts_with("[bpf") => "programs in the kernel are not saved",
        _ => "CRIU does not know such descriptors",
    }
}

fn device(target: &str) -> Option<&'static str> {
    let is_own = ["/dev/shm/", "/dev/novacron/"].iter().any(|folder| target.starts_with(folder));
    if !target.starts_with("/dev/") || DEVICES.contains(&target) || is_own {
        return None;
    }
    match target {
        "/dev/tty" | "/dev/console" | "/dev/ptmx" => Some("a terminal has its other end outside the machine"),
        pts if pts.starts_with("/dev/pts/") => Some("a terminal has its other end outside the machine"),
        _ => Some("it is a device of this host"),
    }
}

/// The path in a line of `maps` (`proc_pid_maps(5)`).
fn mapped_file(line: &str) -> Option<&str> {
    let mut rest = line;
    for _address_rights_offset_device_inode in 0..5 {
        rest = rest.trim_start().split_once(' ')?.1;
    }
    Some(rest.trim_start()).filter(|file| file.starts_with('/') || file.starts_with("anon_inode:"))
}

fn mapping(file: &str) -> Option<&'static str> {
    if let Some(kind) = file.strip_prefix("anon_inode:") {
        return Some(anonymous(kind));
    }
    // Shared memory without a name, and that of System V, look like deleted files and are none.
    let is_memory = ["/memfd:", "/dev/zero", "/SYSV"].iter().any(|prefix| file.starts_with(prefix));
    match file.strip_suffix(" (deleted)") {
        Some(_) if is_memory => None,
        Some(_) => Some("it was deleted, and nothing would be there to map again; restart the program"),
        None => device(file),
    }
}

/// For people: processes choose their names, and those of their files.
fn shown(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).take(NAME_MAX).collect()
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
