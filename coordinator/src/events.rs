//! Committed changes as events, made once and handed to every client of the event stream. The queue is bounded:
//! a client that falls behind by more than [`BACKLOG`] is told so and closed, and reads the present state anew.

use crate::raft::{Committed, Ledger};
use novacron_common::api::Event;
use novacron_core::views::{self, ChangedObject};
use std::sync::Arc;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

/// Events that a client may be behind.
pub const BACKLOG: usize = 4096;

/// What a client receives.
#[derive(Debug, Clone)]
pub enum Notice {
    /// One event, as JSON.
    Event(Arc<str>),
    /// This coordinator itself missed changes: nothing that was seen before is complete any more.
    Gap,
}

/// Hands events to clients. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hub(broadcast::Sender<Notice>);

impl Default for Hub {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }
}

impl Hub {
    /// Events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Notice> {
        self.0.subscribe()
    }

    /// Turns commits into events until `stop`.
    pub async fn pump(self, ledger: Ledger, stop: CancellationToken) {
        let mut committed = ledger.committed();
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => return,
                next = committed.recv() => next,
            };
            match next {
                Ok(committed) if committed.reset => drop(self.0.send(Notice::Gap)),
                Ok(committed) => self.publish(&ledger, &committed),
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "the event stream fell behind the ledger");
                    let _ = self.0.send(Notice::Gap);
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn publish(&self, ledger: &Ledger, committed: &Committed) {
        if self.0.receiver_count() == 0 {
            return;
        }
        for change in &committed.changes {
            // The view is of the row as committed; names of other things are those of now.
            match ledger.read(|state| views::changed(state, change)) {
                Ok(Some(changed)) => self.send(event(committed, changed)),
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "a committed row cannot be shown"),
            }
        }
    }

    fn send(&self, event: Result<Event, serde_json::Error>) {
        match event.and_then(|event| serde_json::to_string(&event)) {
            Ok(text) => drop(self.0.send(Notice::Event(text.into()))),
            Err(error) => tracing::error!(%error, "an event cannot be written as JSON"),
        }
    }
}

fn event(committed: &Committed, changed: ChangedObject) -> Result<Event, serde_json::Error> {
    let object = changed.object.map(serde_json::to_value).transpose()?;
    Ok(Event { index: committed.index, at: committed.at, kind: changed.kind, id: changed.id, object })
}
