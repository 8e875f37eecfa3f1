//! `Forward` streams: a coordinator that does not lead proposes through the one that does. One hop only.

use super::{
    Ledger, LedgerError,
    commit::Missed,
    leadership::leads,
    ledger::Inner,
    rpc::{ForwardReply, ForwardRequest},
    types::NodeId,
};
use novacron_common::wire::{CoordinatorAddress, StreamKind};
use novacron_core::CommandBody;
use novacron_runtime::time::{Instant, timeout_at};
use novacron_transport::{LinkError, Role, Stream};
use std::time::Duration;

/// The leader gives up a little before its caller does, so that the caller hears why.
const SERVE_DEADLINE: Duration = Duration::from_millis(4500);

/// Asks the leader.
pub(super) async fn ask(
    inner: &Inner,
    leader: CoordinatorAddress,
    request: &ForwardRequest,
    deadline: Instant,
) -> Result<ForwardReply, Missed> {
    let Some(endpoint) = &inner.endpoint else { return Err(Missed::Final(LedgerError::NoLeader)) };
    let role = Role::Coordinator { node: leader.node };
    // Until the whole request is written the leader cannot have acted on it.
    let opened = async {
        let mut stream = endpoint.reach(leader.quic, &role).await?.open(StreamKind::Forward).await?;
        stream.send(request).await?;
        stream.finish();
        Ok::<_, LinkError>(stream)
    };
    let mut stream = tokio::select! {
        biased;
        opened = timeout_at(deadline, opened) => opened.ok().and_then(Result::ok).ok_or(Missed::Retry)?,
        () = deposed(inner, leader.node) => return Err(Missed::Retry),
    };
    let unknown = Missed::Final(LedgerError::Unknown);
    tokio::select! {
        biased;
        reply = timeout_at(deadline, stream.recv()) => reply.ok().and_then(Result::ok).ok_or(unknown),
        () = deposed(inner, leader.node) => Err(unknown),
    }
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
        _ if !leads => ForwardReply::NotLeader,
        ForwardRequest::Propose(bodies) => propose(ledger, bodies).await,
        ForwardRequest::ReadIndex => read_index(ledger).await,
    };
    stream.send(&reply).await?;
    stream.finish();
    Ok(())
}

/// As one entry of its own, and never forwarded a second time: two nodes that each think the other leads would
/// pass it back and forth.
async fn propose(ledger: &Ledger, bodies: Vec<CommandBody>) -> ForwardReply {
    let deadline = Instant::now() + SERVE_DEADLINE;
    let committed = ledger.inner.commit_here(bodies, deadline).await;
    match committed {
        Ok(applied) => ForwardReply::Applied(applied),
        Err(Missed::Retry) => ForwardReply::NotLeader,
        Err(Missed::Final(LedgerError::Unknown)) => ForwardReply::Unknown,
        Err(Missed::Final(_)) => ForwardReply::Unavailable,
    }
}

async fn read_index(ledger: &Ledger) -> ForwardReply {
    match ledger.inner.read_index(Instant::now() + SERVE_DEADLINE).await {
        Ok(index) => ForwardReply::ReadIndex(index),
        Err(_) => ForwardReply::Unavailable,
    }
}
