//! What people do with machines while things go wrong: they move them, call that off, stop, start, restart and delete them;
//! and guests power themselves off.

use crate::{
    cluster::Cluster,
    executor::Machine,
    identities::{COORDINATORS, HOSTS, host_id},
};
use novacron_common::{
    api::VmDesired,
    ids::{HostId, MigrationId, VmId},
    record::{MoveLimits, Strategy},
    spec::{
        BootSource, HealthSpec, MachineKind, Mobility, NetworkSpec, RestartPolicy, StopTerms, TemplateSpec,
        VmSpec,
    },
    splitmix::SplitMix64,
    units::ByteCount,
};
use novacron_coordinator::raft::Ledger;
use novacron_core::{
    Applied, CommandBody,
    command::{MigrationAsk, VmCreate, VmDesire, VmRestart},
    forecast::Measures,
};
use novacron_runtime::time::sleep;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Machines at once.
const VMS: u128 = 2;
/// How long a guest is given to shut down, milliseconds.
const GRACE_MS: u64 = 800;
/// Within which a move on a calm day is called off, milliseconds.
pub const REGRET_MS: u64 = 1500;

/// Within which a guest that powered itself off is started again, milliseconds.
const HASTE_MS: u64 = 6;

/// How long somebody waits who has to ask again.
const AGAIN: Duration = Duration::from_millis(300);
/// How often, and how long apart, somebody looks whether a move is known.
const LOOKS: u32 = 20;
const LOOK: Duration = Duration::from_millis(50);

/// Something that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Move,
    MoveCold,
    Cancel,
    CancelSoon,
    Stop,
    Start,
    Restart,
    PowerOff,
    PowerOffAndStart,
    Replace,
}

/// How often each is chosen.
const MIX: &[(Deed, u64)] = &[
    (Deed::Move, 12),
    (Deed::MoveCold, 5),
    (Deed::Cancel, 2),
    (Deed::CancelSoon, 4),
    (Deed::Stop, 2),
    (Deed::Start, 6),
    (Deed::Restart, 1),
    (Deed::PowerOff, 1),
    (Deed::PowerOffAndStart, 1),
    (Deed::Replace, 1),
];

/// The people. Ids of what they make are counted: a later migration has a higher one.
#[derive(Debug, Default)]
pub struct Users {
    migrations: u128,
    vms: u128,
    /// The machines that are there, oldest first.
    here: Vec<VmId>,
}

impl Users {
    /// Makes the machines.
    pub fn begin(&mut self, cluster: &Cluster) {
        (0..VMS).for_each(|_| self.create(cluster));
    }

    /// Does something.
    pub fn act(&mut self, cluster: &Cluster, rng: &mut SplitMix64) {
        let deed = crate::faults::choose(MIX, rng);
        let at = usize::try_from(rng.below(self.here.len() as u64)).unwrap_or(0);
        let vm = self.here[at];
        cluster.executor.note(&[0xdeed, deed as u64, at as u64]);
        tracing::info!(?deed, %vm, "a person acts");
        match deed {
            Deed::Move => drop(self.set_out(cluster, vm, true, rng)),
            Deed::MoveCold => drop(self.set_out(cluster, vm, false, rng)),
            Deed::Cancel => self.cancel(cluster, self.migrations, 0),
            Deed::CancelSoon => {
                let id = self.set_out(cluster, vm, rng.percent(70), rng);
                self.cancel(cluster, id, rng.below(3000));
            }
            Deed::Stop => desire(cluster, vm, VmDesired::Stopped),
            Deed::Start => desire(cluster, vm, VmDesired::Running),
            Deed::Restart => tell(
                cluster,
                0,
                CommandBody::VmRestart(VmRestart { vm, stop: StopTerms::within_ms(GRACE_MS) }),
            ),
            Deed::PowerOff => cluster.power_off(vm),
            Deed::PowerOffAndStart => {
                cluster.power_off(vm);
                desire(cluster, vm, VmDesired::Running);
            }
            Deed::Replace => self.replace(cluster, at),
        }
    }

    /// Deletes the machine at this place, and makes another.
    pub fn replace(&mut self, cluster: &Cluster, at: usize) {
        let vm = self.here.remove(at);
        if let Some(truth) = cluster.truth() {
            truth.dooms(vm);
        }
        // Until it is done: who deletes a machine that moves is told to wait.
        insist(cluster, vm);
        self.create(cluster);
    }

    /// Everybody who has a machine wants it to run, from now on, and asks until that is answered: a coordinator that has only
    /// just found its leader again may have to say that it does not know what came of it.
    pub fn settle(&self, cluster: &Cluster) {
        for vm in &self.here {
            let desire =
                VmDesire { vm: *vm, desired: VmDesired::Running, stop: StopTerms::within_ms(GRACE_MS) };
            repeat(cluster, CommandBody::VmDesire(desire), || true);
        }
    }

    /// Every guest powers itself off, and is started again within [`HASTE_MS`]: its host's word that it has ended, which may come
    /// after that, is not to undo it.
    pub fn power_off_and_start(&self, cluster: &Cluster, rng: &mut SplitMix64) {
        for vm in &self.here {
            cluster.power_off(*vm);
            let start =
                VmDesire { vm: *vm, desired: VmDesired::Running, stop: StopTerms::within_ms(GRACE_MS) };
            tell_until_done(cluster, rng.below(HASTE_MS), CommandBody::VmDesire(start));
        }
    }

    /// Moves every machine, and calls that off within [`REGRET_MS`].
    pub fn move_and_cancel(&mut self, cluster: &Cluster, rng: &mut SplitMix64) -> CalledOff {
        let called_off = CalledOff::default();
        for vm in self.here.clone() {
            let id = MigrationId::from_u128(self.set_out(cluster, vm, true, rng));
            called_off.call_off(cluster, id, rng.below(REGRET_MS));
        }
        called_off
    }

    /// Moves every machine that allows post-copy, by it; says which moves these are.
    pub fn send_over(&mut self, cluster: &Cluster) -> Vec<MigrationId> {
        let vms = self.here.clone().into_iter().filter(|vm| allows_post_copy(vm.uuid().as_u128()));
        vms.map(|vm| {
            let target = away_from(cluster, vm).unwrap_or(host_id(COORDINATORS));
            MigrationId::from_u128(self.ask(cluster, vm, target, true, Strategy::Postcopy))
        })
        .collect()
    }

    /// The machines that are there.
    pub fn machines(&self) -> &[VmId] {
        &self.here
    }

    /// How many moves were asked for.
    pub const fn moves(&self) -> u128 {
        self.migrations
    }

    fn create(&mut self, cluster: &Cluster) {
        self.vms += 1;
        let id = VmId::from_u128(self.vms);
        self.here.push(id);
        let create = VmCreate { id, spec: spec(self.vms), host: None, offer: None, start: true };
        // Not any more once somebody wants it deleted: after that it would be another machine of the same name and id.
        let truth = cluster.truth().cloned().unwrap_or_default();
        repeat(cluster, CommandBody::VmCreate(Box::new(create)), move || !truth.is_doomed(id));
    }

    /// Moves a machine to the host where it is not, as far as anybody knows.
    fn set_out(&mut self, cluster: &Cluster, vm: VmId, live: bool, rng: &mut SplitMix64) -> u128 {
        let target = host_id(COORDINATORS + usize::try_from(rng.below(HOSTS as u64)).unwrap_or(0));
        let target = away_from(cluster, vm).unwrap_or(target);
        let strategy = match rng.below(10) {
            0 | 1 => Strategy::StopAndCopy,
            2..=5 if allows_post_copy(vm.uuid().as_u128()) => Strategy::Postcopy,
            _ => Strategy::Auto,
        };
        self.ask(cluster, vm, target, live, strategy)
    }

    fn ask(&mut self, cluster: &Cluster, vm: VmId, target: HostId, live: bool, strategy: Strategy) -> u128 {
        self.migrations += 1;
        let ask = MigrationAsk {
            id: MigrationId::from_u128(self.migrations),
            vm,
            target,
            live,
            limits: MoveLimits { strategy, ..MoveLimits::default() },
            secret: [u8::try_from(self.migrations % 251).unwrap_or(0); 32],
            placement: None,
            measures: Measures::default(),
            gang: None,
        };
        tell(cluster, 0, CommandBody::MigrationAsk(Box::new(ask)));
        self.migrations
    }

    fn cancel(&self, cluster: &Cluster, id: u128, after_ms: u64) {
        tell(cluster, after_ms, CommandBody::MigrationCancel { id: MigrationId::from_u128(id) });
    }
}

/// Moves that are called off, and what people are told of that.
#[derive(Debug, Default)]
pub struct CalledOff {
    /// Who waits for an answer.
    waiting: Arc<AtomicUsize>,
    /// What is to end: for all others it was too late.
    accepted: Arc<Mutex<Vec<MigrationId>>>,
}

impl CalledOff {
    /// Whether nobody waits for an answer.
    pub fn is_answered(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }

    /// The moves that are to end.
    pub fn accepted(&self) -> Vec<MigrationId> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls a move off once it is heard of, and again until that is answered: who does so before calls off nothing, and a
    /// coordinator whose link to its leader is dead does not know what came of it.
    fn call_off(&self, cluster: &Cluster, id: MigrationId, after_ms: u64) {
        let Some((machine, ledger)) = someone(cluster) else { return };
        let (waiting, accepted) = (self.waiting.clone(), self.accepted.clone());
        waiting.fetch_add(1, Ordering::Relaxed);
        let job = async move {
            sleep(Duration::from_millis(after_ms)).await;
            if let Some(Applied::Done | Applied::AlreadySo) = cancel(&ledger, id).await {
                accepted.lock().unwrap_or_else(PoisonError::into_inner).push(id);
            }
            waiting.fetch_sub(1, Ordering::Relaxed);
        };
        cluster.executor.spawn_on(machine, Box::pin(job));
    }
}

/// The answer of the ledger; none if there is no such move.
async fn cancel(ledger: &Ledger, id: MigrationId) -> Option<Applied> {
    for _look in 0..LOOKS {
        if ledger.read(|state| state.migration(id).is_some()) {
            break;
        }
        sleep(LOOK).await;
    }
    while ledger.read(|state| state.migration(id).is_some()) {
        let answer = ledger.propose(CommandBody::MigrationCancel { id }).await;
        tracing::info!(%id, ?answer, "called off");
        if let Ok(answer) = answer {
            return Some(answer);
        }
        sleep(LOOK).await;
    }
    None
}

/// The other of two hosts.
fn away_from(cluster: &Cluster, vm: VmId) -> Option<HostId> {
    let ledger = cluster.machines().find_map(|machine| cluster.ledger(machine))?;
    let on = ledger.read(|state| state.vm(vm)?.placed_on)?;
    (COORDINATORS..COORDINATORS + HOSTS).map(host_id).find(|host| *host != on)
}

fn desire(cluster: &Cluster, vm: VmId, desired: VmDesired) {
    tell(cluster, 0, CommandBody::VmDesire(VmDesire { vm, desired, stop: StopTerms::within_ms(GRACE_MS) }));
}

fn someone(cluster: &Cluster) -> Option<(Machine, Ledger)> {
    let up: Vec<Machine> = cluster.machines().filter(|machine| cluster.ledger(*machine).is_some()).collect();
    let chosen = cluster.executor.draw(|rng| rng.below(up.len().max(1) as u64));
    let machine = *up.get(usize::try_from(chosen).unwrap_or(0))?;
    Some((machine, cluster.ledger(machine)?.clone()))
}

/// Asks whoever is up, once.
fn tell(cluster: &Cluster, after_ms: u64, body: CommandBody) {
    let Some((machine, ledger)) = someone(cluster) else { return };
    let job = async move {
        sleep(Duration::from_millis(after_ms)).await;
        let _ = ledger.propose(body).await; // a person reads the answer, and lives with it
    };
    cluster.executor.spawn_on(machine, Box::pin(job));
}

/// Asks whoever is up, until it is done: a move that somebody asked for before may have the machine in hand, and then he is told to
/// wait for its end.
fn tell_until_done(cluster: &Cluster, after_ms: u64, body: CommandBody) {
    let Some((machine, ledger)) = someone(cluster) else { return };
    let job = async move {
        sleep(Duration::from_millis(after_ms)).await;
        while !matches!(ledger.propose(body.clone()).await, Ok(Applied::Done | Applied::AlreadySo)) {
            sleep(AGAIN).await;
        }
    };
    cluster.executor.spawn_on(machine, Box::pin(job));
}

/// Asks until the answer is final, as long as it is `wanted`; by whom, is lost with a coordinator that crashes, so by all.
fn repeat(cluster: &Cluster, body: CommandBody, wanted: impl Fn() -> bool + Clone + Send + 'static) {
    for machine in cluster.machines() {
        let Some(ledger) = cluster.ledger(machine).cloned() else { continue };
        let (body, wanted) = (body.clone(), wanted.clone());
        let job = async move {
            while wanted() && ledger.propose(body.clone()).await.is_err() {
                sleep(AGAIN).await;
            }
        };
        cluster.executor.spawn_on(machine, Box::pin(job));
    }
}

/// Wants a machine deleted until the ledger says that it is to be.
fn insist(cluster: &Cluster, vm: VmId) {
    for machine in cluster.machines() {
        let Some(ledger) = cluster.ledger(machine).cloned() else { continue };
        let job = async move {
            let delete = VmDesire { vm, desired: VmDesired::Deleted, stop: StopTerms::AT_ONCE };
            while !matches!(
                ledger.propose(CommandBody::VmDesire(delete.clone())).await,
                Ok(Applied::Done | Applied::AlreadySo)
            ) && ledger.read(|state| state.vm(vm).is_some())
            {
                sleep(Duration::from_millis(500)).await;
            }
        };
        cluster.executor.spawn_on(machine, Box::pin(job));
    }
}

fn spec(number: u128) -> VmSpec {
    let template = TemplateSpec { name: "t".parse().expect("a name"), boot: BootSource::Disk, disk: None };
    VmSpec {
        name: format!("vm{number}").parse().expect("a name"),
        kind: MachineKind::Kvm,
        cpus: 1,
        memory: ByteCount::mib(256),
        storage: ByteCount::mib(1024),
        template,
        cmdline: None,
        network: NetworkSpec::default(),
        cloud_init: None,
        restart: if number.is_multiple_of(3) { RestartPolicy::Always } else { RestartPolicy::Never },
        mobility: Mobility::Usual.with_post_copy(allows_post_copy(number)),
        health: HealthSpec::default(),
        volumes: Vec::new(),
    }
}

/// Whether the machine of this number does.
const fn allows_post_copy(number: u128) -> bool {
    number.is_multiple_of(2)
}
