//! Notices hosts whose agents are not heard from, and says so in the ledger.

use super::{
    World,
    driver::{Reconciler, Verdict},
};
use crate::{agents::Silence, identity::now};
use novacron_common::{api::HostState, ids::HostId, units::UnixMillis};
use novacron_core::{Applied, CommandBody, TableId, command::HostDown};
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

    fn silent(&self) -> Vec<Silent> {
        // Read before the sessions are looked at: a hello that comes in between is later than this, and wins.
        let up: Vec<(HostId, Option<UnixMillis>)> = self.world.ledger.read(|state| {
            let up = state.hosts().iter().filter(|h| h.state == HostState::Up);
            up.map(|h| (h.id, h.last_seen)).collect()
        });
        let (sessions, at, clock) = (self.world.agents.sessions(), Instant::now(), now());
        let silent = |(host, last_seen): (HostId, Option<UnixMillis>)| {
            let (silence, grace) = match sessions.silence(host, self.began, at)? {
                Silence::Lost(silence) => (silence, self.world.grace.lost),
                Silence::NotYetHeard(silence) => (silence, self.world.grace.start),
            };
            // The ledger's clock may be ahead of this one, and a last report may have been on its way.
            let since = last_seen.max(Some(minus(clock, silence))).unwrap_or(clock);
            Some(Silent { host, since, left: grace.saturating_sub(silence) })
        };
        up.into_iter().filter_map(silent).collect()
    }

    async fn declare_down(&self, silent: &Silent) {
        let Silent { host, since, .. } = *silent;
        tracing::warn!(%host, %since, "a host is not heard from: it counts as down");
        let down = CommandBody::HostDown(HostDown { host, silent_since: since });
        match self.world.ledger.propose(down).await {
            Ok(Applied::Refused(refusal)) => {
                tracing::info!(%host, %refusal, "the host is not down after all")
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%host, %error, "could not commit that a host is down"),
        }
    }
}

/// A host that is up in the ledger and has no session.
struct Silent {
    host: HostId,
    since: UnixMillis,
    /// Of its grace.
    left: Duration,
}

fn minus(at: UnixMillis, by: Duration) -> UnixMillis {
    UnixMillis(at.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
}

impl Reconciler for Hosts {
    const NAME: &'static str = "hosts";
    const TABLES: &'static [TableId] = &[TableId::Hosts];
    const PERIOD: Duration = Duration::from_secs(1);

    async fn activate(&mut self) -> Verdict {
        let mut next: Option<Duration> = None;
        for silent in self.silent() {
            if silent.left == Duration::ZERO {
                self.declare_down(&silent).await;
            } else {
                next = Some(next.map_or(silent.left, |n| n.min(silent.left)));
            }
        }
        next.map_or(Verdict::DONE, Verdict::again_in)
    }
}
