//! Follows long work: a bar on a terminal, nothing elsewhere. The work goes on if this program ends.

use crate::{client::Client, error::CtlError, output::word};
use indicatif::{ProgressBar, ProgressStyle};
use novacron_common::{
    api::{MigrationState, MigrationView, NodeRunState, RunDetail, VmDesired, VmView},
    record::{Progress, VmState},
    units::ByteCount,
};
use std::time::Duration;

/// How often the server is asked.
const EVERY: Duration = Duration::from_millis(300);
const FETCH: &str = "{msg:30} {bar:40} {percent:>3}%  {bytes}/{total_bytes}  {elapsed}";
const SPINNER: &str = "{spinner} {msg} {elapsed}";

/// Follows a migration to its end; an end other than `completed` is an error.
pub async fn migration(client: &Client, id: &str) -> Result<MigrationView, CtlError> {
    let bar = bar(100, "{msg:30} {bar:40} {pos:>3}%  {elapsed}");
    loop {
        let view: MigrationView = client.get(&format!("/api/v1/migrations/{id}")).await?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        bar.set_position(view.status.progress_pct as u64);
        bar.set_message(format!("{} {}/s", word(&view.status.state), ByteCount(view.rate)));
        if view.status.state.is_final() {
            bar.finish_and_clear();
            return match view.status.state {
                MigrationState::Completed => Ok(view),
                other => {
                    Err(CtlError::Outcome(format!("the migration {}: {}", word(&other), view.status.message)))
                }
            };
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Follows a run of a workflow until it has ended, well or not.
pub async fn run(client: &Client, path: &str) -> Result<(), CtlError> {
    let bar = bar(1, "{msg:30} {bar:40} {pos}/{len}  {elapsed}");
    loop {
        let view: RunDetail = client.get(path).await?;
        let counts = view.run.nodes;
        bar.set_length(u64::from(counts.total));
        bar.set_position(u64::from(counts.total.saturating_sub(counts.pending + counts.active)));
        let asks = view.node_runs.iter().find(|node| node.state == NodeRunState::AwaitingApproval);
        let asks = asks.map_or_else(String::new, |node| format!(" ({} asks for approval)", node.id));
        bar.set_message(format!("{}{asks}", word(&view.run.state)));
        if view.run.state.is_final() {
            bar.finish_and_clear();
            return Ok(());
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Waits until a machine is as it was asked to be. `done` says when; a machine that failed is an error.
pub async fn vm(client: &Client, id: &str, done: impl Fn(&VmView) -> bool) -> Result<VmView, CtlError> {
    let bar = bar(0, SPINNER);
    loop {
        let view: VmView = client.get(&format!("/api/v1/vms/{id}")).await?;
        show(&bar, &view);
        if done(&view) {
            bar.finish_and_clear();
            return Ok(view);
        }
        if view.state == VmState::Failed && view.desired != VmDesired::Deleted {
            bar.finish_and_clear();
            let why = view.message.unwrap_or_default();
            return Err(CtlError::Outcome(format!("{} failed: {why} (the host keeps trying)", view.name)));
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// A bar while an image comes that is known to end, else a spinner with what the host says.
fn show(bar: &ProgressBar, view: &VmView) {
    match view.progress {
        Some(Progress { received, total: Some(total) }) if total.0 > 0 => {
            set_style(bar, FETCH);
            bar.set_length(total.0);
            bar.set_position(received.0.min(total.0));
            bar.set_message(format!("{}: fetching an image", view.name));
        }
        _ => {
            set_style(bar, SPINNER);
            let detail = view.message.as_ref().map_or_else(String::new, |m| format!(" ({m})"));
            bar.set_message(format!("{}: {}{detail}", view.name, word(&view.state)));
        }
    }
    bar.tick();
}

fn bar(length: u64, template: &str) -> ProgressBar {
    let bar = if length == 0 { ProgressBar::new_spinner() } else { ProgressBar::new(length) };
    set_style(&bar, template);
    bar
}

fn set_style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn view(more: serde_json::Value) -> VmView {
        let mut view = json!({
            "id": "vm-00000000000000000000000000000001", "name": "web-1", "kind": "kvm", "template": "t",
            "resources": { "cpu": 1 }, "desired": "running", "state": "preparing", "epoch": 1, "mac": "",
            "addresses": [], "restart": "never", "cpu_ms": 0, "created_at": 0,
        });
        view.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(view).unwrap()
    }

    #[test]
    fn a_fetch_is_a_bar_and_what_follows_it_says_what_the_host_says() {
        let bar = bar(0, SPINNER);
        show(&bar, &view(json!({ "progress": { "received": 512 << 20, "total": 1 << 30 } })));
        assert_eq!((bar.length(), bar.position()), (Some(1 << 30), 512 << 20));
        assert_eq!(bar.message(), "web-1: fetching an image");
        let unknown = json!({ "progress": { "received": 5, "total": null }, "message": "5 B so far" });
        for more in [unknown, json!({ "message": "5 B so far" })] {
            show(&bar, &view(more));
            assert_eq!(bar.message(), "web-1: preparing (5 B so far)");
        }
        show(&bar, &view(json!({ "state": "running" })));
        assert_eq!(bar.message(), "web-1: running");
    }
}
