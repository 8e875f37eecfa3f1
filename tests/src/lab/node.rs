//! One node: its folders, its process 1, and programs started in it.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};

use super::addr;
use super::life::Life;
use super::process::Process;

/// (folder below the node's own, where the node sees it). Bound, not overlaid: product state needs real files below it.
pub const STATE: [(&str, &str); 9] = [
    ("run", "/run"),
    ("etc-novacron", "/etc/novacron"),
    ("lib-novacron", "/var/lib/novacron"),
    ("log-novacron", "/var/log/novacron"),
    ("etc-libvirt", "/etc/libvirt"),
    ("lib-libvirt", "/var/lib/libvirt"),
    ("log-libvirt", "/var/log/libvirt"),
    ("cache-libvirt", "/var/cache/libvirt"),
    ("tmp", "/var/tmp"),
];

/// What a node is for; decides how it is wired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Holds both bridges.
    Outside,
    /// `eth0` only.
    Plain,
    /// `eth0` and `eth1`.
    Hypervisor,
}

/// Who a node is, and where its files are. Survives a crash of the node.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// Name of the lab.
    pub lab: String,
    /// Name within the lab.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its folder on the machine.
    pub dir: PathBuf,
    /// Its number in the lab: 0 is the outside.
    pub number: u8,
    /// Unique on the machine, for cgroups.
    pub tag: String,
}

impl NodeSpec {
    /// A node's description, with its folders made.
    pub fn new(root: &Path, lab: &str, name: &str, role: Role) -> Result<Self> {
        // The outside's end of a host's link is named after the host, and interface names end at 15 characters.
        ensure!(name.len() <= 8 && !name.is_empty(), "a node's name has 1 to 8 characters: {name:?}");
        let dir = root.join(name);
        for (folder, _) in STATE {
            fs::create_dir_all(dir.join(folder)).with_context(|| format!("making {folder} of {name}"))?;
        }
        for folder in ["logs", "scratch"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        let unique = root.file_name().and_then(|name| name.to_str()).context("the lab's root has no name")?;
        Ok(Self {
            lab: lab.to_owned(),
            name: name.to_owned(),
            role,
            tag: format!("{unique}-{name}"),
            dir,
            number: 0,
        })
    }

    /// The same with a number.
    pub fn numbered(self, number: u8) -> Self {
        Self { number, ..self }
    }
}

/// A node that runs, or has crashed.
pub struct Node {
    spec: NodeSpec,
    life: Option<Life>,
    logs: AtomicU32,
}

impl Node {
    pub(super) fn start(spec: NodeSpec) -> Result<Self> {
        let life = Life::begin(&spec)?;
        Ok(Self { spec, life: Some(life), logs: AtomicU32::new(0) })
    }

    pub(super) fn boot(&mut self) -> Result<()> {
        ensure!(self.life.is_none(), "{} already runs", self.spec.name);
        self.life = Some(Life::begin(&self.spec)?);
        Ok(())
    }

    pub(super) fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    /// Its name within the lab.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its folder on the machine; below it `lib-novacron` is what the node sees as `/var/lib/novacron`, and so on.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.spec.dir
    }

    /// The address of its `eth0` (of `lan0` for the outside).
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        match self.spec.role {
            Role::Outside => addr::OUTSIDE_LAN,
            Role::Plain | Role::Hypervisor => addr::of_node(self.spec.number),
        }
    }

    /// Where a path of the node is on the machine, if it lies in one of the node's state folders.
    #[must_use]
    pub fn outside_path(&self, inside: &Path) -> Option<PathBuf> {
        STATE
            .iter()
            .find_map(|(folder, at)| Some(self.spec.dir.join(folder).join(inside.strip_prefix(at).ok()?)))
    }

    /// Starts a program inside the node; its output goes to a file of its own.
    ///
    /// # Errors
    /// When the node has crashed or the program cannot be started.
    pub fn spawn<S: AsRef<std::ffi::OsStr>>(
        &self,
        program: S,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Process> {
        let mut command = Command::new(program.as_ref());
        command.args(args).envs(env.iter().copied()).stdin(Stdio::null());
        self.spawn_command(command)
    }

    /// As [`Node::spawn`], for a command made by the caller. Its standard output and error are replaced.
    ///
    /// # Errors
    /// As [`Node::spawn`].
    pub fn spawn_command(&self, mut command: Command) -> Result<Process> {
        let log = self.next_log(command.get_program());
        let out = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        // A group of its own: the terminal's interrupt is for the test, which then ends its nodes in order.
        command.stdout(out.try_clone()?).stderr(out).process_group(0);
        Process::new(self.alive()?.namespaces.spawn(command)?, log)
    }

    /// Runs a program inside the node to its end and returns what it printed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output(&self, program: &str, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.alive()?
            .namespaces
            .spawn(command)?
            .wait_with_output()
            .context("waiting for a program in the node")
    }

    /// As [`Node::output`]; an exit code other than 0 is an error that carries what the program said.
    ///
    /// # Errors
    /// When it cannot be started or fails.
    pub fn exec(&self, program: &str, args: &[&str]) -> Result<String> {
        let output = self.output(program, args)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{program} {args:?} on {}: {}: {}",
            self.name(),
            output.status,
            said.trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `work` on a thread inside the node's network: a socket made there belongs to the node, and may be used anywhere.
    ///
    /// # Errors
    /// When the node has crashed, or what `work` returns.
    pub fn on_network<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.alive()?.namespaces.on_network(work)
    }

    pub(super) fn with_network(&self, command: &mut Command) -> Result<String> {
        self.alive()?.namespaces.with_network(command)
    }

    /// The machine's number of the node's process 1.
    ///
    /// # Errors
    /// When the node has crashed.
    pub fn init_pid(&self) -> Result<u32> {
        Ok(self.alive()?.init)
    }

    /// Whether the node runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.life.is_some()
    }

    /// Pulls the plug: kills every process of the node at once and waits until they are gone.
    pub fn crash(&mut self) {
        if let Some(life) = self.life.take() {
            life.end();
        }
    }

    /// Lets the node live on after this process.
    pub(super) fn keep(&mut self) {
        if let Some(life) = &mut self.life {
            life.keep();
        }
    }

    fn alive(&self) -> Result<&Life> {
        self.life.as_ref().with_context(|| format!("{} is down", self.spec.name))
    }

    fn next_log(&self, program: &std::ffi::OsStr) -> PathBuf {
        let number = self.logs.fetch_add(1, Ordering::Relaxed);
        let name = Path::new(program)
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        self.spec.dir.join("logs").join(format!("{number:03}-{name}.log"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.crash();
    }
}
