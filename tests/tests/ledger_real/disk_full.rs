//! A leader whose disk is full: what it could not write is not acknowledged, it says why and ends, the others go on; with
//! room again it comes back and has everything.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use novacron_common::api::{JobView, TransferView};
use novacron_tests::lab::Process;
use novacron_tests::ledger::api::Api;
use novacron_tests::ledger::trio::{Reach, Seat, Trio, TrioOptions};
use novacron_tests::require;
use reqwest::Method;
use serde_json::{Value, json};

const FOLDER: &str = "/var/lib/novacron/coordinator";
/// Longer than a fail-over under load.
const LIMIT: Duration = Duration::from_secs(120);
const AGAIN: Duration = Duration::from_millis(100);
/// Standard input of a job, so that few jobs fill what is left.
const LONG: usize = 16_000;

/// Puts the coordinator's folder on a disk of `mib` MiB of its own, with all that is in it.
const SMALL_DISK: &str =
    "cp -a $1 $1.aside && mount -t tmpfs -o mode=0700,size=$2m tmpfs $1 && cp -a $1.aside/. $1";
/// Takes what is left but for `$2` KiB.
const FILL: &str =
    "left=$(df -k --output=avail $1 | tail -1); head -c $(( (left - $2) * 1024 )) /dev/zero > $1/filler";

#[test]
fn a_leader_whose_disk_is_full_acknowledges_nothing_it_cannot_keep_and_the_others_go_on() -> Result<()> {
    require!(root, iptables);
    let mut options = TrioOptions::new("full");
    options.agents = 0;
    let mut trio = Trio::start(&options)?;
    let full = trio.reach.leader()?;
    on_small_disk(&mut trio.seats.coordinators[full], &trio.reach)?;
    lead_again(&trio.reach, full)?;
    let seat = &mut trio.seats.coordinators[full];
    seat.node.exec("sh", &["-c", FILL, "fill", FOLDER, "1024"])?;

    let process = seat.program.process()?;
    let mut acknowledged = trio.reach.on_api(async |api| jobs_until_it_ends(api, full, process).await)?;
    let ended = process.ended().context("the full one goes on")?;
    ensure!(!ended.success(), "it ended as if nothing had happened");
    let said = seat.program.last_lines(60);
    ensure!(said.contains("No space left on device"), "it does not say why it ended:\n{said}");
    acknowledged.push(trio.reach.on_api(async |api| {
        api.insist(Method::POST, "/api/v1/jobs", Some(&job("while-full", 0)), LIMIT).await?.into::<JobView>()
    })?);

    seat.node.exec("rm", &[&format!("{FOLDER}/filler")])?;
    seat.start()?;
    trio.reach.wait_until_well(LIMIT)?;
    trio.reach.on_api(async |api| {
        for job in &acknowledged {
            let view: JobView = api.get(full, &format!("/api/v1/jobs/{}", job.id)).await?;
            ensure!(view.name == job.name, "{} came back as {}", job.name, view.name);
        }
        Ok(())
    })
}

fn on_small_disk(seat: &mut Seat, reach: &Reach) -> Result<()> {
    seat.program.stop()?;
    seat.node.exec("sh", &["-ec", SMALL_DISK, "small-disk", FOLDER, "64"])?;
    seat.start()?;
    reach.wait_until_well(LIMIT)
}

fn lead_again(reach: &Reach, server: usize) -> Result<()> {
    let body = json!({ "to": format!("c{}", server + 1) });
    reach.on_api(async |api| {
        api.insist(Method::POST, "/api/v1/cluster/transfer", Some(&body), LIMIT).await?.into::<TransferView>()
    })?;
    ensure!(reach.leader()? == server, "the leadership was not handed to {body}");
    Ok(())
}

fn job(name: &str, bytes: usize) -> Value {
    let target = json!({ "type": "command", "command": ["/bin/cat"], "stdin": "x".repeat(bytes) });
    json!({ "name": name, "schedule": "0 0 1 1 *", "enabled": false, "target": target })
}

/// Makes jobs through one coordinator until it ends; returns those that it acknowledged. One refusal is not yet a full
/// disk: it may be an election.
async fn jobs_until_it_ends(api: &Api, server: usize, process: &Process) -> Result<Vec<JobView>> {
    let deadline = Instant::now() + LIMIT;
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let body = job(&format!("full-{number}"), LONG);
        match api.send(server, Method::POST, "/api/v1/jobs", Some(&body)).await {
            Ok(answer) if answer.status < 300 => acknowledged.push(answer.into()?),
            _ if process.ended().is_some() => break,
            _ => tokio::time::sleep(AGAIN).await,
        }
        ensure!(Instant::now() < deadline, "the full one goes on after {} jobs of 16 kB", acknowledged.len());
    }
    Ok(acknowledged)
}
