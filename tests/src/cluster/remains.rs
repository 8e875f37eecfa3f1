//! What a machine or a migration would leave behind if somebody cleaned up badly.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Cluster, items, machine_path};
use crate::lab::Host;

/// Sockets of migrations, as a host sees the folder.
const RUN_DIR: &str = "/run/novacron";

/// A domain, a folder, a process, a tap or a socket of the machine `id` on a host that should have none.
pub fn on_host(host: &Host, id: &str) -> Result<Vec<String>> {
    let name = host.name();
    let mut remains: Vec<String> =
        domains(host)?.into_iter().map(|domain| format!("{name}: domain {domain}")).collect();
    let folder = machine_path(host, id, "")?;
    if folder.exists() {
        remains.push(format!("{name}: {}", folder.display()));
    }
    remains.extend(host.qemu_pids()?.into_iter().map(|pid| format!("{name}: QEMU {pid}")));
    remains.extend(taps(host)?.into_iter().map(|tap| format!("{name}: tap {tap}")));
    remains.extend(sockets(host)?.into_iter().map(|socket| format!("{name}: socket {socket}")));
    Ok(remains)
}

/// The host's ends of machines' network cards, as libvirt names them.
fn taps(host: &Host) -> Result<Vec<String>> {
    let listed = host.exec("ip", &["-o", "link", "show"])?;
    let names = listed.lines().filter_map(|line| line.split(": ").nth(1));
    Ok(names.filter(|name| name.starts_with("vnet")).map(str::to_owned).collect())
}

/// Names of all domains that the host's libvirtd knows, running or not.
pub fn domains(host: &Host) -> Result<Vec<String>> {
    let listed = host.virsh(&["list", "--all", "--name"])?;
    Ok(listed.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// What migrations left in the agent's run folder.
pub fn sockets(host: &Host) -> Result<Vec<String>> {
    let folder = host.outside_path(Path::new(RUN_DIR)).context("the run folder is not the host's own")?;
    let mut found = Vec::new();
    collect_files(&folder, &mut found);
    Ok(found)
}

fn collect_files(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect_files(&entry.path(), found),
            _ => found.push(entry.path().display().to_string()),
        }
    }
}

/// Room that a host still has reserved though no machine is placed on it.
pub fn in_ledger(cluster: &Cluster) -> Result<Vec<String>> {
    let hosts = items(cluster.novactl(&["host", "list"])?);
    let idle = hosts.iter().filter(|host| host["vms"] == 0);
    let reserved = idle.filter(|host| has_reserved(host));
    Ok(reserved.map(|host| format!("ledger: {} has room reserved for nothing", host["name"])).collect())
}

fn has_reserved(host: &Value) -> bool {
    ["memory_reserved", "cpus_reserved", "storage_reserved"]
        .iter()
        .any(|field| host[*field].as_u64().is_some_and(|n| n > 0))
}
