//! A machine that comes back: what it left behind does not cross again, its memory is what it was, and with the machine
//! goes all that was kept of it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use novacron_common::{
    api::{MigrationState, MigrationView},
    record::MemoryTraffic,
};
use novacron_tests::cluster::{Cluster, GuestOptions, Machine};
use novacron_tests::require;

use super::live::{SOON, two_hosts};

/// Where agents keep it, as their hosts see it.
const CHECKPOINTS: &str = "/var/lib/novacron/agent/checkpoints";

#[test]
fn a_machine_that_returns_refers_to_what_it_left_and_its_memory_is_intact() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let mut cluster = two_hosts("mv-return")?;
    let machine = cluster.boot_guest(&GuestOptions::small("vm", "guest", "h1"))?;
    // Slower than the codec, so that it has something to gain.
    for member in &cluster.members {
        cluster.lab.shape(&member.host, 400)?;
    }
    let first = moved(&cluster, &machine, "h2")?;
    ensure!(first.held.pages == 0, "{first:?}");
    wait_until_kept(&cluster, "h1", 2)?;
    machine.recorder.wait_for_ticks(25, SOON)?;
    let second = moved(&cluster, &machine, "h1")?;
    println!("there {first:?}\nback {second:?}");
    // How many is for the bench: a codec that was built without optimisation may leave most pages alone.
    ensure!(
        second.held.pages > 0 && second.offer_bytes >= 16 * second.held.pages,
        "{second:?} after {first:?}"
    );
    ensure!(second.raw.pages > 0, "it was used in between: {second:?}");
    // Where it runs nothing is kept.
    wait_until_kept(&cluster, "h1", 0)?;
    wait_until_kept(&cluster, "h2", 2)?;

    cluster.check_memory(&machine, SOON)?;

    cluster.delete(&machine)?;
    let h2 = &mut cluster.members[1];
    h2.agent.stop()?;
    h2.agent.start(h2.host.node())?;
    wait_until_kept(&cluster, "h2", 0)
}

/// Pages and their key are two files.
fn wait_until_kept(cluster: &Cluster, host: &str, files: usize) -> Result<()> {
    let what = format!("{files} files are kept on {host}");
    cluster.wait_until(SOON, &what, |cluster| Ok(kept_on(cluster, host)? == files))
}

fn moved(cluster: &Cluster, machine: &Machine, to: &str) -> Result<MemoryTraffic> {
    Ok(completed(cluster, machine, to, &[])?.memory)
}

/// Moves it as these further words of the command say, and shows the migration at its end.
pub fn completed(cluster: &Cluster, machine: &Machine, to: &str, more: &[&str]) -> Result<MigrationView> {
    let asked = cluster.ask_to_migrate(machine, to, more)?;
    let ended = cluster.follow_to_end(&asked.id.to_string(), SOON)?;
    ensure!(ended.status.state == MigrationState::Completed, "{ended:?}");
    Ok(ended)
}

/// Files that a host's agent keeps of machines that left.
pub fn kept_on(cluster: &Cluster, host: &str) -> Result<usize> {
    let member = cluster.members.iter().find(|member| member.host.name() == host);
    let member = member.with_context(|| format!("no host {host}"))?;
    let folder = member.host.outside_path(Path::new(CHECKPOINTS));
    Ok(fs::read_dir(folder.context("the folder is not the host's own")?)?.count())
}
