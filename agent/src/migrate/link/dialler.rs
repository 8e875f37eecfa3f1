//! Calls the target's agent: once, or until it answers.

use crate::text::describe;
use futures_util::{StreamExt, stream::FuturesUnordered};
use novacron_common::ids::HostId;
use novacron_transport::{Endpoint, Link, LinkError, Role, Sharing};
use std::{net::SocketAddr, time::Duration};
use tokio::time::{interval, timeout};

/// While the link is lost, somebody is called this often; earlier calls go on until QUIC gives them up, after 3 s. A cut
/// costs little more than itself then, and a slow handshake is not cut short.
const REDIAL_EVERY: Duration = Duration::from_millis(350);
const DIALLING_MAX: usize = 10;

/// Whom to call, and from where.
pub struct Dialler {
    endpoint: Endpoint,
    target: SocketAddr,
    role: Role,
    sharing: Sharing,
}

impl Dialler {
    /// For calls to the agent of `host`; nobody else will do. Its links share the way as `sharing` says.
    pub fn new(endpoint: Endpoint, target: SocketAddr, host: HostId, sharing: Sharing) -> Self {
        Self { endpoint, target, role: Role::Agent { host }, sharing }
    }

    /// Where it calls.
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    /// One call.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn call(&self) -> Result<Link, LinkError> {
        self.endpoint.connect_brisk(self.target, &self.role, self.sharing).await
    }

    /// Calls again and again until it answers.
    ///
    /// # Errors
    /// [`LinkError`] if somebody else does, or it is no member any more.
    pub async fn call_until_answered(&self) -> Result<Link, LinkError> {
        let (mut calls, mut again) = (FuturesUnordered::new(), interval(REDIAL_EVERY));
        loop {
            tokio::select! {
                _ = again.tick(), if calls.len() < DIALLING_MAX => calls.push(self.call()),
                Some(outcome) = calls.next() => match outcome {
                    Ok(link) => return Ok(link),
                    Err(error @ (LinkError::WrongPeer { .. } | LinkError::NotAMember(_))) => return Err(error),
                    Err(error) => tracing::debug!(reason = describe(&error), "the target does not answer"),
                },
            }
        }
    }

    /// As [`Dialler::call_until_answered`], over a way that was lost until now.
    ///
    /// What was sent while it was lost may have waited for it, as packets do whose neighbour's address is not known yet, and
    /// is answered when it is back. QUIC takes all of that for a round trip, and paces what it sends by it: of a way of 1 ms it
    /// used a thousandth for up to 1.4 s. So another call asks how long a round trip really is, for as long as the first
    /// claims, and the better of both stays.
    ///
    /// # Errors
    /// As [`Dialler::call_until_answered`].
    pub async fn call_back(&self) -> Result<Link, LinkError> {
        let first = self.call_until_answered().await?;
        let Ok(Ok(second)) = timeout(first.round_trip(), self.call()).await else { return Ok(first) };
        let (better, other) =
            if second.round_trip() < first.round_trip() { (second, first) } else { (first, second) };
        other.close("another call was answered sooner");
        Ok(better)
    }
}
