//! Two hosts, and a guest for each side: the agents' and libvirt's own. Each one's place is remembered.

use super::{
    memory::{self, Peaks},
    mover::Mover,
    wire,
};
use crate::{
    client::{Client, on_network_of},
    guest::{COMMAND_LIMIT, Shape, client_of, create, start_plain, virsh},
    process::cpu_seconds,
};
use anyhow::{Context, Result, bail, ensure};
use novacron_common::record::MemoryTraffic;
use novacron_tests::{
    cluster::{Cluster, Machine, Member},
    lab::Host,
    serial::{Recorder, longest_silence_ms},
};
use serde_json::json;
use std::{
    fmt, fs,
    ops::Range,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// How often the API is asked whether the migration has ended: the error of our seconds.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// Where agents keep what machines leave behind, as their hosts see it.
const CHECKPOINTS: &str = "/var/lib/novacron/agent/checkpoints";
const QEMU_PORT: u16 = 49_200;
/// How long QEMU may try before it counts as not converging.
const CONVERGENCE_LIMIT: Duration = Duration::from_secs(90);
const MIB: f64 = 1_048_576.0;

/// One migration.
#[derive(Debug, Clone)]
pub struct Run {
    /// From the request to its end; infinite if it was given up.
    pub seconds: f64,
    /// What the source's `eth0` sent.
    pub mib: f64,
    /// What the target's did.
    pub answered_mib: f64,
    /// The longest time between two of the guest's ticks, as seen from outside.
    pub blackout_ms: f64,
    /// When it was, on the clock of the guest's recorder.
    pub span: Range<Duration>,
    /// What the agents took, if they moved it.
    pub agents: Option<Agents>,
}

/// What the two agents took for one migration.
#[derive(Debug, Clone, Copy)]
pub struct Agents {
    /// Of memory.
    pub peaks: Peaks,
    /// Of processor time, together.
    pub cpu_seconds: f64,
    /// What the move was expected to take, seconds.
    pub forecast_seconds: f64,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, mib, blackout_ms, agents, .. } = self;
        write!(f, "{seconds:6.2} s {mib:7.1} MiB, {blackout_ms:5.0} ms silent")?;
        agents.map_or(Ok(()), |Agents { peaks, cpu_seconds, forecast_seconds }| {
            let Peaks { source_mib, target_mib } = peaks;
            write!(f, ", agents {source_mib:.0} and {target_mib:.0} MiB, {cpu_seconds:.2} CPU-seconds")?;
            write!(f, ", forecast {forecast_seconds:.2} s")
        })
    }
}

/// Two hosts and two guests: the cluster's and libvirt's own.
pub struct Stage<'a> {
    cluster: &'a Cluster,
    /// Our machine.
    pub ours: Machine,
    ours_at: usize,
    peer: &'static str,
    peer_at: usize,
    /// The console of libvirt's guest.
    pub peer_console: Recorder,
}

impl<'a> Stage<'a> {
    /// Both guests, booted on the first host.
    pub fn set(cluster: &'a Cluster, template: &str, ours: &Shape, peer: &Shape) -> Result<Self> {
        let (machine, _) = create(cluster, ours, &ours.body(template, "h1"))?;
        machine.recorder.wait_for(Duration::ZERO, COMMAND_LIMIT, |line| line.starts_with("READY"))?;
        let hosts: Vec<_> = cluster.members.iter().map(|member| &member.host).collect();
        let started = start_plain(cluster.lab.outside(), peer, &hosts)?;
        started.wait_until_ready(peer.name)?;
        let peer_console = started.recorder;
        Ok(Self { cluster, ours: machine, ours_at: 0, peer: peer.name, peer_at: 0, peer_console })
    }

    /// Removes both.
    pub fn clear(self) -> Result<()> {
        let host = &self.host_of(Mover::Plain).host;
        virsh(self.cluster.lab.outside(), host, &["destroy", self.peer])?;
        self.cluster.delete(&self.ours)
    }

    /// The host on which this mover's guest is.
    pub fn host_of(&self, mover: Mover) -> &'a Member {
        &self.cluster.members[if mover == Mover::Ours { self.ours_at } else { self.peer_at }]
    }

    /// The console of this mover's guest.
    pub fn console_of(&self, mover: Mover) -> &Recorder {
        if mover == Mover::Ours { &self.ours.recorder } else { &self.peer_console }
    }

    /// Moves the mover's guest to the host on which it is not, as if it had never been there.
    pub fn run(&mut self, mover: Mover) -> Result<Run> {
        for member in &self.cluster.members {
            forget_what_left(&member.host)?;
        }
        self.run_again(mover)
    }

    /// The same, given what the host has kept of it.
    pub fn run_again(&mut self, mover: Mover) -> Result<Run> {
        let at = if mover == Mover::Ours { self.ours_at } else { self.peer_at };
        let (source, target) = (&self.cluster.members[at], &self.cluster.members[1 - at]);
        let (sent, answered) = (wire::sent(&source.host)?, wire::sent(&target.host)?);
        let began = self.console_of(mover).now();
        let (seconds, agents) = match mover {
            Mover::Ours => {
                self.by_agents(source, target).map(|(seconds, agents)| (Some(seconds), Some(agents)))?
            }
            _ => (self.by_qemu(source, target, mover)?, None),
        };
        #[allow(clippy::cast_precision_loss)]
        let mib = |now: u64, before: u64| (now - before) as f64 / MIB;
        let answered_mib = mib(wire::sent(&target.host)?, answered);
        let mib = mib(wire::sent(&source.host)?, sent);
        let console = self.console_of(mover);
        console.wait_for_ticks(5, COMMAND_LIMIT)?;
        let span = began..console.now();
        let blackout_ms = longest_silence_ms(&console.chunks(), &span);
        if seconds.is_some() {
            *(if mover == Mover::Ours { &mut self.ours_at } else { &mut self.peer_at }) ^= 1;
        }
        Ok(Run { seconds: seconds.unwrap_or(f64::INFINITY), mib, answered_mib, blackout_ms, span, agents })
    }

    /// Seconds, or nothing if it did not converge.
    fn by_qemu(&self, source: &Member, target: &Member, mover: Mover) -> Result<Option<f64>> {
        let (to, data) = (target.host.libvirt_uri(), format!("tcp://{}:{QEMU_PORT}", target.host.address()));
        let words = [
            "-q",
            "-c",
            &source.host.libvirt_uri(),
            "migrate",
            "--live",
            self.peer,
            &to,
            "--migrateuri",
            &data,
        ];
        let mut command = Command::new("virsh");
        command.args(words).args(mover.words());
        let (began, outside) = (Instant::now(), self.cluster.lab.outside());
        let process = outside.spawn_command(command)?;
        let Some(status) = process.wait_for(CONVERGENCE_LIMIT) else {
            virsh(outside, &source.host, &["domjobabort", self.peer])?;
            process.wait_for(COMMAND_LIMIT).context("an aborted migration goes on")?;
            return Ok(None);
        };
        let took = began.elapsed();
        ensure!(status.success(), "{} ended with {status}: {}", mover.name(), process.printed().trim());
        let state = target.host.virsh(&["domstate", self.peer])?;
        ensure!(state.trim() == "running", "after the migration the peer's guest is {}", state.trim());
        Ok(Some(took.as_secs_f64()))
    }

    fn by_agents(&self, source: &Member, target: &Member) -> Result<(f64, Agents)> {
        let pids = [source.agent.process()?.pid(), target.agent.process()?.pid()];
        memory::forget_peaks(pids)?;
        let cpu = cpu_seconds(&pids)?;
        let (vm, to) = (&self.ours.id, target.host.name());
        let (seconds, forecast_seconds) = on_network_of(self.cluster.lab.outside(), async {
            let client = client_of(self.cluster)?;
            client.until_ready().await?;
            tokio::time::timeout(COMMAND_LIMIT, migrate(&client, vm, to))
                .await
                .context("our migration hangs")?
        })?;
        let (peaks, cpu_seconds) = (memory::peaks(pids)?, cpu_seconds(&pids)? - cpu);
        Ok((seconds, Agents { peaks, cpu_seconds, forecast_seconds }))
    }
}

/// Removes what a host's agent keeps of machines that left it.
fn forget_what_left(host: &Host) -> Result<()> {
    let folder = host.outside_path(Path::new(CHECKPOINTS)).context("the folder is not the host's own")?;
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}

/// Follows the migration to its end, and prints how long it was seen in each state. The seconds that it took, and those that
/// were forecast when it was asked for.
async fn migrate(client: &Client, vm: &str, to: &str) -> Result<(f64, f64)> {
    let began = Instant::now();
    let asked = client.post(&format!("/api/v1/vms/{vm}/migrate"), &json!({"target_host": to})).await?;
    let id = asked["id"].as_str().with_context(|| format!("no id in {asked}"))?;
    let forecast_ms = asked["forecast"]["total_ms"]["expected"].as_f64();
    let forecast = forecast_ms.with_context(|| format!("no forecast in {asked}"))? / 1000.0;
    let (mut phases, mut last) = (Phases::default(), String::new());
    let view = loop {
        let view = client.show(&format!("/api/v1/migrations/{id}")).await?;
        let state = view["status"]["state"].as_str().context("a migration without a state")?;
        if state != last {
            phases.enter(state, began.elapsed());
            state.clone_into(&mut last);
        }
        match state {
            "completed" => break view,
            "failed" | "cancelled" => bail!("our migration did not complete: {}", view["status"]),
            _ => tokio::time::sleep(ASK_EVERY).await,
        }
    };
    let took = began.elapsed().as_secs_f64();
    println!("{:>20}  {phases}", "");
    println!("{:>20}  {}", "", sent(&serde_json::from_value(view["memory"].clone())?));
    Ok((took, forecast))
}

/// How the machine's memory was sent, in MiB: what of it by which means, and what zstd made of what.
fn sent(memory: &MemoryTraffic) -> String {
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    let kinds = memory.kinds().into_iter().filter(|(_, sent)| sent.pages > 0);
    let kinds: Vec<_> = kinds.map(|(kind, sent)| format!("{kind} {}", mib(sent.bytes))).collect();
    let MemoryTraffic { written_bytes, compressed_from_bytes, compressed_to_bytes, .. } = memory;
    let [of, from, to] = [written_bytes, compressed_from_bytes, compressed_to_bytes].map(|bytes| mib(*bytes));
    format!("{of} MiB of QEMU's as {}; {from} packed to {to}", kinds.join(", "))
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
