//! Four machines of one template: moved as a gang, and each by itself.

use super::feed;
use crate::{
    guest::{COMMAND_LIMIT, Shape, create},
    report::Row,
};
use anyhow::{Context, Result, ensure};
use novacron_common::api::{MigrationState, MigrationView};
use novacron_tests::cluster::{Cluster, Machine};
use std::{net::Ipv4Addr, time::Duration};

/// For `ROW=`.
pub const NAME: &str = "gang";
/// For people.
pub const ABOUT: &str =
    "four guests of one template, 200 MiB of the same ELF files and 8 MiB of their own, 1 Gbit/s";
/// What the link carries, Mbit/s.
pub const MBIT: u32 = 1000;

const NAMES: [&str; 4] = ["gang-0", "gang-1", "gang-2", "gang-3"];
const MEMORY_MIB: u32 = 512;
const FED_MIB: usize = 200;
const WORDS: &str =
    "nova.mb=8 nova.fill=rand nova.rate=0 nova.verify=8 nova.tick=100 nova.disk=0 nova.feed=200";
/// Of what four single moves take.
const GOAL: f64 = 0.4;

/// The rows: bytes and seconds beside those of four single moves.
pub fn rows(cluster: &Cluster, template: &str) -> Result<Vec<Row>> {
    let data = feed::elf_files(FED_MIB << 20)?;
    let alone = of_four(cluster, template, &data, |machines| {
        machines.iter().map(|machine| Ok(vec![asked(cluster, &[machine])?.remove(0)])).collect()
    })?;
    println!("{:>20}: {alone}", "each by itself");
    let together = of_four(cluster, template, &data, |machines| {
        Ok(vec![asked(cluster, &machines.iter().collect::<Vec<_>>())?])
    })?;
    println!("{:>20}: {together}", "as a gang");
    let peer = |figure| ("four single moves", figure);
    Ok(vec![
        Row::beside("four guests of one template", "MiB", together.mib, peer(alone.mib), Some(GOAL)),
        Row::beside("four guests of one template", "s", together.seconds, peer(alone.seconds), None),
    ])
}

/// What all four moves took.
struct Taken {
    mib: f64,
    seconds: f64,
    held_pages: u64,
}

impl std::fmt::Display for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mib, seconds, held_pages } = self;
        write!(f, "{seconds:6.2} s {mib:7.1} MiB, {held_pages} pages were held")
    }
}

/// Fresh guests each time: no host holds anything of them.
fn of_four(
    cluster: &Cluster,
    template: &str,
    data: &[u8],
    moved: impl Fn(&[Machine]) -> Result<Vec<Vec<MigrationView>>>,
) -> Result<Taken> {
    let machines = NAMES.iter().zip(60..).map(|(name, at)| boot(cluster, template, name, at, data));
    let machines = machines.collect::<Result<Vec<_>>>()?;
    let ended = moved(&machines)?;
    for machine in &machines {
        let verdict = machine.recorder.judge();
        ensure!(verdict.is_continuous(), "{} did not run on without a gap: {verdict:?}", machine.name);
        cluster.delete(machine)?;
    }
    #[allow(clippy::cast_precision_loss)]
    let mib = ended.iter().flatten().map(|view| view.total_bytes as f64 / f64::from(1 << 20)).sum();
    let held_pages = ended.iter().flatten().map(|view| view.memory.held.pages).sum();
    let seconds = ended.iter().map(|batch| took(batch).as_secs_f64()).sum();
    Ok(Taken { mib, seconds, held_pages })
}

/// From the first request to the last end.
fn took(batch: &[MigrationView]) -> Duration {
    let began = batch.iter().map(|view| view.status.start_time).min();
    let ended = batch.iter().filter_map(|view| view.status.end_time).max();
    began.zip(ended).map_or(Duration::ZERO, |(began, ended)| ended.since(began))
}

fn boot(cluster: &Cluster, template: &str, name: &'static str, at: u8, data: &[u8]) -> Result<Machine> {
    let address = Ipv4Addr::new(10, 77, 0, at);
    let words = format!("{WORDS} nova.addr={address}/24");
    let shape = Shape { name, memory_mib: MEMORY_MIB, disk_mib: 0, words };
    let (machine, _) = create(cluster, &shape, &shape.body(template, "h1"))?;
    machine.recorder.wait_for(Duration::ZERO, COMMAND_LIMIT, |line| line.starts_with("READY"))?;
    feed::give(cluster, &machine.recorder, address, data)?;
    Ok(machine)
}

/// Asks for the moves in one command, and follows them to their ends.
fn asked(cluster: &Cluster, machines: &[&Machine]) -> Result<Vec<MigrationView>> {
    let names: Vec<&str> = machines.iter().map(|machine| machine.name.as_str()).collect();
    let said = cluster.novactl(&[&["vm", "migrate", "--to", "h2"], &names[..]].concat())?;
    let asked: Vec<MigrationView> = match machines {
        [_] => vec![serde_json::from_value(said).context("reading the migration")?],
        _ => serde_json::from_value(said).context("reading the migrations")?,
    };
    let ended = asked.iter().map(|view| {
        let ended = cluster.follow_to_end(&view.id.to_string(), COMMAND_LIMIT)?;
        ensure!(ended.status.state == MigrationState::Completed, "{ended:?}");
        Ok(ended)
    });
    ended.collect()
}
