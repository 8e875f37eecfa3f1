//! Migrations.

use super::{Context, segment};
use crate::{
    cli::MigrationVerb,
    error::CtlError,
    output::{self, Row, word},
    progress,
};
use novacron_common::{api::MigrationView, units::ByteCount};

impl Row for MigrationView {
    const TITLES: &'static [&'static str] = &["id", "vm", "state", "done", "bytes", "started", "ended"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.vm.to_string(),
            word(&self.status.state),
            format!("{:.0}%", self.status.progress_pct),
            ByteCount(self.total_bytes).to_string(),
            output::time(Some(self.status.start_time)),
            output::time(self.status.end_time),
        ]
    }
}

pub async fn run(context: &Context, verb: MigrationVerb) -> Result<(), CtlError> {
    let client = &context.client;
    let path = |id: &str| format!("/api/v1/migrations/{}", segment(id));
    match verb {
        MigrationVerb::List { status } => {
            let query = super::by_status(status.as_ref());
            output::list(&client.all::<MigrationView>("/api/v1/migrations", &query).await?, context.format)
        }
        MigrationVerb::Show { migration } => show(context, &client.get(&path(&migration)).await?),
        MigrationVerb::Cancel { migration } => {
            let view: MigrationView =
                client.post(&format!("{}/cancel", path(&migration)), None::<&()>).await?;
            show(context, &view)
        }
        MigrationVerb::Watch { migration } => {
            show(context, &progress::migration(client, &segment(&migration)).await?)
        }
    }
}

/// One migration with all that is known of it.
pub fn show(context: &Context, view: &MigrationView) -> Result<(), CtlError> {
    let more = [
        ("message", view.status.message.clone()),
        ("from", view.source_host.to_string()),
        ("to", view.target_host.to_string()),
        ("live", view.live.to_string()),
        ("memory", ByteCount(view.memory_bytes).to_string()),
        ("disk", ByteCount(view.disk_bytes).to_string()),
        ("iteration", view.iteration.to_string()),
        ("downtime", view.qemu_downtime_ms.map(|ms| format!("{ms} ms (by QEMU)")).unwrap_or_default()),
        ("cuts survived", view.cuts_survived.to_string()),
        ("placement", view.placement.clone().unwrap_or_default()),
    ];
    output::one(view, context.format, &more)
}
