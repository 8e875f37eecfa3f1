//! Three coordinators: started, crashed, restarted; and the clients that write through them and read from them.

use crate::{
    executor::{Executor, Machine},
    history::{History, Read, Wrote},
    host::Host,
    identities::{COORDINATORS, HOSTS, host_id, identity},
    jobs,
    moves::{
        metal::{Metal, Power},
        storm,
        truth::Truth,
        yard::Moving,
    },
    net::{Net, address},
};
use novacron_common::{
    api::TokenRole,
    ids::{MigrationId, TokenId, VmId},
    spec::{Name, Sha256Digest},
    wire::StreamKind,
};
use novacron_coordinator::{
    AgentStreams,
    agents::Agents,
    metrics::Metrics,
    raft::{Committed, Leadership, Ledger, LedgerError, Member},
    reconcilers::{self, World},
};
use novacron_core::{
    Applied, CommandBody, TableId,
    command::TokenPut,
    record::{CoordinatorRecord, MigrationRecord},
    table::RowKey as _,
};
use novacron_runtime::{spawn, time::sleep};
use novacron_store::Store;
use novacron_transport::{Endpoint, Link, LinkError, Role};
use std::{
    sync::{Arc, OnceLock, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Clients on each coordinator.
const CLIENTS: u64 = 2;

/// The cluster.
pub struct Cluster {
    /// The world.
    pub executor: Arc<Executor>,
    /// Its network.
    pub net: Net,
    /// What was seen.
    pub history: History,
    /// Its hosts.
    pub hosts: Vec<Host>,
    /// What is true of machines that move; a world without it has jobs in their place.
    truth: Option<Truth>,
    /// Keeps who is struck at the edges of moves.
    struck: Option<storm::Hosts>,
    coordinators: Vec<Option<Life>>,
    lives: u64,
}

/// A running coordinator; its ledger once it is open.
type Life = Arc<OnceLock<Ledger>>;

/// What a coordinator's tasks need.
#[derive(Clone)]
struct Seat {
    executor: Arc<Executor>,
    history: History,
    machine: Machine,
    /// Different for each life of each coordinator.
    life: u64,
    ledger: Life,
    truth: Option<Truth>,
}

/// Where a coordinator is.
pub fn member(machine: Machine) -> Member {
    let quic = address(machine);
    Member { quic, http: (quic.ip(), 8090).into() }
}

fn record(machine: Machine) -> CoordinatorRecord {
    let Member { quic, http } = member(machine);
    let name: Name = format!("c{}", machine + 1).parse().expect("it is a name");
    CoordinatorRecord { node: machine as u64 + 1, name, quic, http }
}

impl Cluster {
    /// A world with `machines`, of which the first three are coordinators; none runs yet.
    pub fn new(executor: Arc<Executor>) -> Self {
        Self::build(executor, None)
    }

    /// As [`Cluster::new`], with virtual machines that move in place of jobs.
    pub fn with_moves(executor: Arc<Executor>) -> Self {
        let (truth, struck) = (Truth::default(), storm::Hosts::default());
        let mut cluster = Self::build(Arc::clone(&executor), Some(truth.clone()));
        let striker = storm::striker(&executor, &struck);
        for (number, host) in cluster.hosts.iter_mut().enumerate() {
            let (agent, metal) = (COORDINATORS + number, COORDINATORS + HOSTS + number);
            let metal = Metal::new(Arc::clone(&executor), truth.clone(), metal, host_id(agent));
            host.equip(Moving::new(metal, striker.clone()));
        }
        struck.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&cluster.hosts);
        cluster.struck = Some(struck);
        cluster
    }

    fn build(executor: Arc<Executor>, truth: Option<Truth>) -> Self {
        let net = Net::new(Arc::clone(&executor));
        let (coordinators, history) = (vec![None; COORDINATORS], History::default());
        let host = |number| {
            let (agent, metal) = (COORDINATORS + number, COORDINATORS + HOSTS + number);
            Host::new((Arc::clone(&executor), net.clone()), history.clone(), agent, metal)
        };
        let hosts = (0..HOSTS).map(host).collect();
        Self { executor, net, history, hosts, truth, struck: None, coordinators, lives: 0 }
    }

    /// What is true of machines that move.
    pub const fn truth(&self) -> Option<&Truth> {
        self.truth.as_ref()
    }

    /// Whether the ledger knows these machines.
    pub fn knows(&self, vms: &[VmId]) -> bool {
        let ledger = self.leader().and_then(|leader| self.ledger(leader));
        ledger.is_some_and(|ledger| ledger.read(|state| vms.iter().all(|vm| state.vm(*vm).is_some())))
    }

    /// Whether every host is up by the ledger.
    pub fn has_hosts(&self) -> bool {
        let ledger = self.leader().and_then(|leader| self.ledger(leader));
        let up = |ledger: &Ledger| {
            ledger
                .read(|state| self.hosts.iter().all(|host| state.host(host.id()).is_some_and(|h| h.is_up())))
        };
        ledger.is_some_and(up)
    }

    /// A guest powers itself off, wherever it runs.
    pub fn power_off(&self, vm: VmId) {
        let runs =
            |metal: &&Arc<Metal>| metal.domain(vm).is_some_and(|domain| domain.power == Power::Running);
        if let Some(metal) = self.hosts.iter().filter_map(Host::metal).find(runs) {
            metal.truth.excuses(vm);
            metal.end(vm);
        }
    }

    /// Starts a coordinator that is down. The first start of the first one founds the cluster.
    pub fn start(&mut self, machine: Machine) {
        if self.coordinators[machine].is_some() {
            return;
        }
        self.lives += 1;
        let ledger = Life::default();
        let seat = Seat {
            executor: Arc::clone(&self.executor),
            history: self.history.clone(),
            machine,
            life: self.lives,
            ledger: Arc::clone(&ledger),
            truth: self.truth.clone(),
        };
        let endpoint = Endpoint::simulated(self.net.attach(machine), identity(machine));
        self.executor.spawn_on(machine, Box::pin(seat.live(endpoint)));
        self.coordinators[machine] = Some(ledger);
    }

    /// A coordinator loses its power.
    pub fn crash(&mut self, machine: Machine) {
        if self.coordinators[machine].take().is_some() {
            self.net.detach(machine);
            self.executor.crash(machine);
        }
    }

    /// Starts every host's agent that does not run.
    pub fn start_hosts(&self) {
        self.hosts.iter().for_each(Host::start);
    }

    /// Whether a coordinator runs.
    pub fn is_up(&self, machine: Machine) -> bool {
        self.coordinators[machine].is_some()
    }

    /// The ledger of a coordinator, if it runs and is open.
    pub fn ledger(&self, machine: Machine) -> Option<&Ledger> {
        self.coordinators[machine].as_ref()?.get()
    }

    /// The coordinators' machines.
    pub fn machines(&self) -> std::ops::Range<Machine> {
        0..self.coordinators.len()
    }

    /// Who leads, if one of those that run says so of itself.
    pub fn leader(&self) -> Option<Machine> {
        let leads = |machine: &Machine| {
            self.ledger(*machine).is_some_and(|ledger| ledger.leadership().borrow().is_leader())
        };
        self.machines().find(leads)
    }

    /// Compacts a coordinator's log, as a long life of it would.
    pub fn compact(&self, machine: Machine) {
        if let Some(ledger) = self.ledger(machine).cloned() {
            self.executor.spawn_on(machine, Box::pin(async move { drop(ledger.compact().await) }));
        }
    }
}

/// Tells what an entry did to virtual machines.
fn tell_machines(ledger: &Ledger, entry: &Committed) {
    let rows = entry.changes.iter().filter(|change| change.table == TableId::Vms);
    for vm in rows.filter_map(|change| VmId::from_bytes(&change.key)) {
        ledger.read(|state| {
            let Some(vm) = state.vm(vm) else { return tracing::info!(%vm, "is forgotten") };
            let (at, epoch, seen) = (vm.placed_on, vm.epoch, vm.observed.as_ref().map(|o| &o.observation));
            tracing::info!(
                vm = %vm.id, desired = ?vm.desired, state = ?vm.state, ?at, ?epoch, ?vm.generation, vm.hold_stopped,
                migration = ?vm.migration, ?seen, "the ledger has"
            );
        });
    }
    let rows = entry.changes.iter().filter(|change| change.table == TableId::Migrations);
    for id in rows.filter_map(|change| MigrationId::from_bytes(&change.key)) {
        ledger.read(|state| {
            let Some(moves) = state.migration(id) else { return };
            let MigrationRecord { state, step, outbound, inbound, awaits_stop, message, .. } = moves;
            tracing::info!(%id, vm = %moves.vm, ?state, step, ?outbound, ?inbound, awaits_stop, message, "the ledger has");
        });
    }
}

impl Seat {
    async fn live(self, endpoint: Endpoint) {
        let disk = self.executor.disk(self.machine);
        let store = Store::simulated(&disk).expect("nobody else has the disk");
        let node = self.machine as u64 + 1;
        let ledger = Ledger::open_on(store, node, Some(endpoint.clone())).await.expect("the ledger opens");
        spawn(self.clone().observe(ledger.clone()));
        spawn(self.clone().note_leadership(ledger.clone()));
        let agents = start_services(&ledger, &endpoint);
        spawn(accept(endpoint, ledger.clone(), agents));
        let _first = self.ledger.set(ledger.clone());
        let moves = self.truth.is_some();
        if self.machine == 0 {
            spawn(found(ledger.clone(), moves));
        }
        for client in (0..CLIENTS).filter(|_| !moves) {
            spawn(self.clone().client(client, ledger.clone()));
        }
    }

    async fn observe(self, ledger: Ledger) {
        let mut committed = ledger.committed();
        while let Ok(entry) = committed.recv().await {
            self.history.applied(ledger.node(), &entry);
            tell_machines(&ledger, &entry);
            if let Some(truth) = &self.truth {
                ledger.read(|state| {
                    let placed = state.vms().iter().filter_map(|vm| Some((vm.id, vm.epoch, vm.placed_on?)));
                    placed.for_each(|(vm, epoch, host)| truth.is_placed(vm, epoch, host));
                });
            }
        }
    }

    async fn note_leadership(self, ledger: Ledger) {
        let mut leadership = ledger.leadership();
        loop {
            if let Leadership::Leader { term } = *leadership.borrow_and_update() {
                self.history.leads(ledger.node(), term);
            }
            if leadership.changed().await.is_err() {
                return;
            }
        }
    }

    async fn client(self, client: u64, ledger: Ledger) {
        for number in 0u64.. {
            let pause = self.executor.draw(|rng| rng.between(10, 400));
            sleep(Duration::from_millis(pause)).await;
            if self.history.lock().over {
                return;
            }
            if self.executor.draw(|rng| rng.percent(50)) {
                self.write(&ledger, client, number).await;
            } else {
                self.read(&ledger).await;
            }
        }
    }

    async fn write(&self, ledger: &Ledger, client: u64, number: u64) {
        let id = TokenId::from_u128(u128::from(self.life) << 64 | u128::from(client << 32 | number));
        let write = self.history.began(id, self.executor.elapsed());
        let wrote = match ledger.propose(put(id)).await {
            Ok(Applied::TokenStored(_)) => Wrote::Acknowledged,
            Ok(_) | Err(LedgerError::Unknown | LedgerError::Stopped) => Wrote::Unknown,
            Err(LedgerError::NoLeader(_) | LedgerError::Busy | LedgerError::TooLarge { .. }) => {
                Wrote::Refused
            }
        };
        self.history.ended(write, self.executor.elapsed(), wrote);
    }

    async fn read(&self, ledger: &Ledger) {
        let invoked = self.executor.elapsed();
        if ledger.linearizable().await.is_err() {
            return;
        }
        let seen = ledger.read(|state| state.api_tokens().iter().map(|token| token.id).collect());
        let ended = self.executor.elapsed();
        self.history.lock().reads.push(Read { node: ledger.node(), invoked, ended, seen });
    }
}

fn put(id: TokenId) -> CommandBody {
    let name: Name = "simulated".parse().expect("it is a name");
    CommandBody::TokenPut(TokenPut {
        id,
        name,
        role: TokenRole::Reader,
        secret_sha256: Sha256Digest([0; 32]),
    })
}

/// Makes a cluster of the first coordinator, and tells it of the others; in later lives both are there already.
async fn found(ledger: Ledger, moves: bool) {
    if ledger.found(member(0)).await.is_err() {
        return;
    }
    for machine in 0..COORDINATORS {
        while ledger.propose(CommandBody::CoordinatorPut(record(machine))).await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
    }
    match moves {
        true => jobs::admit_hosts(&ledger).await,
        false => jobs::introduce(&ledger).await,
    }
}

/// Sessions with agents and every reconciler, as `novacron_coordinator::service` starts them.
fn start_services(ledger: &Ledger, endpoint: &Endpoint) -> Agents {
    let agents = Agents::new(ledger.clone(), endpoint.clone());
    let stop = CancellationToken::new();
    spawn(agents.clone().keep(None, stop.clone()));
    let metrics = Arc::new(Metrics::new().expect("metrics are registered"));
    let (ledger, grace, jobs) = (ledger.clone(), jobs::GRACE, jobs::config());
    spawn(reconcilers::run(World { ledger, agents: agents.clone(), metrics, grace, jobs, stop }));
    agents
}

/// Serves what others ask, as `novacron_coordinator::run` does.
async fn accept(endpoint: Endpoint, ledger: Ledger, agents: Agents) {
    while let Some(link) = endpoint.accept().await {
        spawn(serve(link, ledger.clone(), agents.clone()));
    }
}

async fn serve(link: Link, ledger: Ledger, agents: Agents) {
    let Some(peer) = link.peer().copied() else { return };
    while let Ok((kind, stream)) = link.accept().await {
        let (ledger, agents, link) = (ledger.clone(), agents.clone(), link.clone());
        spawn(async move {
            match (kind, peer) {
                (StreamKind::Raft, Role::Coordinator { node }) => {
                    stream_served(ledger.serve_raft(node, stream).await);
                }
                (StreamKind::Forward, _) => stream_served(ledger.serve_forward(stream).await),
                _ => agents.serve(link, kind, stream).await,
            }
        });
    }
}

/// A stream that broke is opened again by whoever opened it.
pub(crate) fn stream_served(_ended: Result<(), LinkError>) {}
