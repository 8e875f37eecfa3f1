//! Which agents are connected to this coordinator, and since when the others are not.

use novacron_common::ids::HostId;
use novacron_transport::Link;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// The sessions of this coordinator.
#[derive(Debug)]
pub struct Sessions {
    table: Mutex<Table>,
    /// Counts openings and ends; reconcilers wait on it.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: HashMap<HostId, Open>,
    /// When the last session of a host ended.
    ended: HashMap<HostId, Instant>,
}

#[derive(Debug, Clone)]
struct Open {
    number: SessionNumber,
    link: Link,
}

/// Why a host has no session, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Its session ended.
    Lost(Duration),
    /// It had none since this coordinator began to lead.
    NotYetHeard(Duration),
}

/// One session; a new one of the same host has a higher number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionNumber(u64);

#[cfg(test)]
impl SessionNumber {
    /// For tests of what does not need the session itself.
    pub const fn of_test(number: u64) -> Self {
        Self(number)
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self { table: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

impl Sessions {
    /// Notes a session. An older one of the same host is closed: the agent has dialled again.
    pub fn open(&self, host: HostId, link: Link) -> SessionNumber {
        let mut table = self.lock();
        table.next += 1;
        let number = SessionNumber(table.next);
        table.ended.remove(&host);
        let older = table.open.insert(host, Open { number, link });
        drop(table);
        if let Some(older) = older {
            older.link.close("a newer session took over");
        }
        self.changed();
        number
    }

    /// Notes a session's end, unless a newer one has taken over.
    pub fn close(&self, host: HostId, number: SessionNumber, now: Instant) {
        let mut table = self.lock();
        if table.open.get(&host).is_some_and(|open| open.number == number) {
            table.open.remove(&host);
            table.ended.insert(host, now);
            drop(table);
            self.changed();
        }
    }

    /// The link of a host's session.
    pub fn link(&self, host: HostId) -> Option<Link> {
        self.lock().open.get(&host).map(|open| open.link.clone())
    }

    /// The session of a host.
    pub fn current(&self, host: HostId) -> Option<SessionNumber> {
        self.lock().open.get(&host).map(|open| open.number)
    }

    /// How `host` is silent; `None` while it has a session. `began` is when this coordinator began to lead: what
    /// was before that is not this one's to judge.
    pub fn silence(&self, host: HostId, began: Instant, now: Instant) -> Option<Silence> {
        let table = self.lock();
        if table.open.contains_key(&host) {
            return None;
        }
        Some(match table.ended.get(&host) {
            Some(ended) if *ended >= began => Silence::Lost(now.duration_since(*ended)),
            _ => Silence::NotYetHeard(now.duration_since(began)),
        })
    }

    /// Fires after each opening and each end.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_a_session_counts_from_when_we_began_to_lead() {
        let (sessions, host) = (Sessions::default(), HostId::from_u128(1));
        let before = Instant::now();
        let began = before + Duration::from_secs(1);
        let later = began + Duration::from_secs(7);
        assert_eq!(sessions.silence(host, began, later), Some(Silence::NotYetHeard(Duration::from_secs(7))));
        sessions.lock().ended.insert(host, before);
        assert_eq!(sessions.silence(host, began, later), Some(Silence::NotYetHeard(Duration::from_secs(7))));
        sessions.lock().ended.insert(host, began + Duration::from_secs(5));
        assert_eq!(sessions.silence(host, began, later), Some(Silence::Lost(Duration::from_secs(2))));
    }
}
