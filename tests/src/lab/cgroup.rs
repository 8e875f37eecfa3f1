//! A cgroup per node in every hierarchy that the machine has mounted (v1, hybrid or v2), which the node sees as the root.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// (a node's cgroup, mount point of its hierarchy).
pub type Pairs = Vec<(PathBuf, PathBuf)>;

/// Makes the cgroup `name` in every hierarchy. Process 1's parent removes them when the node has ended.
pub fn make(name: &str) -> Result<Pairs> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("listing the machine's mounts")?;
    let mut pairs = Vec::new();
    for (at, is_v2) in hierarchies(&mounts) {
        let cgroup = at.join(name);
        fs::create_dir_all(&cgroup).with_context(|| format!("making {}", cgroup.display()))?;
        if !is_v2 {
            inherit_cpuset(&at, &cgroup)?;
        }
        pairs.push((cgroup, at));
    }
    Ok(pairs)
}

/// Removes the cgroups and all below them. Best effort: the kernel may need a moment after the last process.
pub fn remove(pairs: &[(PathBuf, PathBuf)]) {
    pairs.iter().for_each(|(cgroup, _)| remove_tree(cgroup));
}

/// A cpuset of v1 takes no process before it is told its CPUs and memory nodes.
fn inherit_cpuset(parent: &Path, child: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(value) = fs::read_to_string(parent.join(file)) {
            fs::write(child.join(file), value.trim()).with_context(|| format!("setting {file}"))?;
        }
    }
    Ok(())
}

fn hierarchies(mounts: &str) -> Vec<(PathBuf, bool)> {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let cgroups = fields.filter(|fields| fields.len() > 2 && matches!(fields[2], "cgroup" | "cgroup2"));
    let on_sys = cgroups.filter(|fields| fields[1].starts_with("/sys/fs/cgroup"));
    on_sys.map(|fields| (PathBuf::from(fields[1]), fields[2] == "cgroup2")).collect()
}

fn remove_tree(cgroup: &Path) {
    const TRIES: u32 = 50;
    let children = fs::read_dir(cgroup).into_iter().flatten().flatten();
    children.filter(|entry| entry.path().is_dir()).for_each(|entry| remove_tree(&entry.path()));
    for _ in 0..TRIES {
        match fs::remove_dir(cgroup) {
            Err(cause) if cause.kind() == std::io::ErrorKind::ResourceBusy => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_hierarchy_and_its_version() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
                      cgroup2 /elsewhere cgroup2 rw 0 0\n";
        let found = hierarchies(mounts);
        let expected = [("/sys/fs/cgroup/cpu", false), ("/sys/fs/cgroup/unified", true)];
        assert_eq!(found, expected.map(|(path, v2)| (PathBuf::from(path), v2)));
    }
}
