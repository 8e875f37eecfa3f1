//! An agent without a hypervisor: it joins, keeps a session, does at once what it is told, and reports. Its
//! migrations have the states of real ones, so that the whole saga runs against it.

mod world;

use crate::cluster::{TestCluster, eventually};
use novacron_common::{
    ids::{HostId, VmId},
    record::{Accel, HostAddresses, HostCapacity, HostHello, PreflightFault, VmObservation, VolumeSeen},
    units::{ByteCount, Incarnation},
    wire::{AgentCommand, AgentReply, Directory, LogChunk, SessionOpened, StreamKind},
};
use novacron_transport::{Endpoint, IdentityCell, Link, Role, Stream};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::task::JoinSet;
use world::World;

/// A handle; dropping it is a crash of the host.
pub struct FakeAgent {
    pub host: HostId,
    pub endpoint: Endpoint,
    world: Arc<World>,
    _tasks: JoinSet<()>,
}

impl FakeAgent {
    /// Joins as `name` and keeps a session.
    pub async fn join(cluster: &TestCluster, name: &str) -> Self {
        let token = cluster.join_token().await;
        let (identity, host) = cluster.enrol(&token, name).await.unwrap();
        let cell = Arc::new(IdentityCell::new(identity));
        let endpoint = Endpoint::bind(SocketAddr::from(([127, 0, 0, 1], 0)), cell).unwrap();
        let world = Arc::new(World::new(host));
        let mut tasks = JoinSet::new();
        let hello = hello(host, name, endpoint.local_addr().unwrap());
        tasks.spawn(keep_session(endpoint.clone(), cluster.quic, hello, world.clone()));
        tasks.spawn(accept_links(endpoint.clone(), world.clone()));
        let agent = Self { host, endpoint, world, _tasks: tasks };
        agent.world.link.subscribe().wait_for(Option::is_some).await.unwrap();
        // Its first report is the last thing that the ledger learns of an idle host.
        let reported = |state: &novacron_core::State| state.host(host).map(|h| h.memory_available);
        let ledger = &cluster.coordinator.parts.ledger;
        eventually("the host has reported", async || ledger.read(reported) == Some(ByteCount::gib(8))).await;
        agent
    }

    /// Lets the fakes move guests between each other.
    pub fn introduce(&self, other: &Self) {
        self.world.state.lock().unwrap().peers.insert(other.host, other.world.clone());
        other.world.state.lock().unwrap().peers.insert(self.host, self.world.clone());
    }

    /// From now on the target of a migration stays in preparation.
    pub fn hold_inbound(&self) {
        self.world.state.lock().unwrap().hold_inbound = true;
    }

    /// From now on this speaks against a machine's arrival here.
    pub fn object(&self, fault: PreflightFault) {
        self.world.state.lock().unwrap().faults.push(fault);
    }

    pub fn vm(&self, vm: VmId) -> Option<VmObservation> {
        self.world.state.lock().unwrap().vms.get(&vm).cloned()
    }

    /// From now on an attempt ends only once somebody has looked at what it prints.
    pub fn hold_attempts(&self) {
        self.world.state.lock().unwrap().hold_attempts = true;
    }

    /// The next `count` attempts are told that there is no room.
    pub fn fill_for(&self, count: u32) {
        self.world.state.lock().unwrap().full_for = count;
    }

    pub fn attempts(&self) -> usize {
        self.world.state.lock().unwrap().attempts.len()
    }

    /// From here on the host has these volumes, until they are removed.
    pub fn has_volumes(&self, volumes: Vec<VolumeSeen>) {
        self.world.state.lock().unwrap().volumes = volumes;
    }

    /// The commands that were received, in order.
    pub fn log(&self) -> Vec<String> {
        self.world.state.lock().unwrap().log.clone()
    }

    pub fn directory(&self) -> Directory {
        self.world.directory.borrow().clone()
    }

    /// The link of its session.
    pub async fn link(&self) -> Link {
        let mut link = self.world.link.subscribe();
        link.wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }

    /// The host crashes: no goodbye beyond the closed socket.
    pub async fn crash(self) {
        drop(self._tasks);
        self.endpoint.close().await;
    }
}

fn hello(host: HostId, name: &str, quic: SocketAddr) -> HostHello {
    HostHello {
        host,
        name: name.parse().unwrap(),
        incarnation: Incarnation(1),
        version: "test".into(),
        addresses: HostAddresses { quic },
        capacity: capacity(),
        accel: Accel::Tcg,
        can_kvm: true,
        can_namespace: true,
        features: Vec::new(),
    }
}

fn capacity() -> HostCapacity {
    HostCapacity { cpus: 4, memory: ByteCount::gib(8), storage: ByteCount::gib(100) }
}

async fn keep_session(endpoint: Endpoint, first: SocketAddr, hello: HostHello, world: Arc<World>) {
    loop {
        let known: Vec<_> = world.directory.borrow().coordinators.iter().map(|c| c.quic).collect();
        let candidates = if known.is_empty() { vec![first] } else { known };
        for address in candidates {
            let mut next = Some(address);
            while let Some(address) = next {
                next = match converse(&endpoint, address, &hello, &world).await {
                    Ok(leader) => leader.filter(|leader| *leader != address),
                    Err(error) => {
                        tracing::debug!(%error, "fake session ended");
                        None
                    }
                };
                world.link.send_replace(None);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The leader's address, if it is another.
async fn converse(
    endpoint: &Endpoint,
    coordinator: SocketAddr,
    hello: &HostHello,
    world: &Arc<World>,
) -> Result<Option<SocketAddr>, novacron_transport::LinkError> {
    let link = endpoint.connect_any(coordinator, novacron_transport::RoleKind::Coordinator).await?;
    let mut stream = link.open(StreamKind::Session).await?;
    stream.send(hello).await?;
    match stream.recv::<SessionOpened>().await? {
        SessionOpened::Welcome(directory) => drop(world.directory.send_replace(directory)),
        SessionOpened::NotLeader(leader) => return Ok(leader.map(|leader| leader.quic)),
        SessionOpened::Refused(reason) => {
            tracing::debug!(reason, "no session");
            return Ok(None);
        }
    }
    world.link.send_replace(Some(link.clone()));
    let mut serving = JoinSet::new();
    serving.spawn(serve_link(link.clone(), world.clone()));
    let (mut send, mut recv) = stream.split();
    let mut changes = world.changed.subscribe();
    let reporting = async {
        for sequence in 1.. {
            send.send(&world.status(sequence)).await?;
            let _ = tokio::time::timeout(Duration::from_millis(500), changes.changed()).await;
        }
        Ok(None)
    };
    let hearing = async {
        while let Some(directory) = recv.recv_opt::<Directory>().await? {
            world.directory.send_replace(directory);
        }
        Ok(None)
    };
    tokio::select! {
        end = reporting => end,
        end = hearing => end,
        _ = link.closed() => Ok(None),
    }
}

async fn accept_links(endpoint: Endpoint, world: Arc<World>) {
    let mut links = JoinSet::new();
    while let Some(link) = endpoint.accept().await {
        links.spawn(serve_link(link, world.clone()));
    }
}

async fn serve_link(link: Link, world: Arc<World>) {
    let mut streams = JoinSet::new();
    while let Ok((kind, stream)) = link.accept().await {
        assert!(matches!(link.peer(), Some(Role::Coordinator { .. })));
        let world = world.clone();
        streams.spawn(async move {
            match kind {
                StreamKind::Command => serve_command(stream, &world).await,
                StreamKind::Console => serve_console(stream).await,
                _ => {}
            }
        });
    }
}

async fn serve_command(mut stream: Stream, world: &Arc<World>) {
    let Ok(command) = stream.recv::<AgentCommand>().await else { return };
    let of_machine = match command {
        AgentCommand::MachineLog { lines, .. } => Some(match lines {
            None => LogChunk { at: 0, bytes: b"first\nlast\n".to_vec() },
            Some(_) => LogChunk { at: 6, bytes: b"last\n".to_vec() },
        }),
        _ => None,
    };
    let is_log = matches!(command, AgentCommand::AttemptLog { .. });
    let reply = world.obey(command);
    let _ = stream.send(&reply).await;
    if is_log && reply == AgentReply::Accepted {
        world.print(&mut stream).await;
    }
    if let Some(chunk) = of_machine {
        let _ = stream.send(&chunk).await;
    }
    stream.finish();
}

/// A console that echoes.
async fn serve_console(mut stream: Stream) {
    let _ = stream.recv::<novacron_common::wire::ConsoleOpen>().await;
    let _ = stream.send(&AgentReply::Accepted).await;
    let (mut send, mut recv) = stream.split();
    let _ = tokio::io::copy(&mut recv, &mut send).await;
    send.finish();
}
