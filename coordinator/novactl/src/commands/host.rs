//! Hosts.

use super::{Context, segment};
use crate::{
    cli::{Format, HostVerb},
    error::CtlError,
    output::{self, Row, word},
};
use novacron_common::api::{HostView, JoinTokenCreate, JoinTokenCreated, JoinTokenRole};

impl Row for HostView {
    const TITLES: &'static [&'static str] =
        &["name", "state", "cordoned", "vms", "cpus", "memory", "free", "accel", "id"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            word(&self.state),
            self.cordoned.to_string(),
            self.vms.to_string(),
            format!("{}/{}", self.cpus_reserved, self.cpus),
            self.memory.to_string(),
            self.memory.saturating_sub(self.memory_reserved).to_string(),
            word(&self.accel),
            self.id.to_string(),
        ]
    }
}

pub async fn run(context: &Context, verb: HostVerb) -> Result<(), CtlError> {
    let client = &context.client;
    match verb {
        HostVerb::List { status } => {
            let query = super::by_status(status.as_ref());
            output::list(&client.all::<HostView>("/api/v1/hosts", &query).await?, context.format)
        }
        HostVerb::Show(name) => show(context, &client.get(&path(&name.host)).await?),
        HostVerb::Token { coordinator, ttl } => token(context, coordinator, ttl).await,
        HostVerb::Cordon(name) => post(context, &name.host, "cordon").await,
        HostVerb::Uncordon(name) => post(context, &name.host, "uncordon").await,
        HostVerb::Fence(name) => post(context, &name.host, "fence").await,
        HostVerb::Remove { host, force } => {
            let query = if force { "?force=true" } else { "" };
            client.delete(&format!("{}{query}", path(&host.host))).await?;
            output::line(&format!("{} is removed and cut off", host.host))
        }
    }
}

fn path(host: &str) -> String {
    format!("/api/v1/hosts/{}", segment(host))
}

async fn post(context: &Context, host: &str, verb: &str) -> Result<(), CtlError> {
    show(context, &context.client.post(&format!("{}/{verb}", path(host)), None::<&()>).await?)
}

async fn token(context: &Context, coordinator: bool, ttl: Option<u32>) -> Result<(), CtlError> {
    let role = if coordinator { JoinTokenRole::Coordinator } else { JoinTokenRole::Agent };
    let body = JoinTokenCreate { role, ttl_seconds: ttl, replaces: None };
    let created: JoinTokenCreated = context.client.post("/api/v1/hosts/join-tokens", Some(&body)).await?;
    match context.format {
        Format::Json => output::json(&created),
        Format::Table => output::line(&created.token),
    }
}

fn show(context: &Context, host: &HostView) -> Result<(), CtlError> {
    let more = [
        ("address", host.address.clone()),
        ("version", host.version.clone()),
        ("storage", format!("{} ({} reserved)", host.storage, host.storage_reserved)),
        ("load", format!("{:.2}", host.load)),
        ("foreign", host.foreign_domains.join(" ")),
        ("last seen", output::time(host.last_seen)),
    ];
    output::one(host, context.format, &more)
}
