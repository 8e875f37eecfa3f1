//! What runs here, in memory. One lock, held only between awaits.

use super::{
    admission::{Verdict, judge},
    error::AttemptError,
    fence::Fences,
    lease::LiveLease,
};
use crate::hypervisor::namespace::process::Supervisor;
use novacron_common::{
    ids::{AttemptKey, FireKey},
    units::Epoch,
    wire::AttemptStart,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// An attempt whose supervisor lives, or is about to.
#[derive(Debug)]
pub struct Live {
    /// Under which it was started.
    pub epoch: Epoch,
    /// Its range of user ids, if it needs one.
    pub slot: Option<u32>,
    /// `None` until it is started.
    pub supervisor: Option<Arc<Supervisor>>,
    /// Its lease, if it has one.
    pub lease: Option<LiveLease>,
}

/// The table.
#[derive(Debug)]
pub struct Table {
    /// What runs.
    pub live: BTreeMap<AttemptKey, Live>,
    /// Slots that are taken.
    slots: BTreeSet<u32>,
    /// Attempts at once.
    live_max: u32,
}

impl Table {
    /// Most attempts at once on any host: as many as there are id ranges for them.
    pub const LIVE_MAX: u32 = 1024;

    /// Nothing runs yet, and never more than `live_max`.
    pub fn new(live_max: u32) -> Self {
        Self { live: BTreeMap::new(), slots: BTreeSet::new(), live_max: live_max.clamp(1, Self::LIVE_MAX) }
    }

    /// Decides on a start, and takes a slot for it if it may go on. `None`: it is so already.
    pub fn admit(&mut self, start: &AttemptStart, fences: &Fences) -> Result<Option<u32>, AttemptError> {
        let (attempt, epoch) = (start.attempt, start.epoch);
        // Its echo may overtake the note of its own epoch.
        if self.live.get(&attempt).is_some_and(|live| live.epoch == epoch) {
            return Ok(None);
        }
        match judge(attempt, epoch, fences.of(&attempt.fire), self.running(&attempt.fire)) {
            Verdict::AlreadySo => Ok(None),
            Verdict::Stale { seen } => Err(AttemptError::Stale { attempt, asked: epoch, seen }),
            Verdict::StillRuns { number } => Err(AttemptError::StillRuns { attempt, running: number }),
            Verdict::Start => self.take_slot(start).map(Some),
        }
    }

    fn running(&self, fire: &FireKey) -> Option<u32> {
        let of_fire = AttemptKey { fire: *fire, number: 0 }..=AttemptKey { fire: *fire, number: u32::MAX };
        self.live.range(of_fire).next().map(|(key, _)| key.number)
    }

    fn take_slot(&mut self, start: &AttemptStart) -> Result<u32, AttemptError> {
        let running = self.live.len();
        let slot = (0..Self::LIVE_MAX).find(|slot| !self.slots.contains(slot));
        let slot = slot.filter(|_| running < self.live_max as usize);
        let slot = slot.ok_or(AttemptError::NoRoom { running, live_max: self.live_max })?;
        let lease = start.lease.map(|lease| LiveLease::new(lease, start.on_lease_lost));
        self.put(start.attempt, Live { epoch: start.epoch, slot: Some(slot), supervisor: None, lease });
        Ok(slot)
    }

    /// Notes what runs, in place of what was known of the same attempt.
    pub fn put(&mut self, attempt: AttemptKey, live: Live) {
        self.slots.extend(live.slot);
        self.live.insert(attempt, live);
    }

    /// It runs no more.
    pub fn take(&mut self, attempt: &AttemptKey) -> Option<Live> {
        let live = self.live.remove(attempt)?;
        if let Some(slot) = live.slot {
            self.slots.remove(&slot);
        }
        Some(live)
    }
}
