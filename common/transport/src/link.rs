//! An authenticated connection to one peer.

use crate::{LinkError, Role, RoleKind, Stream, connection::Connection, permitted};
use novacron_common::{
    units::UnixMillis,
    wire::{StreamHeader, StreamKind},
};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How long a peer may take to say what a stream is for.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);

/// Decides whether a peer is (still) a member.
pub(crate) type Gate = dyn Fn(&Role) -> bool + Send + Sync;

/// A connection whose other side has proved who it is. Cheap to clone; all clones are the same connection.
#[derive(Clone)]
pub struct Link {
    connection: Connection,
    shared: Arc<Shared>,
}

struct Shared {
    peer: Option<Role>,
    own: RoleKind,
    /// The earlier end of the two certificates.
    expires_at: UnixMillis,
    gate: Arc<Gate>,
}

/// What a link needs to know beside its connection.
pub(crate) struct LinkFacts {
    pub peer: Option<Role>,
    pub own: RoleKind,
    pub expires_at: UnixMillis,
    pub gate: Arc<Gate>,
}

impl Link {
    pub(crate) fn new(connection: Connection, facts: LinkFacts) -> Self {
        let LinkFacts { peer, own, expires_at, gate } = facts;
        Self { connection, shared: Arc::new(Shared { peer, own, expires_at, gate }) }
    }

    /// Who the other side is; `None` if it has no certificate (it may only join).
    pub fn peer(&self) -> Option<&Role> {
        self.shared.peer.as_ref()
    }

    /// Where the other side is.
    pub fn remote_address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// The current estimate of the round-trip time.
    pub fn round_trip(&self) -> Duration {
        self.connection.round_trip()
    }

    /// Whether new streams can still be opened.
    pub fn is_usable(&self) -> bool {
        !self.connection.is_closed() && self.check().is_ok()
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// [`LinkError`] if the link is closed, its certificates have expired, or the peer is no member any more.
    pub async fn open(&self, kind: StreamKind) -> Result<Stream, LinkError> {
        self.check()?;
        let opened = self.connection.open().await.map_err(|reason| self.closed_because(reason))?;
        let mut stream = Stream::new(opened);
        stream.send_header(StreamHeader::new(kind)).await?;
        Ok(stream)
    }

    /// The next stream that the peer opens and may open. One that it may not open, or that does not begin as it
    /// should, is reset and skipped, with a warning in the log.
    ///
    /// # Errors
    /// [`LinkError`] when the link is over.
    pub async fn accept(&self) -> Result<(StreamKind, Stream), LinkError> {
        loop {
            let opened = self.connection.accept().await.map_err(|reason| self.closed_because(reason))?;
            let mut stream = Stream::new(opened);
            let header = novacron_runtime::time::timeout(HEADER_DEADLINE, stream.recv_header()).await;
            match header
                .unwrap_or_else(|_| {
                    Err(LinkError::Broken { doing: "waiting for the header", reason: "too slow".into() })
                })
                .and_then(|header| self.admit(header.kind))
            {
                Ok(kind) => return Ok((kind, stream)),
                Err(error) => {
                    tracing::warn!(peer = %self.peer_name(), %error, cause = ?std::error::Error::source(&error), "stream refused");
                    if matches!(error, LinkError::NotAMember(_)) {
                        self.close("not a member");
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Closes the link; the reason is shown to the peer.
    pub fn close(&self, reason: &str) {
        self.connection.close(0, reason);
    }

    /// Waits until the link is over and says why.
    pub async fn closed(&self) -> String {
        self.connection.closed().await
    }

    /// Whether the link is over.
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// Whether it is over because one side closed it. A link that is over and was not closed was cut.
    pub fn is_closed_on_purpose(&self) -> bool {
        self.connection.is_closed_on_purpose()
    }

    fn admit(&self, kind: StreamKind) -> Result<StreamKind, LinkError> {
        self.check()?;
        if permitted(kind, self.peer().map(Role::kind), self.shared.own) {
            Ok(kind)
        } else {
            Err(LinkError::Forbidden { who: self.peer_name(), kind })
        }
    }

    fn check(&self) -> Result<(), LinkError> {
        if now() > self.shared.expires_at {
            return Err(LinkError::Expired);
        }
        match self.shared.peer {
            Some(peer) if !(self.shared.gate)(&peer) => Err(LinkError::NotAMember(peer)),
            _ => Ok(()),
        }
    }

    fn peer_name(&self) -> String {
        self.peer().map_or_else(|| "a peer without certificate".into(), Role::to_string)
    }

    fn closed_because(&self, reason: String) -> LinkError {
        LinkError::Closed { address: self.remote_address(), reason }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({} at {})", self.peer_name(), self.remote_address())
    }
}

pub(crate) fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
