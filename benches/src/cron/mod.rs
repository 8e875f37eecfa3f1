//! `cron`: how late fires are committed when ten thousand jobs are due in the same second, and what a million stored jobs
//! cost a coordinator while nothing is due.

mod burst;
mod lateness;
mod stored;

use crate::{
    load::{Length, Order, Target},
    report::publish,
};
use anyhow::Result;
use novacron_tests::ledger::trio::Reach;

/// Writers at once while jobs are being made.
const WRITERS: usize = 256;

/// Both parts, or the one that `ROW` names. What is measured is written before the second part, which is long, begins.
pub fn run() -> Result<()> {
    let wanted = std::env::var("ROW").ok();
    let wants = |part: &str| wanted.as_deref().is_none_or(|wanted| wanted == part);
    let mut rows = Vec::new();
    if wants("burst") {
        rows.extend(burst::rows()?);
        publish("cron", &rows)?;
    }
    if wants("stored") {
        rows.extend(stored::rows()?);
        publish("cron", &rows)?;
    }
    anyhow::ensure!(!rows.is_empty(), "ROW is {wanted:?}; there are burst and stored");
    Ok(())
}

/// An order that makes jobs which do nothing but fire.
fn jobs(reach: &Reach, run: &str, schedule: &str, count: u64) -> Order {
    Order {
        target: Target::NovaCron,
        servers: reach.servers.clone(),
        ca: Some(reach.ca.iter().map(|byte| format!("{byte:02x}")).collect()),
        token: reach.token.clone(),
        clients: WRITERS,
        length: Length::Writes(count),
        value_bytes: 0,
        run: run.to_owned(),
        schedule: schedule.to_owned(),
        enabled: true,
        trace: false,
    }
}
