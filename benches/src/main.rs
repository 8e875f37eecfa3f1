//! `novacron-benches [NAME]`: runs one bench, or all. Each measures ours beside a named peer in the same run, prints
//! a table and writes `target/bench/NAME.json`. A missed goal is reported, not an error: a bench reports.
//! `novacron-benches client ORDER` is the load client that some benches start as a process of its own, `novacron-benches
//! idle-agent DATA_DIR IMAGE` the agent's part of which `namespace` measures what it costs.

mod api;
mod certificates;
mod client;
mod cron;
mod failover;
mod guest;
mod load;
mod migration;
mod moves;
mod namespace;
mod process;
mod raft;
mod relay;
mod report;
mod stats;
mod workflow;

use anyhow::{Result, bail};

/// A bench and its name.
type Bench = (&'static str, fn() -> Result<()>);

const BENCHES: [Bench; 8] = [
    ("api", api::run),
    ("relay", relay::run),
    ("migration", migration::run),
    ("raft", raft::run),
    ("cron", cron::run),
    ("failover", failover::run),
    ("workflow", workflow::run),
    ("namespace", namespace::run),
];

fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(order) = load::order_in(&wanted) {
        return load::main(order);
    }
    if let [word, data_dir, image] = wanted.as_slice()
        && word == namespace::idle::AGENT
    {
        return namespace::idle::agent(data_dir.as_ref(), image);
    }
    if let Some(unknown) = wanted.iter().find(|name| BENCHES.iter().all(|(known, _)| known != name)) {
        let names: Vec<_> = BENCHES.iter().map(|(name, _)| *name).collect();
        bail!("there is no bench {unknown:?}; there are {}", names.join(", "));
    }
    for (name, run) in
        BENCHES.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| w == name))
    {
        println!("== {name}");
        run()?;
    }
    Ok(())
}
