//! Random commands: never a panic, and rows, indices and reservations always agree with a recount.

use crate::world::{NOON, capacity, command_target, hello, job_spec, name, template_spec, vm_spec};
use ipnet::IpNet;
use novacron_common::{
    api::{JoinTokenRole, VmDesired},
    ids::{
        AttemptKey, FireCause, FireKey, GangId, HostId, JobId, MigrationId, NetworkId, TemplateId, TokenId,
        VmId,
    },
    record::{
        AttemptEnd, AttemptOutcome, AttemptReport, Climb, InboundState, MigrationReport, MoveLimits,
        OutboundState, Output, SideState, VmObservation, VmState,
    },
    spec::{Concurrency, Sha256Digest, StopTerms, Subnet},
    units::{ByteCount, Epoch, Generation, UnixMillis},
    wire::JoinPurpose,
};
use novacron_core::{
    Applied, Command, CommandBody, State, TableId,
    command::{
        AttemptPlace, FireCommit, Handover, HostCordon, HostDown, HostRemove, JobExecute, JobPut, JobUpdate,
        JoinTokenPut, JoinTokenUse, Keyed, MigrationAsk, MigrationDenied, MigrationObserve, NetworkCreate,
        RequestAnswered, TemplatePut, VmCreate, VmDesire, VmObserve, VmPlace, VmRestart, VmUpdate,
    },
    forecast::Measures,
    placement::{Constraints, plan},
    record::{Answer, RequestKey},
    schedule,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const IDS: u128 = 4;

fn host_id() -> impl Strategy<Value = HostId> {
    (1..=IDS).prop_map(HostId::from_u128)
}

fn vm_id() -> impl Strategy<Value = VmId> {
    (1..=IDS).prop_map(VmId::from_u128)
}

fn job_id() -> impl Strategy<Value = JobId> {
    (1..=IDS).prop_map(JobId::from_u128)
}

fn migration_id() -> impl Strategy<Value = MigrationId> {
    (1..=IDS * 2).prop_map(MigrationId::from_u128)
}

fn instant() -> impl Strategy<Value = UnixMillis> {
    (0..20i64).prop_map(|s| UnixMillis(NOON.0 + s * 1000))
}

fn fire_key() -> impl Strategy<Value = FireKey> {
    let cause = prop_oneof![Just(FireCause::Schedule), Just(FireCause::Manual)];
    (job_id(), instant(), cause).prop_map(|(job, scheduled_at, cause)| FireKey { job, scheduled_at, cause })
}

fn short_name() -> impl Strategy<Value = novacron_common::spec::Name> {
    (0..IDS).prop_map(|n| name(&format!("n{n}")))
}

fn vm_state() -> impl Strategy<Value = VmState> {
    prop_oneof![
        4 => Just(VmState::Running),
        2 => Just(VmState::Stopped),
        1 => Just(VmState::Missing),
        1 => Just(VmState::Failed),
    ]
}

fn side() -> impl Strategy<Value = SideState> {
    let back = OutboundState::Back { reason: "back".into(), cancelled: false, climb: Climb::default() };
    let discarded = InboundState::Discarded { reason: "gone".into() };
    prop_oneof![
        Just(SideState::Outbound(OutboundState::Unknown)),
        Just(SideState::Outbound(OutboundState::Connecting)),
        Just(SideState::Outbound(OutboundState::Gone(MigrationReport::default()))),
        Just(SideState::Outbound(back)),
        Just(SideState::Outbound(OutboundState::Released)),
        Just(SideState::Inbound(InboundState::Unknown)),
        Just(SideState::Inbound(InboundState::Ready)),
        Just(SideState::Inbound(InboundState::Arrived)),
        Just(SideState::Inbound(InboundState::Running)),
        Just(SideState::Inbound(discarded)),
    ]
}

fn member() -> impl Strategy<Value = CommandBody> {
    let token = TokenId::from_u128(1);
    let secret_sha256 = Sha256Digest([1; 32]);
    let fresh = JoinTokenPut {
        id: TokenId::from_u128(1),
        secret_sha256,
        role: JoinTokenRole::Agent,
        expires_at: UnixMillis(i64::MAX),
        replaces: None,
    };
    prop_oneof![
        1 => Just(CommandBody::JoinTokenPut(fresh.clone())),
        1 => (0..4u8, 0..2u8).prop_map(move |(key, print)| CommandBody::Keyed(Box::new(Keyed {
            key: RequestKey([key; 32]),
            fingerprint: Sha256Digest([print; 32]),
            body: CommandBody::JoinTokenPut(fresh.clone()),
        }))),
        1 => (0..4u8, 0..300usize).prop_map(|(key, length)| CommandBody::RequestAnswered(Box::new(RequestAnswered {
            key: RequestKey([key; 32]),
            answer: Answer { status: 201, sealed: vec![0; length] },
        }))),
        2 => (1..=IDS).prop_map(move |n| {
            // A token of its own for each host, so that every host can join.
            let id = TokenId::from_u128(10 + n);
            let put = JoinTokenPut { id, secret_sha256, role: JoinTokenRole::Agent, expires_at: UnixMillis(i64::MAX), replaces: None };
            let purpose = JoinPurpose::Agent { name: name(&format!("h{n}")), rejoin: None };
            let take = JoinTokenUse { id, secret_sha256, purpose, new_host: HostId::from_u128(n) };
            CommandBody::Batch(vec![CommandBody::JoinTokenPut(put), CommandBody::JoinTokenUse(take)])
        }),
        1 => (host_id(), short_name()).prop_map(move |(new_host, name)| {
            let purpose = JoinPurpose::Agent { name, rejoin: Some(new_host) };
            CommandBody::JoinTokenUse(JoinTokenUse { id: token, secret_sha256, purpose, new_host })
        }),
        3 => host_id().prop_map(|h| CommandBody::HostHello(Box::new(hello(h, "x")))),
        1 => host_id().prop_map(|host| {
            CommandBody::HostDown(HostDown { host, silent_since: UnixMillis(i64::MAX) })
        }),
        1 => (host_id(), any::<bool>())
            .prop_map(|(host, cordoned)| CommandBody::HostCordon(HostCordon { host, cordoned })),
        1 => (host_id(), any::<bool>()).prop_map(|(host, force)| CommandBody::HostRemove(HostRemove { host, force })),
        1 => short_name().prop_map(|n| {
            let id = TemplateId::from_u128(1);
            CommandBody::TemplatePut(Box::new(TemplatePut { id, spec: template_spec(n.as_str()) }))
        }),
        2 => (1..=2u128, short_name(), any::<bool>()).prop_map(|(id, name, narrow)| {
            let subnet = narrow.then(|| "10.213.0.0/29".parse().expect("a good subnet"));
            CommandBody::NetworkCreate(Box::new(NetworkCreate { id: NetworkId::from_u128(id), name, subnet, dns: vec![] }))
        }),
        1 => (1..=2u128).prop_map(|id| CommandBody::NetworkRemove { id: NetworkId::from_u128(id) }),
    ]
}

fn machine() -> impl Strategy<Value = CommandBody> {
    let desired = prop_oneof![
        3 => Just(VmDesired::Running),
        2 => Just(VmDesired::Stopped),
        1 => Just(VmDesired::Deleted),
    ];
    prop_oneof![
        3 => (vm_id(), short_name(), proptest::option::of(host_id()), proptest::option::of(1..=2u128)).prop_map(|(id, name, host, tenant)| {
            let mut spec = vm_spec(name.as_str());
            spec.network.tenant = tenant.map(NetworkId::from_u128);
            CommandBody::VmCreate(Box::new(VmCreate { id, spec, host, offer: None, start: true }))
        }),
        2 => (vm_id(), desired).prop_map(|(vm, desired)| {
            CommandBody::VmDesire(VmDesire { vm, desired, stop: StopTerms::within_ms(1000) })
        }),
        1 => vm_id().prop_map(|vm| CommandBody::VmRestart(VmRestart { vm, stop: StopTerms::AT_ONCE })),
        1 => (vm_id(), short_name())
            .prop_map(|(vm, n)| CommandBody::VmUpdate(VmUpdate { vm, name: Some(n), restart: None, post_copy: None })),
        1 => vm_id().prop_map(|vm| CommandBody::VmForget { vm }),
        6 => (host_id(), vm_id(), 1..4u64, vm_state(), any::<bool>()).prop_map(|(host, vm, epoch, state, ran)| {
            let (generation, restarted) = (Generation(2 * epoch), epoch);
            let seen = VmObservation { generation, restarted, ran, ..crate::world::seen(vm, epoch, state) };
            CommandBody::VmObserve(VmObserve { host, observations: vec![seen] })
        }),
    ]
}

fn move_machine() -> impl Strategy<Value = CommandBody> {
    prop_oneof![
        3 => (migration_id(), vm_id(), host_id(), any::<bool>(), any::<bool>()).prop_map(|(id, vm, target, live, ganged)| {
            let (limits, secret) = (MoveLimits::default(), [0; 32]);
            let gang = ganged.then(|| GangId::from_u128(1));
            let ask = MigrationAsk { id, vm, target, live, limits, gang, secret, placement: None, measures: Measures::default() };
            CommandBody::MigrationAsk(Box::new(ask))
        }),
        8 => (migration_id(), host_id(), side(), proptest::option::of(0..6u64)).prop_map(
            |(id, host, side, asked_at_step)| {
                CommandBody::MigrationObserve(Box::new(MigrationObserve { id, host, side, asked_at_step }))
            }
        ),
        1 => (migration_id(), 0..4u64).prop_map(|(id, step)| {
            CommandBody::MigrationDenied(MigrationDenied { id, step, reason: "no".into() })
        }),
        1 => migration_id().prop_map(|id| CommandBody::MigrationCancel { id }),
        1 => migration_id().prop_map(|id| CommandBody::MigrationGiveUp { id }),
        3 => (migration_id(), vm_id(), host_id(), 1..4u64).prop_map(|(migration, vm, to, epoch)| {
            CommandBody::Handover(Handover { migration, vm, to, expect_epoch: Epoch(epoch) })
        }),
    ]
}

fn work() -> impl Strategy<Value = CommandBody> {
    let outcome = prop_oneof![
        Just(AttemptOutcome::Exited(0)),
        Just(AttemptOutcome::Exited(1)),
        Just(AttemptOutcome::Lost),
    ];
    prop_oneof![
        2 => (job_id(), short_name(), any::<bool>(), any::<u8>()).prop_map(|(id, n, noop, rules)| {
            let mut spec = job_spec(n.as_str(), "* * * * * *");
            spec.retry.max_retries = 1;
            spec.concurrency = [Concurrency::Allow, Concurrency::Forbid, Concurrency::Replace, Concurrency::Queue { max: 2 }]
                [usize::from(rules % 4)];
            spec.start_deadline_ms = (rules & 4 != 0).then_some(2000);
            spec.expected_by_ms = (rules & 8 != 0).then_some(500);
            spec.retention.fires = 1 + u32::from(rules >> 4);
            spec.priority = rules % 10;
            if !noop {
                spec.target = command_target();
            }
            CommandBody::JobPut(Box::new(JobPut::new(id, spec, NOON)))
        }),
        1 => (job_id(), short_name(), 1..4u64, any::<bool>()).prop_map(|(id, n, revision, enabled)| {
            let mut spec = job_spec(n.as_str(), "*/2 * * * * *");
            spec.enabled = enabled;
            CommandBody::JobUpdate(Box::new(JobUpdate { id, spec, revision, next_at: Some(NOON), skip: None }))
        }),
        1 => job_id().prop_map(|id| CommandBody::JobRemove { id }),
        2 => (job_id(), instant()).prop_map(|(id, at)| CommandBody::JobExecute(JobExecute { id, at, node: None })),
        4 => (job_id(), instant(), 1..3u64).prop_map(|(job, at, revision)| {
            let next_at = Some(UnixMillis(at.0 + 1000));
            CommandBody::FireCommit(FireCommit { job, fire: vec![at], until: at, revision, next_at, skip: None })
        }),
        5 => (fire_key(), host_id()).prop_map(|(fire, host)| CommandBody::AttemptPlace(AttemptPlace { fire, host })),
        5 => (fire_key(), 1..3u32, outcome).prop_map(|(fire, number, outcome)| {
            let end = AttemptEnd { outcome, started_at: None, ended_at: NOON, output: Output::default(), result: None };
            let attempt = AttemptKey { fire, number };
            let report = AttemptReport { attempt, epoch: Epoch(u64::from(number)), end };
            CommandBody::AttemptEnd(Box::new(report))
        }),
        1 => fire_key().prop_map(|fire| CommandBody::FireCancel { fire }),
        1 => fire_key().prop_map(|fire| CommandBody::FireAlarm { fire }),
        1 => host_id().prop_map(|host| CommandBody::HostFence { host }),
    ]
}

/// What the shell would do by itself in this state: gives the random commands something to build on.
fn sensible(state: &State, choice: u8) -> Vec<CommandBody> {
    let now = state.now();
    match choice % 4 {
        0 => schedule::due(state, now, 8).into_iter().map(CommandBody::FireCommit).collect(),
        1 => {
            let places = novacron_core::attempts::plan(state, now, 3, 8).places.into_iter();
            let alarms = novacron_core::attempts::alarms(state, now, 8).into_iter();
            places
                .map(CommandBody::AttemptPlace)
                .chain(alarms.map(|fire| CommandBody::FireAlarm { fire }))
                .collect()
        }
        2 => {
            let homeless = state.vms().iter().filter(|vm| vm.placed_on.is_none());
            let place = |vm: &novacron_core::record::VmRecord| {
                let offer = plan(state, &vm.spec, Constraints::default()).ok()?;
                Some(CommandBody::VmPlace(Box::new(VmPlace { vm: vm.id, offer })))
            };
            homeless.filter_map(place).collect()
        }
        _ => {
            let open = state.index().migrating().filter_map(|id| state.migration(id));
            let hand = |m: &novacron_core::record::MigrationRecord| {
                CommandBody::Handover(Handover {
                    migration: m.id,
                    vm: m.vm,
                    to: m.target,
                    expect_epoch: m.epoch,
                })
            };
            open.map(hand).collect()
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Command(Box<CommandBody>),
    Sensible(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let command = prop_oneof![3 => member(), 4 => machine(), 4 => move_machine(), 4 => work()];
    prop_oneof![5 => command.prop_map(|c| Op::Command(Box::new(c))), 1 => any::<u8>().prop_map(Op::Sensible)]
}

type Store = BTreeMap<(TableId, Vec<u8>), Vec<u8>>;

/// What the shell writes to disk.
fn persist(state: &mut State, store: &mut Store) {
    for change in state.take_changes() {
        match change.value {
            Some(value) => store.insert((change.table, change.key), value),
            None => store.remove(&(change.table, change.key)),
        };
    }
}

struct Ledger {
    state: State,
    store: Store,
    epochs: BTreeMap<VmId, Epoch>,
    ticks: BTreeSet<FireKey>,
    now: i64,
}

impl Ledger {
    fn apply(&mut self, body: CommandBody) -> Result<(), TestCaseError> {
        self.now += 50;
        let before: Vec<VmId> = self.state.vms().iter().map(|vm| vm.id).collect();
        let applied = self.state.apply(0, Command { at: UnixMillis(NOON.0 + self.now), body });
        persist(&mut self.state, &mut self.store);
        self.check_ticks(&applied)?;
        // Also later than its removal: a job goes with its last attempt, and its id may come back.
        self.ticks.retain(|key| self.state.job(key.job).is_some());
        self.epochs.retain(|vm, _| self.state.vm(*vm).is_some() && before.contains(vm));
        self.check()
    }

    fn check_ticks(&mut self, applied: &Applied) -> Result<(), TestCaseError> {
        match applied {
            Applied::TicksCommitted(keys) => {
                for key in keys {
                    prop_assert!(self.ticks.insert(*key), "{key} was committed twice");
                }
            }
            Applied::Batch(all) => all.iter().try_for_each(|one| self.check_ticks(one))?,
            _ => (),
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let rows = self.store.iter().map(|((table, key), value)| (*table, key.clone(), value.clone()));
        let loaded = State::load(rows).expect("rows of our own");
        prop_assert_eq!(&loaded, &self.state, "a reload gives another state: rows or derived data are wrong");
        let mut leases = BTreeSet::new();
        for vm in self.state.vms().iter() {
            let card = &vm.spec.network;
            let lease = card.tenant.map(|network| (network, card.address));
            prop_assert!(lease.is_none_or(|lease| leases.insert(lease)), "two machines have {:?}", lease);
            let network =
                card.tenant.map(|network| self.state.network(network).map(|network| network.spec.subnet));
            let within = |subnet: Subnet| {
                card.address.is_some_and(|net| IpNet::V4(subnet.net()).contains(&net.addr()))
            };
            prop_assert!(
                network.is_none_or(|subnet| subnet.is_some_and(within)),
                "{:?} has no network",
                lease
            );
        }
        for host in self.state.hosts().iter() {
            let used = self.state.index().usage(host.id);
            prop_assert!(
                host.hello.is_none() || used.memory <= capacity().memory,
                "{:?} on {}",
                used,
                host.id
            );
            prop_assert!(host.hello.is_none() || used.storage <= capacity().storage);
        }
        self.check_vms()?;
        self.check_fires()?;
        self.check_total()
    }

    /// A job that allows one attempt at a time has one, and a fire that waits for another has another.
    fn check_fires(&self) -> Result<(), TestCaseError> {
        for job in self.state.jobs().iter() {
            let live: Vec<_> =
                self.state.index().fires().live_of(job.id).filter_map(|key| self.state.fire(key)).collect();
            prop_assert!(
                live.is_empty() || live.iter().any(|fire| !fire.queued),
                "{} waits for nothing",
                job.id
            );
            prop_assert!(!job.deleting || !live.is_empty(), "{} is deleted and does not go", job.id);
        }
        Ok(())
    }

    fn check_vms(&mut self) -> Result<(), TestCaseError> {
        for vm in self.state.vms().iter() {
            let old = self.epochs.insert(vm.id, vm.epoch).unwrap_or_default();
            prop_assert!(vm.epoch >= old, "the epoch of {} went back", vm.id);
            let open = vm.migration.and_then(|id| self.state.migration(id)).map(|m| (m.vm, m.is_final()));
            prop_assert!(vm.migration.is_none() || open == Some((vm.id, false)), "{:?}", vm.migration);
        }
        for migration in self.state.index().migrating().filter_map(|id| self.state.migration(id)) {
            prop_assert_eq!(self.state.vm(migration.vm).and_then(|vm| vm.migration), Some(migration.id));
        }
        Ok(())
    }

    /// The sum of all reservations is that of all machines and open migrations: nothing is released twice or kept.
    fn check_total(&self) -> Result<(), TestCaseError> {
        let placed = self.state.vms().iter().filter(|vm| vm.placed_on.is_some()).map(|vm| vm.spec.memory.0);
        let moving = self.state.index().migrating().filter_map(|id| self.state.migration(id));
        let promised: u64 = placed.chain(moving.map(|m| m.claim.memory.0)).sum();
        let used = self.state.index().used_hosts().map(|host| self.state.index().usage(host).memory);
        prop_assert_eq!(used.fold(ByteCount(0), ByteCount::saturating_add), ByteCount(promised));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_commands_keep_rows_indices_and_reservations_consistent(ops in proptest::collection::vec(op(), 1..160)) {
        let mut ledger = Ledger {
            state: State::default(),
            store: Store::new(),
            epochs: BTreeMap::new(),
            ticks: BTreeSet::new(),
            now: 0,
        };
        for n in 1..=2u128 {
            let id = TokenId::from_u128(100 + n);
            let secret_sha256 = Sha256Digest([1; 32]);
            let put = JoinTokenPut { id, secret_sha256, role: JoinTokenRole::Agent, expires_at: UnixMillis(i64::MAX), replaces: None };
            let purpose = JoinPurpose::Agent { name: name(&format!("h{n}")), rejoin: None };
            let new_host = HostId::from_u128(n);
            ledger.apply(CommandBody::JoinTokenPut(put))?;
            ledger.apply(CommandBody::JoinTokenUse(JoinTokenUse { id, secret_sha256, purpose, new_host }))?;
            ledger.apply(CommandBody::HostHello(Box::new(hello(new_host, "h"))))?;
        }
        for op in ops {
            match op {
                Op::Command(body) => ledger.apply(*body)?,
                Op::Sensible(choice) => {
                    for body in sensible(&ledger.state, choice) {
                        ledger.apply(body)?;
                    }
                }
            }
        }
    }
}
