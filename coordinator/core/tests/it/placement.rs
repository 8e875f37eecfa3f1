//! Where machines go, and the words for it.

use crate::world::{World, hello, name, seen, vm_create, vm_spec};
use novacron_common::{
    api::ProblemCode,
    ids::{HostId, VmId},
    record::VmState,
    spec::{MachineKind, VmSpec},
    units::ByteCount,
};
use novacron_core::{
    Applied, CommandBody,
    command::{HostCordon, VmCreate},
    placement::{Constraints, NoPlacement, Shortfall, plan},
    views,
};

fn lacks(none: &NoPlacement, host: HostId) -> &[Shortfall] {
    &none.rejected.iter().find(|r| r.host == host).expect("a host that was looked at").lacks
}

#[test]
fn machines_spread_by_free_memory() {
    let (mut world, hosts) = World::with_hosts(3);
    let places: Vec<_> = (0..6).map(|n| world.vm(&format!("vm-{n}")).1).collect();
    for host in hosts {
        assert_eq!(places.iter().filter(|place| **place == host).count(), 2);
    }
}

#[test]
fn every_rejected_host_says_what_it_lacks_and_by_how_much() {
    let (mut world, hosts) = World::with_hosts(4);
    world.ok(CommandBody::HostCordon(HostCordon { host: hosts[0], cordoned: true }));
    world.down(hosts[1]);
    let mut small = hello(hosts[2], "c");
    small.capacity.memory = ByteCount::gib(3);
    small.capacity.storage = ByteCount::gib(4);
    small.capacity.cpus = 1;
    world.ok(CommandBody::HostHello(Box::new(small)));
    let mut other = hello(hosts[3], "d");
    other.can_kvm = false;
    world.ok(CommandBody::HostHello(Box::new(other)));
    let spec = VmSpec { cpus: 5, ..vm_spec("big") };
    let none = plan(&world.state, &spec, Constraints::default()).unwrap_err();
    assert_eq!(lacks(&none, hosts[0]), [Shortfall::Cordoned]);
    assert_eq!(lacks(&none, hosts[1]), [Shortfall::Down]);
    let short =
        [Shortfall::Memory(ByteCount::gib(1)), Shortfall::Storage(ByteCount::gib(6)), Shortfall::Cpus(1)];
    assert_eq!(lacks(&none, hosts[2]), short);
    assert_eq!(lacks(&none, hosts[3]), [Shortfall::NoKvm]);
    let refusal = world.refused(vm_create(1, spec));
    assert_eq!(refusal.code, ProblemCode::NoPlacement);
    assert_eq!(
        refusal.details[2].reason,
        "is short of memory by 1.0 GiB, is short of disk by 6.0 GiB, is short of 1 virtual CPUs"
    );
}

#[test]
fn memory_is_never_promised_twice_and_processors_four_times() {
    let (mut world, _) = World::with_hosts(1);
    let light = |n: u128| VmSpec { cpus: 8, memory: ByteCount::mib(512), ..vm_spec(&format!("light-{n}")) };
    for n in 0..4 {
        world.ok(vm_create(n, light(n)));
    }
    assert_eq!(world.refused(vm_create(4, light(4))).details[0].reason, "is short of 8 virtual CPUs");
    let heavy = VmSpec { cpus: 0, memory: ByteCount::gib(14), ..vm_spec("heavy") };
    world.ok(vm_create(5, heavy));
    let last = VmSpec { cpus: 0, memory: ByteCount::mib(1), storage: ByteCount(0), ..vm_spec("last") };
    assert_eq!(world.refused(vm_create(6, last)).details[0].reason, "is short of memory by 1.0 MiB");
}

#[test]
fn a_namespace_machine_goes_only_where_namespaces_work() {
    let (mut world, hosts) = World::with_hosts(1);
    let mut other = hello(hosts[0], "a");
    other.can_namespace = false;
    world.ok(CommandBody::HostHello(Box::new(other)));
    let spec = VmSpec { kind: MachineKind::Namespace, ..vm_spec("ns") };
    let none = plan(&world.state, &spec, Constraints::default()).unwrap_err();
    assert_eq!(lacks(&none, hosts[0]), [Shortfall::NoNamespace]);
}

#[test]
fn a_machine_with_volumes_is_where_it_was_asked_for_and_nowhere_else() {
    let (mut world, hosts) = World::with_hosts(2);
    let spec = VmSpec { volumes: vec!["data:/data".parse().unwrap()], ..vm_spec("db") };
    let create = |host| {
        let (id, spec) = (VmId::from_u128(1), spec.clone());
        CommandBody::VmCreate(Box::new(VmCreate { id, spec, host, offer: None, start: true }))
    };
    let refusal = world.refused(create(None));
    assert_eq!(refusal.code, ProblemCode::NoPlacement);
    assert_eq!(refusal.details[0].reason, "has not the machine's volumes, which are on one host");
    world.ok(create(Some(hosts[1])));
    let vm = VmId::from_u128(1);
    world.see(hosts[1], seen(vm, 1, VmState::Running));
    for live in [true, false] {
        let ask = world.ask(1, vm, hosts[0], live);
        let refusal = world.refused(ask);
        assert!(format!("{refusal:?}").contains("the machine's volumes"), "{refusal:?}");
    }
    // Without its host it waits: elsewhere it would find its volumes empty.
    let none = plan(&world.state, &spec, Constraints::default()).unwrap_err();
    assert_eq!(lacks(&none, hosts[0]), [Shortfall::Volumes]);
}

#[test]
fn a_host_that_was_asked_for_is_the_only_one() {
    let (mut world, hosts) = World::with_hosts(2);
    let create = |id, host| {
        let spec = vm_spec(&format!("vm-{id}"));
        CommandBody::VmCreate(Box::new(VmCreate {
            id: VmId::from_u128(id),
            spec,
            host,
            offer: None,
            start: true,
        }))
    };
    for id in 0..4 {
        let made = Applied::VmCreated { vm: VmId::from_u128(id), host: hosts[1] };
        assert_eq!(world.ok(create(id, Some(hosts[1]))), made);
    }
    let refusal = world.refused(create(9, Some(hosts[1])));
    assert_eq!(refusal.details[0].reason, "is not the host that was asked for");
    assert_eq!(refusal.details[1].reason, "is short of memory by 4.0 GiB");
}

#[test]
fn a_stale_offer_is_placed_anew_and_a_good_one_is_taken() {
    let (mut world, hosts) = World::with_hosts(2);
    let spec = vm_spec("first");
    let offer = plan(&world.state, &spec, Constraints::default()).unwrap();
    assert_eq!(offer.placement.host, hosts[0]);
    let create = |id: u128, spec, offer| {
        let vm = VmCreate { id: VmId::from_u128(id), spec, host: None, offer: Some(offer), start: true };
        CommandBody::VmCreate(Box::new(vm))
    };
    let made = |id, host| Applied::VmCreated { vm: VmId::from_u128(id), host };
    assert_eq!(world.ok(create(1, spec, offer.clone())), made(1, hosts[0]));
    assert_eq!(world.ok(create(2, vm_spec("second"), offer.clone())), made(2, hosts[0]));
    world.ok(CommandBody::HostCordon(HostCordon { host: hosts[0], cordoned: true }));
    assert_eq!(world.ok(create(3, vm_spec("third"), offer)), made(3, hosts[1]));
}

#[test]
fn a_placement_reads_like_a_sentence() {
    let (mut world, hosts) = World::with_hosts(2);
    world.ok(CommandBody::HostCordon(HostCordon { host: hosts[0], cordoned: true }));
    let (vm, _) = world.vm("web");
    let view = views::vm(&world.state, world.state.vm(vm).unwrap());
    assert_eq!(
        view.placement.unwrap(),
        "b: most free memory of 1 candidate(s), 12.0 GiB free with this machine, 0 machine(s) before it; a is cordoned"
    );
    assert_eq!(view.host_name.as_deref(), Some("b"));
    assert_eq!(name("b"), world.state.host(hosts[1]).unwrap().name);
}
