//! What the parts of a coordinator share, and the seam between the accept loop and the agents' streams.

use crate::{
    config::Config,
    identity::{Authority, HttpsCertificate},
    raft::Ledger,
};
use async_trait::async_trait;
use novacron_common::{ids::ClusterId, wire::StreamKind};
use novacron_transport::{Endpoint, Link, Stream};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Made once by [`crate::run`], after the ledger is open and the endpoint bound. Cheap to clone.
#[derive(Clone)]
pub struct Parts {
    /// The checked configuration.
    pub config: Arc<Config>,
    /// The cluster.
    pub cluster: ClusterId,
    /// This coordinator's Raft node number.
    pub node: u64,
    /// The replicated ledger.
    pub ledger: Ledger,
    /// QUIC to agents and to the other coordinators.
    pub endpoint: Endpoint,
    /// Issues certificates and makes tokens.
    pub authority: Authority,
    /// The certificate of the HTTPS API; empty until the ledger has reached this node.
    pub https: Arc<HttpsCertificate>,
    /// Cancelled once, when the process is to stop.
    pub stop: CancellationToken,
}

/// Who serves the streams that agents open (`Session`, `Control`) and what any member opens to gossip (`Gossip`). The
/// link has proved its role and the transport has checked that the role may open such a stream.
#[async_trait]
pub trait AgentStreams: Send + Sync + 'static {
    /// Serves one stream to its end. Called on a task of its own.
    async fn serve(&self, link: Link, kind: StreamKind, stream: Stream);
}
