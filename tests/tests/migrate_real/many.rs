//! Many moves of one machine, there and back, that rewrites its memory and its disk all the time while a connection to it
//! stays open: nothing wears out. Ten moves; with `NOVACRON_SOAK=1` a hundred.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use novacron_common::api::MigrationState;
use novacron_tests::cluster::{Cluster, Echo, GuestOptions};
use novacron_tests::require;

use super::live::{SOON, two_hosts};

const MOVES: usize = 10;
const MOVES_SOAK: usize = 100;
/// Their memory is told whenever so many moves are done: whether it grows on or comes to rest.
const LOOK_EVERY: usize = 10;
/// Moves after which the agents have all that they keep from one to the next.
const WARM: usize = 4;
/// What an agent may have more after the last move than when it was warm: an allocator's slack, MiB.
const SLACK_MIB: u64 = 32;
const LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

#[test]
fn a_machine_that_never_rests_moves_again_and_again_and_nothing_wears_out() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let moves = if std::env::var_os("NOVACRON_SOAK").is_some() { MOVES_SOAK } else { MOVES };
    let cluster = two_hosts("mv-many")?;
    // All of its set twice a second, and 200 blocks of its disk.
    let options = GuestOptions { rewrite_mib: 48, disk_ms: 5, ..GuestOptions::small("vm", "guest", "h1") };
    let machine = cluster.boot_guest(&options)?;
    let echo = Echo::start(cluster.lab.outside(), machine.address)?;
    let mut warm = None;
    for number in 0..moves {
        let to = ["h2", "h1"][number % 2];
        let asked = cluster.ask_to_migrate(&machine, to, &[])?;
        let ended = cluster.follow_to_end(&asked.id.to_string(), SOON)?;
        ensure!(ended.status.state == MigrationState::Completed, "move {number}: {ended:?}");
        ensure!(cluster.place_of(&machine)? == (to.to_owned(), "running".to_owned()), "move {number}");
        machine.recorder.wait_for_ticks(25, SOON)?;
        echo.wait_for_answers(5, SOON)?;
        if number + 1 == WARM {
            warm = Some(at_rest_mib(&cluster)?);
        }
        if (number + 1) % LOOK_EVERY == 0 {
            println!("after {} moves the agents have {:?} MiB", number + 1, at_rest_mib(&cluster)?);
        }
    }
    let (warm, after) = (warm.context("there were too few moves")?, at_rest_mib(&cluster)?);
    println!("{moves} moves; the agents took {warm:?} MiB when they were warm, {after:?} at the end");
    for (warm, after) in warm.iter().zip(&after) {
        ensure!(*after <= warm + SLACK_MIB, "an agent grew from {warm} to {after} MiB");
    }
    let connection = echo.finish()?;
    ensure!(connection.fault.is_none(), "{connection:?}");
    cluster.check_memory(&machine, SOON)?;
    let by_guest = cluster.settle_disk(&machine)?;
    cluster.novactl(&["vm", "stop", "vm", "--wait"])?;
    let by_host = cluster.hash_of_image(&machine, if moves % 2 == 0 { "h1" } else { "h2" })?;
    ensure!(by_guest == by_host, "the guest read {by_guest:016x}, the host holds {by_host:016x}");
    ensure!(machine.recorder.judge().last.disk_writes > 0);
    cluster.delete(&machine)?;
    let remains = cluster.remains_of(&machine)?;
    ensure!(remains.is_empty(), "{remains:?}");
    Ok(())
}

/// What each agent has resident while nothing moves, MiB: the least of a few looks, as it gives back what a move took a moment
/// after that is said to have ended.
fn at_rest_mib(cluster: &Cluster) -> Result<Vec<u64>> {
    let mut least = resident_mib(cluster)?;
    for _ in 0..LOOKS {
        thread::sleep(BETWEEN_LOOKS);
        least.iter_mut().zip(resident_mib(cluster)?).for_each(|(least, now)| *least = now.min(*least));
    }
    Ok(least)
}

/// What each agent has resident, MiB.
fn resident_mib(cluster: &Cluster) -> Result<Vec<u64>> {
    let of = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("reading VmRSS")?;
        Ok(kib >> 10)
    };
    cluster.members.iter().map(|member| of(member.agent.process()?.pid())).collect()
}
