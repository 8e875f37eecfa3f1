//! The coordinators.

use super::Context;
use crate::{
    cli::{ClusterVerb, Format},
    error::CtlError,
    output::{self, Row},
};
use novacron_common::api::{ClusterView, CoordinatorView};

impl Row for CoordinatorView {
    const TITLES: &'static [&'static str] = &["node", "leader", "voter", "quic", "http"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.node.to_string(),
            self.leader.to_string(),
            self.voter.to_string(),
            self.quic.clone(),
            self.http.clone(),
        ]
    }
}

pub async fn run(context: &Context, verb: ClusterVerb) -> Result<(), CtlError> {
    match verb {
        ClusterVerb::Show => {
            let cluster: ClusterView = context.client.get("/api/v1/cluster").await?;
            if context.format == Format::Json {
                return output::json(&cluster);
            }
            let ClusterView { id, version, ca_fingerprint, answered_by, applied, .. } = &cluster;
            output::line(&format!(
                "{id}  version {version}  answered by node {answered_by} at log index {applied}"
            ))?;
            output::line(&format!("CA {ca_fingerprint}\n"))?;
            output::list(&cluster.coordinators, context.format)
        }
        ClusterVerb::Remove { node } => {
            context.client.delete(&format!("/api/v1/cluster/coordinators/{node}")).await?;
            output::line(&format!("coordinator {node} is removed"))
        }
    }
}
