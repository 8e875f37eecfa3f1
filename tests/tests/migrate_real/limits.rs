//! A guest that rewrites its memory several times as fast as the link carries it: what its move does within which limits.

use std::time::Duration;

use anyhow::{Result, ensure};
use novacron_common::api::{MigrationState, MigrationView};
use novacron_common::record::{Limit, Rung, Strategy};
use novacron_tests::cluster::{Cluster, GuestOptions, Machine};
use novacron_tests::require;

use crate::live::{SOON, two_hosts};

/// What the link carries: 5 MB/s, of which a pass over the guest's 24 MiB takes five seconds.
const LINK_MBIT: u32 = 40;
const REWRITE_MIB: u32 = 32;
/// A copy that ends by its limits ends by itself; this is for one that does not.
const FOR_EVER: Duration = Duration::from_secs(300);

pub fn busy_guest(cluster: &Cluster, more: &[&str]) -> Result<Machine> {
    let small = GuestOptions::small("vm", "guest", "h1");
    let more = more.iter().map(|word| (*word).to_owned()).collect();
    let machine = cluster.boot_guest(&GuestOptions { rewrite_mib: REWRITE_MIB, more, ..small })?;
    cluster.members.iter().try_for_each(|member| cluster.lab.shape(&member.host, LINK_MBIT))?;
    Ok(machine)
}

pub fn travel(cluster: &Cluster, machine: &Machine, to: &str, limits: &[&str]) -> Result<MigrationView> {
    let asked = cluster.ask_to_migrate(machine, to, limits)?;
    let ended = cluster.follow_to_end(&asked.id.to_string(), FOR_EVER)?;
    eprintln!("{limits:?}: {:?} {:?} {}", ended.status.state, ended.climb, ended.status.message);
    Ok(ended)
}

/// It ended fully back by its deadline, and says so.
fn check_back(cluster: &Cluster, machine: &Machine, ended: &MigrationView) -> Result<()> {
    ensure!(ended.status.state == MigrationState::Failed, "{ended:?}");
    ensure!(ended.climb.limit == Some(Limit::Deadline), "{ended:?}");
    let message = &ended.status.message;
    ensure!(message.contains("deadline") && message.contains("What would help"), "{message}");
    ensure!(cluster.place_of(machine)? == ("h1".to_owned(), "running".to_owned()));
    let target = cluster.leftovers_on("h2", machine)?;
    ensure!(target.is_empty(), "{target:?}");
    machine.recorder.wait_for_ticks(25, SOON)
}

/// It ended fully there, on this rung; every page is what the guest wrote.
pub fn check_there(cluster: &Cluster, machine: &Machine, ended: &MigrationView, rung: Rung) -> Result<()> {
    ensure!(ended.status.state == MigrationState::Completed, "{ended:?}");
    ensure!(ended.climb.rung == rung && ended.climb.limit.is_none(), "{ended:?}");
    machine.recorder.wait_for_ticks(25, SOON)?;
    let passes = machine.recorder.judge().last.passes;
    cluster.wait_until(SOON, "all memory is checked after the move", |_| {
        Ok(machine.recorder.judge().last.passes >= passes + 2)
    })?;
    let verdict = machine.recorder.judge();
    ensure!(verdict.is_continuous(), "{verdict:?}");
    Ok(())
}

#[test]
fn a_guest_that_outruns_the_link_is_back_by_its_deadline_or_arrives_while_it_is_held() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let cluster = two_hosts("mv-limit")?;
    let machine = busy_guest(&cluster, &[])?;
    let only_passes = ["--strategy", "precopy", "--deadline", "40s"];
    let back = travel(&cluster, &machine, "h2", &only_passes)?;
    check_back(&cluster, &machine, &back)?;
    ensure!((back.climb.rung, back.climb.throttle_pct) == (Rung::Precopy, 0), "{back:?}");
    let held = travel(&cluster, &machine, "h2", &["--strategy", "stop_and_copy"])?;
    ensure!(held.limits.strategy == Strategy::StopAndCopy, "{held:?}");
    check_there(&cluster, &machine, &held, Rung::StopAndCopy)?;
    let source = cluster.leftovers_on("h1", &machine)?;
    ensure!(source.is_empty(), "{source:?}");
    cluster.delete(&machine)
}

#[test]
fn a_guest_is_slowed_no_more_than_it_may_be_and_a_longer_pause_lets_it_arrive() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let cluster = two_hosts("mv-slow")?;
    let machine = busy_guest(&cluster, &[])?;
    // QEMU begins with 20 percent and adds 10 each time; unbounded it would be far beyond 25 by then.
    let slowed = ["--max-slowdown", "25", "--deadline", "70s"];
    let back = travel(&cluster, &machine, "h2", &slowed)?;
    check_back(&cluster, &machine, &back)?;
    ensure!((back.climb.rung, back.climb.throttle_pct) == (Rung::Throttle, 25), "{back:?}");
    let longer = ["--strategy", "stop_and_copy", "--max-downtime", "30s"];
    let there = travel(&cluster, &machine, "h2", &longer)?;
    check_there(&cluster, &machine, &there, Rung::LongerPause)?;
    ensure!((there.climb.pause_ms, there.climb.throttle_pct) == (30_000, 0), "{there:?}");
    cluster.delete(&machine)
}
