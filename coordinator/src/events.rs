//! Committed changes as events, made once and handed to every client of the event stream.
//!
//! An event's [`Place`] is the same on every coordinator: a client that was cut off goes on behind the last one it
//! saw, at any of them. Each keeps the last entries that it applied, bounded in number and bytes; whoever comes back
//! later than that is told of the gap and reads the lists anew. The live queue is bounded too: a client that falls
//! behind by more than [`BACKLOG`] entries is closed, and resumes.

use crate::raft::{Committed, Ledger};
use novacron_common::{
    api::{Event, EventKind},
    units::UnixMillis,
};
use novacron_core::views::{self, ChangedObject};
use std::{
    collections::VecDeque,
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

/// Entries that a client may be behind.
pub const BACKLOG: usize = 4096;
/// Entries that are kept for clients that come back.
const KEPT_MAX: usize = 16 * 1024;
/// Bytes of rows in them.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// Where an event is: its entry in the log, and its place among the entry's changes. Shown as `index.ordinal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The entry's index.
    pub index: u64,
    /// Which of its changes.
    pub ordinal: u32,
}

impl Place {
    /// Behind everything in the entry at `index`.
    const fn behind(index: u64) -> Self {
        Self { index, ordinal: u32::MAX }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.ordinal)
    }
}

/// A text that is no event's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no event's token: give the `token` of the last event that you saw")]
pub struct BadPlace;

impl FromStr for Place {
    type Err = BadPlace;
    fn from_str(text: &str) -> Result<Self, BadPlace> {
        let (index, ordinal) = text.split_once('.').ok_or(BadPlace)?;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        match (digits(index) && digits(ordinal), index.parse(), ordinal.parse()) {
            (true, Ok(index), Ok(ordinal)) => Ok(Self { index, ordinal }),
            _ => Err(BadPlace),
        }
    }
}

/// One event as it is sent.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// Where it is.
    pub place: Place,
    /// As JSON.
    pub text: Arc<str>,
}

/// What a client receives.
#[derive(Debug, Clone)]
pub enum Notice {
    /// The events of one entry.
    Events(Arc<[Rendered]>),
    /// This coordinator itself missed changes: nothing that was seen before is complete any more.
    Gap,
}

/// The last entries.
#[derive(Debug, Default)]
struct Kept {
    entries: VecDeque<Arc<Committed>>,
    bytes: usize,
    /// Every change behind this index is in `entries`. `None` while that is not known.
    complete_behind: Option<u64>,
}

fn bytes_of(entry: &Committed) -> usize {
    entry.changes.iter().map(|change| change.key.len() + change.value.as_ref().map_or(0, Vec::len)).sum()
}

impl Kept {
    fn push(&mut self, entry: &Arc<Committed>) {
        self.complete_behind.get_or_insert(entry.index.saturating_sub(1));
        if entry.changes.is_empty() {
            return;
        }
        self.bytes += bytes_of(entry);
        self.entries.push_back(entry.clone());
        while self.entries.len() > KEPT_MAX || self.bytes > KEPT_BYTES_MAX {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.bytes -= bytes_of(&oldest);
            self.complete_behind = Some(oldest.index);
        }
    }

    fn forget(&mut self, complete_behind: Option<u64>) {
        *self = Self { complete_behind, ..Self::default() };
    }

    /// The entries that a client needs who has seen everything up to `seen`; `None` if some are gone.
    fn since(&self, seen: Place) -> Option<Vec<Arc<Committed>>> {
        let behind = self.complete_behind?;
        // Of an entry of which it has seen a part, the rest is needed.
        let has_all_of_it = seen.ordinal == u32::MAX && seen.index == behind;
        (seen.index > behind || has_all_of_it)
            .then(|| self.entries.iter().filter(|e| e.index >= seen.index).cloned().collect())
    }
}

/// What a client gets first.
pub struct Subscription {
    /// Entries that it missed; `None` if they are not kept any more.
    pub missed: Option<Vec<Arc<Committed>>>,
    /// What comes from now on. Events up to the place that the client has seen may come again.
    pub live: broadcast::Receiver<Notice>,
}

/// Hands events to clients. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hub {
    live: broadcast::Sender<Notice>,
    kept: Arc<Mutex<Kept>>,
}

impl Default for Hub {
    fn default() -> Self {
        Self { live: broadcast::Sender::new(BACKLOG), kept: Arc::default() }
    }
}

impl Hub {
    /// Events from now on, or behind `seen`.
    pub fn subscribe(&self, seen: Option<Place>) -> Subscription {
        // Under the lock, nothing falls between what is kept and what comes.
        let kept = self.kept();
        let missed = seen.map_or_else(|| Some(Vec::new()), |seen| kept.since(seen));
        Subscription { missed, live: self.live.subscribe() }
    }

    /// What tells a client that it has missed events.
    pub fn gap(&self, ledger: &Ledger) -> Option<Rendered> {
        let index = self.kept().complete_behind.unwrap_or_else(|| ledger.status().applied);
        let place = Place::behind(index);
        let object = serde_json::json!({
            "reason": "events before this one are not kept any more",
            "fix": "read the lists, then go on from here",
        });
        let at = ledger.read(novacron_core::State::now);
        let event = Event {
            index,
            at,
            token: place.to_string(),
            kind: EventKind::Gap,
            id: String::new(),
            object: Some(object),
        };
        Some(Rendered { place, text: text(&event)? })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Turns commits into events until `stop`.
    pub async fn pump(self, ledger: Ledger, stop: CancellationToken) {
        let mut committed = ledger.committed();
        // Whatever is applied from here on is received.
        self.kept().forget(Some(ledger.status().applied));
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => return,
                next = committed.recv() => next,
            };
            match next {
                Ok(committed) if committed.reset => self.lose(Some(committed.index)),
                Ok(committed) => self.publish(&ledger, &committed),
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "the event stream fell behind the ledger");
                    self.lose(None);
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn lose(&self, complete_behind: Option<u64>) {
        let mut kept = self.kept();
        kept.forget(complete_behind);
        let _ = self.live.send(Notice::Gap);
    }

    fn publish(&self, ledger: &Ledger, committed: &Arc<Committed>) {
        let somebody_listens = self.live.receiver_count() > 0;
        let events = if somebody_listens { render(ledger, committed) } else { Vec::new() };
        let mut kept = self.kept();
        kept.push(committed);
        // Somebody who came meanwhile finds the entry among the kept ones, or here.
        let events = match self.live.receiver_count() > 0 && !somebody_listens {
            true => render(ledger, committed),
            false => events,
        };
        if !events.is_empty() {
            let _ = self.live.send(Notice::Events(events.into()));
        }
    }
}

/// An entry's events. The view is of the row as committed; names of other things are those of now.
pub fn render(ledger: &Ledger, committed: &Committed) -> Vec<Rendered> {
    let mut events = Vec::new();
    for (ordinal, change) in (0..).zip(&committed.changes) {
        let place = Place { index: committed.index, ordinal };
        match ledger.read(|state| views::changed(state, change)) {
            Ok(Some(changed)) => events.extend(rendered(place, committed.at, changed)),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "a committed row cannot be shown"),
        }
    }
    events
}

fn rendered(place: Place, at: UnixMillis, changed: ChangedObject) -> Option<Rendered> {
    let object = match changed.object.map(serde_json::to_value).transpose() {
        Ok(object) => object,
        Err(error) => {
            tracing::error!(%error, "an event cannot be written as JSON");
            return None;
        }
    };
    let (index, token) = (place.index, place.to_string());
    let event = Event { index, at, token, kind: changed.kind, id: changed.id, object };
    Some(Rendered { place, text: text(&event)? })
}

fn text(event: &Event) -> Option<Arc<str>> {
    match serde_json::to_string(event) {
        Ok(text) => Some(text.into()),
        Err(error) => {
            tracing::error!(%error, "an event cannot be written as JSON");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_core::{Change, TableId};

    fn entry(index: u64, length: usize) -> Arc<Committed> {
        let change = |key| Change { table: TableId::Jobs, key: vec![key], value: Some(vec![0; length]) };
        Arc::new(Committed { index, at: UnixMillis(0), changes: vec![change(1), change(2)], reset: false })
    }

    fn indexes(kept: &Kept, index: u64, ordinal: u32) -> Option<Vec<u64>> {
        Some(kept.since(Place { index, ordinal })?.iter().map(|e| e.index).collect())
    }

    #[test]
    fn a_place_is_read_back_and_nothing_else_is_one() {
        let place = Place { index: 42, ordinal: 7 };
        assert_eq!(place.to_string().parse(), Ok(place));
        for bad in ["", "42", "42.", ".7", "-1.0", "+1.0", "1.2.3", "a.b", "18446744073709551616.0"] {
            assert_eq!(bad.parse::<Place>(), Err(BadPlace), "{bad}");
        }
    }

    #[test]
    fn who_comes_back_gets_what_was_missed_and_the_rest_of_an_entry() {
        let mut kept = Kept::default();
        assert_eq!(indexes(&kept, 5, 0), None, "nothing is known yet");
        kept.forget(Some(10));
        for index in [11, 13, 14] {
            kept.push(&entry(index, 1));
        }
        assert_eq!(indexes(&kept, 13, 0), Some(vec![13, 14]));
        assert_eq!(indexes(&kept, 11, 1), Some(vec![11, 13, 14]));
        assert_eq!(indexes(&kept, 10, u32::MAX), Some(vec![11, 13, 14]));
        assert_eq!(indexes(&kept, 10, 0), None, "the rest of entry 10 is not kept");
        assert_eq!(indexes(&kept, 99, 0), Some(vec![]), "this coordinator is behind: it comes live");
    }

    #[test]
    fn what_is_kept_is_bounded_in_number_and_bytes() {
        let mut kept = Kept::default();
        for index in 1..=KEPT_MAX as u64 + 10 {
            kept.push(&entry(index, 1));
        }
        assert_eq!(kept.entries.len(), KEPT_MAX);
        assert_eq!(indexes(&kept, 5, 0), None);
        assert!(indexes(&kept, 11, 0).is_some());
        for index in 100_000..100_100 {
            kept.push(&entry(index, 1 << 20));
        }
        assert!(kept.bytes <= KEPT_BYTES_MAX && kept.entries.len() < 20);
        assert_eq!(kept.bytes, kept.entries.iter().map(|e| bytes_of(e)).sum::<usize>());
    }

    #[test]
    fn after_a_loss_everything_older_is_a_gap() {
        let mut kept = Kept::default();
        kept.forget(Some(0));
        kept.push(&entry(5, 1));
        kept.forget(None);
        assert_eq!(indexes(&kept, 5, 1), None);
        kept.push(&entry(9, 1));
        assert_eq!(indexes(&kept, 5, 1), None);
        assert_eq!(indexes(&kept, 9, 0), Some(vec![9]));
    }
}
