//! Ten thousand jobs due in the same second, and one job each second, on three coordinators.

use super::{jobs, lateness::Histogram};
use crate::{load, report::Row};
use anyhow::{Context, Result, ensure};
use novacron_common::api::{JobView, Page};
use novacron_tests::ledger::{
    api::Api,
    schedule::now_ms,
    trio::{Reach, Trio, TrioOptions},
};
use reqwest::Method;
use serde_json::json;
use std::time::Duration;

const JOBS: u64 = 10_000;
/// Bursts: each is a minute after the one before.
const BURSTS: usize = 3;
/// Fires of the single job.
const SINGLE_SECONDS: u64 = 40;
/// How long making the jobs may take.
const MAKING: Duration = Duration::from_secs(120);
const ANSWER: Duration = Duration::from_secs(30);

/// The rows of both.
pub fn rows() -> Result<Vec<Row>> {
    let mut options = TrioOptions::new("bench-c");
    options.agents = 0;
    options.log = "warn".to_owned();
    let trio = Trio::start(&options)?;
    let mut rows = single(&trio.reach)?;
    rows.extend(burst(&trio.reach)?);
    Ok(rows)
}

fn single(reach: &Reach) -> Result<Vec<Row>> {
    let late = reach.on_api(async |api| {
        let body = json!({"name": "single", "schedule": "* * * * * *"});
        let job: JobView = api.insist(Method::POST, "/api/v1/jobs", Some(&body), ANSWER).await?.into()?;
        let before = Histogram::read(api).await?;
        tokio::time::sleep(Duration::from_secs(SINGLE_SECONDS)).await;
        let late = Histogram::read(api).await?.since(&before);
        let path = format!("/api/v1/jobs/{}", job.id);
        api.insist(Method::DELETE, &path, None, ANSWER).await?;
        Ok(late)
    })?;
    let (p50, p99) = (late.quantile(50.0), late.quantile(99.0));
    println!(
        "a single job: {} fires in {SINGLE_SECONDS} s, lateness p50 {p50:.2} p99 {p99:.2} ms",
        late.count()
    );
    Ok(vec![
        Row::at_most("one job a second: lateness p50", "ms", p50, 5.0),
        Row::at_most("one job a second: lateness p99", "ms", p99, 5.0),
    ])
}

/// Due at one second of each minute, which is well after the jobs have been made.
fn burst(reach: &Reach) -> Result<Vec<Row>> {
    let second = (now_ms() / 1000 + 45) % 60;
    let order = jobs(reach, "burst", &format!("{second} * * * * *"), JOBS);
    let before = reach.on_api(async |api| Histogram::read(api).await)?;
    let made = load::run(reach.lab.outside(), &order)?;
    println!("made {JOBS} jobs in {:.1} s ({:.0}/s)", made.seconds, made.per_second());
    ensure!(made.seconds < MAKING.as_secs_f64(), "making the jobs took {:.0} s", made.seconds);
    // What fired while the rest was being made is not what is measured.
    wait_past(second);
    let (before, fired) = reach
        .on_api(async |api| Ok((Histogram::read(api).await?.since(&before), fires(api).await?)))
        .map(|(during, fired)| (during.count(), fired))?;
    println!("{before} fires in the first burst, which is not measured");
    let start = reach.on_api(async |api| Histogram::read(api).await)?;
    for _ in 0..BURSTS {
        std::thread::sleep(Duration::from_secs(2));
        wait_past(second);
    }
    let (late, after) =
        reach.on_api(async |api| Ok((Histogram::read(api).await?.since(&start), fires(api).await?)))?;
    let rounds: Vec<u64> = after.iter().zip(&fired).map(|(after, before)| after - before).collect();
    let missed = rounds.iter().filter(|fires| **fires < BURSTS as u64).count();
    let doubled = rounds.iter().filter(|fires| **fires > BURSTS as u64).count();
    println!("{} fires of {} jobs in {BURSTS} bursts", late.count(), rounds.len());
    #[allow(clippy::cast_precision_loss)]
    Ok(vec![
        Row::none_of("10,000 jobs in one second: ticks missed", missed as f64),
        Row::none_of("10,000 jobs in one second: ticks doubled", doubled as f64),
        Row::at_most("10,000 jobs in one second: lateness p50", "ms", late.quantile(50.0), 50.0),
        Row::at_most("10,000 jobs in one second: lateness p99", "ms", late.quantile(99.0), 50.0),
    ])
}

/// Waits until five seconds after the given second of the minute.
fn wait_past(second: i64) {
    let now = now_ms();
    let due = second * 1000 + 5000;
    let wait = (due - now % 60_000).rem_euclid(60_000);
    std::thread::sleep(Duration::from_millis(wait.unsigned_abs()));
}

/// How often each of the jobs fired, in the order of their ids.
async fn fires(api: &Api) -> Result<Vec<u64>> {
    let (mut fires, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/v1/jobs?limit=1000{cursor}");
        let page: Page<JobView> =
            api.insist(Method::GET, &path, None, ANSWER).await?.into().context("listing jobs")?;
        fires.extend(page.items.iter().map(|job| job.fires));
        match page.next_cursor {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(fires),
        }
    }
}
