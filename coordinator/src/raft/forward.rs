//! `Forward` streams: a coordinator that does not lead proposes through the one that does. One hop only.

use super::{
    Ledger, LedgerError,
    commit::Missed,
    election,
    leadership::leads,
    ledger::Inner,
    rpc::{ForwardReply, ForwardRequest},
    transfer,
    types::NodeId,
};
use novacron_common::wire::{CoordinatorAddress, StreamKind};
use novacron_core::CommandBody;
use novacron_runtime::time::{Instant, timeout_at};
use novacron_transport::{LinkError, Role, Stream};
use std::time::Duration;

/// The leader gives up a little before its caller does, so that the caller hears why.
const SERVE_DEADLINE: Duration = Duration::from_millis(4500);

/// Asks the leader, for as long as it is taken for the leader.
pub(super) async fn ask(
    inner: &Inner,
    leader: CoordinatorAddress,
    request: &ForwardRequest,
    deadline: Instant,
) -> Result<ForwardReply, Missed> {
    let mut stream = tokio::select! {
        biased;
        opened = open(inner, &leader, request, deadline) => opened?,
        () = deposed(inner, leader.node) => return Err(Missed::Retry),
    };
    tokio::select! {
        biased;
        reply = answer(&mut stream, deadline) => reply,
        () = deposed(inner, leader.node) => Err(Missed::Final(LedgerError::Unknown)),
    }
}

/// Asks any coordinator.
pub(super) async fn exchange(
    inner: &Inner,
    peer: &CoordinatorAddress,
    request: &ForwardRequest,
    deadline: Instant,
) -> Result<ForwardReply, Missed> {
    let mut stream = open(inner, peer, request, deadline).await?;
    answer(&mut stream, deadline).await
}

/// Until the whole request is written the other cannot have acted on it.
async fn open(
    inner: &Inner,
    peer: &CoordinatorAddress,
    request: &ForwardRequest,
    deadline: Instant,
) -> Result<Stream, Missed> {
    let Some(endpoint) = &inner.endpoint else { return Err(Missed::Final(inner.no_leader())) };
    let role = Role::Coordinator { node: peer.node };
    let opened = async {
        let mut stream = endpoint.reach(peer.quic, &role).await?.open(StreamKind::Forward).await?;
        stream.send(request).await?;
        stream.finish();
        Ok::<_, LinkError>(stream)
    };
    timeout_at(deadline, opened).await.ok().and_then(Result::ok).ok_or(Missed::Retry)
}

async fn answer(stream: &mut Stream, deadline: Instant) -> Result<ForwardReply, Missed> {
    let reply = timeout_at(deadline, stream.recv()).await;
    reply.ok().and_then(Result::ok).ok_or(Missed::Final(LedgerError::Unknown))
}

/// Returns once this node no longer takes `leader` for the leader: a dead one never answers, and the transport
/// notices later than Raft does.
async fn deposed(inner: &Inner, leader: NodeId) {
    let mut metrics = inner.raft.metrics();
    let _ = metrics.wait_for(|m| m.current_leader != Some(leader)).await;
}

/// Serves one stream.
///
/// # Errors
/// [`LinkError`] if it broke.
pub(super) async fn serve(ledger: &Ledger, mut stream: Stream) -> Result<(), LinkError> {
    let request = stream.recv().await?;
    let leads = leads(&ledger.inner.raft.metrics().borrow());
    let reply = match request {
        ForwardRequest::Clock => ForwardReply::Clock(crate::identity::now()),
        ForwardRequest::Endorse { last_log } => election::answer(&ledger.inner, last_log).await,
        ForwardRequest::Campaign => transfer::campaign(&ledger.inner).await,
        _ if !leads => ForwardReply::NotLeader,
        ForwardRequest::Propose(bodies) => propose(ledger, bodies).await,
        ForwardRequest::ReadIndex => read_index(ledger).await,
        ForwardRequest::Transfer { to } => ForwardReply::Transferred(ledger.inner.transfer(to).await),
    };
    stream.send(&reply).await?;
    stream.finish();
    Ok(())
}

/// Once it is queued, only "this node does not lead" says that nothing was proposed.
async fn propose(ledger: &Ledger, bodies: Vec<CommandBody>) -> ForwardReply {
    let Ok(answered) = ledger.proposals.submit_forwarded(bodies) else { return ForwardReply::Unavailable };
    match timeout_at(Instant::now() + SERVE_DEADLINE, answered).await {
        Ok(Ok(Ok((index, outcomes)))) => ForwardReply::Applied { index, outcomes },
        Ok(Ok(Err(Missed::Retry))) => ForwardReply::NotLeader,
        Ok(Ok(Err(Missed::Final(_))) | Err(_)) | Err(_) => ForwardReply::Unknown,
    }
}

async fn read_index(ledger: &Ledger) -> ForwardReply {
    match timeout_at(Instant::now() + SERVE_DEADLINE, ledger.inner.here.index()).await {
        Ok(Ok(index)) => ForwardReply::ReadIndex(index),
        Ok(Err(Missed::Retry)) => ForwardReply::NotLeader,
        Ok(Err(Missed::Final(_))) | Err(_) => ForwardReply::Unavailable,
    }
}
