//! The guest that benches run, once as NovaCron's machine and once as a domain of plain libvirt with the same hardware.

use crate::client::{Client, on_network_of};
use anyhow::{Context, Result, ensure};
use novacron_tests::{
    cluster::{Cluster, Machine, machine_path},
    guest_image::GuestImage,
    lab::{Host, Node},
    serial::Recorder,
};
use serde_json::{Value, json};
use std::{
    net::Ipv4Addr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// Longest that any one command may take; a bench that hangs must end.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(180);

/// What the guest is.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Its name, in the cluster or in libvirt.
    pub name: &'static str,
    /// RAM, MiB.
    pub memory_mib: u32,
    /// Disk, MiB; 0: none.
    pub disk_mib: u32,
    /// Words for the guest's init (`nova.…`).
    pub words: String,
}

impl Shape {
    fn cmdline(&self) -> String {
        format!("console=ttyS0 quiet {}", self.words)
    }

    /// The body that creates it as a machine on `host`.
    pub fn body(&self, template: &str, host: &str) -> Value {
        let mut resources = json!({"cpu": 1, "memory_mb": self.memory_mib});
        if self.disk_mib > 0 {
            resources["storage_mb"] = self.disk_mib.into();
        }
        json!({
            "name": self.name, "template": template, "resources": resources, "cmdline": self.cmdline(), "host": host,
        })
    }

    /// The domain that libvirt gets if NovaCron is left out: the same hardware as the agent's `golden.xml`.
    fn domain(&self, image: &GuestImage) -> String {
        let Self { name, memory_mib, .. } = self;
        let disk = match self.disk_mib {
            0 => String::new(),
            _ => format!(
                "<disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/>\
                 <source file='{}'/><target dev='vda' bus='virtio'/></disk>",
                disk_path(name)
            ),
        };
        format!(
            "<domain type='qemu'><name>{name}</name><memory unit='MiB'>{memory_mib}</memory><vcpu>1</vcpu>\
             <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd>\
             <cmdline>{cmdline}</cmdline></os><features><acpi/><apic/></features>\
             <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>Nehalem</model></cpu>\
             <devices>{disk}<interface type='bridge'><source bridge='novabr0'/><model type='virtio'/>\
             <rom enabled='no'/></interface>\
             <serial type='pty'><log file='/var/log/libvirt/{name}.log' append='on'/></serial>\
             <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\
             <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>\
             <memballoon model='none'/><controller type='usb' model='none'/></devices></domain>",
            kernel = image.kernel.path.display(),
            initrd = image.initramfs.path.display(),
            cmdline = self.cmdline(),
        )
    }
}

fn disk_path(name: &str) -> String {
    format!("/var/lib/libvirt/{name}.qcow2")
}

/// What a started guest is followed by.
pub struct Started {
    /// When it was asked for.
    pub asked: Instant,
    /// Its console on every host.
    pub recorder: Recorder,
}

impl Started {
    /// Waits for the guest's first own word: its kernel and its init run. Returns when that was.
    pub fn wait_until_ready(&self, name: &str) -> Result<Instant> {
        // The recording began a moment after the request: its clock is carried over to ours.
        let offset = Instant::now() - self.recorder.now();
        let line = self.recorder.wait_for(Duration::ZERO, COMMAND_LIMIT, |line| line.starts_with("READY"));
        let line = line.with_context(|| format!("{name} did not boot"))?;
        Ok(offset + line.at)
    }
}

/// A client of the cluster's API, in the outside node: call it on that node's network.
pub fn client_of(cluster: &Cluster) -> Result<Client> {
    let identity = cluster.lab.outside().dir().join("lib-novacron/coordinator/identity");
    Client::new(&cluster.access.server, &cluster.access.token, &identity)
}

/// Asks NovaCron for the guest on `host`. The connection to the API is there before the clock starts.
pub fn create(cluster: &Cluster, shape: &Shape, body: &Value) -> Result<(Machine, Instant)> {
    let (asked, view) = on_network_of(cluster.lab.outside(), async {
        let client = client_of(cluster)?;
        client.until_ready().await?;
        let asked = Instant::now();
        Ok((asked, client.post("/api/v1/vms", body).await?))
    })?;
    let id = view["id"].as_str().with_context(|| format!("no id in {view}"))?.to_owned();
    let logs = cluster.members.iter().map(|member| machine_path(&member.host, &id, "console.log"));
    let recorder = Recorder::start(logs.collect::<Result<_>>()?);
    let (name, address) = (shape.name.to_owned(), Ipv4Addr::UNSPECIFIED);
    Ok((Machine { name, id, address, area_mib: 0, recorder }, asked))
}

/// Starts the guest with plain `virsh create` on the first of `hosts`, and follows its console on all of them.
pub fn start_plain(outside: &Node, shape: &Shape, hosts: &[&Host]) -> Result<Started> {
    let host = hosts.first().context("no host to start on")?;
    if shape.disk_mib > 0 {
        let disk = host.dir().join("lib-libvirt").join(format!("{}.qcow2", shape.name));
        GuestImage::empty_disk(&disk, novacron_tests::guest_image::DiskFormat::Qcow2, shape.disk_mib.into())?;
    }
    let xml = host.dir().join("scratch").join(format!("{}.xml", shape.name));
    std::fs::write(&xml, shape.domain(&GuestImage::build()?))?;
    let logs: Vec<_> =
        hosts.iter().map(|host| host.dir().join("log-libvirt").join(format!("{}.log", shape.name))).collect();
    // A console of an earlier run would be taken for this one's.
    logs.iter().for_each(|log| drop(std::fs::remove_file(log)));
    let asked = Instant::now();
    virsh(outside, host, &["create", path(&xml)?])?;
    Ok(Started { asked, recorder: Recorder::start(logs) })
}

/// Runs `virsh` from outside against a host's libvirtd, and returns how long that took.
pub fn virsh(outside: &Node, host: &Host, args: &[&str]) -> Result<Duration> {
    let mut command = Command::new("virsh");
    command.args(["-q", "-c", &host.libvirt_uri()]).args(args);
    let began = Instant::now();
    let process = outside.spawn_command(command)?;
    let status = process.wait_for(COMMAND_LIMIT);
    let took = began.elapsed();
    let status = status.with_context(|| format!("virsh {args:?} did not end within {COMMAND_LIMIT:?}"))?;
    ensure!(status.success(), "virsh {args:?}: {status}: {}", process.printed().trim());
    Ok(took)
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
