//! What runs here and what was seen, in memory. One lock, held only between awaits.

use super::{
    admission::{Fence, Verdict, judge},
    error::AttemptError,
    fence::Fences,
};
use crate::hypervisor::namespace::process::Supervisor;
use novacron_common::{
    ids::{AttemptKey, FireKey},
    units::Epoch,
    wire::AttemptStart,
};
use std::{collections::BTreeMap, sync::Arc};

/// An attempt whose supervisor lives, or is about to.
#[derive(Debug)]
pub struct Live {
    /// Under which it was started.
    pub epoch: Epoch,
    /// Its range of user ids.
    pub slot: u32,
    /// `None` until it is started.
    pub supervisor: Option<Arc<Supervisor>>,
}

/// The table.
#[derive(Debug)]
pub struct Table {
    /// Epochs on disk.
    pub fences: Fences,
    /// What runs.
    pub live: BTreeMap<AttemptKey, Live>,
}

impl Table {
    /// Attempts at once: as many as there are id ranges for them.
    pub const LIVE_MAX: u32 = 1024;

    /// Decides on a start, and takes a slot for it if it may go on. `None`: it is so already.
    pub fn admit(&mut self, start: &AttemptStart) -> Result<Option<u32>, AttemptError> {
        let (attempt, epoch) = (start.attempt, start.epoch);
        match judge(attempt, epoch, self.fences.of(&attempt.fire), self.running(&attempt.fire)) {
            Verdict::AlreadySo => Ok(None),
            Verdict::Stale { seen } => Err(AttemptError::Stale { attempt, asked: epoch, seen }),
            Verdict::StillRuns { number } => Err(AttemptError::StillRuns { attempt, running: number }),
            Verdict::Start => self.take_slot(attempt, epoch).map(Some),
        }
    }

    /// Remembers the epoch of an attempt that was found on disk.
    pub fn note_fence(&mut self, attempt: AttemptKey, epoch: Epoch) -> std::io::Result<()> {
        if self.fences.of(&attempt.fire).is_none_or(|seen| seen.epoch < epoch) {
            self.fences.raise(attempt.fire, Fence { epoch, number: attempt.number })?;
        }
        Ok(())
    }

    fn running(&self, fire: &FireKey) -> Option<u32> {
        let of_fire = AttemptKey { fire: *fire, number: 0 }..=AttemptKey { fire: *fire, number: u32::MAX };
        self.live.range(of_fire).next().map(|(key, _)| key.number)
    }

    fn take_slot(&mut self, attempt: AttemptKey, epoch: Epoch) -> Result<u32, AttemptError> {
        let taken: std::collections::BTreeSet<u32> = self.live.values().map(|live| live.slot).collect();
        let slot = (0..Self::LIVE_MAX).find(|slot| !taken.contains(slot));
        let slot = slot.ok_or(AttemptError::NoRoom { running: self.live.len() })?;
        self.live.insert(attempt, Live { epoch, slot, supervisor: None });
        Ok(slot)
    }
}
