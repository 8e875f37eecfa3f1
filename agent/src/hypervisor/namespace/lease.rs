//! The hold that a supervisor has on its attempt's lease: a deadline on `CLOCK_BOOTTIME`, and a timer for it.
//!
//! The agent writes the deadline into the folder and moves it on at each renewal; the supervisor looks at the file
//! when its timer fires, and either sets the timer anew or ends the tree. So the agent may be killed, stopped or
//! replaced at any point: nobody but the supervisor acts on the deadline, and it needs nobody for that.
//!
//! `CLOCK_BOOTTIME` (`clock_gettime(2)`) is neither set by anybody nor does it stand still while the host sleeps: a
//! host that wakes after its leases have run out ends them before it does much else. A boot starts it anew, but then
//! no attempt of before is left. What this rests on is listed in `ATTEMPTS.md` beside the agent's sources.

use super::{
    folder::{Folder, FolderError},
    step::{Doing, StepError},
};
use nix::{
    sys::{
        time::{TimeSpec, TimeValLike},
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
    time::clock_gettime,
};
use serde::{Deserialize, Serialize};
use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    time::Duration,
};

/// An instant on the host's `CLOCK_BOOTTIME`, in milliseconds. Means nothing on another host or after a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BootTime(pub u64);

impl BootTime {
    /// Now. Rounded down, so that a deadline counted from it comes rather too early.
    pub fn now() -> Self {
        // The kernel refuses only unknown clocks; the epoch of this one would end every lease, which is safe.
        let now = clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).unwrap_or_else(|_| TimeSpec::zero());
        Self(u64::try_from(now.num_milliseconds()).unwrap_or(0))
    }

    /// This much later.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero if it is yet to come.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// What a look at the lease says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The tree may go on; the timer is set.
    Holds,
    /// It must not.
    Lost,
}

/// Whether a tree may go on. Without a deadline it never had a lease.
fn judge(deadline: Option<BootTime>, now: BootTime) -> Standing {
    match deadline {
        Some(deadline) if now < deadline => Standing::Holds,
        Some(_) | None => Standing::Lost,
    }
}

/// A supervisor's hold on its lease.
#[derive(Debug)]
pub struct LeaseHold {
    timer: TimerFd,
}

impl LeaseHold {
    /// A timer that is not set yet.
    ///
    /// # Errors
    /// [`StepError`] if the kernel has none.
    pub fn new() -> Result<Self, StepError> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags).doing("make the lease's timer")?;
        Ok(Self { timer })
    }

    /// Looks at the deadline, and sets the timer to it if it is yet to come. A deadline that cannot be read counts as
    /// passed: to go on without a lease is what must never happen.
    pub fn look(&self, folder: &Folder) -> Standing {
        let deadline = folder.lease().unwrap_or_else(|error| {
            tracing::warn!(error = crate::text::describe(&error), "the lease cannot be read");
            None
        });
        match judge(deadline, BootTime::now()) {
            Standing::Holds if deadline.is_some_and(|deadline| self.set(deadline).is_ok()) => Standing::Holds,
            Standing::Holds | Standing::Lost => Standing::Lost,
        }
    }

    /// Whether the timer has fired since the last look that set it.
    pub fn has_fired(&self) -> bool {
        self.timer.wait().is_ok()
    }

    fn set(&self, deadline: BootTime) -> nix::Result<()> {
        let at = TimeSpec::milliseconds(i64::try_from(deadline.0).unwrap_or(i64::MAX / 1_000_000));
        self.timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
    }
}

impl AsRawFd for LeaseHold {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_fd().as_raw_fd()
    }
}

impl AsFd for LeaseHold {
    /// Readable once the timer has fired; stays so until it is set anew.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

impl Folder {
    /// Until when the tree may run, if it has a lease.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn lease(&self) -> Result<Option<BootTime>, FolderError> {
        self.read("lease")
    }

    /// Moves the deadline. Whole or not at all, but not durable: no lease outlives a boot.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn write_lease(&self, until: BootTime) -> Result<(), FolderError> {
        self.write_loosely("lease", &until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, poll};

    fn is_ready(hold: &LeaseHold, patience_ms: u16) -> bool {
        poll(&mut [PollFd::new(hold.as_fd(), PollFlags::POLLIN)], patience_ms).unwrap() == 1
    }

    #[test]
    fn only_a_deadline_that_is_yet_to_come_holds() {
        assert_eq!(judge(Some(BootTime(10)), BootTime(9)), Standing::Holds);
        assert_eq!(judge(Some(BootTime(10)), BootTime(10)), Standing::Lost);
        assert_eq!(judge(None, BootTime(0)), Standing::Lost);
    }

    #[test]
    fn the_timer_fires_at_the_deadline_and_a_renewal_moves_it() {
        let place = tempfile::tempdir().unwrap();
        let (folder, hold) = (Folder::at(place.path()), LeaseHold::new().unwrap());
        assert_eq!(hold.look(&folder), Standing::Lost, "without a lease");
        folder.write_lease(BootTime::now().plus(Duration::from_millis(60))).unwrap();
        assert_eq!(hold.look(&folder), Standing::Holds);
        // Renewed before the timer fires, which only the next look notices.
        let later = BootTime::now().plus(Duration::from_secs(3600));
        folder.write_lease(later).unwrap();
        assert!(!hold.has_fired());
        assert!(is_ready(&hold, 10_000));
        assert!(hold.has_fired());
        assert_eq!(hold.look(&folder), Standing::Holds);
        assert!(!is_ready(&hold, 0));
        // A damaged deadline is none.
        std::fs::write(place.path().join("lease"), b"x").unwrap();
        assert_eq!(hold.look(&folder), Standing::Lost);
    }
}
