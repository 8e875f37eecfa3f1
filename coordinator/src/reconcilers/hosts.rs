//! Notices hosts whose agents are not heard from, and says so in the ledger.

use super::{
    World,
    driver::{Reconciler, Verdict},
};
use crate::identity::now;
use novacron_common::{api::HostState, ids::HostId, units::UnixMillis};
use novacron_core::{CommandBody, TableId, command::HostDown};
use std::time::{Duration, Instant};

/// Proposes `HostDown` for hosts that are up in the ledger and have had no session for the grace.
pub struct Hosts {
    world: World,
    /// When this coordinator began to lead: agents need a moment to find it.
    began: Instant,
}

impl Hosts {
    pub fn new(world: World) -> Self {
        Self { world, began: Instant::now() }
    }

    fn silent(&self) -> Vec<(HostId, Duration)> {
        let up: Vec<HostId> = self.world.ledger.read(|state| {
            state.hosts().iter().filter(|h| h.state == HostState::Up).map(|h| h.id).collect()
        });
        let (sessions, at) = (self.world.agents.sessions(), Instant::now());
        up.into_iter().filter_map(|host| Some((host, sessions.silent_for(host, self.began, at)?))).collect()
    }
}

impl Reconciler for Hosts {
    const NAME: &'static str = "hosts";
    const TABLES: &'static [TableId] = &[TableId::Hosts];
    const PERIOD: Duration = Duration::from_secs(1);

    async fn activate(&mut self) -> Verdict {
        let grace = self.world.host_grace;
        let mut next: Option<Duration> = None;
        for (host, silence) in self.silent() {
            if silence < grace {
                let left = grace - silence;
                next = Some(next.map_or(left, |n| n.min(left)));
                continue;
            }
            tracing::warn!(%host, silent_ms = silence.as_millis(), "a host is not heard from: it counts as down");
            let silent_since = UnixMillis(now().0 - i64::try_from(silence.as_millis()).unwrap_or(i64::MAX));
            let down = CommandBody::HostDown(HostDown { host, silent_since });
            if let Err(error) = self.world.ledger.propose(down).await {
                tracing::warn!(%host, %error, "could not commit that a host is down");
            }
        }
        next.map_or(Verdict::DONE, Verdict::again_in)
    }
}
