//! `raft`: durable writes per second and their latency on three coordinators, beside three etcd members on the same disk.
//!
//! Each of the six servers is on a node of its own (network, mount and process namespaces); the client is a process of its
//! own in the outside node. A write is what a user does: `POST /api/v1/jobs` with a token, validated and indexed, here; a
//! `Put` of the same number of value bytes there, without authentication. Both acknowledge after a majority has synced.
//! Ours encrypts between the members in every row; etcd's members do in the TLS rows. Runs alternate: ours, etcd, ours, …

mod disk;
mod etcd;

use crate::{
    load::{self, Length, Order, Report, Target},
    report::{Row, publish},
    stats::median,
};
use anyhow::{Context, Result, ensure};
use etcd::Etcd;
use novacron_tests::{
    cluster::API_PORT,
    lab::Node,
    ledger::trio::{Trio, TrioOptions},
};

/// Pairs of runs, ours and etcd's in turn.
const PAIRS: usize = 5;
const CLIENTS: [usize; 3] = [1, 64, 1000];
/// What is timed of each run, milliseconds.
const RUN_MS: u64 = 5000;
const VALUE_BYTES: usize = 256;
/// Where coordinators serve without TLS, on their own loopback.
const PLAIN_PORT: u16 = 8089;
const _: () = assert!(PLAIN_PORT != API_PORT);

/// All rows, or the one that `ROW` names (`disk`, `tls-1` … `plain-1000`). Figures are written as soon as they are there.
pub fn run() -> Result<()> {
    let wanted = std::env::var("ROW").ok();
    let wants = |row: &str| wanted.as_deref().is_none_or(|wanted| wanted == row);
    let mut trio = start()?;
    let mut rows = Vec::new();
    if wants("disk") {
        rows.extend(disk::rows(trio.reach.lab.root())?);
    }
    for tls in [etcd::Tls::On, etcd::Tls::Off] {
        let selected: Vec<usize> =
            CLIENTS.into_iter().filter(|clients| wants(&format!("{}-{clients}", tls.name()))).collect();
        if selected.is_empty() {
            continue;
        }
        let etcd = Etcd::start(&mut trio.reach.lab, tls)?;
        for clients in selected {
            let pairs = pairs(&trio, &etcd, clients)?;
            rows.extend(rows_of(tls, clients, &pairs));
            publish("raft", &rows)?;
        }
    }
    ensure!(!rows.is_empty(), "ROW is {wanted:?}; there are disk and tls-N and plain-N for N in {CLIENTS:?}");
    publish("raft", &rows)
}

fn start() -> Result<Trio> {
    let mut options = TrioOptions::new("bench-r");
    options.agents = 0;
    options.plain_port = Some(PLAIN_PORT);
    options.log = "warn".to_owned();
    Trio::start(&options)
}

fn pairs(trio: &Trio, etcd: &Etcd, clients: usize) -> Result<Vec<(Report, Report)>> {
    let mut pairs = Vec::new();
    for number in 0..PAIRS {
        let run = format!("{}-{clients}-{number}", etcd.tls.name());
        let ours = run_ours(trio, etcd.tls, clients, &run).context("ours")?;
        let theirs = etcd.run(&trio.reach, clients, &run).context("etcd")?;
        println!(
            "{run}: ours {:.0}/s p50 {:.2} p99 {:.2} ms; etcd {:.0}/s p50 {:.2} p99 {:.2} ms",
            ours.per_second(),
            ours.p50_ms,
            ours.p99_ms,
            theirs.per_second(),
            theirs.p50_ms,
            theirs.p99_ms
        );
        pairs.push((ours, theirs));
    }
    Ok(pairs)
}

/// Clients use servers in turn, beginning with the first: so that a single client meets a leader here and there.
fn from(mut servers: Vec<String>, leader: usize) -> Vec<String> {
    servers.rotate_left(leader);
    servers
}

/// An order for a run of this bench.
fn order(target: Target, servers: Vec<String>, clients: usize, run: &str) -> Order {
    Order {
        target,
        servers,
        ca: None,
        token: String::new(),
        clients,
        length: Length::Millis(RUN_MS),
        value_bytes: VALUE_BYTES,
        run: run.to_owned(),
        schedule: "0 0 0 1 1 *".to_owned(),
        enabled: false,
        trace: false,
    }
}

fn run_ours(trio: &Trio, tls: etcd::Tls, clients: usize, run: &str) -> Result<Report> {
    let reach = &trio.reach;
    let leader = reach.leader()?;
    let mut order = order(Target::NovaCron, from(reach.servers.clone(), leader), clients, run);
    order.token.clone_from(&reach.token);
    match tls {
        etcd::Tls::On => {
            order.ca = Some(reach.ca.iter().map(|byte| format!("{byte:02x}")).collect());
            load::run(reach.lab.outside(), &order)
        }
        etcd::Tls::Off => {
            // Plain HTTP is served on a loopback address only, so the client is on the leader's own node.
            order.servers = vec![format!("http://127.0.0.1:{PLAIN_PORT}")];
            let node: &Node = &trio.seats.coordinators[leader].node;
            load::run(node, &order)
        }
    }
}

#[allow(clippy::cast_precision_loss)]
fn rows_of(tls: etcd::Tls, clients: usize, pairs: &[(Report, Report)]) -> Vec<Row> {
    let name = format!("{}, {clients} clients", if tls == etcd::Tls::On { "TLS" } else { "no TLS" });
    let figure = |of: fn(&Report) -> f64| {
        let ours: Vec<f64> = pairs.iter().map(|(ours, _)| of(ours)).collect();
        let theirs: Vec<f64> = pairs.iter().map(|(_, theirs)| of(theirs)).collect();
        (median(&ours), ("etcd", median(&theirs)))
    };
    // The goals are for what people run: with TLS.
    let goal = |bound: f64| (tls == etcd::Tls::On).then_some(bound);
    let at_least = match clients {
        64 => goal(1.5),
        1000 => goal(2.0),
        _ => None,
    };
    let (rate, peer) = figure(Report::per_second);
    let (p50, peer_p50) = figure(|report| report.p50_ms);
    let (p99, peer_p99) = figure(|report| report.p99_ms);
    let (failed, peer_failed) = figure(|report| report.failed as f64);
    vec![
        Row::beside(&format!("writes that failed, {name}"), "", failed, peer_failed, None),
        Row::more_than(&format!("writes/s, {name}"), "/s", rate, peer, at_least),
        Row::beside(
            &format!("p50, {name}"),
            "ms",
            p50,
            peer_p50,
            if clients == 1 { goal(1.0) } else { None },
        ),
        Row::beside(&format!("p99, {name}"), "ms", p99, peer_p99, None),
    ]
}
