//! What a lab would leave on the machine if it cleaned up badly.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use novacron_tests::lab::{Host, Lab};

/// What would still be there if the lab cleaned up badly.
pub struct Traces {
    namespaces: BTreeSet<PathBuf>,
    mounts: String,
    interfaces: String,
    root: PathBuf,
}

impl Traces {
    /// Notes the lab's namespaces, and what the machine's mounts and interfaces are beside them.
    pub fn of(lab: &Lab, hosts: &[&Host]) -> Result<Self> {
        let mut inits = vec![lab.outside().init_pid()?];
        for host in hosts {
            inits.push(host.init_pid()?);
        }
        let namespaces = inits.into_iter().flat_map(namespaces_of).collect();
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let interfaces = fs::read_to_string("/proc/self/net/dev")?;
        Ok(Self { namespaces, mounts, interfaces: names_of(&interfaces), root: lab.root().to_path_buf() })
    }

    /// Looks for each of them after the lab is gone.
    pub fn assert_gone(&self) -> Result<()> {
        ensure!(!self.root.exists(), "{} is still there", self.root.display());
        let tag = self.root.file_name().context("a root without a name")?.to_string_lossy().into_owned();
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        ensure!(!mounts.contains(&tag), "mounts of the lab are left: {mounts}");
        ensure!(mounts == self.mounts, "the machine's mounts changed");
        ensure!(
            names_of(&fs::read_to_string("/proc/self/net/dev")?) == self.interfaces,
            "interfaces changed"
        );
        for process in processes() {
            let left: Vec<_> =
                namespaces_of(process).filter(|space| self.namespaces.contains(space)).collect();
            ensure!(left.is_empty(), "process {process} still lives in {left:?}");
        }
        ensure!(!cgroups_named(Path::new("/sys/fs/cgroup"), &tag, 2), "a cgroup of the lab is left");
        Ok(())
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The node's own kinds of namespace; user and time are the machine's.
fn namespaces_of(process: u32) -> impl Iterator<Item = PathBuf> {
    ["net", "mnt", "pid", "ipc", "uts"]
        .into_iter()
        .filter_map(move |kind| fs::read_link(format!("/proc/{process}/ns/{kind}")).ok())
}

fn names_of(net_dev: &str) -> String {
    net_dev
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim())
        .collect::<Vec<_>>()
        .join(" ")
}

fn cgroups_named(folder: &Path, tag: &str, depth: u32) -> bool {
    let folders = fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
    folders.into_iter().any(|entry| {
        entry.file_name().to_string_lossy().contains(tag)
            || (depth > 0 && cgroups_named(&entry.path(), tag, depth - 1))
    })
}
