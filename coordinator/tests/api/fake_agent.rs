//! An agent without a hypervisor: it joins, keeps a session, does at once what it is told, and reports. Its
//! migrations have the states of real ones, so that the whole saga runs against it.

use crate::cluster::{TestCluster, eventually};
use novacron_common::{
    ids::{AttemptKey, HostId, MigrationId, VmId},
    record::{
        Accel, AttemptEnd, AttemptOutcome, AttemptReport, HostAddresses, HostCapacity, HostHello, HostStatus,
        InboundState, MigrationReport, OutboundState, Output, SideState, VmAction, VmAssignment, VmObservation,
        VmState,
    },
    units::{ByteCount, Epoch, Incarnation, UnixMillis},
    wire::{AgentCommand, AgentReply, AttemptStart, ControlRequest, Directory, SessionOpened, StreamKind},
};
use novacron_coordinator::identity::now;
use novacron_transport::{Endpoint, IdentityCell, Link, Role, Stream};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet};

/// A handle; dropping it is a crash of the host.
pub struct FakeAgent {
    pub host: HostId,
    pub endpoint: Endpoint,
    world: Arc<World>,
    _tasks: JoinSet<()>,
}

/// What the agent holds.
struct World {
    host: HostId,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    directory: watch::Sender<Directory>,
    link: watch::Sender<Option<Link>>,
}

#[derive(Default)]
struct State {
    vms: BTreeMap<VmId, VmObservation>,
    sides: BTreeMap<MigrationId, SideState>,
    attempts: Vec<AttemptKey>,
    log: Vec<String>,
    /// Where the source sends to.
    peers: BTreeMap<HostId, Arc<World>>,
    /// The target says that it is not ready until this is cleared.
    hold_inbound: bool,
}

impl FakeAgent {
    /// Joins as `name` and keeps a session.
    pub async fn join(cluster: &TestCluster, name: &str) -> Self {
        let token = cluster.join_token().await;
        let (identity, host) = cluster.enrol(&token, name).await.unwrap();
        let cell = Arc::new(IdentityCell::new(identity));
        let endpoint = Endpoint::bind(SocketAddr::from(([127, 0, 0, 1], 0)), cell).unwrap();
        let world = Arc::new(World {
            host,
            state: Mutex::default(),
            changed: watch::Sender::new(0),
            directory: watch::Sender::default(),
            link: watch::Sender::new(None),
        });
        let mut tasks = JoinSet::new();
        let hello = hello(host, name, endpoint.local_addr().unwrap());
        tasks.spawn(keep_session(endpoint.clone(), cluster.quic, hello, world.clone()));
        tasks.spawn(accept_links(endpoint.clone(), world.clone()));
        let agent = Self { host, endpoint, world, _tasks: tasks };
        agent.world.link.subscribe().wait_for(Option::is_some).await.unwrap();
        // Its first report is the last thing that the ledger learns of an idle host.
        let reported = |state: &novacron_core::State| state.host(host).unwrap().memory_available;
        let ledger = &cluster.coordinator.parts.ledger;
        eventually("the host has reported", async || ledger.read(reported) == ByteCount::gib(8)).await;
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

    pub fn vm(&self, vm: VmId) -> Option<VmObservation> {
        self.world.state.lock().unwrap().vms.get(&vm).cloned()
    }

    pub fn attempts(&self) -> usize {
        self.world.state.lock().unwrap().attempts.len()
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

async fn keep_session(endpoint: Endpoint, coordinator: SocketAddr, hello: HostHello, world: Arc<World>) {
    loop {
        if let Err(error) = converse(&endpoint, coordinator, &hello, &world).await {
            tracing::debug!(%error, "fake session ended");
        }
        world.link.send_replace(None);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn converse(
    endpoint: &Endpoint,
    coordinator: SocketAddr,
    hello: &HostHello,
    world: &Arc<World>,
) -> Result<(), novacron_transport::LinkError> {
    let link = endpoint.connect_any(coordinator, novacron_transport::RoleKind::Coordinator).await?;
    let mut stream = link.open(StreamKind::Session).await?;
    stream.send(hello).await?;
    match stream.recv::<SessionOpened>().await? {
        SessionOpened::Welcome(directory) => drop(world.directory.send_replace(directory)),
        other => {
            tracing::debug!(?other, "no session");
            return Ok(());
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
        Ok(())
    };
    let hearing = async {
        while let Some(directory) = recv.recv_opt::<Directory>().await? {
            world.directory.send_replace(directory);
        }
        Ok(())
    };
    tokio::select! {
        end = reporting => end,
        end = hearing => end,
        _ = link.closed() => Ok(()),
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
    let reply = world.obey(command);
    let _ = stream.send(&reply).await;
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

impl World {
    fn status(&self, sequence: u64) -> HostStatus {
        HostStatus {
            incarnation: Incarnation(1),
            sequence,
            capacity: capacity(),
            load_millis: 0,
            memory_available: ByteCount::gib(8),
            vms: self.state.lock().unwrap().vms.values().cloned().collect(),
            foreign_domains: Vec::new(),
        }
    }

    fn note(&self, text: String) {
        self.state.lock().unwrap().log.push(text);
        self.changed.send_modify(|n| *n += 1);
    }

    fn obey(self: &Arc<Self>, command: AgentCommand) -> AgentReply {
        match command {
            AgentCommand::AssignVm(assignment) => self.assign(assignment),
            AgentCommand::ObserveVm(vm) => AgentReply::Vm(self.state.lock().unwrap().vms.get(&vm).cloned()),
            AgentCommand::ConsoleLog { .. } => AgentReply::Bytes(b"login: ".to_vec()),
            AgentCommand::StartAttempt(start) => self.attempt(start),
            AgentCommand::PrepareInbound { ticket, .. } => {
                self.note("prepare".into());
                let hold = self.state.lock().unwrap().hold_inbound;
                let state = if hold { InboundState::Preparing } else { InboundState::Ready };
                self.side(ticket.migration, SideState::Inbound(state))
            }
            AgentCommand::StartOutbound { ticket, .. } => {
                self.note("start".into());
                self.send_guest(ticket.migration, ticket.vm, ticket.target)
            }
            AgentCommand::ResumeInbound { migration, vm, epoch, .. } => {
                self.note("resume".into());
                self.put(vm, epoch, VmState::Running, 0);
                self.side(migration, SideState::Inbound(InboundState::Running))
            }
            AgentCommand::ReleaseOutbound { migration, .. } => {
                self.note("release".into());
                self.side(migration, SideState::Outbound(OutboundState::Released))
            }
            AgentCommand::CancelOutbound { migration, reason } => {
                self.note("cancel".into());
                let back = OutboundState::Back { reason, cancelled: true };
                self.side(migration, SideState::Outbound(back))
            }
            AgentCommand::DiscardInbound { migration, reason, .. } => {
                self.note("discard".into());
                self.side(migration, SideState::Inbound(InboundState::Discarded { reason }))
            }
            AgentCommand::ObserveMigration(migration) => {
                AgentReply::Migration(self.state.lock().unwrap().sides.get(&migration).cloned().into_iter().collect())
            }
            AgentCommand::FetchImages(_) | AgentCommand::KillAttempt { .. } | AgentCommand::Directory(_) => {
                AgentReply::Accepted
            }
        }
    }

    fn assign(&self, assignment: VmAssignment) -> AgentReply {
        let VmAssignment { vm, epoch, action, .. } = assignment;
        match action {
            VmAction::Run => self.put(vm, epoch, VmState::Running, 0),
            VmAction::Stop { .. } => self.put(vm, epoch, VmState::Stopped, 0),
            VmAction::Restart { request, .. } => self.put(vm, epoch, VmState::Running, request),
            VmAction::Delete => drop(self.state.lock().unwrap().vms.remove(&vm)),
        }
        self.note(format!("{action:?}"));
        AgentReply::Accepted
    }

    fn put(&self, vm: VmId, epoch: Epoch, state: VmState, restarted: u64) {
        let mut world = self.state.lock().unwrap();
        let restarted = world.vms.get(&vm).map_or(0, |old| old.restarted).max(restarted);
        let observation = VmObservation {
            vm,
            epoch,
            state,
            message: None,
            addresses: vec!["10.0.0.7".parse().unwrap()],
            restarted,
            cpu_ms: 5,
            memory: ByteCount::mib(64),
            since: UnixMillis(1),
        };
        world.vms.insert(vm, observation);
    }

    fn side(&self, migration: MigrationId, side: SideState) -> AgentReply {
        self.state.lock().unwrap().sides.insert(migration, side);
        AgentReply::Accepted
    }

    /// The guest is at once gone here and complete there; both sides say so only when they are asked.
    fn send_guest(&self, migration: MigrationId, vm: VmId, target: HostId) -> AgentReply {
        let peer = self.state.lock().unwrap().peers[&target].clone();
        self.state.lock().unwrap().vms.remove(&vm);
        peer.side(migration, SideState::Inbound(InboundState::Arrived));
        let report = MigrationReport { copy_ms: 7, iterations: 2, ..MigrationReport::default() };
        self.side(migration, SideState::Outbound(OutboundState::Gone(report)))
    }

    /// It prints its name and succeeds; the end is reported like a real one.
    fn attempt(self: &Arc<Self>, start: AttemptStart) -> AgentReply {
        {
            let mut state = self.state.lock().unwrap();
            if state.attempts.contains(&start.attempt) {
                return AgentReply::AlreadySo;
            }
            state.attempts.push(start.attempt);
        }
        let world = self.clone();
        tokio::spawn(async move { world.report_end(&start).await });
        AgentReply::Accepted
    }

    async fn report_end(&self, start: &AttemptStart) {
        let end = AttemptEnd {
            outcome: AttemptOutcome::Exited(0),
            started_at: Some(now()),
            ended_at: now(),
            output: Output { head: format!("hello from {}", self.host).into_bytes(), tail: Vec::new(), total: 40 },
        };
        let report = AttemptReport { attempt: start.attempt, epoch: start.epoch, end };
        let link = self.link.subscribe().wait_for(Option::is_some).await.unwrap().clone().unwrap();
        let mut stream = link.open(StreamKind::Control).await.unwrap();
        stream.send(&ControlRequest::AttemptEnded(report)).await.unwrap();
        stream.finish();
        stream.recv::<()>().await.expect("the report is acknowledged once it is committed");
    }
}
