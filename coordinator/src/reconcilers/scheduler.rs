//! Commits fires when they are due. It sleeps until the next tick of any job, so an idle cluster costs nothing and
//! a tick is committed within milliseconds.

use super::{
    CLOCK_RETRY, World,
    driver::{Reconciler, Verdict},
};
use crate::identity::now;
use novacron_core::{Applied, CommandBody, TableId, command::FireCommit, schedule};
use std::time::Duration;

/// Fires that are committed in one go.
const BATCH: usize = 1000;
/// Pause after a failed commit; the fires stay due.
const RETRY: Duration = Duration::from_millis(200);

/// Proposes `FireCommit` for due ticks.
pub struct Scheduler {
    world: World,
}

impl Scheduler {
    pub fn new(world: World) -> Self {
        Self { world }
    }

    async fn commit(&self, due: Vec<FireCommit>) -> bool {
        let jobs = due.len();
        let batch = CommandBody::Batch(due.into_iter().map(CommandBody::FireCommit).collect());
        match self.world.ledger.propose(batch).await {
            Ok(Applied::Batch(applied)) => self.note(&applied),
            Ok(other) => {
                tracing::error!(?other, "a batch of fires was answered by something else");
                false
            }
            Err(error) => {
                tracing::warn!(%error, jobs, "could not commit fires that are due");
                false
            }
        }
    }

    /// Whether any was taken: if none was, looking again at once would find the same.
    fn note(&self, applied: &[Applied]) -> bool {
        let committed_at = now();
        let mut any = false;
        for applied in applied {
            match applied {
                Applied::TicksCommitted(fires) => {
                    any = true;
                    for fire in fires {
                        self.world.metrics.fire_lateness(committed_at.since(fire.scheduled_at));
                    }
                }
                Applied::AlreadySo => any = true,
                Applied::Refused(refusal) => {
                    tracing::debug!(%refusal, "a tick was refused: its job has changed")
                }
                _ => {}
            }
        }
        any
    }
}

impl Reconciler for Scheduler {
    const NAME: &'static str = "scheduler";
    const TABLES: &'static [TableId] = &[TableId::Jobs, TableId::Pulses];
    const PERIOD: Duration = Duration::from_secs(10);

    async fn activate(&mut self) -> Verdict {
        loop {
            if !self.world.may_fire() {
                return Verdict::again_in(CLOCK_RETRY);
            }
            let at = now();
            let (due, next) =
                self.world.ledger.read(|state| (schedule::due(state, at, BATCH), schedule::next_due(state)));
            if due.is_empty() {
                return next.map_or(Verdict::DONE, |next| Verdict::again_in(next.since(at)));
            }
            if !self.commit(due).await {
                return Verdict::again_in(RETRY);
            }
        }
    }
}
