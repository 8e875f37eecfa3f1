//! `failover`: from SIGKILL of the leader to the first write that a client has acknowledged through a survivor, several times.
//!
//! The bound is what Raft's settings allow: the leader's lease, the longest election time-out and 100 ms (the goal).

use crate::{
    load::{self, Length, Order, Target, unix_us},
    report::{Row, publish},
    stats::{median, percentile},
};
use anyhow::{Context, Result};
use novacron_common::api::ClusterView;
use novacron_tests::ledger::trio::{Reach, Trio, TrioOptions};
use std::time::Duration;

const ROUNDS: usize = 12;
/// Clients of the survivors.
const CLIENTS: usize = 4;
/// The client's own warm-up is 1.5 s.
const BEFORE: Duration = Duration::from_millis(2500);
const RUN_MS: u64 = 6000;
/// `coordinator/src/raft/settings.rs`: the lease is the longest election time-out.
const LEASE_MS: f64 = 400.0;
const ELECTION_MAX_MS: f64 = 400.0;
const SLACK_MS: f64 = 100.0;
const AIM_MS: f64 = 1000.0;
const RECOVERY: Duration = Duration::from_secs(60);

/// One round, milliseconds since the kill.
struct Round {
    elected: f64,
    written: f64,
}

pub fn run() -> Result<()> {
    let mut options = TrioOptions::new("bench-f");
    options.agents = 0;
    options.log = "warn".to_owned();
    let mut trio = Trio::start(&options)?;
    let mut rounds = Vec::new();
    for number in 1..=ROUNDS {
        let round = one(&mut trio, number)?;
        println!(
            "round {number}: a survivor knows a new leader after {:.0} ms; first write asked for and acknowledged since the \
             kill after {:.0} ms (+{:.0} ms)",
            round.elected,
            round.written,
            round.written - round.elected
        );
        rounds.push(round);
    }
    let written: Vec<f64> = rounds.iter().map(|round| round.written).collect();
    let elected: Vec<f64> = rounds.iter().map(|round| round.elected).collect();
    let bound = LEASE_MS + ELECTION_MAX_MS + SLACK_MS;
    publish(
        "failover",
        &[
            Row::told("a survivor knows a new leader, median", "ms", median(&elected)),
            Row::at_most("first write after SIGKILL, median", "ms", median(&written), AIM_MS),
            Row::at_most("first write after SIGKILL, longest", "ms", percentile(&written, 100.0), bound),
        ],
    )
}

fn one(trio: &mut Trio, number: usize) -> Result<Round> {
    let leader = trio.reach.leader()?;
    let order = order(&trio.reach, leader, number);
    let client = load::start(trio.reach.lab.outside(), &order)?;
    std::thread::sleep(BEFORE);
    let killed = unix_us();
    trio.seats.coordinators[leader].program.kill9()?;
    let elected = new_leader(&trio.reach, leader)?;
    let (_, said) = load::wait(&client)?;
    trio.seats.coordinators[leader].start()?;
    trio.reach.wait_until_well(RECOVERY).context("after the round")?;
    let written = first_ack(&said, killed).context("no write was acknowledged after the kill")?;
    Ok(Round { elected: since(killed, elected), written: since(killed, written) })
}

fn order(reach: &Reach, leader: usize, number: usize) -> Order {
    let survivors = reach.servers.iter().enumerate().filter(|(at, _)| *at != leader);
    Order {
        target: Target::NovaCron,
        servers: survivors.map(|(_, server)| server.clone()).collect(),
        ca: Some(reach.ca.iter().map(|byte| format!("{byte:02x}")).collect()),
        token: reach.token.clone(),
        clients: CLIENTS,
        length: Length::Millis(RUN_MS),
        value_bytes: 64,
        run: format!("failover-{number}"),
        schedule: "0 0 0 1 1 *".to_owned(),
        enabled: false,
        trace: true,
    }
}

/// When a survivor first says that another leads, Unix microseconds.
fn new_leader(reach: &Reach, dead: usize) -> Result<u128> {
    let address = reach.servers[dead].trim_start_matches("https://").to_owned();
    reach.on_api(async |api| {
        loop {
            for server in (0..api.servers()).filter(|server| *server != dead) {
                let view: ClusterView = api.get(server, "/api/v1/cluster").await?;
                if view.coordinators.iter().any(|one| one.leader && one.http != address) {
                    return Ok(unix_us());
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
}

/// The first acknowledgement of a write that was asked for after `killed`.
fn first_ack(said: &str, killed: u128) -> Option<u128> {
    let acks = said.lines().filter_map(|line| line.strip_prefix("ack ")?.split_once(' '));
    let acks = acks.filter_map(|(asked, answered)| Some((asked.parse().ok()?, answered.parse().ok()?)));
    acks.filter(|(asked, _): &(u128, u128)| *asked > killed).map(|(_, answered)| answered).min()
}

#[allow(clippy::cast_precision_loss)]
fn since(killed: u128, at: u128) -> f64 {
    at.saturating_sub(killed) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_writes_that_were_asked_for_after_the_kill_count() {
        let said = "ack 90 140\nack 110 190\nack 105 180\n{}";
        assert_eq!(first_ack(said, 100), Some(180));
        assert_eq!(first_ack("ack 90 140", 100), None);
    }
}
