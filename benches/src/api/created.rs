//! From "create" to "the guest runs", on a real host with a real agent, beside `virsh create` of the same guest there.
//!
//! The clock starts with the `POST` (its connection exists) and stops when the guest's init says its first word on the
//! serial console, as seen from outside. When QEMU began is the kernel's own stamp (`/proc/PID/stat`, 10 ms steps): from
//! then on libvirt, QEMU and the guest are at work and nothing of ours, so that ours is at most what came before.
//!
//! The template's files are on the host and each machine gets a copy-on-write overlay; the peer's disk exists beforehand.

use crate::{
    guest::{Shape, create, start_plain, virsh},
    report::Row,
    stats::median,
};
use anyhow::{Context, Result, bail};
use novacron_tests::{
    bins,
    cluster::{Cluster, ClusterOptions, TemplateOptions},
    guest_image::{DiskFormat, GuestImage},
    lab::{Host, HostOptions},
    need::{Need, first_missing},
};
use std::{fs, time::Instant};

/// Ours and the peer's, in turn.
const PAIRS: usize = 5;
const TEMPLATE: &str = "small";
const DISK_MIB: u32 = 32;
/// The goal, milliseconds.
const GOAL_MS: f64 = 3000.0;

/// Milliseconds of one creation.
struct Creation {
    /// From the request to the guest's first word.
    whole: f64,
    /// From the request to the start of the QEMU process.
    before_qemu: f64,
}

/// The rows of this figure.
pub fn measure() -> Result<Vec<Row>> {
    if let Some(why) = first_missing(&[Need::Root, Need::Libvirt, Need::Qemu, Need::Apt]) {
        bail!("it {why}");
    }
    GuestImage::build()?;
    let host = ("h1".to_owned(), HostOptions::default());
    let options = ClusterOptions { hosts: vec![host], ..ClusterOptions::two_hosts("bench") };
    let cluster = Cluster::start(&options)?;
    timed(&cluster).with_context(|| cluster.last_words(8))
}

fn timed(cluster: &Cluster) -> Result<Vec<Row>> {
    let image = bins::target_dir()?.join("lab/bench-disk.qcow2");
    let disk = GuestImage::empty_disk(&image, DiskFormat::Qcow2, DISK_MIB.into())?;
    let options = TemplateOptions { name: TEMPLATE.into(), disk: Some((disk, DiskFormat::Qcow2)) };
    cluster.make_template(&options)?;
    // The first brings the template's files to the host.
    let first = ours(cluster)?;
    plain(cluster)?;
    let (mut ours_all, mut plain_all) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        ours_all.push(ours(cluster)?);
        plain_all.push(plain(cluster)?);
    }
    println!("the first machine, whose template was not on the host yet: {:.0} ms", first.whole);
    Ok(rows(&ours_all, &plain_all))
}

fn rows(ours: &[Creation], plain: &[Creation]) -> Vec<Row> {
    let of = |all: &[Creation], part: fn(&Creation) -> f64| median(&all.iter().map(part).collect::<Vec<_>>());
    let (whole, before) = (of(ours, |c| c.whole), of(ours, |c| c.before_qemu));
    let (plain_whole, plain_before) = (of(plain, |c| c.whole), of(plain, |c| c.before_qemu));
    vec![
        Row::at_most("VM creation to guest running: wall", "ms", whole, GOAL_MS),
        Row::beside("VM creation to guest running", "ms", whole, ("virsh create", plain_whole), None),
        Row::beside("of it until QEMU begins", "ms", before, ("virsh create", plain_before), None),
        Row::beside("of it ours at most (until QEMU begins)", "ms", before, ("the wall", whole), None),
    ]
}

fn shape(name: &'static str) -> Shape {
    Shape { name, memory_mib: 160, disk_mib: DISK_MIB, words: "nova.mb=1 nova.verify=0 nova.disk=0".into() }
}

fn ours(cluster: &Cluster) -> Result<Creation> {
    let shape = shape("fresh");
    let (machine, asked) = create(cluster, &shape, &shape.body(TEMPLATE, "h1"))?;
    let started = crate::guest::Started { asked, recorder: machine.recorder };
    let ready = started.wait_until_ready(shape.name)?;
    let creation = creation(&cluster.members[0].host, asked, ready)?;
    cluster.novactl(&["vm", "stop", shape.name, "--grace=0", "--wait"])?;
    cluster.novactl_said(&["vm", "delete", shape.name, "--wait"])?;
    Ok(creation)
}

fn plain(cluster: &Cluster) -> Result<Creation> {
    let (shape, host) = (shape("plain"), &cluster.members[0].host);
    let started = start_plain(cluster.lab.outside(), &shape, &[host])?;
    let ready = started.wait_until_ready(shape.name)?;
    let creation = creation(host, started.asked, ready)?;
    virsh(cluster.lab.outside(), host, &["destroy", shape.name])?;
    Ok(creation)
}

/// The only QEMU on the host is the one that was just asked for.
fn creation(host: &Host, asked: Instant, ready: Instant) -> Result<Creation> {
    let pids = host.qemu_pids()?;
    let [pid] = pids[..] else { bail!("not one QEMU on {} but {}", host.name(), pids.len()) };
    let before_qemu = (asked.elapsed().as_secs_f64() - age_of(pid)?) * 1000.0;
    Ok(Creation { whole: (ready - asked).as_secs_f64() * 1000.0, before_qemu })
}

/// Seconds since a process began (proc_pid_stat(5): field 22, in 1/100 s since the boot).
fn age_of(pid: u32) -> Result<f64> {
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The program's name stands in brackets and may hold anything.
    let after_name = stat.rsplit_once(')').context("/proc/PID/stat without a name")?.1;
    let began: f64 = after_name.split_whitespace().nth(19).context("/proc/PID/stat is short")?.parse()?;
    let uptime = fs::read_to_string("/proc/uptime")?;
    let now: f64 = uptime.split_whitespace().next().context("/proc/uptime is empty")?.parse()?;
    Ok(now - began / TICKS_A_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_just_started_is_young() {
        let mut child = std::process::Command::new("sleep").arg("10").spawn().unwrap();
        let age = age_of(child.id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!((-0.02..5.0).contains(&age), "{age}");
    }

    #[test]
    fn what_is_ours_is_said_as_a_share_of_the_whole() {
        let creation = |whole, before_qemu| vec![Creation { whole, before_qemu }];
        let rows = rows(&creation(2500.0, 100.0), &creation(2000.0, 80.0));
        assert!((rows[3].ours - 100.0).abs() < 1e-9 && (rows[3].ratio - 0.04).abs() < 1e-9);
        assert!(rows[0].holds);
    }
}
