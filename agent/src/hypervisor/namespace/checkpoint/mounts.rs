//! Which mounts of a machine CRIU makes anew by itself, and which it is given. Pure; `proc_pid_mountinfo(5)` has the format.
//!
//! It makes what the kernel alone makes: procfs, sysfs, and file systems in memory, whose content it saves. The root, and what
//! of the host is bound into it, devices above all, is built by the supervisor as at any start, and shown to CRIU by name.

use super::reaper;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Beside `/dev/null` bound over parts of procfs, nothing of the host is below it.
const KERNEL: &str = "/proc/";

/// A mount that CRIU is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// Where the machine has it.
    pub at: String,
}

impl External {
    /// Its name towards CRIU, which has no room for slashes and brackets.
    pub fn key(&self) -> String {
        self.at.replace(['/', '[', ']', ':'], ".")
    }

    /// Where it is, in the supervisor's mounts: devices are the host's, and the rest is on the stage.
    pub fn source(&self, stage: &Path) -> PathBuf {
        match self.at.as_str() {
            "/dev" => stage.join("dev"),
            reaper::FOLDER => stage.join("reaper"),
            at if at.starts_with(KERNEL) => "/dev/null".into(),
            at if at.starts_with("/dev/") => at.into(),
            _ => stage.join("resolv.conf"),
        }
    }
}

/// Those of a machine, by the mount table of its first process.
pub fn externals(mountinfo: &str) -> Vec<External> {
    mountinfo.lines().filter_map(external).collect()
}

fn external(line: &str) -> Option<External> {
    let (mount, system) = line.split_once(" - ")?;
    let mut fields = mount.split(' ');
    let (root, at) = (fields.nth(3)?, fields.next()?);
    let kind = system.split(' ').next()?;
    let is_made = match kind {
        "proc" | "sysfs" => true,
        "tmpfs" => root == "/",
        _ => at == "/",
    };
    (!is_made).then(|| External { at: at.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
500 400 0:50 / / rw,nosuid - overlay overlay rw,lowerdir=l\n\
501 500 0:40 /dev /dev ro,nosuid,noexec - tmpfs tmpfs rw,size=256k\n\
502 501 0:6 /null /dev/null rw - devtmpfs devtmpfs rw\n\
503 501 0:41 / /dev/shm rw,nosuid,nodev - tmpfs tmpfs rw\n\
504 500 0:42 / /proc rw,nosuid - proc proc rw\n\
505 504 0:42 /sys /proc/sys ro,nosuid - proc proc rw\n\
506 504 0:6 /null /proc/kcore rw - devtmpfs devtmpfs rw\n\
507 504 0:43 / /proc/acpi ro - tmpfs tmpfs rw,size=0k\n\
508 500 0:44 / /sys ro - sysfs sysfs rw\n\
509 500 0:40 /resolv.conf /etc/resolv.conf ro - tmpfs tmpfs rw\n\
nonsense\n";

    #[test]
    fn what_is_bound_in_from_the_host_is_given_and_the_rest_is_made() {
        let found: Vec<_> = externals(TABLE).into_iter().map(|external| external.at).collect();
        assert_eq!(found, ["/dev", "/dev/null", "/proc/kcore", "/etc/resolv.conf"]);
    }

    #[test]
    fn each_has_a_name_of_its_own_and_a_source() {
        let external = |at: &str| External { at: at.to_owned() };
        assert_eq!(external("/etc/resolv.conf").key(), ".etc.resolv.conf");
        for (at, source) in [
            ("/dev", "/stage/dev"),
            ("/dev/novacron", "/stage/reaper"),
            ("/dev/zero", "/dev/zero"),
            ("/proc/kcore", "/dev/null"),
            ("/etc/resolv.conf", "/stage/resolv.conf"),
        ] {
            assert_eq!(external(at).source(Path::new("/stage")), Path::new(source));
        }
    }
}
