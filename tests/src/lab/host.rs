//! A hypervisor host: a node with a libvirtd of its own.

use std::fs;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::node::Node;
use super::process::Process;

/// How long libvirtd may take to answer. It probes QEMU's abilities on its first start.
const LIBVIRTD_LIMIT: Duration = Duration::from_secs(120);

/// Whom QEMU runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QemuUser {
    /// root, and libvirt leaves the ownership of files alone.
    #[default]
    Root,
    /// libvirt's own defaults: QEMU as `libvirt-qemu`, files handed to it and taken back.
    LibvirtQemu,
}

/// How a host is set up.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostOptions {
    /// Whom QEMU runs as.
    pub qemu_user: QemuUser,
}

/// A hypervisor host. Everything that a [`Node`] can do, it can.
pub struct Host {
    // Before the node: killed first.
    libvirtd: Option<Process>,
    node: Node,
    options: HostOptions,
}

impl Deref for Host {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl Host {
    pub(super) fn start(node: Node, options: HostOptions) -> Result<Self> {
        write_config(&node, options.qemu_user)?;
        let mut host = Self { libvirtd: None, node, options };
        host.start_libvirtd()?;
        Ok(host)
    }

    /// The node below.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    pub(super) fn node_mut(&mut self) -> &mut Node {
        &mut self.node
    }

    /// Whom its QEMUs run as.
    #[must_use]
    pub fn qemu_user(&self) -> QemuUser {
        self.options.qemu_user
    }

    /// Where libvirtd's socket is on the machine. The node sees it at `/run/libvirt/libvirt-sock`.
    #[must_use]
    pub fn libvirt_socket(&self) -> PathBuf {
        self.node.dir().join("run/libvirt/libvirt-sock")
    }

    /// The URI by which a process outside the host reaches its libvirtd.
    #[must_use]
    pub fn libvirt_uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.libvirt_socket().display())
    }

    /// Runs `virsh` against the host's libvirtd.
    ///
    /// # Errors
    /// When virsh fails; the error carries what it said.
    pub fn virsh(&self, args: &[&str]) -> Result<String> {
        self.node.exec("virsh", &[&["-q", "-c", "qemu:///system"], args].concat())
    }

    /// Starts libvirtd and waits until it answers.
    ///
    /// # Errors
    /// When it ends or does not answer in time; the error carries what it said.
    pub fn start_libvirtd(&mut self) -> Result<()> {
        // The socket that a killed libvirtd left behind would be taken for the new one's.
        let _ = fs::remove_file(self.libvirt_socket());
        let pid_file = "/run/libvirt/libvirtd.pid";
        fs::create_dir_all(self.node.dir().join("run/libvirt"))?;
        let libvirtd = self.node.spawn("libvirtd", &["-p", pid_file], &[])?;
        let deadline = Instant::now() + LIBVIRTD_LIMIT;
        while !(self.libvirt_socket().exists() && self.virsh(&["uri"]).is_ok()) {
            if libvirtd.ended().is_some() || Instant::now() > deadline {
                bail!("libvirtd on {} did not answer: {}", self.node.name(), libvirtd.printed());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.libvirtd = Some(libvirtd);
        Ok(())
    }

    /// Kills libvirtd with SIGKILL; its guests run on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill9_libvirtd(&mut self) -> Result<()> {
        self.libvirtd.take().context("libvirtd does not run")?.kill9()
    }

    /// The running libvirtd, for signals such as SIGSTOP.
    #[must_use]
    pub fn libvirtd(&self) -> Option<&Process> {
        self.libvirtd.as_ref()
    }

    /// Leaves libvirtd running until the host ends.
    pub fn detach_libvirtd(&mut self) {
        if let Some(libvirtd) = self.libvirtd.take() {
            libvirtd.detach();
        }
    }

    /// Pulls the plug; [`super::Lab::boot`] starts the host again.
    pub fn crash(&mut self) {
        self.node.crash();
        self.libvirtd = None;
    }

    /// The machine's process numbers of all QEMUs on this host.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn qemu_pids(&self) -> Result<Vec<u32>> {
        let space = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let ours = space(self.node.init_pid()?);
        let numbers =
            fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_qemu = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("qemu-system"))
        };
        Ok(numbers.filter(|pid| is_qemu(pid) && space(*pid) == ours).collect())
    }
}

fn write_config(node: &Node, qemu_user: QemuUser) -> Result<()> {
    let etc = node.dir().join("etc-libvirt");
    // Two hosts of one UUID refuse to move a guest between each other.
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").context("drawing a host UUID")?;
    let libvirtd = format!(
        "host_uuid = \"{}\"\nunix_sock_group = \"root\"\nunix_sock_rw_perms = \"0700\"\n\
         auth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\n\
         log_outputs = \"2:file:/var/log/libvirt/libvirtd.log\"\n",
        uuid.trim()
    );
    fs::write(etc.join("libvirtd.conf"), libvirtd).context("writing libvirtd.conf")?;
    // No virtlogd here, and no cgroups of libvirt's own.
    let common = "stdio_handler = \"file\"\ncgroup_controllers = []\nmax_core = 0\n";
    let as_root = "security_driver = \"none\"\nuser = \"root\"\ngroup = \"root\"\ndynamic_ownership = 0\n\
                   remember_owner = 0\nnamespaces = []\n";
    let qemu = match qemu_user {
        QemuUser::Root => format!("{common}{as_root}"),
        QemuUser::LibvirtQemu => common.to_owned(),
    };
    fs::write(etc.join("qemu.conf"), qemu).context("writing qemu.conf")
}
