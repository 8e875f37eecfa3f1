//! When a reconciler is activated: when this node begins to lead, after a commit that touches its tables, after a
//! session opens or ends, when it asked to be, and at the latest after its period.

use super::World;
use crate::raft::{Committed, Leadership};
use novacron_core::TableId;
use novacron_runtime::time::sleep_until;
use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{
    Notify,
    broadcast::{Receiver, error::RecvError},
    watch,
};

/// One kind of reconciler.
pub trait Reconciler: Send {
    /// For logs.
    const NAME: &'static str;
    /// Tables whose changes concern it.
    const TABLES: &'static [TableId];
    /// It is activated this often at least.
    const PERIOD: Duration;

    /// Looks at the world and does what is missing.
    fn activate(&mut self) -> impl Future<Output = Verdict> + Send;

    /// Called for each commit that concerns it, before the activation: a hint at where to look first. The period's
    /// activation looks everywhere, so a lost hint costs time and nothing else.
    fn hint(&mut self, _committed: &Committed) {}

    /// Called where hints may have been lost, and each period: look everywhere.
    fn forget_hints(&mut self) {}

    /// Fires when work that was started in an earlier activation is done.
    fn finished(&self) -> Option<Arc<Notify>> {
        None
    }
}

/// How an activation ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Activate again at this time, if not earlier.
    pub again_at: Option<Instant>,
}

impl Verdict {
    /// Nothing is due before the period.
    pub const DONE: Self = Self { again_at: None };

    /// Again after `wait`.
    pub fn again_in(wait: Duration) -> Self {
        Self { again_at: Some(Instant::now() + wait) }
    }
}

/// Runs reconcilers made by `make`, a new one for each term in which this node leads.
pub async fn drive<R: Reconciler>(world: World, make: impl Fn(World) -> R) {
    let mut leadership = world.ledger.leadership();
    while let Some(term) = leads(&world, &mut leadership).await {
        tracing::debug!(reconciler = R::NAME, term, "begins");
        let reconciler = make(world.clone());
        tokio::select! {
        biased;
            () = world.stop.cancelled() => return,
            () = no_longer(leadership.clone(), term) => {}
            () = serve(&world, reconciler) => return,
        }
        tracing::debug!(reconciler = R::NAME, term, "ends: this coordinator leads no more");
    }
}

/// Waits until this node leads; `None` when the world stops.
async fn leads(world: &World, leadership: &mut watch::Receiver<Leadership>) -> Option<u64> {
    let led = leadership.wait_for(|l| matches!(l, Leadership::Leader { .. }));
    tokio::select! {
        biased;
        () = world.stop.cancelled() => None,
        led = led => match &*led.ok()? {
            Leadership::Leader { term } => Some(*term),
            Leadership::Follower { .. } => None,
        },
    }
}

async fn no_longer(mut leadership: watch::Receiver<Leadership>, term: u64) {
    // A closed channel means that the ledger has stopped.
    let _ = leadership.wait_for(|l| *l != Leadership::Leader { term }).await;
}

async fn serve<R: Reconciler>(world: &World, mut reconciler: R) {
    // Subscribed before the first look, so that nothing falls in between.
    let mut committed = world.ledger.committed();
    let mut sessions = world.agents.sessions().changes();
    let mut full_at = Instant::now();
    loop {
        if Instant::now() >= full_at {
            reconciler.forget_hints();
            full_at = Instant::now() + R::PERIOD;
        }
        let verdict = reconciler.activate().await;
        let at = verdict.again_at.map_or(full_at, |at| at.min(full_at));
        let finished = reconciler.finished();
        tokio::select! {
        biased;
            () = sleep_until(at.into()) => {}
            () = notified(finished) => {}
            Ok(()) = sessions.changed() => reconciler.forget_hints(),
            alive = concerned(&mut reconciler, &mut committed) => if !alive { return },
        }
        drain(&mut reconciler, &mut committed);
    }
}

async fn notified(finished: Option<Arc<Notify>>) {
    match finished {
        Some(finished) => finished.notified().await,
        None => std::future::pending().await,
    }
}

/// Waits for a commit that concerns the reconciler; `false` if the ledger has stopped.
async fn concerned<R: Reconciler>(reconciler: &mut R, committed: &mut Receiver<Arc<Committed>>) -> bool {
    loop {
        match committed.recv().await {
            Ok(entry) if take(reconciler, &entry) => return true,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => {
                reconciler.forget_hints();
                return true;
            }
            Err(RecvError::Closed) => return false,
        }
    }
}

/// Takes what else is there already, so that a burst of commits makes one activation.
fn drain<R: Reconciler>(reconciler: &mut R, committed: &mut Receiver<Arc<Committed>>) {
    loop {
        match committed.try_recv() {
            Ok(entry) => drop(take(reconciler, &entry)),
            Err(tokio::sync::broadcast::error::TryRecvError::Lagged(_)) => reconciler.forget_hints(),
            Err(_) => return,
        }
    }
}

fn take<R: Reconciler>(reconciler: &mut R, entry: &Committed) -> bool {
    if entry.reset {
        reconciler.forget_hints();
        return true;
    }
    let concerns = entry.changes.iter().any(|change| R::TABLES.contains(&change.table));
    if concerns {
        reconciler.hint(entry);
    }
    concerns
}
