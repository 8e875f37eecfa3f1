//! Commits fires when they are due. It sleeps until the next tick of any job, so an idle cluster costs nothing and
//! a tick is committed within milliseconds.
//!
//! Where many are due at once they go in batches of which several are under way: while one is synced and replicated
//! another is applied. What is known of an instant before it comes is worked out before it comes: the commands of its
//! ticks, with the tick after each, are made ready a little ahead, and at the instant they are only proposed. Whatever
//! changes in between is none the worse for it: a command that was made from an older job is refused, and after those
//! that were ready the ledger is looked at for more.

use super::{
    CLOCK_RETRY, World,
    driver::{Reconciler, Verdict},
};
use crate::identity::{now, until};
use novacron_common::units::UnixMillis;
use novacron_core::{Applied, CommandBody, TableId, command::FireCommit, schedule};
use novacron_runtime::task::JoinSet;
use std::time::Duration;

/// Fires in one batch: few enough that the first are committed soon, and that nobody waits long for the ledger while
/// they are applied.
const BATCH: usize = 500;
/// Batches under way at once. More would only wait, before whatever else is to be committed.
const UNDER_WAY_MAX: usize = 6;
/// Most batches that are made ready for an instant; what else is due then is looked up when it is.
const READY_MAX: usize = 64;
/// How long before an instant its batches are made ready. Ticks are whole seconds, so those of the second before are
/// committed by then, or will be looked up.
const AHEAD: Duration = Duration::from_millis(500);
/// Pause after a failed commit; the fires stay due.
const RETRY: Duration = Duration::from_millis(200);

type Batch = Vec<FireCommit>;

/// Proposes `FireCommit` for due ticks.
pub struct Scheduler {
    world: World,
    ready: Option<Ready>,
}

/// What is to be proposed at an instant.
struct Ready {
    at: UnixMillis,
    batches: Vec<Batch>,
}

impl Scheduler {
    pub fn new(world: World) -> Self {
        Self { world, ready: None }
    }

    /// Commits what is due: first what was made ready for it. `None` if nothing is, else whether anything was taken.
    async fn commit_due(&mut self, at: UnixMillis) -> Option<bool> {
        let ready = self.ready.take_if(|ready| ready.at <= at).map(|ready| ready.batches);
        let before = propose(&self.world, ready.into_iter().flatten()).await;
        let after = propose(&self.world, due(&self.world, at)).await;
        // What was ready may all have been overtaken. That says nothing of what else is due.
        after.or(before.map(|_| true))
    }

    /// Makes the next instant's batches ready if it is near; when to look again.
    async fn look_ahead(&mut self, at: UnixMillis) -> Verdict {
        let Some(next) = self.world.ledger.read(schedule::next_due) else {
            self.ready = None;
            return Verdict::DONE;
        };
        if next.since(at) > AHEAD {
            self.ready = None;
            return Verdict::again_in(until(next).saturating_sub(AHEAD));
        }
        if self.ready.as_ref().is_none_or(|ready| ready.at != next) {
            self.ready = Some(make_ready(&self.world, next).await);
        }
        Verdict::again_in(until(next))
    }
}

async fn make_ready(world: &World, at: UnixMillis) -> Ready {
    let mut batches = Vec::new();
    for batch in due(world, at).take(READY_MAX) {
        batches.push(batch);
        // Many take a while, and there is time.
        tokio::task::yield_now().await;
    }
    Ready { at, batches }
}

/// Batches of what is due at `at`, each looked up when it is asked for, without waiting for those before it.
fn due(world: &World, at: UnixMillis) -> impl Iterator<Item = Batch> {
    let mut behind = None;
    std::iter::from_fn(move || {
        let (batch, upto) = world.ledger.read(|state| schedule::due_behind(state, at, behind, BATCH));
        behind = Some(upto?);
        Some(batch)
    })
}

/// Proposes batches, some at once. `None` if there are none, else whether anything was taken.
async fn propose(world: &World, mut batches: impl Iterator<Item = Batch>) -> Option<bool> {
    let (mut under_way, mut taken) = (JoinSet::new(), None);
    loop {
        while under_way.len() < UNDER_WAY_MAX
            && let Some(batch) = batches.next()
        {
            under_way.spawn(commit(world.clone(), batch));
        }
        let ended = under_way.join_next().await;
        let Some(ended) = ended else { return taken };
        taken = Some(taken == Some(true) || ended.unwrap_or(false));
    }
}

/// Whether any was taken: if none was, looking again at once would find the same.
async fn commit(world: World, batch: Batch) -> bool {
    let jobs = batch.len();
    let batch = CommandBody::Batch(batch.into_iter().map(CommandBody::FireCommit).collect());
    match world.ledger.propose(batch).await {
        Ok(Applied::Batch(applied)) => note(&world, &applied),
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

fn note(world: &World, applied: &[Applied]) -> bool {
    let committed_at = now();
    let mut any = false;
    for applied in applied {
        match applied {
            Applied::TicksCommitted(fires) => {
                any = true;
                for fire in fires {
                    world.metrics.fire_lateness(committed_at.since(fire.scheduled_at));
                }
            }
            Applied::AlreadySo => any = true,
            Applied::Refused(refusal) => tracing::debug!(%refusal, "a tick was refused: its job has changed"),
            _ => {}
        }
    }
    any
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
            match self.commit_due(at).await {
                Some(true) => {}
                Some(false) => return Verdict::again_in(RETRY),
                None => return self.look_ahead(at).await,
            }
        }
    }
}
