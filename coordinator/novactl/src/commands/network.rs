//! Tenant networks.

use super::{Context, segment};
use crate::{
    cli::NetworkVerb,
    error::CtlError,
    output::{self, Row},
};
use novacron_common::api::{NetworkCreate, NetworkView};

const PATH: &str = "/api/v1/networks";

impl Row for NetworkView {
    const TITLES: &'static [&'static str] = &["name", "subnet", "gateway", "machines", "id"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.subnet.clone(),
            self.gateway.clone(),
            format!("{} of {}", self.machines, self.capacity),
            self.id.to_string(),
        ]
    }
}

pub async fn run(context: &Context, verb: NetworkVerb) -> Result<(), CtlError> {
    let client = &context.client;
    let path = |name: &str| format!("{PATH}/{}", segment(name));
    match verb {
        NetworkVerb::Create { name, subnet, dns } => {
            let body = NetworkCreate { name, subnet, dns };
            show(context, &client.post(PATH, Some(&body)).await?)
        }
        NetworkVerb::List => output::list(&client.all::<NetworkView>(PATH, "").await?, context.format),
        NetworkVerb::Show { network } => show(context, &client.get(&path(&network)).await?),
        NetworkVerb::Delete { network } => {
            client.delete(&path(&network)).await?;
            output::line(&format!("{network} is gone"))
        }
    }
}

fn show(context: &Context, network: &NetworkView) -> Result<(), CtlError> {
    let more = [("dns", network.dns.join(" ")), ("created", output::time(Some(network.created_at)))];
    output::one(network, context.format, &more)
}
