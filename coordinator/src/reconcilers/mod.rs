//! Reconcilers: each looks at the ledger, does what is missing (asks agents, proposes), and ends. They run on the
//! leader only and remember nothing that matters, so a new leader's carry on where the old one's stopped.
//!
//! An activation takes no input and does not retry: the next one, after a commit or a period, is the retry.

mod assign;
mod attempts;
mod driver;
mod hosts;
mod lanes;
mod migrations;
mod orders;
mod scheduler;
mod verbs;
mod vms;
mod workflows;

pub use driver::{Reconciler, Verdict};

use crate::{agents::Agents, config::JobsConfig, metrics::Metrics, raft::Ledger};
use driver::drive;
use novacron_runtime::task::JoinSet;
use std::{sync::Arc, time::Duration};
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
    pub grace: HostGrace,
    /// How attempts are given to hosts.
    pub jobs: JobsConfig,
    /// Ends them.
    pub stop: CancellationToken,
}

/// Pause of whatever fires by the clock while this coordinator's is off.
const CLOCK_RETRY: Duration = Duration::from_millis(500);

impl World {
    /// Whether this coordinator's clock may decide that a tick is due. While it may not, nothing fires until the clock
    /// is right or another coordinator leads.
    fn may_fire(&self) -> bool {
        self.ledger.clock().may_fire()
    }
}

/// How long a host may be without a session before it counts as down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostGrace {
    /// After its session ended.
    pub lost: Duration,
    /// After this coordinator began to lead.
    pub start: Duration,
}

impl Default for HostGrace {
    /// An agent that restarts is back within three seconds. One whose coordinator died without a goodbye notices
    /// that when QUIC's idle time-out (8 s) is over, and only then looks for another.
    fn default() -> Self {
        Self { lost: Duration::from_secs(3), start: Duration::from_secs(12) }
    }
}

/// Runs every reconciler until the world stops.
pub async fn run(world: World) {
    let mut tasks = JoinSet::new();
    tasks.spawn(drive(world.clone(), scheduler::Scheduler::new));
    tasks.spawn(drive(world.clone(), attempts::Attempts::new));
    tasks.spawn(drive(world.clone(), workflows::Workflows::new));
    tasks.spawn(drive(world.clone(), verbs::Verbs::new));
    tasks.spawn(drive(world.clone(), vms::Vms::new));
    tasks.spawn(drive(world.clone(), migrations::Migrations::new));
    tasks.spawn(drive(world.clone(), hosts::Hosts::new));
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a reconciler ended with a panic");
            // Without it the cluster would silently stand still: a restart of the process is the remedy.
            world.stop.cancel();
        }
    }
}
