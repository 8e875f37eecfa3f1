//! Real hosts on one machine: each has its own network, mount, UTS, IPC, PID and cgroup namespaces, its own state folders
//! and, if asked for, its own libvirtd.
//!
//! ```text
//!   outside ── bridge lan0    10.90.0.1/24 ──┬── eth0 of h1 (10.90.0.11)   agents, coordinator
//!    (a node                                 └── eth0 of h2 (10.90.0.12)
//!     too)   ── bridge guest0 10.77.0.1/24 ──┬── eth1 of h1 (no address)   the uplink of novabr0
//!                                            └── eth1 of h2
//! ```
//!
//! Nothing is set up in the machine's own network namespace. Dropping the lab kills each node's process 1, with which the
//! kernel kills all other processes of the node; mounts, networks and devices go with the last of them. The same happens when
//! the test process dies, however it dies: process 1 holds one end of a pipe to it.

mod capture;
mod cgroup;
mod host;
pub mod init;
mod life;
mod long_way;
mod namespaces;
mod net;
mod node;
mod process;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

pub use capture::{Capture, Counts, Watch};
pub use host::{Host, HostOptions, QemuUser};
pub use long_way::{Distance, LongWay};
pub use node::Node;
pub use process::Process;

use node::{NodeSpec, Role};

/// Addresses of the lab's two networks.
pub mod addr {
    use std::net::Ipv4Addr;

    /// The outside node on the hosts' network.
    pub const OUTSIDE_LAN: Ipv4Addr = Ipv4Addr::new(10, 90, 0, 1);
    /// The outside node on the guests' network.
    pub const OUTSIDE_GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    /// Prefix length of both networks.
    pub const PREFIX: u8 = 24;

    /// The `eth0` address of the n-th node (from 1) that joined the lab.
    #[must_use]
    pub fn of_node(n: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 90, 0, 10 + n)
    }
}

/// Several hosts and the network between them.
pub struct Lab {
    joined: u8,
    // Before the folder: fields are dropped in this order.
    outside: Node,
    root: tempfile::TempDir,
}

impl Lab {
    /// An empty lab: the outside node with both bridges. `name` appears in host names and cgroups.
    ///
    /// # Errors
    /// Without root, or when namespaces or bridges are refused.
    pub fn new(name: &str) -> Result<Self> {
        // UNIX socket paths end at 108 bytes, so the root is short.
        let root = tempfile::Builder::new()
            .prefix("nvl-")
            .rand_bytes(5)
            .tempdir()
            .context("making the lab's root")?;
        open_to_others(root.path())?;
        let spec = NodeSpec::new(root.path(), name, "out", Role::Outside)?;
        let outside = Node::start(spec)?;
        net::make_bridges(&outside)?;
        Ok(Self { joined: 0, outside, root })
    }

    /// The node that stands for everything but the hypervisor hosts: clients, and the first coordinator.
    #[must_use]
    pub fn outside(&self) -> &Node {
        &self.outside
    }

    /// The folder that holds every node's state folders.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Adds a node without libvirt, with `eth0` only.
    ///
    /// # Errors
    /// When it cannot be started or wired.
    pub fn node(&mut self, name: &str) -> Result<Node> {
        self.start(name, Role::Plain)
    }

    /// Adds a hypervisor host and waits until its libvirtd answers.
    ///
    /// # Errors
    /// When it cannot be started or wired, or libvirtd does not come up.
    pub fn host(&mut self, name: &str, options: HostOptions) -> Result<Host> {
        Host::start(self.start(name, Role::Hypervisor)?, options)
    }

    fn start(&mut self, name: &str, role: Role) -> Result<Node> {
        self.joined += 1;
        let spec =
            NodeSpec::new(self.root.path(), &self.outside.spec().lab, name, role)?.numbered(self.joined);
        let node = Node::start(spec)?;
        net::attach(&self.outside, &node)?;
        Ok(node)
    }

    /// Starts a crashed host again with the state that it left on disk, as after a power cut.
    ///
    /// # Errors
    /// As [`Lab::host`].
    pub fn boot(&self, host: &mut Host) -> Result<()> {
        net::detach(&self.outside, host.node());
        host.node_mut().boot()?;
        net::attach(&self.outside, host.node())?;
        host.start_libvirtd()
    }

    /// Limits the host's link to the others to `mbit` Mbit/s in both directions (token bucket).
    ///
    /// # Errors
    /// When `tc` refuses.
    pub fn shape(&self, node: &Node, mbit: u32) -> Result<()> {
        net::shape(&self.outside, node, mbit)
    }

    /// Takes the limit away again.
    ///
    /// # Errors
    /// When `tc` refuses.
    pub fn unshape(&self, node: &Node) -> Result<()> {
        net::unshape(&self.outside, node)
    }

    /// Puts the host at the end of a long way from all the others, until what it returns is dropped.
    ///
    /// # Errors
    /// When `ip` refuses, or there is no `/dev/net/tun`.
    pub fn put_far<'a>(&'a self, node: &'a Node, distance: Distance) -> Result<LongWay<'a>> {
        LongWay::begin(&self.outside, node, distance)
    }

    /// Cuts (`up == false`) or restores the host's `eth0`.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn set_link(&self, node: &Node, up: bool) -> Result<()> {
        net::set_link(&self.outside, node, up)
    }

    /// Starts to count what crosses the wire between these nodes' `eth0`; see [`Capture`].
    ///
    /// # Errors
    /// When the packet socket cannot be opened.
    pub fn capture(&self, nodes: &[&Node], watch: Watch) -> Result<Capture> {
        Capture::start(&self.outside, nodes, watch)
    }

    /// Lets all nodes and the folder live on after this process, and says where.
    #[must_use]
    pub fn keep(mut self, hosts: &mut [&mut Host]) -> PathBuf {
        self.outside.keep();
        hosts.iter_mut().for_each(|host| host.node_mut().keep());
        self.root.disable_cleanup(true);
        self.root.path().to_path_buf()
    }
}

/// QEMU may run as a user of its own and must reach the files that a host keeps for it.
fn open_to_others(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .context("opening the lab's root to others")
}
