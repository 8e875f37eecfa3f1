//! The lanes of a migration as an agent leaves them to its successor: what each connection has under way, and descriptors for
//! the sockets, by their number.

use crate::migrate::link::saved::SavedLane;
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;

/// Descriptors that a successor gets; what is saved names them by number.
#[derive(Debug, Default)]
pub struct Descriptors(Vec<Option<OwnedFd>>);

impl Descriptors {
    /// Those that a predecessor left, in order.
    pub fn of(all: impl IntoIterator<Item = OwnedFd>) -> Self {
        Self(all.into_iter().map(Some).collect())
    }

    /// Adds one; returns its number.
    pub fn put(&mut self, descriptor: OwnedFd) -> u32 {
        self.0.push(Some(descriptor));
        u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX)
    }

    /// Takes one out; `None` if there is none of this number (any more).
    pub fn take(&mut self, number: u32) -> Option<OwnedFd> {
        self.0.get_mut(usize::try_from(number).ok()?)?.take()
    }

    /// All of them, in order.
    pub fn into_all(self) -> impl Iterator<Item = OwnedFd> {
        self.0.into_iter().flatten()
    }
}

/// One connection; what is under way between socket and lane is `T`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedConnection<T> {
    /// Its lane.
    pub lane: SavedLane,
    /// Its socket's number, and what is under way; `None` if only the peer has yet to hear the end.
    pub socket: Option<(u32, T)>,
}

/// One connection on its way out of a process.
#[derive(Debug)]
pub struct LeftConnection<T> {
    /// Its lane.
    pub lane: SavedLane,
    /// As in [`SavedConnection`].
    pub socket: Option<(OwnedFd, T)>,
}

impl<T> LeftConnection<T> {
    /// With its socket among the others.
    pub fn put(self, into: &mut Descriptors) -> SavedConnection<T> {
        let socket = self.socket.map(|(descriptor, traffic)| (into.put(descriptor), traffic));
        SavedConnection { lane: self.lane, socket }
    }
}

/// What a predecessor left cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum NotResumed {
    /// It contradicts itself, or another version left it.
    #[error("what the predecessor left of {0} cannot be read")]
    Unreadable(&'static str),
    /// A descriptor is missing, or is something else.
    #[error("a socket that the predecessor left is gone")]
    Socket,
    /// The system's reason.
    #[error("a socket that the predecessor left cannot be used")]
    Io(#[from] std::io::Error),
}
