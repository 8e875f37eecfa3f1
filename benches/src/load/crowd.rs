//! Inside the client process: many writers at once, their latencies, one report on standard output.

use super::{CONNECTIONS_MAX, Length, Order, Report, write::Writer};
use crate::stats::percentile;
use anyhow::{Context, Result};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::task::JoinSet;

/// Before the clock starts: connections, caches.
const WARM_UP: Duration = Duration::from_millis(1500);

/// Reads an order from a file, follows it, prints the report as one line of JSON.
pub fn main(order: &Path) -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let order: Order = serde_json::from_slice(&std::fs::read(order).context("reading the order")?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(follow(order))?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// What all clients share.
struct Shared {
    next: AtomicU64,
    end: End,
}

#[derive(Clone, Copy)]
enum End {
    At { counts_from: Instant, until: Instant },
    After(u64),
}

impl Shared {
    /// The number of the next write, and whether it counts; `None` at the end.
    fn claim(&self) -> Option<(u64, bool)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        match self.end {
            End::After(writes) => (number < writes).then_some((number, true)),
            End::At { counts_from, until } => {
                let now = Instant::now();
                (now < until).then_some((number, now >= counts_from))
            }
        }
    }
}

#[derive(Default)]
struct Tally {
    millis: Vec<f64>,
    failed: u64,
    first_fault: Option<String>,
}

async fn follow(order: Order) -> Result<Report> {
    let connections = order.clients.min(CONNECTIONS_MAX);
    let writers: Vec<Writer> = (0..connections).map(|n| Writer::new(&order, n)).collect::<Result<_>>()?;
    let began = Instant::now();
    let end = match order.length {
        Length::Writes(writes) => End::After(writes),
        Length::Millis(millis) => {
            let counts_from = began + WARM_UP;
            End::At { counts_from, until: counts_from + Duration::from_millis(millis) }
        }
    };
    let shared = Arc::new(Shared { next: AtomicU64::new(0), end });
    let mut clients = JoinSet::new();
    for client in 0..order.clients {
        clients.spawn(one_client(writers[client % connections].clone(), shared.clone()));
    }
    let mut all = Tally::default();
    while let Some(tally) = clients.join_next().await {
        let tally = tally?;
        all.millis.extend(tally.millis);
        all.failed += tally.failed;
        all.first_fault = all.first_fault.or(tally.first_fault);
    }
    let seconds = match end {
        End::After(_) => began.elapsed().as_secs_f64(),
        End::At { counts_from, until } => (until - counts_from).as_secs_f64(),
    };
    Ok(Report {
        writes: all.millis.len() as u64,
        failed: all.failed,
        first_fault: all.first_fault,
        seconds,
        p50_ms: percentile(&all.millis, 50.0),
        p99_ms: percentile(&all.millis, 99.0),
    })
}

/// The clock that all processes of the machine share.
pub fn unix_us() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros())
}

/// One write after the other: as many are under way as there are clients.
async fn one_client(writer: Writer, shared: Arc<Shared>) -> Tally {
    let mut tally = Tally::default();
    while let Some((number, counts)) = shared.claim() {
        let (asked, asked_us) = (Instant::now(), unix_us());
        match writer.write(number).await {
            Ok(()) => {
                if counts {
                    tally.millis.push(asked.elapsed().as_secs_f64() * 1000.0);
                }
                if writer.traces() {
                    println!("ack {asked_us} {}", unix_us());
                }
            }
            Err(fault) => {
                tally.failed += 1;
                tally.first_fault.get_or_insert_with(|| format!("{fault:#}"));
            }
        }
    }
    tally
}
