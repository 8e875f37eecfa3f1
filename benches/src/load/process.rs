//! Outside: starts the client process on a node, and takes its report.

use super::{Order, Report};
use anyhow::{Context, Result, ensure};
use novacron_tests::lab::{Node, Process};
use std::{path::Path, time::Duration};

/// A client that hangs must end.
const LIMIT: Duration = Duration::from_secs(1800);

/// Runs a client process on `node` to its end. Writes that fail do not count, and are told.
pub fn run(node: &Node, order: &Order) -> Result<Report> {
    let (report, _) = wait(&start(node, order)?)?;
    if let Some(fault) = &report.first_fault {
        println!("{} writes failed, the first: {fault}", report.failed);
    }
    Ok(report)
}

/// Starts a client process on `node`.
pub fn start(node: &Node, order: &Order) -> Result<Process> {
    // The token is in it: a file of the lab's own, not an argument that every process can read.
    let file = node.dir().join("etc-novacron/order.json");
    std::fs::write(&file, serde_json::to_vec(order)?).context("writing the order")?;
    node.spawn(std::env::current_exe()?, &["client", "/etc/novacron/order.json"], &[])
}

/// Waits for the end of a client process: its report, and all that it printed.
pub fn wait(client: &Process) -> Result<(Report, String)> {
    let status =
        client.wait_for(LIMIT).with_context(|| format!("the client did not end within {LIMIT:?}"))?;
    let said = client.printed();
    ensure!(status.success(), "the client ended with {status}: {said}");
    let line = said.lines().last().context("the client said nothing")?;
    let report = serde_json::from_str(line).with_context(|| format!("no report: {said}"))?;
    Ok((report, said))
}

/// The argument that makes this program a client, and the order that it is to follow.
pub fn order_in(args: &[String]) -> Option<&Path> {
    match args {
        [word, order] if word == "client" => Some(Path::new(order)),
        _ => None,
    }
}
