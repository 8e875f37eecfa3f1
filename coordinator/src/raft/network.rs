//! Raft's RPCs over the transport: one stream an RPC, on the link that is shared with everything else.

use super::{
    ledger::Inner,
    rpc::{RaftReply, RaftRequest},
    store::Journal,
    types::{LogId, Member, NodeId, Types},
};
use novacron_common::wire::StreamKind;
use novacron_runtime::{task::JoinHandle, time::timeout};
use novacron_transport::{Endpoint, Link, LinkError, Role, Stream};
use openraft::{
    AnyError,
    error::{InstallSnapshotError, RPCError, RaftError, Unreachable},
    network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
        VoteRequest, VoteResponse,
    },
};
use std::time::Duration;

/// Pause before an unreachable peer is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// How long a message that only tells of a commit may wait until the commit is durable here: half of a heartbeat.
const COMMIT_WAIT: Duration = Duration::from_millis(50);

/// Why an RPC came to nothing.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("this coordinator has no network yet")]
    Offline,
    #[error("coordinator {0} cannot be reached")]
    Link(NodeId, #[source] LinkError),
    #[error("the dialling of coordinator {0} was stopped")]
    Stopped(NodeId),
    #[error("coordinator {0} is stopping or its store has failed")]
    Down(NodeId),
    #[error("coordinator {0} answered another question")]
    Confused(NodeId),
}

/// Makes a [`Peer`] for each other coordinator.
#[derive(Clone)]
pub(super) struct Network {
    /// `None` while a cluster is founded: a single node asks nobody.
    endpoint: Option<Endpoint>,
    journal: Journal,
}

impl Network {
    pub fn new(endpoint: Option<Endpoint>, journal: Journal) -> Self {
        Self { endpoint, journal }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &Member) -> Peer {
        let (endpoint, journal) = (self.endpoint.clone(), self.journal.clone());
        Peer { endpoint, journal, node: target, member: *node, dialling: None }
    }
}

/// The way to one other coordinator.
pub(super) struct Peer {
    endpoint: Option<Endpoint>,
    journal: Journal,
    node: NodeId,
    member: Member,
    /// Dialling goes on when openraft gives up an RPC, whose deadline is shorter than a slow handshake.
    dialling: Option<JoinHandle<Result<Link, LinkError>>>,
}

impl Peer {
    async fn link(&mut self) -> Result<Link, CallError> {
        let endpoint = self.endpoint.clone().ok_or(CallError::Offline)?;
        let (address, role) = (self.member.quic, Role::Coordinator { node: self.node });
        let dialling = self.dialling.get_or_insert_with(|| {
            novacron_runtime::spawn(async move { endpoint.reach(address, &role).await })
        });
        let dialled = dialling.await;
        self.dialling = None;
        dialled.map_err(|_| CallError::Stopped(self.node))?.map_err(|e| CallError::Link(self.node, e))
    }

    /// What the other may be told of a commit: openraft counts this node for entries that are not yet durable here.
    async fn tellable(&self, rpc: &AppendEntriesRequest<Types>) -> Option<LogId> {
        let committed = rpc.leader_commit?;
        // Entries need not wait: the commit goes with the next message.
        if rpc.entries.is_empty() {
            let _ = timeout(COMMIT_WAIT, self.journal.synced(committed.index)).await;
        }
        self.journal.durable_part(Some(committed))
    }

    async fn call(&mut self, request: RaftRequest) -> Result<RaftReply, CallError> {
        let link = self.link().await?;
        exchange(&link, &request).await.map_err(|e| CallError::Link(self.node, e))
    }
}

async fn exchange(link: &Link, request: &RaftRequest) -> Result<RaftReply, LinkError> {
    let mut stream = link.open(StreamKind::Raft).await?;
    stream.send(request).await?;
    stream.finish();
    stream.recv().await
}

type RpcResult<T, E = RaftError<NodeId>> = Result<T, RPCError<NodeId, Member, E>>;

fn unreachable<E: std::error::Error>(error: &CallError) -> RPCError<NodeId, Member, E> {
    tracing::debug!(%error, cause = ?std::error::Error::source(error), "a Raft RPC failed");
    RPCError::Unreachable(Unreachable::new(&AnyError::new(error)))
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        mut rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<NodeId>> {
        rpc.leader_commit = self.tellable(&rpc).await;
        match self.call(RaftRequest::Append(rpc)).await {
            Ok(RaftReply::Append(response)) => Ok(response),
            other => Err(unreachable(&self.explain(other))),
        }
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> RpcResult<InstallSnapshotResponse<NodeId>, RaftError<NodeId, InstallSnapshotError>> {
        match self.call(RaftRequest::Snapshot(rpc)).await {
            Ok(RaftReply::Snapshot(response)) => Ok(response),
            Ok(RaftReply::Mismatch(mismatch)) => {
                let error = RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch));
                Err(RPCError::RemoteError(openraft::error::RemoteError::new(self.node, error)))
            }
            other => Err(unreachable(&self.explain(other))),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<NodeId>,
        _option: RPCOption,
    ) -> RpcResult<VoteResponse<NodeId>> {
        match self.call(RaftRequest::Vote(rpc)).await {
            Ok(RaftReply::Vote(response)) => Ok(response),
            other => Err(unreachable(&self.explain(other))),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY))
    }
}

impl Peer {
    fn explain(&self, outcome: Result<RaftReply, CallError>) -> CallError {
        match outcome {
            Err(error) => error,
            Ok(RaftReply::Down) => CallError::Down(self.node),
            Ok(_) => CallError::Confused(self.node),
        }
    }
}

/// Serves one `Raft` stream of coordinator `peer`.
///
/// # Errors
/// [`LinkError`] if the stream broke; the peer asks again.
pub(super) async fn serve(inner: &Inner, peer: NodeId, mut stream: Stream) -> Result<(), LinkError> {
    let request: RaftRequest = stream.recv().await?;
    // A coordinator speaks for itself only: a vote or an entry in another's name would be a forgery.
    if request.sender() != Some(peer) {
        tracing::warn!(peer, claimed = ?request.sender(), "a Raft request in another coordinator's name was refused");
        return Ok(());
    }
    let reply = answer(inner, request).await;
    stream.send(&reply).await?;
    stream.finish();
    Ok(())
}

async fn answer(inner: &Inner, request: RaftRequest) -> RaftReply {
    let raft = &inner.raft;
    match request {
        RaftRequest::Append(rpc) => append(inner, rpc).await.map_or(RaftReply::Down, RaftReply::Append),
        RaftRequest::Vote(rpc) => raft.vote(rpc).await.map_or(RaftReply::Down, RaftReply::Vote),
        RaftRequest::Snapshot(rpc) => match raft.install_snapshot(rpc).await {
            Ok(response) => RaftReply::Snapshot(response),
            Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch))) => {
                RaftReply::Mismatch(mismatch)
            }
            Err(RaftError::Fatal(_)) => RaftReply::Down,
        },
    }
}

/// Takes entries, and acknowledges them when they are durable. `None` if this node is stopping, or if it has heard of
/// another leader meanwhile: what would be acknowledged may not be there any more.
async fn append(inner: &Inner, rpc: AppendEntriesRequest<Types>) -> Option<AppendEntriesResponse<NodeId>> {
    let (vote, last) = (rpc.vote, rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id));
    let response = inner.raft.append_entries(rpc).await.ok()?;
    let matching = match response {
        AppendEntriesResponse::Success => last,
        AppendEntriesResponse::PartialSuccess(matching) => matching,
        AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => None,
    };
    match matching {
        Some(id) => inner.log.journal().kept(id.index, vote).await.ok()?.then_some(response),
        None => Some(response),
    }
}
