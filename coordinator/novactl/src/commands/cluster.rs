//! The coordinators.

use super::{Context, backup, segment};
use crate::{
    cli::{ClusterVerb, Format},
    error::CtlError,
    output::{self, Row},
};
use novacron_common::api::{ClusterView, CoordinatorView, JoinTokenCreated, TransferRequest, TransferView};

impl Row for CoordinatorView {
    const TITLES: &'static [&'static str] =
        &["node", "name", "leader", "voter", "heard", "clock", "quic", "http"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.node.to_string(),
            self.name.clone(),
            self.leader.to_string(),
            self.voter.to_string(),
            self.silent_ms.map_or_else(|| "never".to_owned(), |ms| format!("{:.1} s ago", seconds(ms))),
            self.clock_ahead_ms.map_or_else(|| "?".to_owned(), |ms| format!("{ms:+} ms")),
            self.quic.clone(),
            self.http.clone(),
        ]
    }
}

#[allow(clippy::cast_precision_loss)] // far below 2^52
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

pub async fn run(context: &Context, verb: ClusterVerb) -> Result<(), CtlError> {
    match verb {
        ClusterVerb::Show => show(context).await,
        ClusterVerb::Leave { node } => {
            let path = format!("/api/v1/cluster/coordinators/{}", segment(&node));
            context.client.delete(&path).await?;
            output::line(&format!("coordinator {node} leaves"))
        }
        ClusterVerb::Replace { node } => replace(context, &node).await,
        ClusterVerb::Transfer { node } => {
            let body = TransferRequest { to: node };
            let done: TransferView = context.client.post("/api/v1/cluster/transfer", Some(&body)).await?;
            if context.format == Format::Json {
                return output::json(&done);
            }
            let TransferView { from, to, gap_ms } = done;
            output::line(&format!("coordinator {to} leads, and {from} no more; writes waited {gap_ms} ms"))
        }
        ClusterVerb::Backup { file } => backup::run(context, &file).await,
    }
}

async fn show(context: &Context) -> Result<(), CtlError> {
    let cluster: ClusterView = context.client.get("/api/v1/cluster").await?;
    if context.format == Format::Json {
        return output::json(&cluster);
    }
    let ClusterView { id, version, ca_fingerprint, answered_by, applied, .. } = &cluster;
    output::line(&format!("{id}  version {version}  answered by node {answered_by} at log index {applied}"))?;
    output::line(&format!("CA {ca_fingerprint}\n"))?;
    output::list(&cluster.coordinators, context.format)?;
    for alarm in &cluster.alarms {
        output::line(&format!("ALARM: {}", alarm.cause))?;
    }
    Ok(())
}

async fn replace(context: &Context, node: &str) -> Result<(), CtlError> {
    let path = format!("/api/v1/cluster/coordinators/{}/replace", segment(node));
    let made: JoinTokenCreated = context.client.post(&path, None::<&()>).await?;
    if context.format == Format::Json {
        return output::json(&made);
    }
    output::line(&made.token)?;
    eprintln!(
        "Good for one use within an hour. On the new machine: novacron-coordinator join --token …, then run. \
         Coordinator {node} is out as soon as the new one has the ledger."
    );
    Ok(())
}
