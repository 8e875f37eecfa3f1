//! Gives waiting fires to hosts, looks at their deadlines, and decides when an attempt that is out of sight is over.

use super::{
    World,
    driver::{Reconciler, Verdict},
    lanes::Lanes,
    orders::{self, Sent},
    verbs,
};
use crate::identity::now;
use novacron_common::{
    api::FireState,
    ids::HostId,
    record::{AttemptEnd, AttemptOutcome, AttemptReport, Output},
    spec::OnLeaseLost,
};
use novacron_core::{
    Applied, CommandBody, State, TableId, attempts,
    command::{VerbBegin, VerbStep},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// Fires that are placed in one commit.
const PLACED_MAX: usize = 256;
/// Deadlines that are looked at in one commit.
const ALARMS_MAX: usize = 1000;
/// Pause where a waiting fire has no host, and where a lease has not run out yet.
const NO_HOST: Duration = Duration::from_secs(1);

/// Places fires and starts attempts.
pub struct Attempts {
    world: World,
    lanes: Lanes<HostId>,
    sent: Sent,
    /// When this coordinator began to lead: no forerunner has granted a lease since.
    began: Instant,
}

/// Whether to look again soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// All is done.
    Done,
    /// Something waits for what no commit will tell of.
    Soon,
}

impl Attempts {
    pub fn new(world: World) -> Self {
        Self { world, lanes: Lanes::new(), sent: Sent::default(), began: Instant::now() }
    }

    /// The highest priority first, as long as hosts have room.
    async fn place(&self) -> Rest {
        let per_host = self.world.jobs.attempts_per_host;
        loop {
            let at = now();
            let plan = self.world.ledger.read(|state| attempts::plan(state, at, per_host, PLACED_MAX));
            if plan.is_empty() {
                return if plan.short { Rest::Soon } else { Rest::Done };
            }
            let mut bodies: Vec<_> = plan.places.into_iter().map(CommandBody::AttemptPlace).collect();
            for fire in plan.verbs {
                bodies.extend(verbs::begin(&self.world, fire));
            }
            bodies.extend(plan.impossible.into_iter().map(|(fire, reason)| {
                CommandBody::VerbBegin(Box::new(VerbBegin { fire, step: VerbStep::Impossible(reason) }))
            }));
            if !self.commit(bodies).await {
                return Rest::Soon;
            }
        }
    }

    /// Whether anything was taken.
    async fn commit(&self, bodies: Vec<CommandBody>) -> bool {
        match self.world.ledger.propose(CommandBody::Batch(bodies)).await {
            Ok(Applied::Batch(all)) => all.iter().any(|one| !matches!(one, Applied::Refused(_))),
            Ok(other) => {
                tracing::error!(?other, "a batch was answered by something else");
                false
            }
            Err(error) => {
                tracing::warn!(%error, "could not commit what becomes of fires");
                false
            }
        }
    }

    /// Fires that did not start in time, and those that have not succeeded when they were expected to.
    async fn alarms(&self) -> Rest {
        let at = now();
        let fires = self.world.ledger.read(|state| attempts::alarms(state, at, ALARMS_MAX));
        if fires.is_empty() {
            return Rest::Done;
        }
        for fire in &fires {
            tracing::warn!(%fire, "a fire was not started in time, or is overdue");
        }
        let count = fires.len();
        let bodies = fires.into_iter().map(|fire| CommandBody::FireAlarm { fire }).collect();
        if self.commit(bodies).await {
            self.world.metrics.fires_overdue(count);
        }
        Rest::Soon
    }

    /// Attempts that kill themselves with their lease, on hosts that are out of sight: over once the lease has run
    /// out for certain.
    async fn expire(&self) -> Rest {
        let unknown = self.world.ledger.read(out_of_sight);
        let wait = self.world.jobs.lease_over();
        let leases = self.world.agents.leases();
        let (over, alive): (Vec<_>, Vec<_>) = unknown
            .into_iter()
            .partition(|report| leases.expire(report.attempt, self.began, wait, Instant::now()));
        if !over.is_empty() {
            let bodies = over.into_iter().map(|report| CommandBody::AttemptEnd(Box::new(report)));
            self.commit(bodies.collect()).await;
        }
        if alive.is_empty() { Rest::Done } else { Rest::Soon }
    }
}

/// What would be reported of attempts that are out of sight and kill themselves.
fn out_of_sight(state: &State) -> Vec<AttemptReport> {
    let unknown = state.index().fires().running().filter_map(|(_, key)| state.fire(key));
    let unknown = unknown.filter(|fire| fire.state == FireState::Unknown);
    let kill = |key| attempts::work_of(state, key).is_some_and(|w| w.on_lease_lost == OnLeaseLost::Kill);
    unknown
        .filter(|fire| kill(fire.key))
        .filter_map(|fire| {
            let end = AttemptEnd {
                outcome: AttemptOutcome::LeaseLost,
                started_at: None,
                ended_at: now(),
                output: Output::default(),
                result: None,
            };
            Some(AttemptReport { attempt: fire.attempt()?, epoch: fire.epoch, end })
        })
        .collect()
}

impl Reconciler for Attempts {
    const NAME: &'static str = "attempts";
    const TABLES: &'static [TableId] = &[TableId::Fires, TableId::Hosts, TableId::Attempts];
    const PERIOD: Duration = Duration::from_secs(10);

    async fn activate(&mut self) -> Verdict {
        let rests = [self.alarms().await, self.expire().await, self.place().await];
        for (host, errands) in orders::errands(&self.world, &self.sent) {
            // A busy lane activates this again when it is free.
            orders::run(&self.world, &mut self.lanes, &self.sent, host, errands);
        }
        if rests.contains(&Rest::Soon) {
            return Verdict::again_in(NO_HOST);
        }
        let at = now();
        let next = self.world.ledger.read(|state| {
            [attempts::next_due(state, at), attempts::next_alarm(state)].into_iter().flatten().min()
        });
        next.map_or(Verdict::DONE, |next| Verdict::again_in(next.since(at)))
    }

    fn finished(&self) -> Option<Arc<Notify>> {
        Some(self.lanes.finished())
    }
}
