//! Giving up rights for good: no capability in any set, and none to be had from any file.

use super::step::{Doing, StepError, checked};
use caps::{CapSet, errors::CapsError};

/// Capability numbers that a kernel may know; the highest of Linux 6.18 is 40.
const CAPABILITIES_MAX: libc::c_ulong = 63;

/// `SECBIT_NOROOT`, `SECBIT_NO_SETUID_FIXUP`, `SECBIT_NO_CAP_AMBIENT_RAISE` and their locks, and the lock of
/// `SECBIT_KEEP_CAPS` (`capabilities(7)`): being user 0 inside means nothing.
const SECUREBITS: libc::c_ulong = 0b1110_1111;

/// Drops every capability from every set (bounding, ambient, inheritable, permitted, effective), then lets no
/// program regain one (`PR_SET_NO_NEW_PRIVS`).
pub fn drop_all() -> Result<(), StepError> {
    prctl(libc::PR_SET_SECUREBITS, SECUREBITS, "lock the secure bits")?;
    drop_bounding()?;
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(|cause| failed("drop capabilities", cause))?;
    }
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, "forbid new privileges")
}

/// By number, so that capabilities which are newer than the `caps` crate go too.
fn drop_bounding() -> Result<(), StepError> {
    for capability in 0..=CAPABILITIES_MAX {
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

fn failed(doing: &str, cause: CapsError) -> StepError {
    StepError::new(doing, cause)
}
