//! One request to one agent, with a deadline. Every command is idempotent, so a lost answer costs only a repeat.

use super::Agents;
use novacron_common::{
    ids::{AttemptKey, HostId, VmId},
    wire::{AgentCommand, AgentReply, ConsoleOpen, Denial, ExecOpen, StreamKind, VmAct},
};
use novacron_runtime::time::timeout;
use novacron_transport::{Link, LinkError, Role, Stream};
use serde::Serialize;
use std::time::Duration;

/// For what an agent answers from memory or after one write to its ledger.
const SHORT: Duration = Duration::from_secs(10);
/// For what makes it set up sockets, disks and relays before it answers.
const LONG: Duration = Duration::from_secs(60);
/// For measuring a guest and eight ways: three seconds and a little, and two ways at a time of which none answers. And for what
/// writes or reads a machine's memory, as long as an HTTP request may take; it is done also where nobody waits any more.
const MEASURE: Duration = Duration::from_secs(25);
/// For what makes it fetch images before it answers.
const FETCH: Duration = Duration::from_secs(600);

/// An agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The ledger knows no such host, or the host has never introduced itself.
    #[error("{0} has no known address")]
    NoAddress(HostId),
    /// No connection, or it broke before the answer.
    #[error("could not ask {host}")]
    Link {
        /// Whom.
        host: HostId,
        /// The transport's reason.
        #[source]
        cause: LinkError,
    },
    /// No answer in time.
    #[error("{host} did not answer within {} s", after.as_secs())]
    TimedOut {
        /// Whom.
        host: HostId,
        /// How long was waited.
        after: Duration,
    },
    /// The agent will not.
    #[error("{host} refused")]
    Denied {
        /// Who.
        host: HostId,
        /// The agent's reason.
        #[source]
        denial: Denial,
    },
    /// The answer is none to what was asked.
    #[error("{0} gave an answer that does not fit the question")]
    Mismatch(HostId),
}

impl CallError {
    /// Of an answer that is not the one that was asked for.
    pub(crate) fn of_answer(host: HostId, answer: AgentReply) -> Self {
        match answer {
            AgentReply::Denied(denial) => Self::Denied { host, denial },
            _ => Self::Mismatch(host),
        }
    }
}

impl Agents {
    /// Asks the agent of `host`.
    ///
    /// # Errors
    /// [`CallError`] if there was no answer; a refusal is an answer.
    pub async fn call(&self, host: HostId, command: &AgentCommand) -> Result<AgentReply, CallError> {
        let after = deadline(command);
        let asked = async {
            let mut stream = self.open(host, StreamKind::Command).await?;
            let lost = |cause| CallError::Link { host, cause };
            stream.send(command).await.map_err(lost)?;
            stream.finish();
            stream.recv::<AgentReply>().await.map_err(lost)
        };
        timeout(after, asked).await.unwrap_or(Err(CallError::TimedOut { host, after }))
    }

    /// Opens a machine's serial console: after this it is plain bytes both ways.
    ///
    /// # Errors
    /// [`CallError`] if the host cannot be asked or will not.
    pub async fn console(&self, host: HostId, vm: VmId) -> Result<Stream, CallError> {
        self.open_to(host, StreamKind::Console, &ConsoleOpen { vm }).await
    }

    /// Runs a command in a machine: after this come [`ExecInput`](novacron_common::wire::ExecInput) frames one way and
    /// [`ExecOutput`](novacron_common::wire::ExecOutput) frames the other.
    ///
    /// # Errors
    /// [`CallError`] if the host cannot be asked or will not.
    pub async fn exec(&self, host: HostId, open: &ExecOpen) -> Result<Stream, CallError> {
        self.open_to(host, StreamKind::Exec, open).await
    }

    /// What an attempt prints: after this come [`LogChunk`](novacron_common::wire::LogChunk) frames to the end.
    ///
    /// # Errors
    /// [`CallError`] if the host cannot be asked or will not.
    pub async fn attempt_log(
        &self,
        host: HostId,
        attempt: AttemptKey,
        follow: bool,
    ) -> Result<Stream, CallError> {
        self.printed(host, &AgentCommand::AttemptLog { attempt, follow }).await
    }

    /// What a machine's command prints: after this come [`LogChunk`](novacron_common::wire::LogChunk) frames to the end.
    ///
    /// # Errors
    /// [`CallError`] if the host cannot be asked or will not.
    pub async fn machine_log(
        &self,
        host: HostId,
        vm: VmId,
        lines: Option<u32>,
        follow: bool,
    ) -> Result<Stream, CallError> {
        self.printed(host, &AgentCommand::MachineLog { vm, lines, follow }).await
    }

    async fn printed(&self, host: HostId, asked: &AgentCommand) -> Result<Stream, CallError> {
        let mut stream = self.open_to(host, StreamKind::Command, asked).await?;
        stream.finish();
        Ok(stream)
    }

    /// A stream that the agent keeps open once it has accepted what was asked.
    async fn open_to<T: Serialize + Sync>(
        &self,
        host: HostId,
        kind: StreamKind,
        asked: &T,
    ) -> Result<Stream, CallError> {
        let opened = async {
            let mut stream = self.open(host, kind).await?;
            let lost = |cause| CallError::Link { host, cause };
            stream.send(asked).await.map_err(lost)?;
            match stream.recv::<AgentReply>().await.map_err(lost)? {
                AgentReply::Accepted => Ok(stream),
                other => Err(CallError::of_answer(host, other)),
            }
        };
        timeout(SHORT, opened).await.unwrap_or(Err(CallError::TimedOut { host, after: SHORT }))
    }

    async fn open(&self, host: HostId, kind: StreamKind) -> Result<Stream, CallError> {
        let lost = |cause| CallError::Link { host, cause };
        self.link(host).await?.open(kind).await.map_err(lost)
    }

    /// The link of the host's session where it is usable, else one of our own: a follower has no sessions, and a
    /// session's link ends with the certificate under which it was made.
    async fn link(&self, host: HostId) -> Result<Link, CallError> {
        if let Some(link) = self.sessions().link(host).filter(Link::is_usable) {
            return Ok(link);
        }
        let address = self.address(host).ok_or(CallError::NoAddress(host))?;
        let reached = self.endpoint().reach(address, &Role::Agent { host }).await;
        reached.map_err(|cause| CallError::Link { host, cause })
    }
}

fn deadline(command: &AgentCommand) -> Duration {
    match command {
        AgentCommand::FetchImages(_) => FETCH,
        AgentCommand::MeasureGuest { .. }
        | AgentCommand::ActOnVm { act: VmAct::Checkpoint { .. } | VmAct::Restore, .. } => MEASURE,
        AgentCommand::PrepareInbound { .. }
        | AgentCommand::StartOutbound { .. }
        | AgentCommand::CancelOutbound { .. }
        | AgentCommand::DiscardInbound { .. }
        | AgentCommand::ResumeInbound { .. }
        | AgentCommand::OpenInbound { .. }
        | AgentCommand::SplitOutbound { .. }
        | AgentCommand::AbandonInbound { .. }
        | AgentCommand::ReleaseOutbound { .. }
        | AgentCommand::RemoveVolume(_) => LONG,
        AgentCommand::AssignVm(_)
        | AgentCommand::ObserveVm(_)
        | AgentCommand::ConsoleLog { .. }
        | AgentCommand::StartAttempt(_)
        | AgentCommand::KillAttempt { .. }
        | AgentCommand::AttemptLog { .. }
        | AgentCommand::MachineLog { .. }
        | AgentCommand::ActOnVm { .. }
        | AgentCommand::CountVm(_)
        | AgentCommand::ListVolumes
        | AgentCommand::ObserveMigration(_)
        | AgentCommand::Directory(_)
        | AgentCommand::CheckInbound { .. } => SHORT,
    }
}
