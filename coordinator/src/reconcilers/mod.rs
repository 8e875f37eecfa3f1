//! Reconcilers: each looks at the ledger, does what is missing (asks agents, proposes), and ends. They run on the
//! leader only and remember nothing that matters, so a new leader's carry on where the old one's stopped.
//!
//! An activation takes no input and does not retry: the next one, after a commit or a period, is the retry.

mod attempts;
mod driver;
mod hosts;
mod lanes;
mod migrations;
mod scheduler;
mod vms;

pub use driver::{Reconciler, Verdict};

use crate::{agents::Agents, metrics::Metrics, raft::Ledger};
use driver::drive;
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What reconcilers work with.
#[derive(Clone)]
pub struct World {
    /// The ledger.
    pub ledger: Ledger,
    /// The agents.
    pub agents: Agents,
    /// Where figures go.
    pub metrics: Arc<Metrics>,
    /// How long a host may be without a session before it counts as down.
    pub host_grace: Duration,
    /// Ends them.
    pub stop: CancellationToken,
}

impl World {
    /// How long a host may be without a session where nothing else is configured: an agent that restarts is back
    /// sooner, and a lost host is noticed before anybody asks.
    pub const HOST_GRACE: Duration = Duration::from_secs(3);
}

/// Runs every reconciler until the world stops.
pub async fn run(world: World) {
    let mut tasks = JoinSet::new();
    tasks.spawn(drive(world.clone(), |world| scheduler::Scheduler::new(world)));
    tasks.spawn(drive(world.clone(), |world| attempts::Attempts::new(world)));
    tasks.spawn(drive(world.clone(), |world| vms::Vms::new(world)));
    tasks.spawn(drive(world.clone(), |world| migrations::Migrations::new(world)));
    tasks.spawn(drive(world.clone(), |world| hosts::Hosts::new(world)));
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a reconciler ended with a panic");
            // Without it the cluster would silently stand still: a restart of the process is the remedy.
            world.stop.cancel();
        }
    }
}
