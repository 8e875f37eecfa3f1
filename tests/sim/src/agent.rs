//! A host: an agent that keeps a session, admits attempts with the shipped admission, table, leases and journal of
//! fences, and reports their ends until they are acknowledged; and supervisors, which live on when the agent crashes.

mod leases;
mod session;

use crate::{
    cluster::stream_served,
    executor::{Executor, Machine},
    history::History,
    identities::{host_id, identity},
    net::Net,
};
use novacron_agent::{
    attempt::{
        AttemptError,
        admission::Fence,
        fence::Fences,
        lease::LiveLease,
        table::{Live, Table},
    },
    hypervisor::namespace::lease::BootTime,
};
use novacron_common::{
    ids::{AttemptKey, HostId},
    record::{AttemptEnd, AttemptOutcome, AttemptReport, Output},
    spec::OnLeaseLost,
    units::{Epoch, UnixMillis},
    wire::{AgentCommand, AgentReply, AttemptStart, ControlRequest, Denial, DenialCode, Lease, StreamKind},
};
use novacron_runtime::{
    spawn,
    time::{Instant, sleep, sleep_until, timeout},
};
use novacron_transport::{Endpoint, Link, LinkError, Stream};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
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
/// How long an attempt takes, milliseconds.
const WORK_MS: (u64, u64) = (5, 3000);
/// Some take so long that their lease runs out first, should it not be renewed.
const LONG_WORK_MS: (u64, u64) = (12_000, 28_000);
/// Of these, per cent.
const LONG: u64 = 30;
/// How late a supervisor may be that kills its attempt for want of a lease, milliseconds: see
/// `JobsConfig::lease_over`.
const KILLED_AFTER_MS: u64 = 1500;

/// One host; clones are the same.
#[derive(Clone)]
pub struct Host {
    executor: Arc<Executor>,
    history: History,
    net: Net,
    /// Where its agent runs.
    agent: Machine,
    /// Where its supervisors run.
    metal: Machine,
    kept: Arc<Mutex<Kept>>,
    /// Something ended.
    ended: Arc<Notify>,
}

/// What survives a crash of the agent.
struct Kept {
    up: bool,
    incarnation: u64,
    /// The folder of the journal of fences.
    folder: tempfile::TempDir,
    running: BTreeMap<AttemptKey, Running>,
    /// Requests to kill, as they lie in the attempts' folders.
    kills: BTreeSet<AttemptKey>,
    /// Deadlines of leases, where supervisors look for them.
    until: BTreeMap<AttemptKey, BootTime>,
    outcomes: BTreeMap<AttemptKey, AttemptReport>,
}

/// An attempt that runs.
struct Running {
    epoch: Epoch,
    killed: Arc<Notify>,
    terms: Option<(Lease, OnLeaseLost)>,
}

/// One life of the agent.
#[derive(Clone)]
struct Agent {
    host: Host,
    endpoint: Endpoint,
    books: Arc<Books>,
    /// The session's link.
    link: Arc<watch::Sender<Option<Link>>>,
}

struct Books {
    fences: Fences,
    table: Mutex<Table>,
    lease_wanted: Notify,
}

impl Host {
    /// A host whose agent runs on `agent` and whose supervisors run on `metal`; neither runs yet.
    pub fn new(
        (executor, net): (Arc<Executor>, Net),
        history: History,
        agent: Machine,
        metal: Machine,
    ) -> Self {
        let folder = folder();
        let (running, kills, until) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        let kept =
            Kept { up: false, incarnation: 0, folder, running, kills, until, outcomes: BTreeMap::new() };
        let ended = Arc::new(Notify::new());
        Self { executor, history, net, agent, metal, kept: Arc::new(Mutex::new(kept)), ended }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn id(&self) -> HostId {
        host_id(self.agent)
    }

    /// Starts the agent, if it does not run.
    pub fn start(&self) {
        let mut kept = self.kept();
        if std::mem::replace(&mut kept.up, true) {
            return;
        }
        kept.incarnation += 1;
        drop(kept);
        let endpoint = Endpoint::simulated(self.net.attach(self.agent), identity(self.agent));
        self.executor.spawn_on(self.agent, Box::pin(Agent::live(self.clone(), endpoint)));
    }

    /// The agent is killed; its supervisors run on.
    pub fn kill_agent(&self) {
        if std::mem::replace(&mut self.kept().up, false) {
            self.net.detach(self.agent);
            self.executor.crash(self.agent);
        }
    }

    /// The host loses its power: the agent and everything that runs is gone, and so is what its journal had not
    /// synced.
    pub fn lose_power(&self) {
        self.kill_agent();
        self.executor.crash(self.metal);
        let mut kept = self.kept();
        let gone = std::mem::take(&mut kept.running);
        drop(kept);
        self.lose_unsynced();
        gone.keys().for_each(|attempt| self.history.attempt_ended(*attempt));
    }

    /// Only starts are synced; of the acknowledgements after the last of them some are lost.
    fn lose_unsynced(&self) {
        let Ok(journal) = fs::read_to_string(self.journal()) else { return };
        let lines: Vec<&str> = journal.split_inclusive('\n').collect();
        let synced = lines.iter().rposition(|line| !line.ends_with("closed\n")).map_or(0, |last| last + 1);
        let left = synced + self.executor.draw(|rng| rng.below((lines.len() - synced) as u64 + 1)) as usize;
        fs::write(self.journal(), lines[..left].concat()).expect("the journal is cut");
    }

    fn journal(&self) -> PathBuf {
        self.kept().folder.path().join("fences")
    }

    /// The agent stops as by SIGSTOP; its supervisors run on.
    pub fn pause_agent(&self) {
        self.executor.pause(self.agent);
    }

    /// It goes on.
    pub fn resume(&self) {
        self.executor.resume(self.agent);
    }

    /// The machine of its agent.
    pub const fn machine(&self) -> Machine {
        self.agent
    }

    fn launch(&self, start: &AttemptStart) {
        let attempt = start.attempt;
        self.history.attempt_started(attempt, self.id());
        let killed = Arc::new(Notify::new());
        let mut kept = self.kept();
        if kept.kills.contains(&attempt) {
            killed.notify_one();
        }
        let terms = start.lease.map(|lease| (lease, start.on_lease_lost));
        kept.running.insert(attempt, Running { epoch: start.epoch, killed: Arc::clone(&killed), terms });
        drop(kept);
        let dies = start.on_lease_lost == OnLeaseLost::Kill;
        let supervisor = self.clone().supervise(attempt, start.epoch, killed, dies);
        self.executor.spawn_on(self.metal, Box::pin(supervisor));
    }

    async fn supervise(self, attempt: AttemptKey, epoch: Epoch, killed: Arc<Notify>, dies: bool) {
        let over = self.history.lock().over;
        let (takes, ends_well) = self.executor.draw(|rng| {
            let (from, to) = if rng.percent(LONG) && !over { LONG_WORK_MS } else { WORK_MS };
            (rng.between(from, to), rng.percent(80))
        });
        let done_at = Instant::now() + Duration::from_millis(takes);
        let outcome = tokio::select! {
            biased;
            () = killed.notified() => AttemptOutcome::Killed,
            () = self.lease_lost(attempt), if dies => AttemptOutcome::LeaseLost,
            () = sleep_until(done_at) => AttemptOutcome::Exited(if ends_well { 0 } else { 1 }),
        };
        self.history.attempt_ended(attempt);
        self.settle(AttemptReport { attempt, epoch, end: end(outcome) });
    }

    /// As `LeaseHold`: looks at the deadline when its timer fires, and sets the timer anew or ends the tree.
    async fn lease_lost(&self, attempt: AttemptKey) {
        loop {
            let until = self.kept().until.get(&attempt).copied();
            match until.map(|until| until.since(BootTime::now())) {
                Some(left) if left > Duration::ZERO => sleep(left).await,
                Some(_) | None => break,
            }
        }
        let late = self.executor.draw(|rng| rng.below(KILLED_AFTER_MS));
        sleep(Duration::from_millis(late)).await;
    }

    fn settle(&self, report: AttemptReport) {
        let attempt = report.attempt;
        let mut kept = self.kept();
        kept.running.remove(&attempt);
        kept.kills.remove(&attempt);
        kept.until.remove(&attempt);
        kept.outcomes.insert(attempt, report);
        drop(kept);
        self.ended.notify_one();
    }
}

/// In memory where there is such a place: hundreds of journals are synced thousands of times.
fn folder() -> tempfile::TempDir {
    let made = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    made.expect("a folder for the journal")
}

fn end(outcome: AttemptOutcome) -> AttemptEnd {
    AttemptEnd { outcome, started_at: None, ended_at: UnixMillis(0), output: Output::default(), result: None }
}

impl Agent {
    async fn live(host: Host, endpoint: Endpoint) {
        let path = host.kept().folder.path().join("fences");
        let books = Arc::new(open_books(&host, &path));
        let agent = Self { host, endpoint, books, link: Arc::new(watch::Sender::new(None)) };
        spawn(agent.clone().report());
        spawn(agent.clone().keep_leases());
        spawn(agent.clone().keep_session());
        while let Some(link) = agent.endpoint.accept().await {
            spawn(agent.clone().serve(link));
        }
    }

    async fn serve(self, link: Link) {
        while let Ok((kind, stream)) = link.accept().await {
            if kind == StreamKind::Command {
                let agent = self.clone();
                spawn(async move { stream_served(agent.answer_on(stream).await) });
            }
        }
    }

    async fn answer_on(&self, mut stream: Stream) -> Result<(), LinkError> {
        let command: AgentCommand = stream.recv().await?;
        let reply = self.answer(command);
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
