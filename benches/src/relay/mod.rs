//! `relay`: one migration of an idle guest between two hosts, on an unshaped veth and on a 1 Gbit/s token bucket: QEMU's
//! own migration over TCP, the same with TLS, and ours. In turn, so that all see the same noise.
//!
//! The guest has 1 GiB of RAM and keeps 512 MiB of incompressible pages (with its kernel and initramfs about 600 MiB are
//! not zero); it rewrites nothing. Seconds are wall clock from the request to its end: of `virsh migrate --live`, and of
//! our migration through the HTTPS API. Bytes are what the source's `eth0` sent, as the kernel counts them.

use crate::{
    guest::Shape,
    moves::{Mover, Run, Series, Stage, ours_of, pki, series},
    report::{Row, publish},
};
use anyhow::{Context, Result, bail, ensure};
use novacron_tests::{
    cluster::{Cluster, ClusterOptions, TemplateOptions},
    guest_image::GuestImage,
    need::{Need, first_missing},
};

/// Ours and the peers', in turn, on each link.
const PAIRS: usize = 5;
const TEMPLATE: &str = "idle";
const GUEST_WORDS: &str = "nova.mb=512 nova.fill=rand nova.rate=0 nova.verify=0 nova.tick=100 nova.disk=0";
const MBIT: u32 = 1000;
/// What the design allows an agent while it moves a machine, MiB.
const AGENT_MIB: f64 = 128.0;

/// The wire between the hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Unshaped,
    Shaped,
}

pub fn run() -> Result<()> {
    if let Some(why) = first_missing(&[Need::Root, Need::Libvirt, Need::Qemu, Need::Apt]) {
        bail!("the relay bench {why}");
    }
    GuestImage::build()?;
    let mut cluster = Cluster::start(&ClusterOptions::two_hosts("relay"))?;
    let tls = pki::give_certificates(&mut cluster);
    cluster.wait_for_hosts()?;
    let rows = measure(&cluster, tls).with_context(|| cluster.last_words(8))?;
    publish("relay", &rows)
}

fn measure(cluster: &Cluster, tls: Result<()>) -> Result<Vec<Row>> {
    let mut stage = set(cluster)?;
    let mut movers = vec![Mover::Plain, Mover::Ours];
    match tls.and_then(|()| stage.run(Mover::Tls).map(drop)) {
        Ok(()) => movers.insert(1, Mover::Tls),
        Err(fault) => println!("NOT MEASURED: QEMU TLS: {fault:#}"),
    }
    // Each has moved once before it is timed.
    stage.run(Mover::Plain)?;
    stage.run(Mover::Ours)?;
    let unshaped = series(&mut stage, &movers, PAIRS)?;
    shape(cluster)?;
    let shaped = series(&mut stage, &movers, PAIRS)?;
    let verdict = stage.ours.recorder.judge();
    ensure!(verdict.is_continuous(), "our guest did not run on without a gap: {verdict:?}");
    let mut rows = rows_of(Wire::Shaped, &shaped)?;
    rows.extend(rows_of(Wire::Unshaped, &unshaped)?);
    rows.extend(memory_rows(&[shaped, unshaped])?);
    Ok(rows)
}

fn set(cluster: &Cluster) -> Result<Stage<'_>> {
    cluster.make_template(&TemplateOptions { name: TEMPLATE.into(), disk: None })?;
    let guest = |name| Shape { name, memory_mib: 1024, disk_mib: 0, words: GUEST_WORDS.into() };
    let (ours, peer) = (guest("ours"), guest("peer"));
    Stage::set(cluster, TEMPLATE, &ours, &peer)
}

fn shape(cluster: &Cluster) -> Result<()> {
    cluster.members.iter().try_for_each(|member| cluster.lab.shape(member.host.node(), MBIT))
}

fn rows_of(wire: Wire, all: &[Series]) -> Result<Vec<Row>> {
    let ours = ours_of(all)?;
    let peers = all.iter().filter(|series| series.mover != Mover::Ours);
    Ok(peers.flat_map(|peer| rows_beside(wire, ours, peer)).collect())
}

fn rows_beside(wire: Wire, ours: &Series, peer: &Series) -> [Row; 2] {
    let (link, goal) = match wire {
        Wire::Shaped => ("shaped 1 Gbit/s", Some(1.1)),
        Wire::Unshaped => ("unshaped", None),
    };
    let goal = goal.filter(|_| peer.mover == Mover::Plain);
    let row = |what: &str, unit, part: fn(&Run) -> f64, goal| {
        let name = format!("relay {link}, {what} vs {}", peer.mover.name());
        Row::beside(&name, unit, ours.median(part), (peer.mover.name(), peer.median(part)), goal)
    };
    [row("seconds", "s", |run| run.seconds, goal), row("bytes", "MiB", |run| run.mib, None)]
}

/// The most of all runs, not the median: the limit is one that may never be passed.
fn memory_rows(wires: &[Vec<Series>]) -> Result<Vec<Row>> {
    let mut peaks = [0.0_f64; 2];
    for all in wires {
        let runs = &ours_of(all)?.runs;
        let seen = runs.iter().filter_map(|run| run.agents).map(|agents| agents.peaks);
        seen.for_each(|seen| peaks = [peaks[0].max(seen.source_mib), peaks[1].max(seen.target_mib)]);
    }
    let row =
        |side: &str, peak| Row::at_most(&format!("agent memory, {side}, peak RSS"), "MiB", peak, AGENT_MIB);
    Ok(vec![row("source", peaks[0]), row("target", peaks[1])])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moves::{Agents, Peaks};
    use std::time::Duration;

    fn series(mover: Mover, seconds: f64, agents: Option<Agents>) -> Series {
        let span = Duration::ZERO..Duration::ZERO;
        Series {
            mover,
            runs: vec![Run { seconds, mib: 600.0, answered_mib: 1.0, blackout_ms: 0.0, span, agents }],
        }
    }

    #[test]
    fn only_plain_on_the_shaped_link_has_a_goal() {
        let all =
            [series(Mover::Plain, 5.0, None), series(Mover::Tls, 5.0, None), series(Mover::Ours, 6.0, None)];
        let rows = rows_of(Wire::Shaped, &all).unwrap();
        assert_eq!(rows.iter().filter(|row| row.goal != "-").count(), 1);
        assert_eq!((rows[0].goal.as_str(), rows[0].holds), ("<=1.1", false));
        assert!(rows_of(Wire::Unshaped, &all).unwrap().iter().all(|row| row.goal == "-"));
    }

    #[test]
    fn the_agents_worst_run_counts() {
        let peak = |source_mib| {
            Some(Agents {
                peaks: Peaks { source_mib, target_mib: 10.0 },
                cpu_seconds: 1.0,
                forecast_seconds: 1.0,
            })
        };
        let one = vec![series(Mover::Ours, 1.0, peak(200.0))];
        let rows = memory_rows(&[one, vec![series(Mover::Ours, 1.0, peak(50.0))]]).unwrap();
        assert!(!rows[0].holds && rows[1].holds);
    }
}
