//! `api`: list, get and create over HTTPS with a token, with 10,000 machines stored; and from "create" to "the guest
//! runs". The coordinator is a process of its own; the hosts of the 10,000 are stand-ins that never start anything
//! (their machines are created with `start: false`).

mod created;
mod hosts;
mod server;

use crate::{
    client::Client,
    report::{Row, publish},
    stats::{median, percentile},
};
use anyhow::Result;
use serde_json::json;
use std::time::Instant;

/// Machines that are stored while the rest is measured.
const STORED: usize = 10_000;
/// Requests at once while they are being stored.
const WRITERS: usize = 32;
/// Requests of each kind that are timed, one after the other.
const SAMPLES: usize = 500;
/// Requests of each kind before those.
const WARM_UP: usize = 20;

pub fn run() -> Result<()> {
    let mut rows = tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(requests())?;
    match created::measure() {
        Ok(created) => rows.extend(created),
        Err(fault) => println!("NOT MEASURED: VM creation to guest running: {fault:#}"),
    }
    publish("api", &rows)
}

async fn requests() -> Result<Vec<Row>> {
    let server = server::Server::start()?;
    let client = server.client()?;
    client.until_ready().await?;
    let _hosts = hosts::join(&client, 4).await?;
    client.post("/api/v1/templates", &template()).await?;
    let filling = Instant::now();
    fill(&client).await?;
    #[allow(clippy::cast_precision_loss)]
    let rate = STORED as f64 / filling.elapsed().as_secs_f64();
    println!(
        "stored {STORED} machines in {:.1} s ({rate:.0} creates/s, {WRITERS} at once)",
        filling.elapsed().as_secs_f64()
    );
    let list = time(|_| read(&client, "/api/v1/vms?limit=100".into())).await?;
    let filtered = time(|_| read(&client, "/api/v1/vms?limit=20&status=running".into())).await?;
    let get = time(|n| read(&client, format!("/api/v1/vms/vm-{}", n * 7 % STORED))).await?;
    let create = time(|n| client.create(format!("timed-{n}"))).await?;
    let all: Vec<f64> = [&list, &get, &create].into_iter().flatten().copied().collect();
    #[allow(clippy::cast_precision_loss)]
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    Ok(vec![
        Row::at_most("list page of 100, p50", "ms", median(&list), 20.0),
        Row::at_most("list page of 100, p99", "ms", percentile(&list, 99.0), 20.0),
        Row::at_most("list filtered by status, p99", "ms", percentile(&filtered, 99.0), 20.0),
        Row::at_most("get by name, p50", "ms", median(&get), 100.0),
        Row::at_most("get by name, p99", "ms", percentile(&get, 99.0), 100.0),
        Row::at_most("create (committed), p50", "ms", median(&create), 100.0),
        Row::at_most("create (committed), p99", "ms", percentile(&create, 99.0), 100.0),
        Row::at_most("average of list, get and create", "ms", mean, 100.0),
    ])
}

fn template() -> serde_json::Value {
    let image = json!({"path": "/var/lib/novacron/import/kernel", "sha256": "0".repeat(64), "format": "raw"});
    json!({"name": "bench", "boot": {"kernel": image, "cmdline": "console=ttyS0"}})
}

async fn fill(client: &Client) -> Result<()> {
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let client = client.clone();
        writers.spawn(async move {
            for n in (writer..STORED).step_by(WRITERS) {
                client.create(format!("vm-{n}")).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    Ok(())
}

async fn read(client: &Client, path: String) -> Result<()> {
    client.get(&path).await.map(drop)
}

/// Milliseconds of each of [`SAMPLES`] requests, after a few that only warm up.
async fn time<F: Future<Output = Result<()>>>(request: impl Fn(usize) -> F) -> Result<Vec<f64>> {
    for n in 0..WARM_UP {
        request(SAMPLES + n).await?;
    }
    let mut samples = Vec::with_capacity(SAMPLES);
    for n in 0..SAMPLES {
        let began = Instant::now();
        request(n).await?;
        samples.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(samples)
}
