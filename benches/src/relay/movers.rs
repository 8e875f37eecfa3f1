//! The three ways to move the guest, each with its own guest's place remembered.

use super::{
    memory::{self, Peaks},
    wire,
};
use crate::{
    client::{Client, on_network_of},
    guest::{COMMAND_LIMIT, client_of, virsh},
};
use anyhow::{Context, Result, bail, ensure};
use novacron_tests::{
    cluster::{Cluster, Machine, Member},
    serial::Recorder,
};
use serde_json::json;
use std::fmt;
use std::time::{Duration, Instant};

/// How often the API is asked whether the migration has ended: the error of our seconds.
const ASK_EVERY: Duration = Duration::from_millis(20);
const QEMU_PORT: u16 = 49_200;
const MIB: f64 = 1_048_576.0;

/// Who moves the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mover {
    /// QEMU over TCP.
    Plain,
    /// QEMU over TCP with TLS.
    Tls,
    /// The agents over QUIC.
    Ours,
}

impl Mover {
    /// As the rows name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "QEMU plain",
            Self::Tls => "QEMU TLS",
            Self::Ours => "ours",
        }
    }
}

/// One migration.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// From the request to its end.
    pub seconds: f64,
    /// What the source's `eth0` sent.
    pub mib: f64,
    /// The agents' memory, if they moved it.
    pub agents: Option<Peaks>,
}

/// Two hosts and two guests: the cluster's and libvirt's own.
pub struct Stage<'a> {
    cluster: &'a Cluster,
    /// Our machine.
    pub ours: Machine,
    ours_at: usize,
    peer: &'static str,
    peer_at: usize,
    peer_console: Recorder,
}

impl<'a> Stage<'a> {
    /// Both guests run on the first host.
    pub fn new(cluster: &'a Cluster, ours: Machine, peer: &'static str, peer_console: Recorder) -> Self {
        Self { cluster, ours, ours_at: 0, peer, peer_at: 0, peer_console }
    }

    /// Moves the mover's guest to the host on which it is not.
    pub fn run(&mut self, mover: Mover) -> Result<Run> {
        let at = match mover {
            Mover::Plain | Mover::Tls => &mut self.peer_at,
            Mover::Ours => &mut self.ours_at,
        };
        let (source, target) = (&self.cluster.members[*at], &self.cluster.members[1 - *at]);
        let sent = wire::sent(&source.host)?;
        let (seconds, agents) = match mover {
            Mover::Plain => (self.by_qemu(source, target, &[])?, None),
            Mover::Tls => (self.by_qemu(source, target, &["--tls"])?, None),
            Mover::Ours => self.by_agents(source, target).map(|(seconds, peaks)| (seconds, Some(peaks)))?,
        };
        #[allow(clippy::cast_precision_loss)]
        let mib = (wire::sent(&source.host)? - sent) as f64 / MIB;
        *match mover {
            Mover::Plain | Mover::Tls => &mut self.peer_at,
            Mover::Ours => &mut self.ours_at,
        } ^= 1;
        Ok(Run { seconds, mib, agents })
    }

    fn by_qemu(&self, source: &Member, target: &Member, more: &[&str]) -> Result<f64> {
        let (to, data) = (target.host.libvirt_uri(), format!("tcp://{}:{QEMU_PORT}", target.host.address()));
        let words = [&["migrate", "--live", self.peer, &to, "--migrateuri", &data], more].concat();
        let took = virsh(self.cluster.lab.outside(), &source.host, &words)?;
        let state = target.host.virsh(&["domstate", self.peer])?;
        ensure!(state.trim() == "running", "after the migration the peer's guest is {}", state.trim());
        self.peer_console.wait_for_ticks(5, COMMAND_LIMIT)?;
        Ok(took.as_secs_f64())
    }

    fn by_agents(&self, source: &Member, target: &Member) -> Result<(f64, Peaks)> {
        let pids = [source.agent.process()?.pid(), target.agent.process()?.pid()];
        memory::forget_peaks(pids)?;
        let (vm, to) = (&self.ours.id, target.host.name());
        let seconds = on_network_of(self.cluster.lab.outside(), async {
            let client = client_of(self.cluster)?;
            client.until_ready().await?;
            tokio::time::timeout(COMMAND_LIMIT, migrate(&client, vm, to))
                .await
                .context("our migration hangs")?
        })?;
        let peaks = memory::peaks(pids)?;
        self.ours.recorder.wait_for_ticks(5, COMMAND_LIMIT)?;
        Ok((seconds, peaks))
    }
}

/// Follows the migration to its end, and prints how long it was seen in each state.
async fn migrate(client: &Client, vm: &str, to: &str) -> Result<f64> {
    let began = Instant::now();
    let asked = client.post(&format!("/api/v1/vms/{vm}/migrate"), &json!({"target_host": to})).await?;
    let id = asked["id"].as_str().with_context(|| format!("no id in {asked}"))?;
    let (mut phases, mut last) = (Phases::default(), String::new());
    loop {
        let view = client.show(&format!("/api/v1/migrations/{id}")).await?;
        let state = view["status"]["state"].as_str().context("a migration without a state")?;
        if state != last {
            phases.enter(state, began.elapsed());
            state.clone_into(&mut last);
        }
        match state {
            "completed" => break,
            "failed" | "cancelled" => bail!("our migration did not complete: {}", view["status"]),
            _ => tokio::time::sleep(ASK_EVERY).await,
        }
    }
    println!("{:>14}  {phases}", "");
    Ok(began.elapsed().as_secs_f64())
}

/// The states that a migration was seen in, and since when. A state between two questions is not seen.
#[derive(Default)]
struct Phases(Vec<(String, Duration)>);

impl Phases {
    fn enter(&mut self, state: &str, at: Duration) {
        self.0.push((state.to_owned(), at));
    }
}

impl fmt::Display for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.windows(2).try_for_each(|pair| {
            let spent = pair[1].1.saturating_sub(pair[0].1);
            write!(f, "{} {:.2} s  ", pair[0].0, spent.as_secs_f64())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_lasts_until_the_next() {
        let mut phases = Phases::default();
        for (state, ms) in [("preparing", 100), ("copying", 400), ("completed", 5400)] {
            phases.enter(state, Duration::from_millis(ms));
        }
        assert_eq!(phases.to_string().trim(), "preparing 0.30 s  copying 5.00 s");
    }
}
