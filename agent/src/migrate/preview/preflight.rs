//! What a host's own facts say about a machine that may come. Pure.

use novacron_common::{
    record::{PreflightFault, PreflightKind},
    spec::VmSpec,
    units::ByteCount,
};

/// A host, as far as an arrival is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// RAM that could be had without swapping.
    pub memory_available: ByteCount,
    /// What is free on the file system of machines' disks.
    pub storage_free: ByteCount,
    /// The bridge that the machine's card would be attached to.
    pub bridge: String,
    /// Whether it is there.
    pub has_bridge: bool,
    /// Images of its template that are not on this host.
    pub missing_images: usize,
    /// Whether the hypervisor knows the machine already.
    pub knows_it: bool,
    /// Whether its QEMU may do what the target of post-copy must.
    pub takes_post_copy: bool,
}

/// Everything that speaks against it. `post_copy`: it may come by that.
pub fn judge(site: &Site, spec: &VmSpec, post_copy: bool) -> Vec<PreflightFault> {
    let userfault = userfault(site).filter(|_| post_copy);
    [network(site), conflict(site), userfault, memory(site, spec), disk(site, spec), images(site)]
        .into_iter()
        .flatten()
        .collect()
}

fn network(site: &Site) -> Option<PreflightFault> {
    (!site.has_bridge).then(|| {
        PreflightFault::certain(
            PreflightKind::Network,
            format!("the host has no bridge {}", site.bridge),
            format!("make it there (`ip link add {} type bridge`), or choose another host", site.bridge),
        )
    })
}

fn conflict(site: &Site) -> Option<PreflightFault> {
    site.knows_it.then(|| {
        PreflightFault::certain(
            PreflightKind::Conflict,
            "the hypervisor of the host knows this machine already",
            "wait until an earlier move of it is cleaned up; if it stays, see `virsh list --all` on the host",
        )
    })
}

fn userfault(site: &Site) -> Option<PreflightFault> {
    (!site.takes_post_copy).then(|| {
        PreflightFault::certain(
            PreflightKind::PostCopy,
            "its QEMU may not use userfaultfd, without which no guest arrives by post-copy",
            "allow it there (`sysctl vm.unprivileged_userfaultfd=1`, or make /dev/userfaultfd readable and writable for QEMU's \
             user), choose another host, or move with `--strategy precopy` or `stop_and_copy`",
        )
    })
}

/// The placement promises memory by the book; this is what the kernel says. Guests seldom use all of theirs, so it hinders
/// nobody.
fn memory(site: &Site, spec: &VmSpec) -> Option<PreflightFault> {
    (site.memory_available < spec.memory).then(|| {
        PreflightFault::warning(
            PreflightKind::Memory,
            format!("{} of memory are available, the machine has {}", site.memory_available, spec.memory),
            "free some on the host, or choose another",
        )
    })
}

fn disk(site: &Site, spec: &VmSpec) -> Option<PreflightFault> {
    (site.storage_free < spec.storage).then(|| {
        PreflightFault::warning(
            PreflightKind::Disk,
            format!("{} of disk are free, the machine's may grow to {}", site.storage_free, spec.storage),
            "free some on the host, or choose another",
        )
    })
}

fn images(site: &Site) -> Option<PreflightFault> {
    (site.missing_images > 0).then(|| {
        PreflightFault::warning(
            PreflightKind::Image,
            format!("{} image(s) of its template are not on the host", site.missing_images),
            "nothing: they are fetched from the machine's host before the copy begins, which takes its time",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::tests::world::spec;

    fn kinds(site: &Site) -> Vec<(PreflightKind, bool)> {
        judge(site, &spec(), true).into_iter().map(|fault| (fault.kind, fault.certain)).collect()
    }

    #[test]
    fn a_host_with_everything_has_no_faults() {
        assert_eq!(kinds(&Site::default()), []);
        let exactly =
            Site { memory_available: spec().memory, storage_free: spec().storage, ..Site::default() };
        assert_eq!(kinds(&exactly), []);
    }

    #[test]
    fn each_lack_is_named_and_only_what_certainly_fails_is_certain() {
        let site = Site {
            memory_available: ByteCount(spec().memory.0 - 1),
            storage_free: ByteCount(spec().storage.0 - 1),
            bridge: "br-x".to_owned(),
            has_bridge: false,
            missing_images: 2,
            knows_it: true,
            takes_post_copy: false,
        };
        let wanted = [
            (PreflightKind::Network, true),
            (PreflightKind::Conflict, true),
            (PreflightKind::PostCopy, true),
            (PreflightKind::Memory, false),
            (PreflightKind::Disk, false),
            (PreflightKind::Image, false),
        ];
        assert_eq!(kinds(&site), wanted);
        assert_eq!(
            judge(&site, &spec(), false).len(),
            wanted.len() - 1,
            "post-copy's fault is for post-copy"
        );
        let faults = judge(&site, &spec(), true);
        assert!(faults[0].text.contains("br-x") && faults.iter().all(|fault| !fault.remedy.is_empty()));
    }
}
