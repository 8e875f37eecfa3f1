//! Each refusal: its code, and that nothing changed (`World::refused` compares every row).

use crate::world::{
    NOON, World, capacity, command_target, hello, job_spec, name, seen, template_spec, vm_create, vm_spec,
};
use novacron_common::{
    api::{JoinTokenRole, ProblemCode, TokenRole, VmDesired},
    ids::{ClusterId, FireCause, FireKey, HostId, JobId, MigrationId, TemplateId, TokenId, VmId},
    record::{InboundState, SideState, VmState},
    spec::{CloudInit, Sha256Digest, StopTerms, VmSpec},
    units::{ByteCount, Epoch, Incarnation, UnixMillis},
    wire::{JoinDenied, JoinPurpose},
};
use novacron_core::{
    Applied, CommandBody,
    command::{
        AttemptPlace, ClusterInit, FireCommit, Handover, HostCordon, HostDown, HostRemove, HostSeen,
        JobExecute, JobPut, JoinTokenPut, JoinTokenUse, MigrationObserve, TemplatePut, TokenPut, VmDesire,
        VmPlace, VmRestart, VmUpdate,
    },
    placement::{Constraints, plan},
};

const NOBODY: HostId = HostId::from_u128(99);
const SECRET: Sha256Digest = Sha256Digest([7; 32]);

#[test]
fn a_ledger_belongs_to_one_cluster() {
    let mut world = World::new();
    let init = |id| {
        CommandBody::ClusterInit(ClusterInit {
            cluster: ClusterId::from_u128(id),
            ca_cert: vec![1],
            sealed_ca_key: vec![2],
        })
    };
    assert_eq!(world.apply(init(1)), Applied::AlreadySo);
    assert_eq!(world.refused(init(2)).code, ProblemCode::Conflict);
}

#[test]
fn what_is_not_there_is_not_found() {
    let (mut world, _) = World::with_hosts(1);
    let vm = VmId::from_u128(99);
    let fire = FireKey { job: JobId::from_u128(99), scheduled_at: NOON, cause: FireCause::Manual };
    let unknown = [
        CommandBody::CoordinatorRemove { node: 9 },
        CommandBody::TokenRemove { id: TokenId::from_u128(99) },
        CommandBody::TemplateRemove { id: TemplateId::from_u128(99) },
        CommandBody::HostHello(Box::new(hello(NOBODY, "x"))),
        CommandBody::HostDown(HostDown { host: NOBODY, silent_since: NOON }),
        CommandBody::HostCordon(HostCordon { host: NOBODY, cordoned: true }),
        CommandBody::HostRemove(HostRemove { host: NOBODY, force: true }),
        CommandBody::VmDesire(VmDesire { vm, desired: VmDesired::Running, stop: StopTerms::AT_ONCE }),
        CommandBody::VmRestart(VmRestart { vm, stop: StopTerms::AT_ONCE }),
        CommandBody::VmUpdate(VmUpdate { vm, name: None, restart: None, post_copy: None }),
        CommandBody::VmForget { vm },
        CommandBody::JobRemove { id: fire.job },
        CommandBody::JobExecute(JobExecute { id: fire.job, at: NOON, node: None }),
        CommandBody::AttemptPlace(AttemptPlace { fire, host: NOBODY }),
        CommandBody::FireCancel { fire },
        CommandBody::MigrationCancel { id: MigrationId::from_u128(9) },
        CommandBody::MigrationGiveUp { id: MigrationId::from_u128(9) },
        world.ask(1, vm, NOBODY, true),
    ];
    for body in unknown {
        assert_eq!(world.refused(body.clone()).code, ProblemCode::NotFound, "{body:?}");
    }
}

#[test]
fn names_are_unique_among_their_kind() {
    let (mut world, hosts) = World::with_hosts(1);
    let (vm, _) = world.vm("web");
    world.vm("db");
    world.job(job_spec("web", "@daily"));
    let template = |id, text| {
        CommandBody::TemplatePut(Box::new(TemplatePut {
            id: TemplateId::from_u128(id),
            spec: template_spec(text),
        }))
    };
    world.ok(template(1, "web"));
    let taken = [
        vm_create(7, vm_spec("web")),
        CommandBody::VmUpdate(VmUpdate { vm, name: Some(name("db")), restart: None, post_copy: None }),
        CommandBody::JobPut(Box::new(JobPut::new(JobId::from_u128(7), job_spec("web", "@daily"), NOON))),
        template(2, "web"),
    ];
    for body in taken {
        assert_eq!(world.refused(body.clone()).code, ProblemCode::NameTaken, "{body:?}");
    }
    // A name is free again once it is given up, and a row may keep its own.
    world.ok(CommandBody::VmUpdate(VmUpdate { vm, name: Some(name("www")), restart: None, post_copy: None }));
    world.ok(CommandBody::VmUpdate(VmUpdate { vm, name: Some(name("www")), restart: None, post_copy: None }));
    world.ok(vm_create(7, vm_spec("web")));
    world.ok(template(1, "web"));
    let purpose = JoinPurpose::Agent { name: world.state.host(hosts[0]).unwrap().name.clone(), rejoin: None };
    assert_eq!(join(&mut world, 50, purpose, NOON), Applied::JoinDenied(JoinDenied::NameTaken(name("a"))));
}

/// A fresh token, shown at once.
fn join(world: &mut World, id: u128, purpose: JoinPurpose, expires_at: UnixMillis) -> Applied {
    let (id, role) = (TokenId::from_u128(id), JoinTokenRole::Agent);
    let expires_at = UnixMillis(expires_at.0 + 1);
    world.ok(CommandBody::JoinTokenPut(JoinTokenPut {
        id,
        secret_sha256: SECRET,
        role,
        expires_at,
        replaces: None,
    }));
    let new_host = HostId::from_u128(id.uuid().as_u128());
    world.apply(CommandBody::JoinTokenUse(JoinTokenUse { id, secret_sha256: SECRET, purpose, new_host }))
}

#[test]
fn a_join_token_works_once_in_time_with_its_secret_and_role() {
    let mut world = World::new();
    let agent = |rejoin| JoinPurpose::Agent { name: name("a"), rejoin };
    let use_it = |id, secret, purpose| {
        let (id, new_host) = (TokenId::from_u128(id), HostId::from_u128(500));
        CommandBody::JoinTokenUse(JoinTokenUse { id, secret_sha256: secret, purpose, new_host })
    };
    let denied = Applied::JoinDenied;
    assert_eq!(world.apply(use_it(1, SECRET, agent(None))), denied(JoinDenied::UnknownToken));
    let host = HostId::from_u128(1);
    assert_eq!(join(&mut world, 1, agent(None), NOON), Applied::Enrolled { host: Some(host), node: None });
    assert_eq!(world.apply(use_it(1, SECRET, agent(None))), denied(JoinDenied::Used));
    assert_eq!(join(&mut world, 2, agent(Some(NOBODY)), NOON), denied(JoinDenied::Removed));
    assert_eq!(world.apply(use_it(2, Sha256Digest([8; 32]), agent(None))), denied(JoinDenied::UnknownToken));
    let coordinator = JoinPurpose::Coordinator {
        name: name("c"),
        quic: "10.0.0.9:8091".parse().unwrap(),
        http: "10.0.0.9:8090".parse().unwrap(),
    };
    assert_eq!(world.apply(use_it(2, SECRET, coordinator)), denied(JoinDenied::WrongRole));
    world.now.0 += 1;
    assert_eq!(world.apply(use_it(2, SECRET, agent(Some(host)))), denied(JoinDenied::Expired));
    // What was denied did not spend the token.
    world.now.0 -= 1;
    assert_eq!(world.state.join_token(TokenId::from_u128(2)).unwrap().used_at, None);
}

#[test]
fn a_host_that_rejoins_keeps_its_id_and_its_name() {
    let (mut world, hosts) = World::with_hosts(1);
    let rejoin = |text| JoinPurpose::Agent { name: name(text), rejoin: Some(hosts[0]) };
    assert_eq!(
        join(&mut world, 70, rejoin("a"), NOON),
        Applied::Enrolled { host: Some(hosts[0]), node: None }
    );
    assert_eq!(
        join(&mut world, 71, rejoin("z"), NOON),
        Applied::JoinDenied(JoinDenied::NameTaken(name("z")))
    );
}

#[test]
fn a_stale_word_about_a_host_changes_nothing() {
    let (mut world, hosts) = World::with_hosts(1);
    let host = hosts[0];
    let silent_since = UnixMillis(NOON.0 - 1);
    assert_eq!(
        world.refused(CommandBody::HostDown(HostDown { host, silent_since })).code,
        ProblemCode::Conflict
    );
    let mut newer = hello(host, "a");
    newer.incarnation = Incarnation(2);
    world.ok(CommandBody::HostHello(Box::new(newer)));
    assert_eq!(world.refused(CommandBody::HostHello(Box::new(hello(host, "a")))).code, ProblemCode::Conflict);
    let seen = HostSeen {
        host,
        incarnation: Incarnation(1),
        capacity: capacity(),
        load_millis: 1,
        memory_available: ByteCount(1),
        foreign_domains: Vec::new(),
    };
    assert_eq!(world.refused(CommandBody::HostSeen(seen)).code, ProblemCode::Conflict);
}

#[test]
fn a_host_in_use_is_not_removed() {
    let (mut world, hosts) = World::with_hosts(1);
    world.vm("web");
    let remove = |force| CommandBody::HostRemove(HostRemove { host: hosts[0], force });
    assert!(world.refused(remove(false)).cause.contains("1 machine(s)"));
    assert!(world.refused(remove(true)).cause.contains("is up"));
    world.down(hosts[0]);
    world.refused(remove(false));
    world.ok(remove(true));
    assert!(world.state.host(hosts[0]).is_none());
}

#[test]
fn what_does_not_fit_one_record_is_too_large() {
    let (mut world, _) = World::with_hosts(1);
    let key = format!("ssh-ed25519 {}", "A".repeat(16_000));
    let cloud_init = CloudInit { ssh_keys: vec![key; 4], ..CloudInit::default() };
    let spec = VmSpec { cloud_init: Some(cloud_init), ..vm_spec("web") };
    let refusal = world.refused(vm_create(1, spec));
    assert_eq!((refusal.code, refusal.details[0].field.as_str()), (ProblemCode::TooLarge, "cloud_init"));
}

#[test]
fn the_same_id_again_is_the_same_or_a_conflict() {
    let (mut world, _) = World::with_hosts(1);
    let made = world.ok(vm_create(1, vm_spec("web")));
    assert_eq!(world.ok(vm_create(1, vm_spec("web"))), made);
    assert_eq!(world.refused(vm_create(1, vm_spec("other"))).code, ProblemCode::Conflict);
    let put = |text| {
        CommandBody::JobPut(Box::new(JobPut::new(JobId::from_u128(1), job_spec(text, "@daily"), NOON)))
    };
    let stored = world.ok(put("a"));
    assert_eq!(world.ok(put("a")), stored);
    assert_eq!(world.refused(put("b")).code, ProblemCode::Conflict);
}

#[test]
fn a_machine_that_goes_or_moves_is_left_alone() {
    let (mut world, hosts) = World::with_hosts(2);
    let (vm, host) = world.running_vm("web");
    let target = hosts.into_iter().find(|h| *h != host).unwrap();
    let desire = |desired| CommandBody::VmDesire(VmDesire { vm, desired, stop: StopTerms::within_ms(1) });
    let changes = |world: &World, target| {
        [
            desire(VmDesired::Stopped),
            CommandBody::VmRestart(VmRestart { vm, stop: StopTerms::AT_ONCE }),
            CommandBody::VmUpdate(VmUpdate { vm, name: None, restart: None, post_copy: None }),
            world.ask(2, vm, target, true),
        ]
    };
    assert!(world.refused(CommandBody::VmForget { vm }).cause.contains("not deleted"));
    let offer = plan(&world.state, &vm_spec("x"), Constraints::default()).unwrap();
    assert!(
        world.refused(CommandBody::VmPlace(Box::new(VmPlace { vm, offer }))).cause.contains("has its place")
    );
    let ask = world.ask(1, vm, target, true);
    world.ok(ask);
    for body in changes(&world, target) {
        assert!(world.refused(body).cause.contains("is moving"));
    }
    world.refused(desire(VmDesired::Deleted));
    world.ok(CommandBody::MigrationCancel { id: MigrationId::from_u128(1) });
    discard(&mut world, target);
    world.ok(desire(VmDesired::Deleted));
    for body in changes(&world, target) {
        assert!(world.refused(body).cause.contains("being deleted"));
    }
    assert_eq!(world.apply(desire(VmDesired::Deleted)), Applied::AlreadySo);
}

fn discard(world: &mut World, target: HostId) {
    let side = SideState::Inbound(InboundState::Discarded { reason: "cancelled".into() });
    let id = MigrationId::from_u128(1);
    world.ok(CommandBody::MigrationObserve(Box::new(MigrationObserve {
        id,
        host: target,
        side,
        asked_at_step: None,
    })));
    assert!(world.state.migration(id).unwrap().is_final());
}

#[test]
fn only_a_running_machine_is_restarted_or_moved_live() {
    let (mut world, hosts) = World::with_hosts(2);
    let (vm, host) = world.running_vm("web");
    let target = hosts.into_iter().find(|h| *h != host).unwrap();
    world.ok(CommandBody::VmDesire(VmDesire {
        vm,
        desired: VmDesired::Stopped,
        stop: StopTerms::within_ms(1),
    }));
    assert!(
        world
            .refused(CommandBody::VmRestart(VmRestart { vm, stop: StopTerms::AT_ONCE }))
            .cause
            .contains("not running")
    );
    world.see(host, seen(vm, 1, VmState::Stopped));
    let ask = world.ask(1, vm, target, true);
    assert!(world.refused(ask).fix.unwrap().contains("live"));
    let (fresh, place) = world.vm("fresh");
    let other = if place == target { host } else { target };
    let ask = world.ask(2, fresh, other, false);
    assert!(world.refused(ask).cause.contains("neither running nor stopped"));
}

#[test]
fn a_migration_needs_a_target_that_can_take_it() {
    let (mut world, hosts) = World::with_hosts(4);
    let (vm, source) = world.running_vm("web");
    let others: Vec<_> = hosts.into_iter().filter(|h| *h != source).collect();
    world.down(others[0]);
    world.ok(CommandBody::HostCordon(HostCordon { host: others[1], cordoned: true }));
    let mut small = hello(others[2], "x");
    small.capacity.memory = ByteCount::gib(1);
    world.ok(CommandBody::HostHello(Box::new(small)));
    let cases = [
        (source, ProblemCode::Conflict),
        (others[0], ProblemCode::HostUnavailable),
        (others[1], ProblemCode::HostUnavailable),
        (others[2], ProblemCode::NoPlacement),
        (NOBODY, ProblemCode::NotFound),
    ];
    for (target, code) in cases {
        let ask = world.ask(1, vm, target, true);
        assert_eq!(world.refused(ask).code, code);
    }
    world.down(source);
    let ask = world.ask(1, vm, others[2], true);
    assert_eq!(world.refused(ask).code, ProblemCode::HostUnavailable);
}

#[test]
fn nobody_hands_over_before_the_guest_has_left_and_arrived() {
    let (mut world, hosts) = World::with_hosts(2);
    let (vm, host) = world.running_vm("web");
    let to = hosts.iter().copied().find(|h| *h != host).unwrap();
    let ask = world.ask(1, vm, to, true);
    world.ok(ask);
    let migration = MigrationId::from_u128(1);
    let handover =
        |to, epoch| CommandBody::Handover(Handover { migration, vm, to, expect_epoch: Epoch(epoch) });
    assert!(world.refused(handover(to, 1)).cause.contains("not observed gone"));
    assert!(world.refused(handover(host, 1)).cause.contains("another machine or host"));
    assert!(world.refused(handover(to, 2)).cause.contains("epoch 1"));
    let side = SideState::Inbound(InboundState::Arrived);
    let observe = MigrationObserve { id: migration, host, side, asked_at_step: None };
    assert_eq!(world.refused(CommandBody::MigrationObserve(Box::new(observe))).code, ProblemCode::Forbidden);
}

#[test]
fn a_schedule_without_ticks_is_refused_unless_it_is_off() {
    let (mut world, _) = World::with_hosts(1);
    let last_second = UnixMillis(253_402_300_799_000);
    let put = |spec| CommandBody::JobPut(Box::new(JobPut::new(JobId::from_u128(1), spec, last_second)));
    let mut spec = job_spec("never", "0 0 29 2 *");
    let refusal = world.refused(put(spec.clone()));
    assert_eq!((refusal.code, refusal.details[0].field.as_str()), (ProblemCode::InvalidRequest, "schedule"));
    spec.enabled = false;
    assert_eq!(world.refused(put(spec)).code, ProblemCode::InvalidRequest, "not even while it is paused");
}

#[test]
fn a_tick_is_committed_once_and_only_for_the_present_revision() {
    let (mut world, _) = World::with_hosts(1);
    let job = world.job(job_spec("tick", "* * * * * *"));
    let at = |ms: i64| UnixMillis(NOON.0 + ms);
    let commit = |ms, revision| {
        let next_at = Some(at(ms + 1000));
        CommandBody::FireCommit(FireCommit {
            job,
            fire: vec![at(ms)],
            until: at(ms),
            revision,
            next_at,
            skip: None,
        })
    };
    assert_eq!(world.refused(commit(1000, 2)).code, ProblemCode::Conflict);
    let key = FireKey { job, scheduled_at: at(2000), cause: FireCause::Schedule };
    assert_eq!(world.ok(commit(2000, 1)), Applied::TicksCommitted(vec![key]));
    assert_eq!(world.apply(commit(2000, 1)), Applied::AlreadySo);
    assert_eq!(world.apply(commit(1000, 1)), Applied::AlreadySo);
    assert_eq!(world.state.pulse(job).unwrap().fires, 1);
    assert_eq!(world.state.pulse(job).unwrap().next_at, Some(at(3000)));
}

#[test]
fn an_attempt_needs_a_waiting_fire_and_a_host_that_takes_it() {
    let (mut world, hosts) = World::with_hosts(2);
    let mut spec = job_spec("work", "0 0 1 1 *");
    spec.target = command_target();
    let id = world.job(spec);
    let Applied::FireCommitted(fire) =
        world.ok(CommandBody::JobExecute(JobExecute { id, at: NOON, node: None }))
    else {
        panic!("no fire");
    };
    let place = |host| CommandBody::AttemptPlace(AttemptPlace { fire, host });
    world.down(hosts[0]);
    assert_eq!(world.refused(place(hosts[0])).code, ProblemCode::HostUnavailable);
    assert_eq!(world.refused(place(NOBODY)).code, ProblemCode::NotFound);
    world.ok(place(hosts[1]));
    assert_eq!(world.refused(place(hosts[1])).code, ProblemCode::Conflict);
}

#[test]
fn batches_do_not_nest_and_a_refused_command_does_not_stop_the_next() {
    let mut world = World::new();
    let token = |id| {
        let put = TokenPut {
            id: TokenId::from_u128(id),
            name: name("t"),
            role: TokenRole::Admin,
            secret_sha256: SECRET,
        };
        CommandBody::TokenPut(put)
    };
    let unknown = CommandBody::TokenRemove { id: TokenId::from_u128(9) };
    let batch = CommandBody::Batch(vec![token(1), unknown, token(2), CommandBody::Batch(vec![token(3)])]);
    let Applied::Batch(answers) = world.apply(batch) else { panic!("no batch") };
    let refused: Vec<_> = answers.iter().map(|a| matches!(a, Applied::Refused(_))).collect();
    assert_eq!(refused, [false, true, false, true]);
    assert_eq!(world.state.api_tokens().len(), 2);
}
