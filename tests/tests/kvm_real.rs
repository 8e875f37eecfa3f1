//! Machines under KVM, in `make soak` only (`.config/nextest.toml` leaves this suite out elsewhere): what `/dev/kvm` can do
//! is the machine's, and a test that most machines skip has no place in CI.
//!
//! A boot sector runs wherever `/dev/kvm` runs anything. A whole kernel needs hardware, which the agent's own probe finds.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use novacron_agent::hypervisor::libvirt::{AccelSetting, probe};
use novacron_common::record::Accel;
use novacron_tests::cluster::{Cluster, ClusterOptions, GuestOptions, TemplateOptions, machine_path};
use novacron_tests::serial::Recorder;
use novacron_tests::{bare_guest, bins, need, require};
use serde_json::json;

const NAME: &str = "bare";
/// Old enough for an emulator that lacks what it announces: with `host-model` QEMU then fails to set a register.
const CPU: &str = "pentium3";
/// An emulator takes a quarter of a minute for the firmware alone.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
const SOON: Duration = Duration::from_secs(60);
/// Lines that the guest must print after each step, at 18 a second.
const LINES: u16 = 36;

fn under_kvm(name: &str, cpu_model: Option<String>) -> Result<Cluster> {
    Cluster::start(&ClusterOptions { accel: Accel::Kvm, cpu_model, ..ClusterOptions::two_hosts(name) })
}

/// A machine of a template that is the boot sector's disk, on `h1`, and the recording of its consoles.
fn boot_bare(cluster: &Cluster) -> Result<Recorder> {
    let disk = bare_guest::write_disk(bins::lab_dir()?.join(format!("bare-{}.raw", std::process::id())))?;
    let (from, path) = (disk.path.display().to_string(), cluster.lab.outside().dir().join("bare.json"));
    let image = json!({ "path": from, "sha256": disk.sha256, "format": "raw" });
    fs::write(&path, json!({ "name": NAME, "disk": image }).to_string())?;
    cluster.novactl(&["template", "create", &path.display().to_string()])?;
    let words = ["vm", "create", NAME, "--template=bare", "--memory=64M", "--storage=1M", "--host=h1"];
    let view = cluster.novactl(&words)?;
    let id = view["id"].as_str().context("a machine without an id")?;
    let logs = cluster.members.iter().map(|member| machine_path(&member.host, id, "console.log"));
    let recorder = Recorder::start(logs.collect::<Result<_>>()?);
    let first = recorder.wait_for(Duration::ZERO, BOOT_LIMIT, |line| bare_guest::number_of(line).is_some());
    first.with_context(|| {
        format!("{:?}\n{}", cluster.novactl(&["vm", "show", NAME]), cluster.last_words(20))
    })?;
    fs::remove_file(disk.path)?;
    Ok(recorder)
}

/// Waits for more lines, all of which must be the next.
fn goes_on(cluster: &Cluster, recorder: &Recorder) -> Result<u16> {
    let wanted = bare_guest::count(&recorder.chunks())? + LINES;
    cluster
        .wait_until(SOON, "the guest counts on", |_| Ok(bare_guest::count(&recorder.chunks())? >= wanted))?;
    bare_guest::count(&recorder.chunks())
}

#[test]
fn a_domain_of_type_kvm_boots_and_moves_there_and_back() -> Result<()> {
    require!(root, libvirt, qemu, kvm);
    let cluster = under_kvm("kvm-bare", Some(CPU.to_owned()))?;
    let recorder = boot_bare(&cluster)?;
    goes_on(&cluster, &recorder)?;
    for to in ["h2", "h1"] {
        cluster.novactl(&["vm", "migrate", NAME, "--to", to, "--wait"])?;
        let view = cluster.novactl(&["vm", "show", NAME])?;
        ensure!(view["host_name"] == to && view["state"] == "running", "{view}");
        println!("on {to} after {} lines, none lost or repeated", goes_on(&cluster, &recorder)?);
    }
    let domain = cluster.members[0].host.virsh(&["list", "--name"])?;
    let xml = cluster.members[0].host.virsh(&["dumpxml", domain.trim()])?;
    ensure!(xml.contains("<domain type='kvm'"), "{xml}");
    cluster.novactl_said(&["vm", "delete", NAME, "--wait"]).map(drop)
}

#[tokio::test]
async fn a_kernel_moves_under_hardware_virtualisation() -> Result<()> {
    require!(root, libvirt, qemu, apt, kvm);
    if probe::decide(AccelSetting::Auto).await != Accel::Kvm {
        let why =
            "the agent's probe finds no hardware behind /dev/kvm: it runs a few instructions, but no kernel";
        return need::skip("a_kernel_moves_under_hardware_virtualisation", why);
    }
    tokio::task::spawn_blocking(move_a_kernel).await?
}

fn move_a_kernel() -> Result<()> {
    let cluster = under_kvm("kvm-kernel", None)?;
    cluster.make_template(&TemplateOptions { name: "guest".to_owned(), disk: None })?;
    let machine = cluster.boot_guest(&GuestOptions::small("vm", "guest", "h1"))?;
    for to in ["h2", "h1"] {
        cluster.migrate(&machine, to)?;
        machine.recorder.wait_for_ticks(25, SOON)?;
        ensure!(cluster.place_of(&machine)? == (to.to_owned(), "running".to_owned()));
    }
    let verdict = machine.recorder.judge();
    ensure!(verdict.is_continuous(), "{verdict:?}");
    cluster.delete(&machine)
}
