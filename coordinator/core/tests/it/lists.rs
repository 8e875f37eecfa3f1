//! Pages of lists.

use crate::world::{World, command_target, job_spec, name, seen, vm_spec};
use novacron_common::{
    api::{JobQuery, PageQuery, ProblemCode},
    ids::{JobId, VmId},
    record::VmState,
    spec::VmSpec,
    units::{ByteCount, UnixMillis},
};
use novacron_core::{
    CommandBody,
    command::{JobExecute, VmCreate},
    lists,
};

fn query(limit: u32, cursor: Option<String>, status: Option<&str>) -> PageQuery {
    PageQuery { limit: Some(limit), cursor, status: status.map(str::to_owned) }
}

fn all_vms(world: &World, limit: u32, status: Option<&str>) -> Vec<VmId> {
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        let page = lists::vms(&world.state, &query(limit, cursor, status)).unwrap();
        assert!(page.items.len() <= limit as usize);
        found.extend(page.items.iter().map(|vm| vm.id));
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return found,
        }
    }
}

/// Many small machines on one large host.
fn crowd(count: u128) -> World {
    let (mut world, hosts) = World::with_hosts(1);
    let mut hello = crate::world::hello(hosts[0], "a");
    hello.capacity.memory = ByteCount::gib(1 << 20);
    hello.capacity.storage = ByteCount::gib(1 << 20);
    hello.capacity.cpus = 1 << 20;
    world.ok(CommandBody::HostHello(Box::new(hello)));
    for n in 0..count {
        let spec = VmSpec { name: name(&format!("vm-{n}")), cpus: 1, ..vm_spec("x") };
        let id = VmId::from_u128(1 << 40 | n);
        world.ok(CommandBody::VmCreate(Box::new(VmCreate {
            id,
            spec,
            host: None,
            offer: None,
            start: true,
        })));
        if n % 100 == 0 {
            world.see(hosts[0], seen(id, 1, VmState::Running));
        }
    }
    world
}

#[test]
fn every_machine_is_on_exactly_one_page() {
    let world = crowd(257);
    let ids: Vec<_> = world.state.vms().iter().map(|vm| vm.id).collect();
    for limit in [1, 100, 256, 257, 1000] {
        assert_eq!(all_vms(&world, limit, None), ids, "limit {limit}");
    }
    assert_eq!(all_vms(&world, 2, Some("running")).len(), 3);
    assert_eq!(all_vms(&world, 100, Some("pending")).len(), 254);
    assert!(all_vms(&world, 100, Some("failed")).is_empty());
}

/// How long a page takes is for `benches/` to say.
#[test]
fn the_last_page_and_a_rare_status_are_found_among_ten_thousand() {
    let world = crowd(10_000);
    let last = query(100, Some(VmId::from_u128(1 << 40 | 9_899).to_string()), None);
    let rare = query(100, None, Some("running"));
    assert_eq!(lists::vms(&world.state, &last).unwrap().items.len(), 100);
    assert_eq!(lists::vms(&world.state, &rare).unwrap().items.len(), 100);
}

#[test]
fn wrong_queries_name_their_field() {
    let (world, _) = World::with_hosts(1);
    let cases = [
        (query(0, None, None), "limit"),
        (query(1001, None, None), "limit"),
        (query(1, Some("vm-1".into()), None), "cursor"),
        (query(1, Some(JobId::from_u128(1).to_string()), None), "cursor"),
        (query(1, None, Some("sleeping")), "status"),
    ];
    for (query, field) in cases {
        let refusal = lists::vms(&world.state, &query).unwrap_err();
        assert_eq!((refusal.code, refusal.details[0].field.as_str()), (ProblemCode::InvalidRequest, field));
    }
    assert!(
        lists::jobs(&world.state, &JobQuery { status: Some("running".into()), ..JobQuery::default() })
            .is_err()
    );
    assert!(lists::hosts(&world.state, &PageQuery::default()).unwrap().next_cursor.is_none());
}

#[test]
fn fires_are_listed_from_the_newest() {
    let (mut world, _) = World::with_hosts(1);
    let mut spec = job_spec("work", "0 0 1 1 *");
    spec.target = command_target();
    let id = world.job(spec);
    for at in [10, 30, 20] {
        world.ok(CommandBody::JobExecute(JobExecute { id, at: UnixMillis(at), node: None }));
    }
    let page = lists::fires(&world.state, id, &query(2, None, None)).unwrap();
    assert_eq!(page.items.iter().map(|f| f.scheduled_at.0).collect::<Vec<_>>(), [30, 20]);
    let rest = lists::fires(&world.state, id, &query(2, page.next_cursor, None)).unwrap();
    assert_eq!(rest.items.iter().map(|f| f.scheduled_at.0).collect::<Vec<_>>(), [10]);
    assert_eq!(rest.next_cursor, None);
}

#[test]
fn hosts_and_migrations_are_filtered_by_status() {
    let (mut world, hosts) = World::with_hosts(3);
    world.down(hosts[1]);
    let names = |status| {
        let page = lists::hosts(&world.state, &query(10, None, Some(status))).unwrap();
        page.items.iter().map(|host| host.id).collect::<Vec<_>>()
    };
    assert_eq!(names("down"), [hosts[1]]);
    assert_eq!(names("up"), [hosts[0], hosts[2]]);
    assert!(lists::hosts(&world.state, &query(10, None, Some("asleep"))).is_err());
    let done = lists::migrations(&world.state, &query(10, None, Some("completed"))).unwrap();
    assert!(done.items.is_empty());
    assert!(lists::migrations(&world.state, &query(10, None, Some("running"))).is_err());
}

#[test]
fn jobs_are_filtered_by_label_and_status_page_by_page() {
    let (mut world, _) = World::with_hosts(1);
    for n in 0..10 {
        let mut spec = crate::world::job_spec(&format!("job-{n}"), "@daily");
        spec.enabled = n % 2 == 0;
        spec.labels = [("team".to_owned(), if n < 6 { "a" } else { "b" }.to_owned())].into();
        world.job(spec);
    }
    let ask = |cursor, status: Option<&str>, label: Option<&str>| {
        let (status, label) = (status.map(str::to_owned), label.map(str::to_owned));
        lists::jobs(&world.state, &JobQuery { limit: Some(2), cursor, status, label })
    };
    let (mut names, mut cursor) = (Vec::new(), None);
    loop {
        let page = ask(cursor, Some("active"), Some("team=a")).unwrap();
        names.extend(page.items.into_iter().map(|job| job.name));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(names, ["job-0", "job-2", "job-4"]);
    assert_eq!(ask(None, None, Some("team")).unwrap_err().details[0].field, "label");
    assert_eq!(ask(None, Some("asleep"), None).unwrap_err().details[0].field, "status");
}
