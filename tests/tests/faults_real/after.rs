//! What must hold after every fault during a migration.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use novacron_common::api::{MigrationState, MigrationView};
use novacron_tests::cluster::{Cluster, ClusterOptions, GuestOptions, Machine, TemplateOptions};

pub const SOON: Duration = Duration::from_secs(60);

/// A cluster of two hosts, and a machine that runs on `h1`.
pub fn cluster_with_machine(options: &ClusterOptions) -> Result<(Cluster, Machine)> {
    cluster_with(options, &small_guest())
}

pub fn small_guest() -> GuestOptions {
    GuestOptions::small("vm", "guest", "h1")
}

/// As [`cluster_with_machine`], with such a guest of the template `guest`.
pub fn cluster_with(options: &ClusterOptions, guest: &GuestOptions) -> Result<(Cluster, Machine)> {
    let cluster = Cluster::start(options)?;
    cluster.make_template(&TemplateOptions { name: "guest".to_owned(), disk: None })?;
    let machine = cluster.boot_guest(guest)?;
    machine.recorder.wait_for_ticks(10, SOON)?;
    Ok((cluster, machine))
}

/// Waits for the migration's end and checks that it is fully there or fully back. Returns the host that it ended on.
pub fn fully_there_or_back(
    cluster: &Cluster,
    machine: &Machine,
    migration: &MigrationView,
) -> Result<&'static str> {
    let ended = cluster.follow_to_end(&migration.id.to_string(), SOON)?;
    let (home, other) = match ended.status.state {
        MigrationState::Completed => ("h2", "h1"),
        MigrationState::Failed => ("h1", "h2"),
        _ => anyhow::bail!("an end that nobody asked for: {ended:?}"),
    };
    cluster.wait_for_place(machine, home, "running")?;
    machine.recorder.wait_for_ticks(25, SOON)?;
    nothing_left(cluster, machine, other)?;
    runs_once(cluster, home)?;
    let verdict = machine.recorder.judge();
    ensure!(verdict.is_continuous() && verdict.boots == 1, "{verdict:?}");
    Ok(home)
}

pub fn nothing_left(cluster: &Cluster, machine: &Machine, host: &str) -> Result<()> {
    cluster.wait_until(SOON, &format!("nothing is left on {host}"), |cluster| {
        let left = cluster.leftovers_on(host, machine)?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(true)
    })?;
    cluster.wait_until(SOON, "no room is reserved for nothing and no socket is left", |cluster| {
        let left = cluster.idle_reservations_and_sockets()?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(true)
    })
}

/// Exactly one QEMU on all hosts, on `home`, and it is not paused.
fn runs_once(cluster: &Cluster, home: &str) -> Result<()> {
    for member in &cluster.members {
        let wanted = usize::from(member.host.name() == home);
        let qemus = member.host.qemu_pids()?;
        ensure!(qemus.len() == wanted, "{} runs {qemus:?}", member.host.name());
        let running = member.host.virsh(&["list", "--state-running", "--name"])?;
        ensure!(running.split_whitespace().count() == wanted, "{}: {running}", member.host.name());
    }
    Ok(())
}

/// A guest that was lost starts again from its disk, which holds what it wrote.
pub fn start_again(cluster: &Cluster, machine: &Machine, patience: Duration) -> Result<()> {
    let recorder = &machine.recorder;
    let since = recorder.now();
    cluster.novactl(&["vm", "start", &machine.name, "--wait"])?;
    let disk = recorder.wait_for(since, patience, |line| line.starts_with("DISK "))?.text;
    let field = |name: &str| disk.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let found: u64 = field("found").context("no count of blocks")?.parse()?;
    ensure!(found > 0 && field("torn") == Some("0"), "the disk did not survive: {disk}");
    recorder.wait_for(since, patience, |line| line.starts_with("READY"))?;
    recorder.wait_for_ticks(25, patience)
}
