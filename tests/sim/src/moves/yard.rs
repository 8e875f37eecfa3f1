//! What an agent's life has of machines: the shipped owner of machines, the shipped registry of moves with its journal and its
//! reports, over this host's [`Metal`].

use super::{libvirt::Libvirt, metal::Metal, road::SimulatedRoads};
use novacron_agent::{
    control::Reports,
    ledger::{AgentLedger, Shelf},
    migrate::{
        Migrations, MigrationsParts,
        checkpoint::Checkpoints,
        journal::{self, Record},
    },
    vm::{Board, Entry, Hypervisors, Machines, MachinesParts, SHELF},
};
use novacron_common::{
    ids::{HostId, MigrationId},
    record::{SideState, VmObservation},
    wire::{AgentCommand, AgentReply, Denial},
};
use novacron_runtime::spawn;
use novacron_store::Store;
use novacron_transport::{Endpoint, Link, Stream};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, watch};

/// Changes that may wait to be reported, as in the shipped agent.
const CHANGES: usize = 64;

/// Told of each state that a side of a migration enters, before anybody else is.
pub type Striker = Arc<dyn Fn(HostId, MigrationId, &SideState) + Send + Sync>;

/// What a host has besides its supervisors.
#[derive(Clone)]
pub struct Moving {
    /// Its hardware.
    pub metal: Arc<Metal>,
    /// Strikes at the edges of moves.
    pub striker: Striker,
    yard: Arc<Mutex<Option<Yard>>>,
}

impl Moving {
    /// With nothing on it.
    pub fn new(metal: Arc<Metal>, striker: Striker) -> Self {
        Self { metal, striker, yard: Arc::default() }
    }

    /// What its agent has, while it lives.
    pub fn yard(&self) -> Option<Yard> {
        self.yard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its agent begins to live.
    pub fn open(
        &self,
        endpoint: &Endpoint,
        link: watch::Receiver<Option<Link>>,
        disk: &novacron_store::Disk,
    ) -> Yard {
        let yard = Yard::open(self, endpoint, link, disk);
        *self.yard.lock().unwrap_or_else(PoisonError::into_inner) = Some(yard.clone());
        yard
    }

    /// Its agent is dead.
    pub fn close(&self) {
        let dead = self.yard.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(dead);
    }
}

/// One life of it. Cheap to clone.
#[derive(Clone)]
pub struct Yard {
    machines: Machines,
    migrations: Migrations,
    board: Arc<Board>,
    entries: Shelf<Entry>,
    journal: Shelf<Record>,
}

impl Yard {
    fn open(
        moving: &Moving,
        endpoint: &Endpoint,
        link: watch::Receiver<Option<Link>>,
        disk: &novacron_store::Disk,
    ) -> Self {
        let ledger = AgentLedger::on(Store::simulated(disk).expect("nobody else has the disk"));
        let entries: Shelf<Entry> = ledger.shelf(SHELF).expect("a shelf");
        let journal: Shelf<Record> = ledger.shelf(journal::SHELF).expect("a shelf");
        let under_way = journal::under_way(&journal).expect("the journal is read");
        let libvirt = Libvirt(Arc::clone(&moving.metal));
        let board = Arc::new(Board::default());
        let machines = MachinesParts {
            shelf: entries.clone(),
            hypervisors: Hypervisors { kvm: Some(Arc::new(libvirt.clone())), namespace: None },
            files: Arc::new(libvirt.clone()),
            board: Arc::clone(&board),
            bridge: "novabr0".into(),
        };
        let machines = Machines::adopt(machines, &under_way).expect("the machines are taken up");
        let (changes, changed) = mpsc::channel(CHANGES);
        let roads = SimulatedRoads { metal: Arc::clone(&moving.metal), endpoint: endpoint.clone() };
        let migrations = Migrations::restore(MigrationsParts {
            host: moving.metal.host,
            roads: Arc::new(roads),
            mover: Some(Arc::new(libvirt.clone())),
            processes: Arc::new(libvirt.clone()),
            files: Arc::new(libvirt),
            residents: Arc::new(machines.clone()),
            journal: Arc::new(journal.clone()),
            bridge: "novabr0".into(),
            checkpoints: Checkpoints::off(),
            now: novacron_agent::clock::now,
            changes,
        });
        let migrations = migrations.expect("the journal is read");
        spawn(report(moving.clone(), changed, link));
        Self { machines, migrations, board, entries, journal }
    }

    /// What is seen of machines.
    pub fn seen(&self) -> Vec<VmObservation> {
        self.board.all()
    }

    /// Changes whenever something new is seen.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.board.changes()
    }

    /// What is written down of machines that are here and in the hands of a migration, and of migrations that have not ended.
    pub fn open_ends(&self) -> Vec<String> {
        let entries = self.entries.list().expect("the ledger is read");
        let lent = entries.into_iter().filter_map(|(_, entry)| match entry {
            Entry::Held(record) => record.lent.map(|by| format!("{} is lent to {by}", record.assignment.vm)),
            Entry::Left { .. } => None,
        });
        let journal = self.journal.list().expect("the journal is read");
        let open = journal.into_iter().filter_map(|(_, record)| match record {
            Record::Ended(_) => None,
            other => Some(format!("the journal has {:?}", other.state())),
        });
        lent.chain(open).collect()
    }

    /// Serves a lane of another agent.
    pub async fn accept_lane(&self, peer: HostId, stream: Stream) {
        self.migrations.accept_lane(peer, stream).await;
    }

    /// As `novacron_agent::control::dispatch`; `None` for what has nothing to do with machines.
    pub async fn answer(&self, command: &AgentCommand) -> Option<AgentReply> {
        let migrations = &self.migrations;
        Some(match command.clone() {
            AgentCommand::AssignVm(assignment) => self.machines.assign(assignment).await,
            AgentCommand::ObserveVm(vm) => AgentReply::Vm(self.board.of(vm)),
            AgentCommand::FetchImages(_) => AgentReply::AlreadySo,
            AgentCommand::PrepareInbound { ticket, spec, .. } => {
                done(migrations.prepare_inbound(ticket, spec).await)
            }
            AgentCommand::StartOutbound { ticket, spec, target, limits } => {
                done(migrations.start_outbound(ticket, spec, target, limits).await)
            }
            AgentCommand::CancelOutbound { migration, reason } => {
                done(migrations.cancel_outbound(migration, reason).await)
            }
            AgentCommand::DiscardInbound { migration, vm, reason } => {
                done(migrations.discard_inbound(migration, vm, reason).await)
            }
            AgentCommand::ResumeInbound { migration, vm, epoch, spec, disk } => {
                done(migrations.resume_inbound(migration, vm, epoch, spec, disk).await)
            }
            AgentCommand::OpenInbound { migration, epoch } => {
                done(migrations.open_inbound(migration, epoch).await)
            }
            AgentCommand::SplitOutbound { migration, epoch } => {
                done(migrations.split_outbound(migration, epoch).await)
            }
            AgentCommand::AbandonInbound { migration, reason } => {
                done(migrations.abandon_inbound(migration, reason).await)
            }
            AgentCommand::ReleaseOutbound { migration, vm, epoch } => {
                done(migrations.release_outbound(migration, vm, epoch).await)
            }
            AgentCommand::ObserveMigration(migration) => {
                AgentReply::Migration(migrations.observe(migration).await)
            }
            _ => return None,
        })
    }
}

fn done(outcome: Result<(), Denial>) -> AgentReply {
    outcome.map_or_else(AgentReply::Denied, |()| AgentReply::Accepted)
}

/// Hands changes on to the shipped reports, past the striker.
async fn report(
    moving: Moving,
    mut changed: mpsc::Receiver<(MigrationId, SideState)>,
    link: watch::Receiver<Option<Link>>,
) {
    let (hand_on, changes) = mpsc::channel(CHANGES);
    spawn(Reports::new(link).send_migrations(changes));
    while let Some((migration, state)) = changed.recv().await {
        (moving.striker)(moving.metal.host, migration, &state);
        let _ = hand_on.try_send((migration, state)); // who wants to be sure asks
    }
}
