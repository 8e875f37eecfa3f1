//! What must not be seen, and where a command may add files of its own. Pure.

use std::path::{Path, PathBuf};

/// Masked whatever the request says. The shadow files have copies that end in a dash (`shadow(5)`).
pub const SECRET: &[&str] = &[
    "/etc/novacron",
    "/var/lib/novacron",
    "/root",
    "/run",
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
];

/// Parts of procfs and sysfs that are empty inside (the OCI runtime specification's customary list).
pub const HIDDEN: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Parts of procfs that can only be read inside.
pub const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Folders in whose upper layer the command is the owner, so that it can add and replace files there.
pub const OWNED: &[&str] =
    &["", "etc", "home", "mnt", "opt", "srv", "var", "var/cache", "var/lib", "var/log", "var/spool"];

/// Everything to mask: what nobody may see and what this request adds, without doubles.
pub fn secrets(extra: &[PathBuf]) -> Vec<PathBuf> {
    let all = SECRET.iter().map(PathBuf::from).chain(extra.iter().cloned());
    let mut paths: Vec<PathBuf> = all.filter(|path| path.is_absolute() && path != Path::new("/")).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}

/// Whether giving a folder to the command lets it see no more than before: everybody could list it already.
pub fn may_own(mode: u32) -> bool {
    mode & libc::S_IFMT == libc::S_IFDIR && mode & 0o005 == 0o005
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_masks_are_always_there() {
        let paths =
            secrets(&[PathBuf::from("/srv/nova"), PathBuf::from("/root"), PathBuf::from("/"), "x".into()]);
        assert_eq!(paths.len(), SECRET.len() + 1);
        assert!(
            paths.contains(&PathBuf::from("/srv/nova")) && paths.contains(&PathBuf::from("/etc/gshadow-"))
        );
    }

    #[test]
    fn a_private_folder_is_never_opened_up() {
        assert!(may_own(0o040_755));
        assert!(!may_own(0o040_750) && !may_own(0o040_700) && !may_own(0o120_777) && !may_own(0o100_755));
    }
}
