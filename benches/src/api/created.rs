//! From "create" to "the guest runs", on a real host with a real agent, beside `virsh create` of the same guest there.
//!
//! The clock starts with the `POST` (its connection exists) and stops when the guest's init says its first word on the
//! serial console, as seen from outside. When QEMU began is the kernel's own stamp (`/proc/PID/stat`, 10 ms steps): from
//! then on libvirt, QEMU and the guest are at work and nothing of ours, so that ours is at most what came before.
//!
//! The template's files are on the host and each machine gets a copy-on-write overlay; the peer's disk exists beforehand.

use crate::{
    guest::{COMMAND_LIMIT, Shape, create, start_plain, virsh},
    report::Row,
    stats::median,
};
use anyhow::{Context, Result, bail, ensure};
use novacron_tests::{
    bins,
    cluster::{Cluster, ClusterOptions, TemplateOptions},
    guest_image::{DiskFormat, GuestImage},
    lab::{Host, HostOptions},
    need::{Need, first_missing},
};
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Ours and the peer's, in turn.
const PAIRS: usize = 5;
const DISK_MIB: u32 = 32;
/// The goal, milliseconds.
const GOAL_MS: f64 = 3000.0;

/// A template, and how its machines boot.
struct Boot {
    template: &'static str,
    /// For the reader.
    name: &'static str,
    /// For the command line.
    words: &'static str,
}

/// As Debian ships it: the guest unpacks its kernel and tests its cryptography.
const AS_SHIPPED: Boot = Boot { template: "shipped", name: "Debian's kernel as shipped", words: "" };
/// What an administrator who wants fast boots would make of the same kernel.
const FAST: Boot =
    Boot { template: "fast", name: "unpacked kernel, no crypto tests", words: " cryptomgr.notests" };

/// Milliseconds of one creation.
struct Creation {
    /// From the request to the guest's first word.
    whole: f64,
    /// From the request to libvirt's word that the domain runs.
    running: f64,
    /// From the request to the start of the QEMU process.
    before_qemu: f64,
}

/// The rows of this figure.
pub fn measure() -> Result<Vec<Row>> {
    if let Some(why) = first_missing(&[Need::Root, Need::Libvirt, Need::Qemu, Need::Apt]) {
        bail!("it {why}");
    }
    let image = GuestImage::build()?;
    let host = ("h1".to_owned(), HostOptions::default());
    let options = ClusterOptions { hosts: vec![host], ..ClusterOptions::two_hosts("bench") };
    let cluster = Cluster::start(&options)?;
    timed(&cluster, &image).with_context(|| cluster.last_words(8))
}

fn timed(cluster: &Cluster, image: &GuestImage) -> Result<Vec<Row>> {
    let path = bins::lab_dir()?.join("bench-disk.qcow2");
    let disk = GuestImage::empty_disk(&path, DiskFormat::Qcow2, DISK_MIB.into())?;
    let vmlinux = image.unpacked_kernel()?;
    let kernels = [(&AS_SHIPPED, &image.kernel), (&FAST, &vmlinux)];
    for (boot, kernel) in kernels {
        let disk = Some((disk.clone(), DiskFormat::Qcow2));
        let options = TemplateOptions { name: boot.template.into(), disk };
        cluster.make_template_of(&options, kernel, &image.initramfs)?;
        // The first brings the template's files to the host.
        let first = ours(cluster, boot)?;
        println!("{}: the first, without its template on the host: {:.0} ms", boot.name, first.whole);
    }
    plain(cluster)?;
    let (mut shipped, mut fast, mut peer) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        shipped.push(ours(cluster, &AS_SHIPPED)?);
        fast.push(ours(cluster, &FAST)?);
        peer.push(plain(cluster)?);
    }
    Ok([rows(&AS_SHIPPED, &shipped, Some(&peer)), rows(&FAST, &fast, None)].concat())
}

fn rows(boot: &Boot, ours: &[Creation], plain: Option<&[Creation]>) -> Vec<Row> {
    let of = |all: &[Creation], part: fn(&Creation) -> f64| median(&all.iter().map(part).collect::<Vec<_>>());
    let (whole, before) = (of(ours, |c| c.whole), of(ours, |c| c.before_qemu));
    let mut rows = vec![
        Row::at_most(&format!("VM creation, {}", boot.name), "ms", whole, GOAL_MS),
        Row::told("  of it until libvirt says running", "ms", of(ours, |c| c.running)),
        Row::beside("  of it ours at most (until QEMU begins)", "ms", before, ("the wall", whole), None),
    ];
    if let Some(plain) = plain {
        let peer = |part| ("virsh create", of(plain, part));
        rows.push(Row::beside("  beside the peer: wall", "ms", whole, peer(|c| c.whole), None));
        let before_peer = peer(|c| c.before_qemu);
        rows.push(Row::beside("  beside the peer: until QEMU begins", "ms", before, before_peer, None));
    }
    rows
}

fn shape(name: &'static str, more: &str) -> Shape {
    let words = format!("nova.mb=1 nova.verify=0 nova.disk=0{more}");
    Shape { name, memory_mib: 160, disk_mib: DISK_MIB, words }
}

fn ours(cluster: &Cluster, boot: &Boot) -> Result<Creation> {
    let shape = shape("fresh", boot.words);
    let host = &cluster.members[0].host;
    let (machine, asked) = create(cluster, &shape, &shape.body(boot.template, "h1"))?;
    let running = wait_until_runs(host)?;
    let started = crate::guest::Started { asked, recorder: machine.recorder };
    let ready = started.wait_until_ready(shape.name)?;
    let creation = creation(host, asked, running, ready)?;
    cluster.novactl(&["vm", "stop", shape.name, "--grace=0", "--wait"])?;
    cluster.novactl_said(&["vm", "delete", shape.name, "--wait"])?;
    Ok(creation)
}

fn plain(cluster: &Cluster) -> Result<Creation> {
    let (shape, host) = (shape("plain", ""), &cluster.members[0].host);
    let started = start_plain(cluster.lab.outside(), &shape, &[host])?;
    let running = wait_until_runs(host)?;
    let ready = started.wait_until_ready(shape.name)?;
    let creation = creation(host, started.asked, running, ready)?;
    virsh(cluster.lab.outside(), host, &["destroy", shape.name])?;
    Ok(creation)
}

/// When libvirt wrote into the status file of the only domain that it runs: to ask libvirtd again and again would slow
/// it down.
fn wait_until_runs(host: &Host) -> Result<Instant> {
    let folder = host.dir().join("run/libvirt/qemu");
    let is_running =
        |path: &Path| fs::read_to_string(path).is_ok_and(|text| text.contains("<domstatus state='running'"));
    let deadline = Instant::now() + COMMAND_LIMIT;
    while !fs::read_dir(&folder)?.flatten().any(|entry| is_running(&entry.path())) {
        ensure!(Instant::now() < deadline, "no domain runs on {}", host.name());
        thread::sleep(Duration::from_millis(2));
    }
    Ok(Instant::now())
}

/// The only QEMU on the host is the one that was just asked for.
fn creation(host: &Host, asked: Instant, running: Instant, ready: Instant) -> Result<Creation> {
    let pids = host.qemu_pids()?;
    let [pid] = pids[..] else { bail!("not one QEMU on {} but {}", host.name(), pids.len()) };
    let before_qemu = (asked.elapsed().as_secs_f64() - age_of(pid)?) * 1000.0;
    let ms = |then: Instant| (then - asked).as_secs_f64() * 1000.0;
    Ok(Creation { whole: ms(ready), running: ms(running), before_qemu })
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
        assert!((-0.02..60.0).contains(&age), "{age}");
    }

    #[test]
    fn what_is_ours_is_said_as_a_share_of_the_whole() {
        let creation = |whole, before_qemu| vec![Creation { whole, running: before_qemu, before_qemu }];
        let rows = rows(&AS_SHIPPED, &creation(2500.0, 100.0), Some(&creation(2000.0, 80.0)));
        assert!((rows[2].ours - 100.0).abs() < 1e-9 && (rows[2].ratio - 0.04).abs() < 1e-9);
        assert!(rows[0].holds && (rows[4].ratio - 1.25).abs() < 1e-9);
        assert!(!super::rows(&FAST, &creation(3100.0, 100.0), None)[0].holds);
    }
}
