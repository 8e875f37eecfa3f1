//! Many machines, up and down again and again: nothing of them is left on the host, or in the agent.

use crate::{
    machine::uid_map,
    network::on_a_host,
    place::{Place, place},
    steps::{COMMAND, FIRST_ID, home, nothing_remains},
    world::{eventually, exe, processes_with},
};
use novacron_agent::hypervisor::{Definition, Hypervisor, Listed, namespace::Namespace};
use novacron_common::{
    ids::{NetworkId, VmId},
    record::VmState,
    spec::{NetworkSpec, StopTerms},
};
use std::{collections::BTreeSet, fs, net::Ipv4Addr, sync::Arc, time::Instant};
use tokio::task::JoinSet;

/// How many are started, or ended, at once.
const ASKERS: usize = 4;

/// Ids of the host that one machine has.
const RANGE: usize = 65_536;

/// Blank disks that the agent keeps ready, and what they are copied from.
const BLANKS_MAX: usize = 16;

/// What the agent's heap may grow by from the end of the first round on: bytes for each machine since, less than its id and its
/// place in a map, over what comes and goes with threads and their caches.
const HEAP_GROWTH_MAX: usize = 32;
const HEAP_NOISE: usize = 256 << 10;

/// Machines, and rounds.
fn size() -> (usize, usize) {
    if std::env::var_os("NOVACRON_SOAK").is_some() { (1000, 10) } else { (60, 3) }
}

/// On one network, each with an address of its own.
fn wanted(place: &Place, number: usize) -> Definition {
    let mut wanted = place.definition();
    let address = Ipv4Addr::from(Ipv4Addr::new(10, 77, 0, 2).to_bits() + u32::try_from(number).unwrap());
    wanted.spec.cmdline = Some(COMMAND.into());
    wanted.spec.network = NetworkSpec {
        address: Some(format!("{address}/16").parse().unwrap()),
        gateway: Some("10.77.0.1".parse().unwrap()),
        tenant: Some(NetworkId::from_u128(1)),
        ..NetworkSpec::default()
    };
    wanted
}

/// Does it to all, several at a time.
async fn each<T: Send + 'static, F: Future<Output = ()> + Send + 'static>(all: Vec<T>, act: fn(T) -> F) {
    let mut shares: Vec<Vec<T>> = (0..ASKERS).map(|_| Vec::new()).collect();
    all.into_iter().enumerate().for_each(|(number, one)| shares[number % ASKERS].push(one));
    let mut askers = JoinSet::new();
    for share in shares {
        askers.spawn(async move {
            for one in share {
                act(one).await;
            }
        });
    }
    askers.join_all().await;
}

async fn up(host: &Arc<Namespace>, place: &Place, count: usize) -> Vec<VmId> {
    let wanted: Vec<Definition> = (0..count).map(|number| wanted(place, number)).collect();
    let vms = wanted.iter().map(|wanted| wanted.vm).collect();
    let wanted = wanted.into_iter().map(|wanted| (Arc::clone(host), wanted)).collect();
    each(wanted, |(host, wanted): (Arc<Namespace>, Definition)| async move {
        host.define(&wanted).await.unwrap();
        host.start(wanted.vm).await.unwrap_or_else(|error| panic!("{}: {error:?}", wanted.vm));
    })
    .await;
    vms
}

/// Every other one is asked to end, the rest are ended where they are.
async fn down(host: &Arc<Namespace>, vms: &[VmId]) {
    let vms = vms.iter().enumerate().map(|(number, vm)| (Arc::clone(host), *vm, number % 2 == 0)).collect();
    each(vms, |(host, vm, is_asked): (Arc<Namespace>, VmId, bool)| async move {
        if is_asked {
            host.stop(vm, StopTerms::within_ms(60_000)).await.unwrap();
        }
        host.undefine(vm).await.unwrap();
    })
    .await;
}

/// They have the lowest ranges of ids that there are, each its own: those of machines that ended were given back.
fn have_the_first_ids(place: &Place, vms: &[VmId]) {
    let first = |vm: &VmId| {
        let map = fs::read_to_string(uid_map(&home(place), *vm)).unwrap();
        map.split_ascii_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
    };
    let found: BTreeSet<usize> = vms.iter().map(first).collect();
    let lowest: usize = FIRST_ID.parse().unwrap();
    let wanted: BTreeSet<usize> = (0..vms.len()).map(|slot| lowest + slot * RANGE).collect();
    assert!(found == wanted, "ids: {:?}", found.symmetric_difference(&wanted).collect::<Vec<_>>());
}

/// The agent's own descriptors, and children that it has not collected.
fn holds() -> (usize, Vec<String>) {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    (descriptors, children.filter(|children| !children.trim().is_empty()).collect())
}

/// Bytes that the agent has allocated.
fn heap() -> usize {
    // SAFETY: takes nothing, and returns numbers.
    let all = unsafe { libc::mallinfo2() };
    all.uordblks + all.hblkhd
}

#[test]
fn machines_up_and_down_again_and_again_leave_nothing() {
    novacron_tests::require!(root);
    on_a_host(|| async {
        let (count, rounds) = size();
        let place = place("#!/bin/sh\n", &["/bin/sh", "/bin/sleep"]);
        let host = Arc::new(Namespace::open(place.folder.path(), exe()).await.unwrap());
        let (before, mut first_heap) = (holds(), None);
        for round in 1..=rounds {
            let began = Instant::now();
            let vms = up(&host, &place, count).await;
            let rose = began.elapsed();
            let wanted: BTreeSet<VmId> = vms.iter().copied().collect();
            let found = host.list().await.unwrap();
            assert!(
                found
                    .iter()
                    .all(|one| matches!(one, Listed::Ours(vm, VmState::Running) if wanted.contains(vm)))
            );
            assert_eq!((found.len(), processes_with(COMMAND).len()), (count, count));
            have_the_first_ids(&place, &vms);

            down(&host, &vms).await;
            nothing_remains(&place, &format!("round {round}")).await;
            eventually(&format!("round {round}: the agent holds {before:?} again"), || holds() == before)
                .await;
            let left = fs::read_dir(home(&place)).unwrap().map(|entry| entry.unwrap().file_name());
            let left: BTreeSet<String> = left.map(|name| name.into_string().unwrap()).collect();
            assert_eq!(left, [".blanks", ".instance"].map(str::to_owned).into(), "round {round}");
            assert!(fs::read_dir(home(&place).join(".blanks")).unwrap().count() <= BLANKS_MAX);

            let (heap, all) = (heap(), began.elapsed());
            let first = *first_heap.get_or_insert(heap);
            eprintln!(
                "round {round}: {count} up in {rose:.1?}, down in {:.1?}, heap {heap} bytes",
                all - rose
            );
            let most = first + HEAP_NOISE + (round - 1) * count * HEAP_GROWTH_MAX;
            assert!(heap <= most, "round {round}: {heap} bytes are allocated, {first} were after the first");
        }
        assert_eq!(holds(), before);
    });
}
