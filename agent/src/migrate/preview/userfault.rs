//! Whether this host's QEMU may have itself told of pages that a guest touches and that are not there yet (userfaultfd(2)), as
//! the target of post-copy must.
//!
//! The kernel lets it if `vm.unprivileged_userfaultfd` is 1, or if it can open /dev/userfaultfd (Linux 6.1; QEMU asks there first
//! since 8.0). To run as root is not enough: libvirt takes all capabilities away from its QEMUs.

use nix::unistd::{User, getgrouplist};
use std::{ffi::CString, fs, os::unix::fs::MetadataExt};

const SYSCTL: &str = "/proc/sys/vm/unprivileged_userfaultfd";
const DEVICE: &str = "/dev/userfaultfd";

/// What decides it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Userfault {
    /// Every process may.
    anybody: bool,
    device: Option<Device>,
    qemu: Account,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Device {
    owner: u32,
    group: u32,
    mode: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    uid: u32,
    groups: Vec<u32>,
}

impl Userfault {
    /// As it is now, for a QEMU that runs as `user`, or as root. `None`: there is no such user.
    pub fn look(user: Option<&str>) -> Option<Self> {
        let device = fs::metadata(DEVICE).ok();
        Some(Self {
            anybody: fs::read_to_string(SYSCTL).is_ok_and(|text| text.trim() == "1"),
            device: device.map(|m| Device { owner: m.uid(), group: m.gid(), mode: m.mode() }),
            qemu: user.map_or(Some(Account { uid: 0, groups: vec![0] }), account)?,
        })
    }

    /// Whether it may.
    pub fn is_allowed(&self) -> bool {
        self.anybody || self.device.is_some_and(|device| device.opens_to(&self.qemu))
    }
}

impl Device {
    /// For reading and writing, by its mode alone: without capabilities no other way is left.
    fn opens_to(self, who: &Account) -> bool {
        let class = match () {
            () if who.uid == self.owner => self.mode >> 6,
            () if who.groups.contains(&self.group) => self.mode >> 3,
            () => self.mode,
        };
        class & 0o6 == 0o6
    }
}

fn account(name: &str) -> Option<Account> {
    let user = User::from_name(name).ok().flatten()?;
    let groups = getgrouplist(&CString::new(name).ok()?, user.gid).unwrap_or_else(|_| vec![user.gid]);
    Some(Account {
        uid: user.uid.as_raw(),
        groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(anybody: bool, device: Option<(u32, u32, u32)>, uid: u32, groups: &[u32]) -> bool {
        let device = device.map(|(owner, group, mode)| Device { owner, group, mode });
        Userfault { anybody, device, qemu: Account { uid, groups: groups.to_vec() } }.is_allowed()
    }

    #[test]
    fn the_sysctl_lets_everybody_and_the_device_whom_its_mode_names() {
        assert!(seen(true, None, 64055, &[64055]));
        assert!(!seen(false, None, 64055, &[64055]));
        assert!(!seen(false, None, 0, &[0]), "root has no capabilities there");
        let usual = Some((0, 0, 0o20_600));
        assert!(seen(false, usual, 0, &[0]) && !seen(false, usual, 64055, &[64055]));
        let of_group = Some((0, 104, 0o20_660));
        assert!(seen(false, of_group, 64055, &[64055, 104]) && !seen(false, of_group, 64055, &[64055]));
        assert!(
            !seen(false, Some((0, 104, 0o20_606)), 64055, &[104]),
            "its group's bits count, not those of others"
        );
        assert!(!seen(false, Some((64055, 0, 0o20_400)), 64055, &[64055]), "reading alone is not enough");
    }

    #[test]
    fn who_does_not_exist_is_not_judged() {
        assert_eq!(Userfault::look(Some("no-such-user-here")), None);
        assert!(Userfault::look(None).is_some());
    }
}
