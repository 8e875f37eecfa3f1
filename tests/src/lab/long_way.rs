//! A long way to one node: delay, loss and a narrow link in user space, for kernels without netem.
//!
//! ```text
//!  node ══ its port ══ a bridge of its own ══ TAP ─▶ loss ─▶ queue ─▶ rate ─▶ delay ─▶ TAP ══ the LAN's bridge
//! ```

mod direction;
mod tap;

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use super::net;
use super::node::Node;

/// What a way is like, the same in both directions.
#[derive(Debug, Clone, Copy)]
pub struct Distance {
    /// From one end to the other.
    pub one_way: Duration,
    /// Of a thousand packets, so many are lost.
    pub lost_of_1000: u32,
    /// What it carries, Mbit (10⁶ bits) a second.
    pub mbit: u32,
    /// Says which packets are lost.
    pub seed: u64,
}

/// A node that is far away until this is dropped.
pub struct LongWay<'a> {
    outside: &'a Node,
    node: &'a Node,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl<'a> LongWay<'a> {
    /// Moves `node` to the end of a way of this distance from everybody else.
    ///
    /// # Errors
    /// When `ip` refuses, or there is no `/dev/net/tun`.
    pub(super) fn begin(outside: &'a Node, node: &'a Node, distance: Distance) -> Result<Self> {
        let [near, far] = net::long_way_taps(node);
        let taps: [File; 2] = outside.on_network(|| Ok([tap::make(&near)?, tap::make(&far)?]))?;
        let mut way = Self { outside, node, stop: Arc::default(), threads: Vec::new() };
        net::put_far(outside, node)?;
        let [near, far] = taps.map(Arc::new);
        for (seed, from, to) in [(distance.seed, &near, &far), (!distance.seed, &far, &near)] {
            let distance = Distance { seed, ..distance };
            way.threads.extend(direction::start(distance, from.clone(), to.clone(), &way.stop));
        }
        Ok(way)
    }
}

impl Drop for LongWay<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        if let Err(error) = net::put_near(self.outside, self.node) {
            eprintln!("{} stays far away: {error:#}", self.node.name());
        }
    }
}
