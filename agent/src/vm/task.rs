//! The task that owns one machine: takes what is wanted, looks at what is, and does one step at a time.
//!
//! A step is a future beside the inbox, so that a new assignment is taken while an image is fetched or a guest
//! is given time to shut down; what it makes obsolete is dropped. Every step is idempotent, so dropping one in
//! the middle leaves nothing that looking again would not put right.

use super::{
    admission::{self, Verdict},
    decide::{self, Step},
    farewell,
    machines::MachinesParts,
    record::{Entry, VmRecord, ledger_key},
};
use crate::{
    hypervisor::{Definition, Health, Hypervisor},
    text::describe,
};
use novacron_common::{
    ids::{MigrationId, VmId},
    record::{HealthState, VmAction, VmAssignment, VmObservation, VmState},
    spec::VmSpec,
    units::{Epoch, UnixMillis},
    wire::{AgentReply, Denial, DenialCode, VmAct},
};
use novacron_runtime::{
    block_in_place,
    time::{Instant, interval},
};
use std::{error::Error, future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot};

/// How often a machine is looked at when nothing says that it changed.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Longest pause between tries of a step that fails.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Longest message that is reported, in characters; the coordinator keeps as many.
const MESSAGE_MAX: usize = 512;

/// What a task is asked.
pub(super) enum Message {
    Assign(VmAssignment, oneshot::Sender<AgentReply>),
    Lend { migration: MigrationId, epoch: Epoch, reply: oneshot::Sender<Result<VmSpec, Denial>> },
    GiveBack { migration: MigrationId, halted: bool, reply: oneshot::Sender<Result<(), Denial>> },
    Act { epoch: Epoch, act: VmAct, reply: oneshot::Sender<Result<(), Denial>> },
    Holds { reply: oneshot::Sender<Result<bool, Denial>> },
    Arrived { assignment: Box<VmAssignment>, reply: oneshot::Sender<Result<(), Denial>> },
    Settled { migration: MigrationId, reply: oneshot::Sender<Result<(), Denial>> },
    Left { epoch: Epoch, reply: oneshot::Sender<Result<(), Denial>> },
    Look,
}

type Failure = Box<dyn Error + Send + Sync>;
/// A step under way; it may end with a word for whoever looks at the machine.
type Work = Pin<Box<dyn Future<Output = Result<Option<String>, Failure>> + Send>>;

/// A step that failed, and when it is tried again.
struct Trouble {
    message: String,
    failures: u32,
    retry_at: Instant,
}

pub(super) struct VmTask {
    vm: VmId,
    parts: Arc<MachinesParts>,
    inbox: mpsc::Receiver<Message>,
    entry: Option<Entry>,
    working: Option<(Step, Work)>,
    trouble: Option<Trouble>,
    /// What came of the last step, until the next.
    word: Option<String>,
    /// Who waits until a migration has it in hand no more.
    awaiting: Vec<(MigrationId, oneshot::Sender<Result<(), Denial>>)>,
}

impl VmTask {
    pub(super) fn new(
        vm: VmId,
        parts: Arc<MachinesParts>,
        inbox: mpsc::Receiver<Message>,
        entry: Option<Entry>,
    ) -> Self {
        Self { vm, parts, inbox, entry, working: None, trouble: None, word: None, awaiting: Vec::new() }
    }

    /// Runs until nobody can ask any more, or the machine has left and nobody asks.
    pub(super) async fn run(mut self) {
        let mut tick = interval(LOOK_EVERY);
        loop {
            tokio::select! {
                biased;
                outcome = work(&mut self.working) => self.finished(outcome),
                message = self.inbox.recv() => match message {
                    Some(message) => self.handle(message).await,
                    None => return,
                },
                () = tick.tick() => {}
            }
            self.tell_settled();
            self.advance().await;
            if !matches!(self.entry, Some(Entry::Held(_))) && self.inbox.is_empty() {
                self.inbox.close();
            }
        }
    }

    async fn handle(&mut self, message: Message) {
        match message {
            Message::Assign(assignment, reply) => drop(reply.send(self.assign(assignment))),
            Message::Lend { migration, epoch, reply } => drop(reply.send(self.lend(migration, epoch))),
            Message::GiveBack { migration, halted, reply } => {
                drop(reply.send(self.give_back(migration, halted)));
            }
            Message::Act { epoch, act, reply } => drop(reply.send(self.act(epoch, act).await)),
            Message::Holds { reply } => drop(reply.send(Ok(matches!(self.entry, Some(Entry::Held(_)))))),
            Message::Arrived { assignment, reply } => drop(reply.send(self.arrived(*assignment))),
            Message::Settled { migration, reply } => self.awaiting.push((migration, reply)),
            Message::Left { epoch, reply } => {
                self.parts.board.forget(self.vm);
                drop(reply.send(self.write(Entry::Left { epoch })));
            }
            Message::Look => {}
        }
    }

    fn assign(&mut self, assignment: VmAssignment) -> AgentReply {
        match admission::judge(self.entry.as_ref(), &assignment) {
            Verdict::AlreadySo => AgentReply::AlreadySo,
            Verdict::Deny(denial) => AgentReply::Denied(denial),
            Verdict::Queue => {
                let runs = matches!(assignment.action, VmAction::Run | VmAction::Restart { .. });
                let record = match self.entry.take() {
                    Some(Entry::Held(old)) => old.superseded_by(assignment),
                    _ => VmRecord::new(assignment),
                };
                // A guest that was asked to shut down does so: it is waited for, and then started.
                if !(runs && matches!(self.working, Some((Step::Stop(_), _)))) {
                    self.working = None;
                }
                self.trouble = None;
                match self.write(Entry::Held(record)) {
                    Ok(()) => AgentReply::Accepted,
                    Err(denial) => AgentReply::Denied(denial),
                }
            }
        }
    }

    fn lend(&mut self, migration: MigrationId, epoch: Epoch) -> Result<VmSpec, Denial> {
        let record = self.at_rest(epoch)?;
        if let Some(other) = record.lent.filter(|other| *other != migration) {
            return Err(self.in_the_hands_of(other));
        }
        let record = VmRecord { lent: Some(migration), ..record.clone() };
        let spec = record.assignment.spec.clone();
        self.write(Entry::Held(record)).map(|()| spec)
    }

    /// The record, if the machine is here under `epoch` and nothing is being done with it.
    fn at_rest(&self, epoch: Epoch) -> Result<&VmRecord, Denial> {
        let deny = |code, text: String| Err(Denial { code, text });
        match &self.entry {
            Some(Entry::Held(record)) if record.assignment.epoch != epoch => {
                deny(DenialCode::StaleEpoch, format!("{} is here under {}", self.vm, record.assignment.epoch))
            }
            Some(Entry::Held(_)) if self.working.is_some() => {
                deny(DenialCode::Conflict, format!("{} is being changed: try again", self.vm))
            }
            Some(Entry::Held(record)) => Ok(record),
            _ => deny(DenialCode::Unknown, format!("{} is not on this host", self.vm)),
        }
    }

    fn in_the_hands_of(&self, migration: MigrationId) -> Denial {
        let text = format!("{} is in the hands of {migration}", self.vm);
        Denial { code: DenialCode::Conflict, text }
    }

    /// Done here, between two steps, so that no migration can take the machine meanwhile.
    async fn act(&mut self, epoch: Epoch, act: VmAct) -> Result<(), Denial> {
        let record = self.at_rest(epoch)?;
        if let Some(migration) = record.lent {
            return Err(self.in_the_hands_of(migration));
        }
        let failed = |text: String| Denial { code: DenialCode::Failed, text };
        let Some(hypervisor) = self.parts.hypervisors.of(record.assignment.spec.kind).cloned() else {
            return Err(failed("this host does not run machines of this kind".into()));
        };
        let done = match act {
            VmAct::Pause => hypervisor.pause(self.vm).await,
            VmAct::Resume => hypervisor.resume(self.vm).await,
            VmAct::Signal(signal) => hypervisor.signal(self.vm, signal).await,
            VmAct::Checkpoint { leave_running } => hypervisor.checkpoint(self.vm, leave_running).await,
            VmAct::Restore => hypervisor.restore(self.vm).await,
        };
        done.map_err(|error| failed(describe(&error)))
    }

    fn give_back(&mut self, migration: MigrationId, halted: bool) -> Result<(), Denial> {
        match &self.entry {
            Some(Entry::Held(record)) if record.lent == Some(migration) => {
                let record = VmRecord { lent: None, ran: record.ran && !halted, ..record.clone() };
                self.write(Entry::Held(record))
            }
            _ => Ok(()),
        }
    }

    fn arrived(&mut self, assignment: VmAssignment) -> Result<(), Denial> {
        let ran = assignment.action == VmAction::Run;
        self.write(Entry::Held(VmRecord { ran, ..VmRecord::new(assignment) }))
    }

    /// Tells those who wait for it that their migration has the machine in hand no more.
    fn tell_settled(&mut self) {
        let lent = match &self.entry {
            Some(Entry::Held(record)) => record.lent,
            _ => None,
        };
        let (waiting, settled) = std::mem::take(&mut self.awaiting)
            .into_iter()
            .partition(|(migration, _)| lent == Some(*migration));
        self.awaiting = waiting;
        for (_, reply) in settled {
            let _ = reply.send(Ok(())); // whoever does not listen any more need not know
        }
    }

    fn write(&mut self, entry: Entry) -> Result<(), Denial> {
        let written = block_in_place(|| self.parts.shelf.put(&ledger_key(self.vm), &entry));
        self.entry = Some(entry);
        written.map_err(|error| Denial { code: DenialCode::Failed, text: describe(&error) })
    }

    fn update(&mut self, change: impl FnOnce(&mut VmRecord)) {
        if let Some(Entry::Held(record)) = &self.entry {
            let mut record = record.clone();
            change(&mut record);
            if let Err(denial) = self.write(Entry::Held(record)) {
                tracing::error!(vm = %self.vm, %denial, "what was done could not be written down");
            }
        }
    }

    fn finished(&mut self, (step, outcome): (Step, Result<Option<String>, Failure>)) {
        self.word = None;
        if let Err(error) = outcome.map(|word| self.word = word) {
            let failures = self.trouble.as_ref().map_or(0, |t| t.failures) + 1;
            let pause = Duration::from_secs(1 << failures.min(6)).min(RETRY_MAX);
            let message = describe(error.as_ref());
            tracing::warn!(vm = %self.vm, ?step, message, failures, "a step failed");
            self.trouble = Some(Trouble { message, failures, retry_at: Instant::now() + pause });
            return;
        }
        self.trouble = None;
        match step {
            Step::Start => self.update(|record| record.ran = true),
            Step::Stop(_) => self.update(|record| record.ran = false),
            Step::Remove => {
                let epoch = self.entry.as_ref().map_or(Epoch(0), Entry::epoch);
                let _ = self.write(Entry::Left { epoch });
            }
            Step::Define | Step::Rest | Step::MarkRestarted(_) => {}
        }
    }

    /// Looks, says what is seen, and begins the next step if none is under way.
    async fn advance(&mut self) {
        let record = match &self.entry {
            Some(Entry::Held(record)) => record.clone(),
            Some(Entry::Left { epoch }) if self.parts.board.of(self.vm).is_some() => {
                return self.post_missing(*epoch);
            }
            _ => return,
        };
        let Some(hypervisor) = self.parts.hypervisors.of(record.assignment.spec.kind).cloned() else {
            let message = "this host does not run machines of this kind".to_owned();
            return self.post(&record, VmState::Failed, None, Some(message));
        };
        let seen = match hypervisor.state(self.vm).await {
            Ok(seen) => seen,
            Err(error) => return self.post(&record, VmState::Unknown, None, Some(describe(&error))),
        };
        let health = hypervisor.health(self.vm).filter(|_| seen == VmState::Running);
        let next = decide::next(&record, seen, health.as_ref().map(|health| health.state));
        if next == Step::Rest {
            // What could not be done has come about by itself, or is not wanted any more.
            self.trouble = None;
        }
        self.report(&record, seen, health, hypervisor.as_ref()).await;
        if self.working.is_none() && decide::is_under_way(&record, seen) {
            self.update(|record| record.ran = true);
        }
        if self.working.is_none() && self.trouble.as_ref().is_none_or(|t| t.retry_at <= Instant::now()) {
            self.begin(next, &record, hypervisor);
        }
    }

    fn begin(&mut self, step: Step, record: &VmRecord, hypervisor: Arc<dyn Hypervisor>) {
        let vm = self.vm;
        let work: Work = match step {
            Step::Rest => return,
            Step::MarkRestarted(request) => {
                return self.update(|record| (record.restarted, record.ran) = (request, false));
            }
            Step::Define => {
                Box::pin(define(vm, record.assignment.spec.clone(), self.parts.clone(), hypervisor))
            }
            Step::Start => Box::pin(async move { Ok(hypervisor.start(vm).await.map(|()| None)?) }),
            Step::Stop(terms) => Box::pin(async move {
                let halt = hypervisor.stop(vm, terms).await?;
                Ok(farewell::word(terms, halt))
            }),
            Step::Remove => Box::pin(remove(vm, self.parts.clone(), hypervisor)),
        };
        tracing::info!(%vm, ?step, "begins");
        self.working = Some((step, work));
    }

    async fn report(
        &mut self,
        record: &VmRecord,
        seen: VmState,
        health: Option<Health>,
        hypervisor: &dyn Hypervisor,
    ) {
        let (health, why) = health.map_or((None, None), |health| (Some(health.state), health.word));
        let (state, message) = match (&self.working, &self.trouble) {
            (Some((Step::Define, _)), _) => (VmState::Preparing, self.progress()),
            (Some((Step::Stop(_), _)), _) if seen == VmState::Running => (VmState::Stopping, None),
            (_, Some(trouble)) if seen != VmState::Running => {
                (VmState::Failed, Some(trouble.message.clone()))
            }
            // Between the assignment and its first step there is nothing to be missed.
            _ if seen == VmState::Missing && record.assignment.action != VmAction::Delete => {
                (VmState::Preparing, None)
            }
            _ => (seen, self.word.clone().filter(|_| seen == VmState::Stopped).or(why)),
        };
        self.post(record, state, health.filter(|_| state == VmState::Running), message);
        if state == VmState::Running {
            let usage = hypervisor.usage(self.vm).await.unwrap_or_default();
            let addresses = hypervisor.addresses(self.vm).await.unwrap_or_default();
            if let Some(mut seen) = self.parts.board.of(self.vm) {
                seen.cpu_ms = u64::try_from(usage.cpu.as_millis()).unwrap_or(u64::MAX);
                seen.memory = usage.memory;
                seen.addresses = addresses;
                self.parts.board.post(seen);
            }
        }
    }

    /// What was last said of a preparation.
    fn progress(&self) -> Option<String> {
        self.parts.board.of(self.vm).filter(|seen| seen.state == VmState::Preparing)?.message
    }

    fn post(&self, record: &VmRecord, state: VmState, health: Option<HealthState>, message: Option<String>) {
        let before = self.parts.board.of(self.vm);
        let since = before.as_ref().filter(|b| b.state == state).map_or_else(crate::clock::now, |b| b.since);
        let progress = before.as_ref().filter(|_| state == VmState::Preparing).and_then(|b| b.progress);
        let (cpu_ms, memory, addresses) =
            before.map(|b| (b.cpu_ms, b.memory, b.addresses)).unwrap_or_default();
        self.parts.board.post(VmObservation {
            vm: self.vm,
            epoch: record.assignment.epoch,
            generation: record.assignment.generation,
            state,
            health,
            message: message.map(|m| m.chars().take(MESSAGE_MAX).collect()),
            progress,
            addresses: if state == VmState::Running { addresses } else { Vec::new() },
            restarted: record.restarted,
            ran: record.ran,
            cpu_ms,
            memory,
            since,
        });
    }

    /// A deleted machine is reported missing until the coordinator has forgotten it.
    fn post_missing(&self, epoch: Epoch) {
        if let Some(before) = self.parts.board.of(self.vm)
            && before.state != VmState::Missing
        {
            let since: UnixMillis = crate::clock::now();
            self.parts.board.post(VmObservation {
                epoch,
                state: VmState::Missing,
                health: None,
                message: None,
                progress: None,
                since,
                ..before
            });
        }
    }
}

/// The step under way, or for ever.
async fn work(working: &mut Option<(Step, Work)>) -> (Step, Result<Option<String>, Failure>) {
    match working {
        Some((_, future)) => {
            let outcome = future.await;
            let step = working.take().map_or(Step::Rest, |(step, _)| step);
            (step, outcome)
        }
        None => std::future::pending().await,
    }
}

async fn define(
    vm: VmId,
    spec: VmSpec,
    parts: Arc<MachinesParts>,
    hypervisor: Arc<dyn Hypervisor>,
) -> Result<Option<String>, Failure> {
    let files = parts.files.prepare(vm, &spec).await?;
    let bridge = spec.network.bridge.as_ref().map_or_else(|| parts.bridge.clone(), ToString::to_string);
    hypervisor.define(&Definition { vm, spec, files, bridge: Some(bridge) }).await?;
    Ok(None)
}

async fn remove(
    vm: VmId,
    parts: Arc<MachinesParts>,
    hypervisor: Arc<dyn Hypervisor>,
) -> Result<Option<String>, Failure> {
    hypervisor.undefine(vm).await?;
    parts.files.remove(vm).await?;
    Ok(None)
}
