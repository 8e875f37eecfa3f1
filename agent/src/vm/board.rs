//! What is seen of every machine, for the status report. Written by the machines' tasks, read by the session.

use novacron_common::{
    ids::VmId,
    record::{Progress, VmObservation, VmState},
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};
use tokio::sync::watch;

/// The latest observation of each machine, and a signal when one changes.
#[derive(Debug)]
pub struct Board {
    seen: Mutex<BTreeMap<VmId, VmObservation>>,
    version: watch::Sender<u64>,
}

impl Default for Board {
    fn default() -> Self {
        Self { seen: Mutex::default(), version: watch::Sender::new(0) }
    }
}

impl Board {
    /// Writes an observation; readers are woken if it says something new.
    pub fn post(&self, new: VmObservation) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.insert(new.vm, new.clone());
        drop(seen);
        if before.is_none_or(|old| is_news(&old, &new)) {
            self.version.send_modify(|v| *v += 1);
        }
    }

    /// Says how far a machine is that is being prepared; nothing if it is not.
    pub fn note_progress(&self, vm: VmId, message: String, progress: Progress) {
        if let Some(seen) = self.of(vm).filter(|seen| seen.state == VmState::Preparing) {
            self.post(VmObservation { message: Some(message), progress: Some(progress), ..seen });
        }
    }

    /// Forgets a machine that went elsewhere.
    pub fn forget(&self, vm: VmId) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(&vm);
    }

    /// The latest of one.
    pub fn of(&self, vm: VmId) -> Option<VmObservation> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&vm).cloned()
    }

    /// The latest of all.
    pub fn all(&self) -> Vec<VmObservation> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Changes whenever an observation says something new.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

/// Counters alone are no news: they go with the next periodic report, and bytes with the next whole per cent, which
/// the message says.
fn is_news(old: &VmObservation, new: &VmObservation) -> bool {
    let still = |o: &VmObservation| VmObservation {
        cpu_ms: 0,
        memory: Default::default(),
        progress: None,
        ..o.clone()
    };
    still(old) != still(new)
}
