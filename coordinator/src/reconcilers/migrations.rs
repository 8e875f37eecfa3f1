//! Drives each migration's saga: asks the agents for the next step, commits what they answer, and proposes the
//! hand-over. The order of steps and their undoing are decided in `novacron_core::migration::saga`; here is only
//! the calling. A lost call or report costs a period: every step can be asked again.

use super::{
    World,
    driver::{Reconciler, Verdict},
    lanes::Lanes,
};
use novacron_common::{
    ids::{HostId, MigrationId},
    wire::{AgentCommand, AgentReply, DenialCode},
};
use novacron_core::{
    Applied, CommandBody, State, TableId,
    command::{Handover, MigrationDenied, MigrationObserve},
    migration::{
        self,
        saga::{self, SagaAction},
    },
    record::MigrationRecord,
};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// A side that does not report by itself is asked again after this: the last steps take no longer, and a guest or a
/// person waits for them.
const POLL_FIRST: Duration = Duration::from_millis(50);
/// The pause doubles with each question of the same step up to this.
const POLL_MAX: Duration = Duration::from_millis(500);

/// Drives migrations.
pub struct Migrations {
    world: World,
    lanes: Lanes<MigrationId>,
    asked: HashMap<MigrationId, Asked>,
}

/// What was last asked about a migration.
struct Asked {
    step: u64,
    at: Instant,
    /// How often in this step.
    times: u32,
}

impl Asked {
    /// How long until it is asked again.
    fn pause(&self) -> Duration {
        let pause = POLL_FIRST.saturating_mul(1 << self.times.saturating_sub(1).min(8));
        pause.min(POLL_MAX).saturating_sub(self.at.elapsed())
    }
}

impl Migrations {
    pub fn new(world: World) -> Self {
        Self { world, lanes: Lanes::new(), asked: HashMap::new() }
    }

    /// When a migration's step is to be begun or asked after: a new step at once, a known one after a while.
    fn due_in(&self, id: MigrationId, step: u64) -> Duration {
        self.asked.get(&id).filter(|asked| asked.step == step).map_or(Duration::ZERO, Asked::pause)
    }

    fn note(&mut self, id: MigrationId, step: u64) {
        let times = self.asked.get(&id).filter(|asked| asked.step == step).map_or(0, |asked| asked.times);
        self.asked.insert(id, Asked { step, at: Instant::now(), times: times + 1 });
    }
}

impl Reconciler for Migrations {
    const NAME: &'static str = "migrations";
    const TABLES: &'static [TableId] = &[TableId::Migrations];
    const PERIOD: Duration = Duration::from_secs(5);

    async fn activate(&mut self) -> Verdict {
        let open: Vec<(MigrationId, u64)> = self.world.ledger.read(|state| {
            state.index().migrating().filter_map(|id| state.migration(id)).map(|m| (m.id, m.step)).collect()
        });
        self.asked.retain(|id, _| open.iter().any(|(open, _)| open == id));
        let mut next: Option<Duration> = None;
        for (id, step) in open {
            let wait = self.due_in(id, step);
            if wait > Duration::ZERO {
                next = Some(next.map_or(wait, |n| n.min(wait)));
            } else if !self.lanes.is_busy(&id) {
                self.note(id, step);
                let world = self.world.clone();
                self.lanes.start(id, async move { advance(&world, id).await });
            }
        }
        next.map_or(Verdict::DONE, Verdict::again_in)
    }

    fn finished(&self) -> Option<Arc<Notify>> {
        Some(self.lanes.finished())
    }
}

/// One round: the actions of the present step, in their order, until one fails or the step changes.
async fn advance(world: &World, id: MigrationId) {
    let Some((step, actions)) = world.ledger.read(|state| {
        let record = state.migration(id)?;
        Some((record.step, saga::next(record)))
    }) else {
        return;
    };
    for action in actions {
        let now = world.ledger.read(|state| state.migration(id).map(|m| m.step));
        if now != Some(step) || !act(world, id, action).await {
            return;
        }
    }
}

/// `false` ends the round.
async fn act(world: &World, id: MigrationId, action: SagaAction) -> bool {
    match action {
        SagaAction::AwaitTurn | SagaAction::AwaitStop => true,
        SagaAction::Handover => hand_over(world, id).await,
        SagaAction::PrepareInbound
        | SagaAction::StartOutbound
        | SagaAction::ObserveSource
        | SagaAction::ObserveTarget
        | SagaAction::OpenInbound
        | SagaAction::SplitOutbound
        | SagaAction::AbandonInbound
        | SagaAction::ResumeInbound
        | SagaAction::ReleaseOutbound
        | SagaAction::CancelOutbound
        | SagaAction::DiscardInbound => ask(world, id, action).await,
    }
}

async fn hand_over(world: &World, id: MigrationId) -> bool {
    let handover = world.ledger.read(|state| {
        let record = state.migration(id)?;
        Some(Handover { migration: id, vm: record.vm, to: record.target, expect_epoch: record.epoch })
    });
    let Some(handover) = handover else { return false };
    match world.ledger.propose(CommandBody::Handover(handover)).await {
        Ok(Applied::Refused(refusal)) => {
            tracing::warn!(migration = %id, %refusal, "the hand-over was refused");
            false
        }
        Ok(_) => {
            tracing::info!(migration = %id, "handed over");
            true
        }
        Err(error) => {
            tracing::warn!(migration = %id, %error, "could not commit the hand-over");
            false
        }
    }
}

/// A call that is ready to be made, and the step in which it is made.
struct Call {
    host: HostId,
    command: AgentCommand,
    step: u64,
}

fn prepare(state: &State, id: MigrationId, action: SagaAction) -> Option<Call> {
    let record = state.migration(id)?;
    let (host, command) = migration::call(state, record, action)?;
    Some(Call { host, command, step: record.step })
}

async fn ask(world: &World, id: MigrationId, action: SagaAction) -> bool {
    let Some(Call { host, command, step }) = world.ledger.read(|state| prepare(state, id, action)) else {
        return false;
    };
    tracing::debug!(migration = %id, ?action, %host, step, "calls");
    match world.agents.call(host, &command).await {
        Ok(AgentReply::Accepted | AgentReply::AlreadySo) => true,
        Ok(AgentReply::Migration(sides)) => {
            take(world, id, host, step, sides).await;
            true
        }
        Ok(AgentReply::Denied(denial)) => {
            tracing::warn!(migration = %id, ?action, %host, %denial, "the agent refused a step");
            // A host that knows nothing of it says so when it is asked after it; that decides, not this.
            if denial.code != DenialCode::Unknown {
                let denied = MigrationDenied { id, step, reason: denial.text };
                report(world, id, CommandBody::MigrationDenied(denied)).await;
            }
            true
        }
        Ok(
            AgentReply::Vm(_)
            | AgentReply::Bytes(_)
            | AgentReply::Measured(..)
            | AgentReply::Checked(_)
            | AgentReply::Counted(_)
            | AgentReply::Volumes(_),
        ) => {
            tracing::error!(migration = %id, ?action, %host, "an answer that does not fit the question");
            false
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::info!(migration = %id, ?action, %host, %error, cause, "no answer: asking again later");
            false
        }
    }
}

async fn take(
    world: &World,
    id: MigrationId,
    host: HostId,
    step: u64,
    sides: Vec<novacron_common::record::SideState>,
) {
    let commands: Vec<CommandBody> = world.ledger.read(|state| {
        let Some(record) = state.migration(id) else { return Vec::new() };
        let observe = |side| MigrationObserve { id, host, side, asked_at_step: Some(step) };
        let answers =
            migration::answers(record, host, sides).into_iter().filter(|side| is_news(record, side));
        let mut pace = world.agents.pace();
        answers.filter_map(|side| pace.command(state, observe(side), Instant::now())).collect()
    });
    for command in commands {
        report(world, id, command).await;
    }
}

/// The same word again would be a commit for nothing.
fn is_news(record: &MigrationRecord, side: &novacron_common::record::SideState) -> bool {
    use novacron_common::record::{InboundState, OutboundState, SideState};
    match side {
        SideState::Outbound(OutboundState::Unknown) => record.outbound_unknown_at != Some(record.step),
        SideState::Inbound(InboundState::Unknown) => record.inbound_unknown_at != Some(record.step),
        SideState::Outbound(state) => *state != record.outbound,
        SideState::Inbound(state) => *state != record.inbound,
    }
}

async fn report(world: &World, id: MigrationId, command: CommandBody) {
    match world.ledger.propose(command).await {
        Ok(Applied::Refused(refusal)) => {
            tracing::debug!(migration = %id, %refusal, "an observation was refused")
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(migration = %id, %error, "could not commit an observation"),
    }
}
