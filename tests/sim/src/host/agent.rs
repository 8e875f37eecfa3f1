//! One life of a host's agent: it keeps a session, admits attempts with the shipped admission, table, leases and
//! journal of fences, and reports their ends until they are acknowledged.

mod leases;
mod session;

use super::{Host, Running, supervisor::end};
use crate::{cluster::stream_served, moves::yard::Yard};
use novacron_agent::attempt::{
    AttemptError,
    admission::Fence,
    fence::Fences,
    lease::LiveLease,
    table::{Live, Table},
};
use novacron_common::{
    ids::AttemptKey,
    record::{AttemptOutcome, AttemptReport},
    units::Epoch,
    wire::{AgentCommand, AgentReply, AttemptStart, ControlRequest, Denial, DenialCode, StreamKind},
};
use novacron_runtime::{
    spawn,
    time::{sleep, timeout},
};
use novacron_transport::{Endpoint, Link, LinkError, Role, Stream};
use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// Attempts at once on a host.
const ATTEMPTS_MAX: u32 = 64;
/// Between two tries to report an end.
const REPORT_AGAIN: Duration = Duration::from_millis(500);
/// How long a report may take.
const REPORT_DEADLINE: Duration = Duration::from_secs(10);

/// One life of the agent.
#[derive(Clone)]
pub(super) struct Agent {
    host: Host,
    endpoint: Endpoint,
    books: Arc<Books>,
    /// The session's link.
    link: Arc<watch::Sender<Option<Link>>>,
    /// What it has of virtual machines.
    yard: Option<Yard>,
}

struct Books {
    fences: Fences,
    table: Mutex<Table>,
    lease_wanted: Notify,
}

impl Agent {
    /// Runs until its machine is crashed.
    pub(super) async fn live(host: Host, endpoint: Endpoint) {
        let books = Arc::new(open_books(&host, &host.journal()));
        let link = Arc::new(watch::Sender::new(None));
        let disk = host.executor.disk(host.agent);
        let yard = host.moving().map(|moving| moving.open(&endpoint, link.subscribe(), &disk));
        let agent = Self { host, endpoint, books, link, yard };
        spawn(agent.clone().report());
        spawn(agent.clone().keep_leases());
        spawn(agent.clone().keep_session());
        while let Some(link) = agent.endpoint.accept().await {
            spawn(agent.clone().serve(link));
        }
    }

    async fn serve(self, link: Link) {
        while let Ok((kind, stream)) = link.accept().await {
            match (kind, &self.yard, link.peer().copied()) {
                (StreamKind::Command, ..) => {
                    let agent = self.clone();
                    spawn(async move { stream_served(agent.answer_on(stream).await) });
                }
                (StreamKind::Lane, Some(yard), Some(Role::Agent { host })) => {
                    let yard = yard.clone();
                    spawn(async move { yard.accept_lane(host, stream).await });
                }
                _ => {}
            }
        }
    }

    async fn answer_on(&self, mut stream: Stream) -> Result<(), LinkError> {
        let command: AgentCommand = stream.recv().await?;
        let about_machines = match &self.yard {
            Some(yard) => yard.answer(&command).await,
            None => None,
        };
        let reply = about_machines.unwrap_or_else(|| self.answer(command));
        stream.send(&reply).await?;
        stream.finish();
        Ok(())
    }

    fn answer(&self, command: AgentCommand) -> AgentReply {
        match command {
            AgentCommand::StartAttempt(start) => self.start(&start),
            AgentCommand::KillAttempt { attempt, epoch } => {
                self.kill(attempt, epoch).unwrap_or_else(|error| AgentReply::Denied(Denial::from(&error)))
            }
            AgentCommand::Directory(_) => AgentReply::Accepted,
            _ => AgentReply::Denied(Denial { code: DenialCode::Unsupported, text: "not simulated".into() }),
        }
    }

    /// As the shipped runner: admission, then the fence on disk, then the supervisor.
    fn start(&self, start: &AttemptStart) -> AgentReply {
        match self.table().admit(start, &self.books.fences) {
            Ok(Some(_slot)) => {}
            Ok(None) => return AgentReply::AlreadySo,
            Err(error) => return AgentReply::Denied(Denial::from(&error)),
        }
        let fence = Fence { epoch: start.epoch, number: start.attempt.number };
        self.books.fences.raise(start.attempt.fire, fence).expect("the journal is written");
        self.books.lease_wanted.notify_one();
        match self.first_grant(start) {
            Some(granted) => drop(spawn(self.clone().launch_when(start.clone(), granted))),
            None => self.host.launch(start),
        }
        AgentReply::Accepted
    }

    /// As the shipped runner: a request in the attempt's folder, and a nudge for whoever is to look for it.
    fn kill(&self, attempt: AttemptKey, epoch: Epoch) -> Result<AgentReply, AttemptError> {
        let started = self.table().live.get(&attempt).map(|live| live.epoch);
        let mut kept = self.host.kept();
        match started {
            None if kept.outcomes.contains_key(&attempt) => return Ok(AgentReply::AlreadySo),
            None => return Err(AttemptError::Unknown { attempt }),
            Some(seen) if epoch < seen => return Err(AttemptError::Stale { attempt, asked: epoch, seen }),
            Some(_) => {}
        }
        kept.kills.insert(attempt);
        match kept.running.get(&attempt) {
            Some(running) => running.killed.notify_one(),
            None => {
                drop(kept);
                self.wake_from_lease(attempt);
            }
        }
        Ok(AgentReply::Accepted)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.books.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends every end until the coordinator has committed it.
    async fn report(self) {
        loop {
            let reports: Vec<AttemptReport> = self.host.kept().outcomes.values().cloned().collect();
            let nothing = reports.is_empty();
            for report in reports {
                self.table().take(&report.attempt);
                if self.send(report.clone()).await {
                    self.host.history.acknowledged(report.attempt, report.end.outcome);
                    self.books.fences.close(report.attempt);
                    self.host.kept().outcomes.remove(&report.attempt);
                }
            }
            match nothing {
                true => self.host.ended.notified().await,
                false => sleep(REPORT_AGAIN).await,
            }
        }
    }

    async fn send(&self, report: AttemptReport) -> bool {
        let Some(link) = self.link.borrow().clone() else { return false };
        let exchange = async {
            let mut stream = link.open(StreamKind::Control).await?;
            stream.send(&ControlRequest::AttemptEnded(report)).await?;
            stream.finish();
            stream.recv::<()>().await
        };
        matches!(timeout(REPORT_DEADLINE, exchange).await, Ok(Ok(())))
    }
}

/// What an agent finds when it starts: attempts that run are adopted, those that left no trace are lost.
fn open_books(host: &Host, path: &Path) -> Books {
    let fences = Fences::open(path).expect("the journal is read");
    let mut table = Table::new(ATTEMPTS_MAX);
    let mut kept = host.kept();
    for (attempt, Running { epoch, terms, .. }) in &kept.running {
        let lease = terms.map(|(lease, on_lost)| LiveLease::new(lease, on_lost));
        table.put(*attempt, Live { epoch: *epoch, slot: None, supervisor: None, lease });
    }
    for (attempt, epoch) in fences.unclosed() {
        if !kept.running.contains_key(&attempt) && !kept.outcomes.contains_key(&attempt) {
            kept.outcomes.insert(attempt, AttemptReport { attempt, epoch, end: end(AttemptOutcome::Lost) });
        }
    }
    drop(kept);
    Books { fences, table: Mutex::new(table), lease_wanted: Notify::new() }
}
