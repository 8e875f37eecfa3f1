//! Giving up rights for good: no capability in any set but those of a stated list, and none to be had from any file.

use super::step::{Doing, StepError, checked};
use caps::{CapSet, Capability, CapsHashSet};
use serde::{Deserialize, Serialize};

/// Capability numbers that a kernel may know; the highest of Linux 6.18 is 40.
const CAPABILITIES_MAX: libc::c_ulong = 63;

/// `SECBIT_NOROOT`, `SECBIT_NO_SETUID_FIXUP`, `SECBIT_NO_CAP_AMBIENT_RAISE` and their locks, and the lock of
/// `SECBIT_KEEP_CAPS` (`capabilities(7)`): being user 0 inside means nothing.
const ROOT_MEANS_NOTHING: libc::c_ulong = 0b1110_1111;

/// What user 0 of a machine may do to the machine's own files, users and processes, and to nothing else, as it is user 0
/// of its own user namespace only: Docker's default set without making devices, raw sockets and changing the root.
const OF_A_MACHINE: &[Capability] = &[
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_KILL,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SETPCAP,
    Capability::CAP_SETFCAP,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_AUDIT_WRITE,
];

/// What user 0 inside may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rights {
    /// Nothing that its numbers alone do not allow.
    None,
    /// What a machine needs that has users and services of its own.
    Machine,
}

impl Rights {
    const fn kept(self) -> &'static [Capability] {
        match self {
            Self::None => &[],
            Self::Machine => OF_A_MACHINE,
        }
    }

    /// Drops every other capability from every set (bounding, ambient, inheritable, permitted, effective), then lets no
    /// program gain one (`PR_SET_NO_NEW_PRIVS`).
    ///
    /// # Errors
    /// [`StepError`] if the kernel refuses.
    pub fn drop_others(self) -> Result<(), StepError> {
        if self == Self::None {
            prctl(libc::PR_SET_SECUREBITS, ROOT_MEANS_NOTHING, "lock the secure bits")?;
        }
        let kept: CapsHashSet = self.kept().iter().copied().collect();
        drop_bounding(&kept)?;
        for set in [CapSet::Ambient, CapSet::Inheritable] {
            caps::clear(None, set).doing("drop capabilities")?;
        }
        for set in [CapSet::Effective, CapSet::Permitted] {
            caps::set(None, set, &kept).doing("drop capabilities")?;
        }
        prctl(libc::PR_SET_NO_NEW_PRIVS, 1, "forbid new privileges")
    }
}

/// Has the next changes of the calling process' user and groups take no capability away.
///
/// # Errors
/// [`StepError`] if the kernel refuses.
pub fn keep_through_change_of_user() -> Result<(), StepError> {
    /// `SECBIT_NO_SETUID_FIXUP`.
    const NO_SETUID_FIXUP: libc::c_ulong = 0b0100;
    prctl(libc::PR_SET_SECUREBITS, NO_SETUID_FIXUP, "keep rights through a change of user")
}

/// By number, so that capabilities which are newer than the `caps` crate go too.
fn drop_bounding(kept: &CapsHashSet) -> Result<(), StepError> {
    let kept: Vec<_> = kept.iter().map(|capability| libc::c_ulong::from(capability.index())).collect();
    for capability in (0..=CAPABILITIES_MAX).filter(|capability| !kept.contains(capability)) {
        // SAFETY: PR_CAPBSET_READ takes a number and touches no memory; EINVAL means the kernel has no such one.
        let known = unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) } >= 0;
        if known {
            prctl(libc::PR_CAPBSET_DROP, capability, "drop the bounding set")?;
        }
    }
    Ok(())
}

/// Hides the calling process' memory and descriptors from others with its user id (`PR_SET_DUMPABLE`, 0).
pub fn hide_memory() -> Result<(), StepError> {
    prctl(libc::PR_SET_DUMPABLE, 0, "hide init's memory")
}

/// Has the kernel kill the calling process when its parent ends.
pub fn die_with_parent() -> Result<(), StepError> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, "tie init to its supervisor")
}

fn prctl(option: libc::c_int, value: libc::c_ulong, doing: &str) -> Result<(), StepError> {
    // SAFETY: all options used here take one number and touch no memory of ours.
    let result = unsafe { libc::prctl(option, value, 0, 0, 0) };
    checked(result.into()).doing(doing).map(drop)
}
