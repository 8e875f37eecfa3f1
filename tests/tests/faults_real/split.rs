//! Post-copy, struck while a guest has its memory on two hosts: it never runs twice, the migration says what became of it,
//! halves that lost each other meet again, and in the end nothing is left where it should not be.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use novacron_common::api::{MigrationState, MigrationView};
use novacron_tests::cluster::{Cluster, ClusterOptions, GuestOptions, Machine};
use novacron_tests::matrix::{Blow, Victim};
use novacron_tests::require;

use crate::after::{SOON, cluster_with, fully_there_or_back, nothing_left, small_guest, start_again};
use crate::matrix::stage::Sides;
use crate::matrix::strike::strike;

/// What the link carries until the guest goes over, Mbit/s: less than it rewrites, so that no pass helps.
const BEFORE: u32 = 80;
/// And what it carries afterwards: memory takes ten seconds and more to follow, so that the blow falls into them.
const MEANWHILE: u32 = 10;
/// So little that what a processor needs is still on its way when the source says that the guest went over.
const HARDLY: u32 = 1;
const REWRITE_MIB: u32 = 32;
/// A guest that ticks so often once the source has said that it went over runs at the target: more than may be under way to
/// who listens.
const TICKS_THERE: u64 = 10;
const LONG: Duration = Duration::from_secs(180);
const SIDES: Sides = Sides { source: 0, target: 1 };

/// What has to become of a guest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It runs on the target as if nothing had happened.
    There,
    /// So it does in the end; before that a half of it is kept on each host.
    Reunited,
    /// A half of it is kept on each host, until somebody gives it up.
    GivenUp,
    /// It is lost: its machine is on the target, stopped.
    Lost,
    /// Either of the two, and nothing else is said of it.
    ReunitedOrLost,
}

fn struck(lab: &str, victim: Victim, blow: Blow, fate: Fate) -> Result<()> {
    let more = vec!["--post-copy".to_owned()];
    // A disk that is written to at the link's rate would never be copied. A QEMU that waits for a page of its guest in the
    // middle of the disk's work hears no agent that was started anew.
    let storage_mib = if victim == Victim::TargetAgent { 0 } else { 16 };
    let disk = GuestOptions { storage_mib, area_mib: 4, disk_ms: 100, ..small_guest() };
    let guest = GuestOptions { rewrite_mib: REWRITE_MIB, more, ..disk };
    let (mut cluster, machine) = cluster_with(&ClusterOptions::two_hosts(lab), &guest)?;
    let outcome = story(&mut cluster, &machine, (victim, blow), fate);
    cluster.explain(&machine, outcome)
}

fn story(cluster: &mut Cluster, machine: &Machine, blow: (Victim, Blow), fate: Fate) -> Result<()> {
    let migration = match fate {
        Fate::ReunitedOrLost => leaves(cluster, machine, HARDLY)?,
        _ => goes_over(cluster, machine)?,
    };
    let id = migration.id.to_string();
    let wound = strike(cluster, blow, SIDES)?;
    wound.hold(cluster, |cluster| stranded(cluster, &id))?;
    if fate == Fate::GivenUp {
        // The way out that the migration's message names.
        cluster.novactl(&["migration", "give-up", &id])?;
        cluster.follow(&id, SOON, is_lost)?;
    }
    wound.heal(cluster)?;
    cluster.lab.unshape(&cluster.members[0].host)?;
    match fate {
        Fate::There | Fate::Reunited => there(cluster, machine, &id, fate),
        Fate::GivenUp | Fate::Lost => lost(cluster, machine, &id),
        Fate::ReunitedOrLost => reunited_or_lost(cluster, machine, &id),
    }
}

fn reunited_or_lost(cluster: &Cluster, machine: &Machine, id: &str) -> Result<()> {
    match cluster.follow_to_end(id, LONG)?.status.state {
        MigrationState::Lost => lost(cluster, machine, id),
        _ => there(cluster, machine, id, Fate::Reunited),
    }
}

/// Has the machine moved until the source says that it went over: its guest does not run there any more. From then on the link
/// carries `meanwhile`.
fn leaves(cluster: &Cluster, machine: &Machine, meanwhile: u32) -> Result<MigrationView> {
    cluster.lab.shape(&cluster.members[SIDES.source].host, BEFORE)?;
    let migration = cluster.ask_to_migrate(machine, "h2", &["--strategy", "postcopy"])?;
    let went_over = |view: &MigrationView| view.status.message.contains("the rest of its memory follows");
    cluster.follow(&migration.id.to_string(), LONG, went_over)?;
    cluster.lab.shape(&cluster.members[SIDES.source].host, meanwhile)?;
    Ok(migration)
}

/// And until it runs at the target, while the rest of its memory follows slowly.
fn goes_over(cluster: &Cluster, machine: &Machine) -> Result<MigrationView> {
    let migration = leaves(cluster, machine, MEANWHILE)?;
    machine.recorder.wait_for_ticks(TICKS_THERE, SOON)?;
    Ok(migration)
}

/// Waits until the source's QEMU has sent all of the guest, of which a part is still on its way.
fn last_page_is_away(cluster: &Cluster) -> Result<()> {
    let source = &cluster.members[SIDES.source].host;
    let domains = source.virsh(&["list", "--name"])?;
    let domain = domains.split_whitespace().next().context("no domain on the source")?;
    cluster.wait_until(LONG, "the source's QEMU has sent all", |_| {
        let job = source.virsh(&["domjobinfo", domain])?;
        let left = job.lines().find_map(|line| line.strip_prefix("Memory remaining:"));
        Ok(left.context(job.clone())?.split_whitespace().eq(["0.000", "B"]))
    })
}

/// Waits until a half is kept on each host; that of the source does not run.
fn stranded(cluster: &Cluster, id: &str) -> Result<()> {
    cluster.follow(id, SOON, |view| view.status.state == MigrationState::Stranded)?;
    let [source, target] = [SIDES.source, SIDES.target].map(|side| &cluster.members[side].host);
    let halves = (source.qemu_pids()?.len(), target.qemu_pids()?.len());
    ensure!(halves == (1, 1), "of (source, target) {halves:?} QEMUs are left");
    does_not_run_on_source(cluster)
}

fn does_not_run_on_source(cluster: &Cluster) -> Result<()> {
    let running = cluster.members[SIDES.source].host.virsh(&["list", "--state-running", "--name"])?;
    ensure!(running.trim().is_empty(), "it runs on the source: {running}");
    Ok(())
}

/// The guest runs on the target, all of it, and nothing of it was damaged.
fn there(cluster: &Cluster, machine: &Machine, id: &str, fate: Fate) -> Result<()> {
    cluster.follow_to_end(id, LONG)?;
    let home = fully_there_or_back(cluster, machine, &cluster.migration(id)?)?;
    ensure!(home == "h2", "a guest that went over came back");
    let ended = cluster.migration(id)?;
    ensure!((fate == Fate::Reunited) == ended.status.message.contains("met again"), "{ended:?}");
    ensure!(fate == Fate::There || ended.cuts_survived > 0, "{ended:?}");
    cluster.check_memory(machine, SOON)
}

fn is_lost(view: &MigrationView) -> bool {
    view.status.state == MigrationState::Lost
}

/// The guest is lost: nobody runs it, its machine is on the target, and starts there with its disk.
fn lost(cluster: &Cluster, machine: &Machine, id: &str) -> Result<()> {
    let ended = cluster.follow(id, SOON, is_lost)?;
    ensure!(ended.status.message.contains("the guest is lost"), "{ended:?}");
    cluster.wait_for_place(machine, "h2", "stopped")?;
    nothing_left(cluster, machine, "h1")?;
    for member in &cluster.members {
        let qemus = member.host.qemu_pids()?;
        ensure!(qemus.is_empty(), "{} runs {qemus:?}", member.host.name());
    }
    let verdict = machine.recorder.judge();
    ensure!(verdict.repeated + verdict.bad_pages + verdict.disk_bad == 0, "{verdict:?}");
    start_again(cluster, machine, SOON)
}

#[test]
fn a_link_that_is_cut_for_five_seconds_is_waited_for() -> Result<()> {
    require!(root, libvirt, qemu, apt, iptables);
    struck("split-cut", Victim::Link, Blow::Cut, Fate::There)
}

#[test]
fn a_link_that_is_cut_for_longer_strands_two_halves_which_meet_again() -> Result<()> {
    require!(root, libvirt, qemu, apt, iptables);
    struck("split-off", Victim::Link, Blow::CutForGood, Fate::Reunited)
}

/// What QEMU needs to run the guest at all may be on its way: without that the target has no half of it.
#[test]
fn a_link_that_is_cut_as_the_guest_leaves_ends_as_it_says() -> Result<()> {
    require!(root, libvirt, qemu, apt, iptables);
    struck("split-way", Victim::Link, Blow::CutForGood, Fate::ReunitedOrLost)
}

#[test]
fn two_halves_of_which_one_is_given_up_leave_nothing() -> Result<()> {
    require!(root, libvirt, qemu, apt, iptables);
    struck("split-end", Victim::Link, Blow::CutForGood, Fate::GivenUp)
}

#[test]
fn a_killed_source_agent_brings_the_halves_together_when_it_is_back() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    struck("split-sa", Victim::SourceAgent, Blow::Kill, Fate::Reunited)
}

#[test]
fn a_killed_target_agent_lets_the_halves_meet_when_it_is_back() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    struck("split-ta", Victim::TargetAgent, Blow::Kill, Fate::Reunited)
}

#[test]
fn a_killed_source_libvirtd_strands_two_halves_which_meet_again() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    struck("split-sl", Victim::SourceLibvirtd, Blow::Kill, Fate::Reunited)
}

#[test]
fn a_killed_target_libvirtd_strands_two_halves_which_meet_again() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    struck("split-tl", Victim::TargetLibvirtd, Blow::Kill, Fate::Reunited)
}

#[test]
fn a_killed_source_qemu_takes_the_guest_with_it() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    struck("split-sq", Victim::SourceQemu, Blow::Kill, Fate::Lost)
}

#[test]
fn a_killed_target_qemu_takes_the_guest_with_it() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    struck("split-tq", Victim::TargetQemu, Blow::Kill, Fate::Lost)
}

/// QEMU takes a connection that breaks behind the last page for a copy that failed, not for one to be gone on with.
#[test]
fn a_source_agent_killed_as_the_last_page_is_on_its_way_lets_nothing_run_twice() -> Result<()> {
    require!(root, libvirt, qemu, apt, iptables);
    let more = vec!["--post-copy".to_owned()];
    let guest = GuestOptions {
        rewrite_mib: REWRITE_MIB,
        storage_mib: 16,
        area_mib: 4,
        disk_ms: 100,
        more,
        ..small_guest()
    };
    let (mut cluster, machine) = cluster_with(&ClusterOptions::two_hosts("split-last"), &guest)?;
    let outcome = at_its_last_page(&mut cluster, &machine);
    cluster.explain(&machine, outcome)
}

fn at_its_last_page(cluster: &mut Cluster, machine: &Machine) -> Result<()> {
    let migration = goes_over(cluster, machine)?;
    last_page_is_away(cluster)?;
    let wound = strike(cluster, (Victim::SourceAgent, Blow::Kill), SIDES)?;
    wound.hold(cluster, |_| Ok(()))?;
    does_not_run_on_source(cluster)?;
    wound.heal(cluster)?;
    cluster.lab.unshape(&cluster.members[SIDES.source].host)?;
    reunited_or_lost(cluster, machine, &migration.id.to_string())
}
