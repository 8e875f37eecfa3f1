//! Tenant networks: whose addresses are whose, from the making of a machine to its last trace.

use crate::world::{World, name, seen, vm_create, vm_spec};
use novacron_common::{
    api::{ProblemCode, VmDesired},
    ids::{NetworkId, VmId},
    record::VmState,
    spec::{MachineKind, NetworkSpec, StopTerms, VmSpec},
    units::ByteCount,
};
use novacron_core::{
    Applied, CommandBody,
    command::{NetworkCreate, VmDesire},
    placement::{Constraints, Shortfall, plan},
};

fn create(id: u128, called: &str, subnet: Option<&str>) -> CommandBody {
    CommandBody::NetworkCreate(Box::new(NetworkCreate {
        id: NetworkId::from_u128(id),
        name: name(called),
        subnet: subnet.map(|text| text.parse().unwrap()),
        dns: vec!["10.9.9.9".parse().unwrap()],
    }))
}

fn remove(id: u128) -> CommandBody {
    CommandBody::NetworkRemove { id: NetworkId::from_u128(id) }
}

fn on(network: u128, vm: &str) -> VmSpec {
    VmSpec {
        kind: MachineKind::Namespace,
        memory: ByteCount::mib(64),
        storage: ByteCount(0),
        network: NetworkSpec { tenant: Some(NetworkId::from_u128(network)), ..NetworkSpec::default() },
        ..vm_spec(vm)
    }
}

fn address(world: &World, vm: u128) -> String {
    world.state.vm(VmId::from_u128(vm)).unwrap().spec.network.address.unwrap().to_string()
}

/// Until nothing is left of it.
fn delete(world: &mut World, vm: u128) {
    let vm = VmId::from_u128(vm);
    world.ok(CommandBody::VmDesire(VmDesire { vm, desired: VmDesired::Deleted, stop: StopTerms::AT_ONCE }));
    let host = world.state.vm(vm).unwrap().placed_on.unwrap();
    world.see(host, seen(vm, 1, VmState::Missing));
    world.ok(CommandBody::VmForget { vm });
}

#[test]
fn each_machine_has_an_address_of_its_own_which_rests_after_it() {
    let (mut world, _) = World::with_hosts(1);
    world.ok(create(1, "blue", Some("10.1.2.0/29")));
    for (vm, called) in [(11, "a"), (12, "b"), (13, "c")] {
        world.ok(vm_create(vm, on(1, called)));
    }
    assert_eq!([11, 12, 13].map(|vm| address(&world, vm)), ["10.1.2.2/29", "10.1.2.3/29", "10.1.2.4/29"]);
    let card = world.state.vm(VmId::from_u128(11)).unwrap().spec.network.clone();
    assert_eq!(card.gateway, Some("10.1.2.1".parse().unwrap()));
    assert_eq!(card.dns, ["10.9.9.9".parse::<std::net::IpAddr>().unwrap()]);

    delete(&mut world, 11);
    world.ok(vm_create(14, on(1, "d")));
    assert_eq!(address(&world, 14), "10.1.2.5/29", "the address of the machine before was given at once");
    world.ok(vm_create(15, on(1, "e")));
    world.ok(vm_create(16, on(1, "f")));
    assert_eq!([15, 16].map(|vm| address(&world, vm)), ["10.1.2.6/29", "10.1.2.2/29"]);

    let full = world.refused(vm_create(17, on(1, "g")));
    assert_eq!(full.code, ProblemCode::Conflict);
    assert!(full.cause.contains("every address of the network blue is taken"), "{full}");
    world.assert_reloads();
}

#[test]
fn a_machine_that_is_being_deleted_keeps_its_address_until_it_is_seen_gone() {
    let (mut world, _) = World::with_hosts(1);
    world.ok(create(1, "blue", Some("10.1.2.0/29")));
    (0..5).for_each(|n| _ = world.ok(vm_create(20 + n, on(1, &format!("m{n}")))));
    let vm = VmId::from_u128(20);
    world.ok(CommandBody::VmDesire(VmDesire { vm, desired: VmDesired::Deleted, stop: StopTerms::AT_ONCE }));
    assert_eq!(world.refused(vm_create(30, on(1, "late"))).code, ProblemCode::Conflict);
    let host = world.state.vm(vm).unwrap().placed_on.unwrap();
    world.see(host, seen(vm, 1, VmState::Missing));
    world.ok(CommandBody::VmForget { vm });
    world.ok(vm_create(30, on(1, "late")));
    assert_eq!(address(&world, 30), "10.1.2.2/29");
}

#[test]
fn the_same_machine_again_is_the_same_and_takes_nothing() {
    let (mut world, _) = World::with_hosts(1);
    world.ok(create(1, "blue", None));
    let first = world.ok(vm_create(11, on(1, "a")));
    assert_eq!(world.apply(vm_create(11, on(1, "a"))), first);
    world.ok(vm_create(12, on(1, "b")));
    assert_eq!(address(&world, 12), "10.213.0.3/24");
    assert_eq!(world.refused(vm_create(11, on(1, "other"))).code, ProblemCode::Conflict);
    let elsewhere = VmSpec { network: NetworkSpec::default(), ..on(1, "a") };
    assert_eq!(world.refused(vm_create(11, elsewhere)).code, ProblemCode::Conflict);
}

#[test]
fn no_two_networks_have_a_name_or_an_address_in_common() {
    let (mut world, _) = World::with_hosts(1);
    assert_eq!(world.ok(create(1, "blue", None)), Applied::NetworkStored(NetworkId::from_u128(1)));
    assert_eq!(world.apply(create(1, "blue", None)), Applied::NetworkStored(NetworkId::from_u128(1)));
    assert_eq!(world.refused(create(1, "green", None)).code, ProblemCode::Conflict);
    assert_eq!(world.refused(create(2, "blue", None)).code, ProblemCode::NameTaken);
    for taken in ["10.213.0.0/24", "10.213.0.128/25", "10.208.0.0/12"] {
        let refusal = world.refused(create(2, "green", Some(taken)));
        assert!(refusal.cause.contains("10.213.0.0/24 of the network blue"), "{refusal}");
    }
    world.ok(create(2, "green", Some("10.213.1.0/25")));
    world.ok(create(3, "red", None));
    let subnet = |id| world.state.network(NetworkId::from_u128(id)).unwrap().spec.subnet.to_string();
    assert_eq!(subnet(3), "10.213.2.0/24", "the next that is wholly free");
    world.ok(remove(1));
    world.ok(create(4, "blue", None));
    assert_eq!(
        world.state.network(NetworkId::from_u128(4)).unwrap().spec.subnet.to_string(),
        "10.213.0.0/24"
    );
    world.assert_reloads();
}

#[test]
fn a_network_stays_as_long_as_a_machine_is_on_it() {
    let (mut world, _) = World::with_hosts(1);
    assert_eq!(world.refused(remove(1)).code, ProblemCode::NotFound);
    assert_eq!(world.refused(vm_create(11, on(1, "a"))).code, ProblemCode::NotFound);
    world.ok(create(1, "blue", None));
    world.ok(vm_create(11, on(1, "a")));
    let refusal = world.refused(remove(1));
    assert_eq!(refusal.code, ProblemCode::Conflict);
    assert!(refusal.cause.starts_with("1 machine is on the network blue"), "{refusal}");
    delete(&mut world, 11);
    world.ok(remove(1));
    world.assert_reloads();
}

fn publishing(vm: &str, ports: &[&str]) -> VmSpec {
    let mut spec = on(1, vm);
    spec.network.publish = ports.iter().map(|text| text.parse().unwrap()).collect();
    spec
}

#[test]
fn a_port_of_a_host_leads_to_one_machine() {
    let (mut world, hosts) = World::with_hosts(2);
    world.ok(create(1, "blue", None));
    world.ok(vm_create(11, publishing("a", &["8080:80", "53:53/udp"])));
    world.ok(vm_create(12, publishing("b", &["8080:80", "53:53"])));
    let placed = |world: &World, vm| world.state.vm(VmId::from_u128(vm)).unwrap().placed_on.unwrap();
    assert_ne!(placed(&world, 11), placed(&world, 12), "the port was taken there");
    let none = plan(&world.state, &publishing("c", &["8080:81"]), Constraints::default()).unwrap_err();
    let port = "8080:81".parse().unwrap();
    assert!(none.rejected.iter().all(|host| host.lacks == [Shortfall::Port(port)]), "{none:?}");
    assert_eq!(none.rejected.len(), hosts.len());
    assert_eq!(world.refused(vm_create(13, publishing("c", &["8080:81"]))).code, ProblemCode::NoPlacement);
    world.ok(vm_create(14, publishing("d", &["8080:80/udp"])));

    delete(&mut world, 11);
    world.ok(vm_create(13, publishing("c", &["8080:81"])));
    world.assert_reloads();
}
