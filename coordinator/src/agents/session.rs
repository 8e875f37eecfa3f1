//! A session: the agent's hello, then its periodic status; the coordinator answers with the directory and keeps
//! it current. Its end is how a host's loss is noticed.

use super::{Agents, SessionNumber, ingest, serve::StreamError};
use crate::{identity::now, raft::Leadership};
use novacron_common::{
    ids::HostId,
    record::{HostHello, HostStatus},
    wire::{Directory, SessionOpened},
};
use novacron_core::{Applied, CommandBody};
use novacron_transport::{Link, RecvHalf, SendHalf, Stream};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long an agent may take to say who it is.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// Status comes every second or two; an agent that is silent this long hangs, although its link lives.
const STATUS_DEADLINE: Duration = Duration::from_secs(15);

impl Agents {
    pub(super) async fn serve_session(
        &self,
        link: &Link,
        mut stream: Stream,
        host: HostId,
    ) -> Result<(), StreamError> {
        let hello = novacron_runtime::time::timeout(HELLO_DEADLINE, stream.recv::<HostHello>()).await;
        let hello = hello.map_err(|_| StreamError::Silent(HELLO_DEADLINE.as_secs()))??;
        if let Some(answer) = self.refuse(&hello, host).await? {
            stream.send(&answer).await?;
            stream.finish();
            return Ok(());
        }
        let number = self.0.sessions.open(host, link.clone());
        let _registered = Registered { agents: self, host, number };
        self.heard_from(host);
        tracing::info!(%host, name = %hello.name, session = ?number, "an agent's session begins");
        self.converse(link, stream, host).await
    }

    /// Commits the hello. The answer to give if there is to be no session.
    async fn refuse(&self, hello: &HostHello, host: HostId) -> Result<Option<SessionOpened>, StreamError> {
        if hello.host != host {
            let text = format!("the hello names {}, the certificate {host}", hello.host);
            return Ok(Some(SessionOpened::Refused(text)));
        }
        if let Leadership::Follower { leader } = self.0.ledger.leadership().borrow().clone() {
            return Ok(Some(SessionOpened::NotLeader(leader)));
        }
        match self.0.ledger.propose(CommandBody::HostHello(Box::new(hello.clone()))).await? {
            Applied::Refused(refusal) => Ok(Some(SessionOpened::Refused(refusal.cause))),
            _ => Ok(None),
        }
    }

    /// Reads status and writes the directory until either side ends it.
    async fn converse(&self, link: &Link, stream: Stream, host: HostId) -> Result<(), StreamError> {
        let (send, recv) = stream.split();
        tokio::select! {
            biased;
            read = self.read_status(link, recv, host) => read,
            written = write_directory(send, self.0.directory.subscribe(), host) => written,
            reason = link.closed() => {
                tracing::debug!(%host, reason, "the session's link closed");
                Ok(())
            }
            // Also if that happened between the hello's commit and here: a session with a follower would keep the
            // agent from the leader, for whom the host is silent, for as long as the link lives.
            () = deposed(self.0.ledger.leadership()) => {
                link.close("this coordinator does not lead any more");
                Ok(())
            }
        }
    }

    async fn read_status(&self, link: &Link, mut recv: RecvHalf, host: HostId) -> Result<(), StreamError> {
        let mut memory = ingest::Memory::default();
        loop {
            let status =
                novacron_runtime::time::timeout(STATUS_DEADLINE, recv.recv_opt::<HostStatus>()).await;
            let Some(status) = status.map_err(|_| StreamError::Silent(STATUS_DEADLINE.as_secs()))?? else {
                return Ok(());
            };
            self.heard_from(host);
            let commands = self.0.ledger.read(|state| memory.differences(state, host, &status, now()));
            if !commands.is_empty() {
                self.0.ledger.propose(CommandBody::Batch(commands)).await?;
            }
            if !link.is_usable() {
                link.close("this link may not be used any more: dial again with a newer certificate");
                return Ok(());
            }
        }
    }
}

/// Ready once this coordinator does not lead.
async fn deposed(mut leadership: watch::Receiver<Leadership>) {
    // Without a sender the ledger has stopped, and leads no more either.
    let _ = leadership.wait_for(|now| !now.is_leader()).await;
}

/// Takes the session off the list however it ends: with the link, this task is simply dropped.
struct Registered<'a> {
    agents: &'a Agents,
    host: HostId,
    number: SessionNumber,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.agents.sessions().close(self.host, self.number, Instant::now());
        tracing::info!(host = %self.host, session = ?self.number, "an agent's session ended");
    }
}

async fn write_directory(
    mut send: SendHalf,
    mut directory: watch::Receiver<Directory>,
    host: HostId,
) -> Result<(), StreamError> {
    let first = without(directory.borrow_and_update().clone(), host);
    send.send(&SessionOpened::Welcome(first)).await?;
    while directory.changed().await.is_ok() {
        let next = without(directory.borrow_and_update().clone(), host);
        send.send(&next).await?;
    }
    send.finish();
    Ok(())
}

/// The directory names the *other* hosts.
fn without(mut directory: Directory, host: HostId) -> Directory {
    directory.hosts.retain(|peer| peer.host != host);
    directory
}
