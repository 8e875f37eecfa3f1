//! What a machine does not notice (its agent's and its libvirtd's death), and what it comes back from (a power cut).

use std::time::Duration;

use anyhow::{Result, ensure};
use novacron_tests::cluster::{Cluster, ClusterOptions, GuestOptions, Machine, TemplateOptions};
use novacron_tests::require;

use crate::after::{SOON, cluster_with_machine};

#[test]
fn a_machine_outlives_its_agent_and_its_libvirtd_and_is_adopted() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let (mut cluster, machine) = cluster_with_machine(&ClusterOptions::two_hosts("adopt"))?;
    let outcome = outlive(&mut cluster, &machine);
    cluster.explain(&machine, outcome)
}

fn outlive(cluster: &mut Cluster, machine: &Machine) -> Result<()> {
    let qemu = cluster.members[0].host.qemu_pids()?;
    cluster.kill_agent("h1")?;
    machine.recorder.wait_for_ticks(25, SOON)?;
    cluster.start_agent("h1")?;
    cluster.wait_for_place(machine, "h1", "running")?;
    let host = &mut cluster.member("h1")?.host;
    host.kill9_libvirtd()?;
    machine.recorder.wait_for_ticks(25, SOON)?;
    host.start_libvirtd()?;
    ensure!(host.qemu_pids()? == qemu, "the machine was started anew");
    // Asking it to stop needs an agent that has found both the machine and libvirtd again.
    cluster.novactl(&["vm", "stop", "vm", "--wait"])?;
    machine.recorder.wait_for(Duration::ZERO, SOON, |line| line == "OFF button")?;
    let verdict = machine.recorder.judge();
    ensure!(verdict.is_continuous() && verdict.boots == 1, "{verdict:?}");
    Ok(())
}

#[test]
fn a_machine_that_is_to_run_always_is_started_again_after_a_power_cut() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let mut cluster = Cluster::start(&ClusterOptions::two_hosts("reboot"))?;
    cluster.make_template(&TemplateOptions { name: "guest".to_owned(), disk: None })?;
    let mut options = GuestOptions::small("vm", "guest", "h1");
    options.more = vec!["--restart-always".to_owned()];
    let machine = cluster.boot_guest(&options)?;
    machine.recorder.wait_for_ticks(25, SOON)?;
    let since = machine.recorder.now();
    let outcome = cluster.power_cycle("h1").and_then(|()| starts_again(&cluster, &machine, since));
    cluster.explain(&machine, outcome)
}

fn starts_again(cluster: &Cluster, machine: &Machine, since: Duration) -> Result<()> {
    let disk = machine.recorder.wait_for(since, SOON, |line| line.starts_with("DISK "))?;
    ensure!(
        disk.text.contains("torn=0") && !disk.text.contains("found=0 "),
        "the disk did not survive: {}",
        disk.text
    );
    machine.recorder.wait_for(since, SOON, |line| line.starts_with("READY"))?;
    machine.recorder.wait_for_ticks(25, SOON)?;
    cluster.wait_for_place(machine, "h1", "running")?;
    let verdict = machine.recorder.judge();
    let wrong = verdict.repeated + verdict.bad_pages + verdict.disk_bad;
    ensure!(wrong == 0 && verdict.boots == 2, "{verdict:?}");
    Ok(())
}
