//! Commits ticks of workflows, and the steps of runs that no event triggers: waits that are over, cancelled runs
//! that have to end, nodes that had to wait for others, and rows of runs that are to be forgotten.

use super::{
    CLOCK_RETRY, World,
    driver::{Reconciler, Verdict},
};
use crate::identity::now;
use novacron_common::{ids::RunId, units::UnixMillis};
use novacron_core::{Applied, CommandBody, State, TableId, workflow};
use std::time::Duration;

/// Ticks, and runs to advance, in one go.
const BATCH: usize = 128;
/// Runs of which a part is forgotten in one go: each part is up to a thousand rows.
const FORGOTTEN: usize = 2;
/// Pause after a commit that failed or changed nothing; what is due stays due.
const RETRY: Duration = Duration::from_millis(200);

/// Proposes what is due for workflows.
pub struct Workflows {
    world: World,
}

impl Workflows {
    pub fn new(world: World) -> Self {
        Self { world }
    }

    async fn commit(&self, due: Vec<CommandBody>) -> Verdict {
        let count = due.len();
        match self.world.ledger.propose(CommandBody::Batch(due)).await {
            Ok(Applied::Batch(applied)) if applied.iter().any(|a| !matches!(a, Applied::Refused(_))) => {
                Verdict::again_in(Duration::ZERO)
            }
            Ok(applied) => {
                tracing::debug!(?applied, "steps of workflows were refused: they have changed");
                Verdict::again_in(RETRY)
            }
            Err(error) => {
                tracing::warn!(%error, count, "could not commit steps of workflows that are due");
                Verdict::again_in(RETRY)
            }
        }
    }
}

/// Without `may_fire` no schedule begins a run; those that have begun go on, so that a cancelled one ends.
fn due(state: &State, at: UnixMillis, may_fire: bool) -> Vec<CommandBody> {
    let ticks =
        if may_fire { workflow::due_ticks(state, at, BATCH, RunId::generate) } else { Default::default() };
    let forgotten = state.index().workflows().forgotten().take(FORGOTTEN);
    let advances = workflow::due(state, at, BATCH);
    let forget = forgotten.map(|run| CommandBody::RunForget { run });
    let ticks = ticks.into_iter().map(CommandBody::RunTick);
    ticks.chain(advances.into_iter().map(CommandBody::RunAdvance)).chain(forget).collect()
}

impl Reconciler for Workflows {
    const NAME: &'static str = "workflows";
    const TABLES: &'static [TableId] = &[TableId::Workflows, TableId::Runs, TableId::NodeRuns];
    const PERIOD: Duration = Duration::from_secs(10);

    async fn activate(&mut self) -> Verdict {
        let (at, may_fire) = (now(), self.world.may_fire());
        let (due, next) =
            self.world.ledger.read(|state| (due(state, at, may_fire), workflow::next_due(state)));
        if due.is_empty() {
            if !may_fire {
                return Verdict::again_in(CLOCK_RETRY);
            }
            return next.map_or(Verdict::DONE, |next| Verdict::again_in(next.since(at)));
        }
        self.commit(due).await
    }
}
