//! Gives waiting fires to hosts, and tells hosts to start (or to kill) what they were given.

use super::{
    World,
    driver::{Reconciler, Verdict},
    lanes::Lanes,
};
use crate::{agents::SessionNumber, identity::now};
use novacron_common::{
    ids::{AttemptKey, HostId},
    record::{AttemptEnd, AttemptOutcome, AttemptReport, Output},
    units::UnixMillis,
    wire::{AgentCommand, AgentReply, AttemptStart, Denial, DenialCode},
};
use novacron_core::{Applied, CommandBody, TableId, attempts, command::AttemptPlace};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// Fires that are placed in one activation.
const PLACED_MAX: usize = 256;
/// Pause where a waiting fire has no host.
const NO_HOST: Duration = Duration::from_secs(1);

/// Pause after a host could not be asked, before anything else is tried with it.
const FAILED_PAUSE: Duration = Duration::from_millis(500);

/// What was sent in which session; a new session is told everything again.
type Sent = Arc<Mutex<HashMap<(AttemptKey, Order), SessionNumber>>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Order {
    Start,
    Kill,
}

/// Places fires and starts attempts.
pub struct Attempts {
    world: World,
    lanes: Lanes<HostId>,
    sent: Sent,
}

/// What one host is to be told.
#[derive(Debug)]
struct Errand {
    start: AttemptStart,
    order: Order,
    session: SessionNumber,
}

impl Attempts {
    pub fn new(world: World) -> Self {
        Self { world, lanes: Lanes::new(), sent: Sent::default() }
    }

    /// One at a time: each changes which host has the fewest. `true` if a fire waits for a host.
    async fn place(&self) -> bool {
        let at = now();
        for fire in self.world.ledger.read(|state| attempts::due(state, at, PLACED_MAX)) {
            let Some(host) = self.world.ledger.read(attempts::choose_host) else { return true };
            let place = CommandBody::AttemptPlace(AttemptPlace { fire, host });
            match self.world.ledger.propose(place).await {
                Ok(Applied::Refused(refusal)) => tracing::debug!(%fire, %refusal, "a fire was not placed"),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%fire, %error, "could not commit where a fire is tried");
                    return true;
                }
            }
        }
        false
    }

    fn errands(&self) -> BTreeMap<HostId, Vec<Errand>> {
        let mut sent = lock(&self.sent);
        let mut live = HashSet::new();
        let mut errands: BTreeMap<HostId, Vec<Errand>> = BTreeMap::new();
        self.world.ledger.read(|state| {
            for (host, fire) in state.index().running() {
                let Some((_, start)) = attempts::start(state, fire) else { continue };
                live.insert(start.attempt);
                let Some(session) = self.world.agents.sessions().current(host) else { continue };
                let kill = state.fire(fire).is_some_and(attempts::is_to_be_killed);
                let order = if kill { Order::Kill } else { Order::Start };
                if sent.get(&(start.attempt, order)) != Some(&session) {
                    errands.entry(host).or_default().push(Errand { start, order, session });
                }
            }
        });
        sent.retain(|(attempt, _), _| live.contains(attempt));
        errands
    }

    fn run(&mut self, host: HostId, errands: Vec<Errand>) {
        let (world, sent) = (self.world.clone(), self.sent.clone());
        self.lanes.start(host, async move {
            for errand in errands {
                let key = (errand.start.attempt, errand.order);
                let session = errand.session;
                if tell(&world, host, errand).await.is_none() {
                    novacron_runtime::time::sleep(FAILED_PAUSE).await;
                    return;
                }
                lock(&sent).insert(key, session);
            }
        });
    }
}

fn lock(sent: &Sent) -> std::sync::MutexGuard<'_, HashMap<(AttemptKey, Order), SessionNumber>> {
    sent.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `None` if the host cannot be asked now.
async fn tell(world: &World, host: HostId, errand: Errand) -> Option<()> {
    let (attempt, epoch) = (errand.start.attempt, errand.start.epoch);
    let command = match errand.order {
        Order::Start => AgentCommand::StartAttempt(errand.start),
        Order::Kill => AgentCommand::KillAttempt { attempt, epoch },
    };
    match world.agents.call(host, &command).await {
        Ok(AgentReply::Denied(denial)) => {
            tracing::warn!(%attempt, %host, %denial, order = ?errand.order, "the agent refused an attempt");
            let refused = errand.order == Order::Start && is_final(&denial);
            let report =
                refused.then(|| AttemptReport { attempt, epoch, end: never_started(&denial, now()) });
            if let Some(report) = report {
                let ended = CommandBody::AttemptEnd(Box::new(report));
                world.ledger.propose(ended).await.ok()?;
            }
            Some(())
        }
        Ok(_) => Some(()),
        Err(error) => {
            tracing::debug!(%attempt, %host, %error, "could not send an attempt");
            None
        }
    }
}

/// Whether the host will never run it. A stale epoch or a conflict means that the host knows more than we: its
/// own report says how it ended.
fn is_final(denial: &Denial) -> bool {
    match denial.code {
        DenialCode::NoRoom
        | DenialCode::Unsupported
        | DenialCode::Invalid
        | DenialCode::Image
        | DenialCode::Failed => true,
        DenialCode::StaleEpoch | DenialCode::Unknown | DenialCode::Conflict => false,
    }
}

fn never_started(denial: &Denial, at: UnixMillis) -> AttemptEnd {
    AttemptEnd {
        outcome: AttemptOutcome::FailedToStart { reason: denial.text.clone() },
        started_at: None,
        ended_at: at,
        output: Output::default(),
        result: None,
    }
}

impl Reconciler for Attempts {
    const NAME: &'static str = "attempts";
    const TABLES: &'static [TableId] = &[TableId::Fires, TableId::Hosts];
    const PERIOD: Duration = Duration::from_secs(10);

    async fn activate(&mut self) -> Verdict {
        let stuck = self.place().await;
        for (host, errands) in self.errands() {
            // A busy lane activates this again when it is free.
            self.run(host, errands);
        }
        if stuck {
            return Verdict::again_in(NO_HOST);
        }
        let next = self.world.ledger.read(attempts::next_due);
        next.map_or(Verdict::DONE, |at| Verdict::again_in(at.since(now())))
    }

    fn finished(&self) -> Option<Arc<Notify>> {
        Some(self.lanes.finished())
    }
}
