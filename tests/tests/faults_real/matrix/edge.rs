//! Sees a migration come to an edge, from what the agents' journals and logs say, within milliseconds.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use novacron_tests::cluster::{Cluster, Program};
use novacron_tests::matrix::Edge;

use super::stage::{PATIENCE, Sides};
use crate::control_relay::ControlRelay;

const LOOK_EVERY: Duration = Duration::from_millis(1);
/// So much of the guest's memory has crossed that the rest is still to come.
const MEMORY_BYTES: u64 = 4 << 20;

/// Waits for one edge.
pub enum Lookout<'a> {
    /// For words in a program's log.
    Words { log: File, read: Vec<u8>, words: &'static str },
    /// For libvirt's last word.
    Relay(&'a ControlRelay),
    /// For memory on its way.
    Memory,
}

impl<'a> Lookout<'a> {
    /// To be made before the move is asked for.
    pub fn new(edge: Edge, cluster: &Cluster, sides: Sides, relay: &'a ControlRelay) -> Result<Self> {
        let agent = |side: usize| &cluster.members[side].agent;
        match edge {
            Edge::Preparing => Self::words(agent(sides.target), "inbound: preparing"),
            Edge::Connecting => Self::words(agent(sides.source), "outbound: connecting"),
            Edge::Copying => Self::words(agent(sides.source), "outbound: copying"),
            Edge::Gone => Self::words(agent(sides.source), "outbound: gone"),
            Edge::Running => Self::words(agent(sides.target), "inbound: running here"),
            Edge::Complete => {
                relay.forget();
                Ok(Self::Relay(relay))
            }
            Edge::Memory => Ok(Self::Memory),
        }
    }

    fn words(program: &Program, words: &'static str) -> Result<Self> {
        let path = program.process()?.log();
        let mut log = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        log.seek(SeekFrom::End(0))?;
        Ok(Self::Words { log, read: Vec::new(), words })
    }

    /// Waits until the migration is there, for as long as it gets any further: on a busy machine a copy takes minutes.
    ///
    /// # Errors
    /// When it does not come.
    pub fn wait(&mut self, cluster: &Cluster, id: &str) -> Result<()> {
        let (mut deadline, mut last) = (Instant::now() + PATIENCE, None);
        while !self.is_reached(cluster, id)? {
            if Instant::now() > deadline {
                // Asked this seldom, because asking takes longer than an edge lasts.
                let view = cluster.migration(id)?;
                let goes_on = !view.status.state.is_final() && last.as_ref() != Some(&view);
                ensure!(goes_on, "the migration never came to the edge: {view:?}");
                (deadline, last) = (Instant::now() + PATIENCE, Some(view));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn is_reached(&mut self, cluster: &Cluster, id: &str) -> Result<bool> {
        match self {
            Self::Relay(relay) => Ok(relay.has_come_by()),
            Self::Memory => Ok(cluster.migration(id)?.memory_bytes > MEMORY_BYTES),
            Self::Words { log, read, words } => {
                log.read_to_end(read)?;
                Ok(read.windows(words.len()).any(|seen| seen == words.as_bytes()))
            }
        }
    }
}
