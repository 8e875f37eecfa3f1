//! Tries the settings and keeps them.

use crate::{
    cli::Connection,
    client::Client,
    error::CtlError,
    output,
    settings::{self, File, Settings},
};
use novacron_common::api::ClusterView;

pub async fn run(connection: &Connection) -> Result<(), CtlError> {
    let settings = Settings::resolve(connection)?;
    let cluster: ClusterView = Client::new(settings.clone())?.get("/api/v1/cluster").await?;
    let file = File {
        server: Some(settings.server),
        ca_fingerprint: settings.ca.map(|ca| ca.to_string()),
        token: Some(settings.token),
    };
    let path = settings::path(connection);
    file.write(&path)?;
    output::line(&format!("{} answers; kept in {}", cluster.id, path.display()))
}
