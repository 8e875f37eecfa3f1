//! Volumes of hosts.

use super::{Context, segment};
use crate::{
    cli::VolumeVerb,
    error::CtlError,
    output::{self, Row},
};
use novacron_common::api::VolumeView;

impl Row for VolumeView {
    const TITLES: &'static [&'static str] = &["name", "host", "size", "used", "machines"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.host.clone(),
            self.size.to_string(),
            self.used.to_string(),
            self.machines.join(" "),
        ]
    }
}

pub async fn run(context: &Context, verb: VolumeVerb) -> Result<(), CtlError> {
    let client = &context.client;
    let path = |host: &str| format!("/api/v1/hosts/{}/volumes", segment(host));
    match verb {
        VolumeVerb::List { host } => {
            output::list(&client.get::<Vec<VolumeView>>(&path(&host)).await?, context.format)
        }
        VolumeVerb::Delete { volume, host } => {
            client.delete(&format!("{}/{}", path(&host), segment(&volume))).await?;
            output::line(&format!("{volume} is gone"))
        }
    }
}
