//! Ten thousand, a hundred thousand and a million jobs stored in one coordinator: memory, start-up, and what it costs when
//! nothing is due.

use super::jobs;
use crate::{
    load,
    process::{cpu_seconds, status_mib},
    report::Row,
};
use anyhow::Result;
use novacron_tests::ledger::trio::{Trio, TrioOptions};
use std::time::{Duration, Instant};

const STEPS: [u64; 3] = [10_000, 100_000, 1_000_000];
/// Due on the first of January: not while this runs.
const YEARLY: &str = "0 0 0 1 1 *";
/// After the last write, before idling is measured: snapshots and purges end.
const SETTLE: Duration = Duration::from_secs(20);
const IDLE: Duration = Duration::from_secs(30);
const START_LIMIT: Duration = Duration::from_secs(300);

/// What was measured at one size.
struct Figures {
    jobs: u64,
    rss_mib: f64,
    cpu_ms_per_s: f64,
    start_s: f64,
}

/// The rows.
pub fn rows() -> Result<Vec<Row>> {
    let mut options = TrioOptions::new("bench-s");
    (options.coordinators, options.agents) = (1, 0);
    options.log = "warn".to_owned();
    let mut trio = Trio::start(&options)?;
    let mut all: Vec<Figures> = Vec::new();
    for jobs in STEPS {
        let more = jobs - all.last().map_or(0, |last| last.jobs);
        all.push(measure(&mut trio, jobs, more)?);
    }
    Ok(all.iter().flat_map(|figures| rows_of(figures, &all[0])).collect())
}

fn measure(trio: &mut Trio, jobs: u64, more: u64) -> Result<Figures> {
    let reach = &trio.reach;
    let made = load::run(reach.lab.outside(), &self::jobs(reach, &format!("stored-{jobs}"), YEARLY, more))?;
    println!("made {more} jobs in {:.0} s ({:.0}/s)", made.seconds, made.per_second());
    let seat = &mut trio.seats.coordinators[0];
    seat.program.stop()?;
    let began = Instant::now();
    seat.start()?;
    reach.wait_until(START_LIMIT, "the coordinator serves", async |api| {
        api.get::<serde_json::Value>(0, "/api/v1/jobs?limit=1").await.map(|_| true)
    })?;
    let start_s = began.elapsed().as_secs_f64();
    std::thread::sleep(SETTLE);
    let pid = seat.program.process()?.pid();
    let before = cpu_seconds(&[pid])?;
    std::thread::sleep(IDLE);
    let cpu_ms_per_s = (cpu_seconds(&[pid])? - before) * 1000.0 / IDLE.as_secs_f64();
    let figures = Figures { jobs, rss_mib: status_mib(pid, "VmRSS")?, cpu_ms_per_s, start_s };
    println!(
        "{jobs} jobs: RSS {:.0} MiB, start {start_s:.2} s, idle CPU {cpu_ms_per_s:.2} ms/s",
        figures.rss_mib
    );
    Ok(figures)
}

fn rows_of(figures: &Figures, least: &Figures) -> Vec<Row> {
    let Figures { jobs, rss_mib, cpu_ms_per_s, start_s } = figures;
    // Below a millisecond a second there is nothing to compare.
    let grown = (cpu_ms_per_s.max(1.0), ("10,000 jobs", least.cpu_ms_per_s.max(1.0)));
    vec![
        Row::told(&format!("{jobs} jobs: RSS after a start"), "MiB", *rss_mib),
        Row::told(&format!("{jobs} jobs: from start to the first answer"), "s", *start_s),
        Row::beside(&format!("{jobs} jobs: CPU when nothing is due"), "ms/s", grown.0, grown.1, Some(1.5)),
    ]
}
