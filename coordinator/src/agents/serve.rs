//! The seam to the accept loop: each stream that an agent opens, and each message of the gossip, goes to its handler.

use super::Agents;
use crate::AgentStreams;
use async_trait::async_trait;
use novacron_common::{ids::HostId, wire::StreamKind};
use novacron_transport::{Link, LinkError, Role, Stream};

/// A stream ended otherwise than it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    /// The transport's reason.
    #[error("the stream failed")]
    Link(#[from] LinkError),
    /// Nothing came in time.
    #[error("nothing came within {0} s")]
    Silent(u64),
    /// The ledger could not be asked.
    #[error("the ledger could not take it")]
    Ledger(#[from] crate::raft::LedgerError),
}

#[async_trait]
impl AgentStreams for Agents {
    async fn serve(&self, link: Link, kind: StreamKind, stream: Stream) {
        // Every member gossips with every other: coordinators hear of each other through the agents, or greet.
        if kind == StreamKind::Gossip {
            return self.hear_gossip(&link, stream).await;
        }
        let Some(Role::Agent { host }) = link.peer().copied() else {
            tracing::warn!(%kind, "a stream for agents came from another role");
            return;
        };
        let served = match kind {
            StreamKind::Session => self.serve_session(&link, stream, host).await,
            StreamKind::Control => self.serve_control(stream, host).await,
            other => {
                tracing::warn!(kind = %other, %host, "a stream of this kind is not served here");
                return;
            }
        };
        if let Err(error) = served {
            log(kind, host, &error);
        }
    }
}

impl Agents {
    /// Before this node has begun to gossip, a message is lost, as any may be.
    async fn hear_gossip(&self, link: &Link, stream: Stream) {
        if let Some(gossip) = self.0.gossip.get() {
            gossip.receive(link, stream).await;
        }
    }
}

fn log(kind: StreamKind, host: HostId, error: &StreamError) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::debug!(%kind, %host, %error, cause, "stream ended");
}
