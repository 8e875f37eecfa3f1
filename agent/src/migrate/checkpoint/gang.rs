//! What machines of a gang brought to this host, for a while: those that follow them need not bring it again.
//!
//! It has no name on the disk and its key is only in memory, so that it ends with the agent, and nothing of it is to be
//! found after that.

use super::{
    Inner,
    pages::Pages,
    sink::{self, Sink},
};
use crate::text::describe;
use novacron_common::{ids::GangId, units::UnixMillis};
use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::oneshot, time::timeout};

/// How long after its last arrival a gang's pages are kept: the next of its machines follows at once.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// How long a machine that has arrived waits for its last pages to be written. They cross again if that is too short.
const LAST_PAGES: Duration = Duration::from_secs(2);

/// Pages in one file.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub pages: Arc<Pages>,
    pub count: u32,
}

#[derive(Debug)]
struct Gang {
    /// One for each machine.
    parts: Vec<Part>,
    last_arrival: UnixMillis,
}

impl Gang {
    fn count(&self) -> u32 {
        self.parts.iter().map(|part| part.count).fold(0, u32::saturating_add)
    }
}

/// All gangs of which machines have come here lately.
#[derive(Debug, Default)]
pub(super) struct Gangs(Mutex<HashMap<GangId, Gang>>);

impl Gangs {
    fn all(&self) -> MutexGuard<'_, HashMap<GangId, Gang>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its machines brought.
    pub fn parts(&self, gang: GangId) -> Vec<Part> {
        self.all().get(&gang).map(|gang| gang.parts.clone()).unwrap_or_default()
    }

    /// Throws away what a gang brought.
    pub fn forget(&self, gang: GangId) {
        self.all().remove(&gang);
    }

    /// Throws away what is too old.
    pub fn evict(&self, now: UnixMillis) {
        self.all().retain(|_, gang| now < gang.last_arrival.plus(KEPT_FOR));
    }

    fn count(&self, gang: GangId) -> u32 {
        self.all().get(&gang).map_or(0, Gang::count)
    }

    /// Adds what a machine brought. Beyond `room` pages, the gangs that have been quiet for longest go.
    fn add(&self, gang: GangId, part: Part, room: u32, now: UnixMillis) {
        let mut all = self.all();
        let joined = all.entry(gang).or_insert_with(|| Gang { parts: Vec::new(), last_arrival: now });
        joined.parts.push(part);
        joined.last_arrival = now;
        while all.values().map(|gang| u64::from(gang.count())).sum::<u64>() > room.into() {
            let others = all.iter().filter(|(id, _)| **id != gang);
            let Some(oldest) = others.min_by_key(|(_, gang)| gang.last_arrival).map(|(id, _)| *id) else {
                return;
            };
            all.remove(&oldest);
        }
    }
}

/// What a machine of a gang brings, while it arrives. Thrown away when it is dropped.
#[derive(Debug)]
pub struct Arriving {
    inner: Arc<Inner>,
    gang: GangId,
    pages: Arc<Pages>,
    written: oneshot::Receiver<u32>,
}

impl Arriving {
    pub(super) fn begin(inner: Arc<Inner>, gang: GangId) -> io::Result<(Self, Sink)> {
        inner.demand_reserve()?;
        let room = inner.room().saturating_sub(inner.gangs.count(gang));
        let pages = Arc::new(Pages::unnamed(&inner.folder, &super::new_key()?)?);
        let (sink, written) = sink::start(inner.clone(), room, pages.clone())?;
        Ok((Self { inner, gang, pages, written }, sink))
    }

    /// The machine has arrived, and its sink is gone: what it brought is there for those that follow.
    pub async fn share(self) {
        let Self { inner, gang, pages, written } = self;
        match timeout(LAST_PAGES, written).await {
            Ok(Ok(0)) => {}
            Ok(Ok(count)) => {
                tracing::info!(%gang, pages = count, "what it brought is kept for the rest of its gang");
                inner.gangs.add(gang, Part { pages, count }, inner.room(), (inner.now)());
            }
            late_or_failed => {
                tracing::info!(%gang, ?late_or_failed, "what it brought is not kept for its gang")
            }
        }
    }
}

/// Why nothing is kept is told in the log; the machine arrives all the same.
pub(super) fn begin(inner: &Arc<Inner>, gang: GangId) -> Option<(Arriving, Sink)> {
    let begun = Arriving::begin(inner.clone(), gang);
    begun
        .inspect_err(|error| {
            tracing::warn!(%gang, reason = describe(error), "what its machines bring is not kept for the others");
        })
        .ok()
}
