//! Follows long work: a bar on a terminal, nothing elsewhere. The work goes on if this program ends.

use crate::{client::Client, error::CtlError, output::word};
use indicatif::{ProgressBar, ProgressStyle};
use novacron_common::{
    api::{MigrationState, MigrationView, VmDesired, VmView},
    record::VmState,
    units::ByteCount,
};
use std::time::Duration;

/// How often the server is asked.
const EVERY: Duration = Duration::from_millis(300);

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

/// Waits until a machine is as it was asked to be. `done` says when; a machine that failed is an error.
pub async fn vm(client: &Client, id: &str, done: impl Fn(&VmView) -> bool) -> Result<VmView, CtlError> {
    let bar = bar(0, "{spinner} {msg} {elapsed}");
    loop {
        let view: VmView = client.get(&format!("/api/v1/vms/{id}")).await?;
        let detail = view.message.as_ref().map_or_else(String::new, |m| format!(" ({m})"));
        bar.set_message(format!("{}: {}{detail}", view.name, word(&view.state)));
        bar.tick();
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

fn bar(length: u64, template: &str) -> ProgressBar {
    let bar = if length == 0 { ProgressBar::new_spinner() } else { ProgressBar::new(length) };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
