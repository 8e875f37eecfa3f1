//! What this host has: processors, memory, disk, load. Read from the kernel when asked.

use novacron_common::{record::HostCapacity, units::ByteCount};
use std::{fs, path::PathBuf};

/// Reads the host's figures.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// Where machines' disks are.
    pub data_dir: PathBuf,
    /// RAM that is not given to machines.
    pub memory_reserve: ByteCount,
}

impl HostFacts {
    /// What the host can hold.
    pub fn capacity(&self) -> HostCapacity {
        let cpus =
            std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
        HostCapacity {
            cpus,
            memory: meminfo("MemTotal").saturating_sub(self.memory_reserve),
            storage: self.storage(),
        }
    }

    /// One-minute load average in thousandths (proc_loadavg(5)).
    pub fn load_millis(&self) -> u32 {
        let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = text.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let millis = (load * 1000.0) as u32;
        millis
    }

    /// RAM that could be had without swapping (proc_meminfo(5)).
    pub fn memory_available(&self) -> ByteCount {
        meminfo("MemAvailable")
    }

    /// The kernel's id of this boot (random(4)).
    pub fn boot_id() -> String {
        fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
    }

    /// What is free on the file system of machines' disks (statvfs(3)).
    pub fn storage_free(&self) -> ByteCount {
        nix::sys::statvfs::statvfs(&self.data_dir).map_or(ByteCount(u64::MAX), |s| {
            ByteCount(s.blocks_available().saturating_mul(s.fragment_size()))
        })
    }

    fn storage(&self) -> ByteCount {
        nix::sys::statvfs::statvfs(&self.data_dir)
            .map_or(ByteCount(0), |s| ByteCount(s.blocks().saturating_mul(s.fragment_size())))
    }
}

fn meminfo(key: &str) -> ByteCount {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    ByteCount::kib(kib.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_something() {
        let facts = HostFacts { data_dir: "/".into(), memory_reserve: ByteCount::mib(1) };
        let capacity = facts.capacity();
        assert!(capacity.cpus >= 1 && capacity.memory.0 > 0 && capacity.storage.0 > 0);
        assert!(facts.memory_available().0 > 0 && HostFacts::boot_id().len() == 36);
    }
}
