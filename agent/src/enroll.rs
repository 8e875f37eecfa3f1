//! How this host becomes a member, and stays one: the join token is spent once, then certificates renew
//! themselves at half of their life.

use crate::{clock, config::Config, text::describe};
use novacron_common::{
    ids::HostId,
    wire::{
        CoordinatorAddress, Enrolled, JoinDenied, JoinPurpose, JoinRequest, JoinToken, RenewRequest,
        StreamKind,
    },
};
use novacron_transport::{
    Endpoint, Identity, IdentityError, IssueError, Link, LinkError, Role, RoleKind, certificate_request,
};
use std::{fs, io, net::SocketAddr, path::PathBuf, time::Duration};

/// How soon a failed renewal is tried again.
const RENEW_RETRY: Duration = Duration::from_secs(5);

/// Why this host is no member.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// No coordinator of the token can be reached, or none is the right one.
    #[error("no coordinator of the join token could be used: {}", attempts.join("; "))]
    Unreachable {
        /// What happened with each.
        attempts: Vec<String>,
    },
    /// The coordinator will not have it.
    #[error("the coordinator refused")]
    Denied(#[from] JoinDenied),
    /// The connection broke.
    #[error("the connection broke while joining")]
    Link(#[from] LinkError),
    /// No key could be made.
    #[error("no certificate request could be made")]
    Request(#[from] IssueError),
    /// What came back is no identity.
    #[error("the certificate that was issued cannot be used")]
    Identity(#[from] IdentityError),
    /// The data folder cannot be written.
    #[error("could not write {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        #[source]
        cause: io::Error,
    },
}

/// Spends `token` and keeps the certificate in the data folder. A host that joined before asks for its old id.
///
/// # Errors
/// [`EnrollError`]; nothing is changed.
pub async fn join(config: &Config, token: &JoinToken) -> Result<Identity, EnrollError> {
    let rejoin = former_host(config);
    let (key, csr) = certificate_request()?;
    let request = JoinRequest {
        token: token.id,
        secret: token.secret,
        purpose: JoinPurpose::Agent { name: config.name.clone(), rejoin },
        csr,
    };
    let mut attempts = Vec::new();
    for address in &token.coordinators {
        let link = match Endpoint::enroll(*address, token.ca).await {
            Ok(link) => link,
            Err(error) => {
                attempts.push(describe(&error));
                continue;
            }
        };
        let enrolled = ask(&link, StreamKind::Join, &request).await?;
        let identity = Identity::new(enrolled.cluster, &enrolled.ca, &enrolled.certificate, &key)?;
        keep(config, &identity, &enrolled.coordinators)?;
        return Ok(identity);
    }
    Err(EnrollError::Unreachable { attempts })
}

/// The coordinators that were known when this host joined.
pub fn known_coordinators(config: &Config) -> Vec<CoordinatorAddress> {
    fs::read(coordinators_file(config))
        .ok()
        .and_then(|bytes| novacron_common::wire::codec::decode(&bytes).ok())
        .unwrap_or_default()
}

/// Renews the endpoint's certificate at half of its life, for ever.
pub async fn keep_renewed(config: Config, endpoint: Endpoint, coordinators: impl Fn() -> Vec<SocketAddr>) {
    loop {
        let half_life = endpoint.identity().get().half_life();
        tokio::time::sleep(half_life.since(clock::now())).await;
        match renew(&config, &endpoint, &coordinators()).await {
            Ok(()) => tracing::info!(until = %endpoint.identity().get().not_after(), "certificate renewed"),
            Err(error) => {
                tracing::warn!(
                    error = describe(&error),
                    "the certificate could not be renewed: trying again"
                );
                tokio::time::sleep(RENEW_RETRY.min(endpoint.identity().get().validity() / 10)).await;
            }
        }
    }
}

async fn renew(config: &Config, endpoint: &Endpoint, coordinators: &[SocketAddr]) -> Result<(), EnrollError> {
    let mut attempts = Vec::new();
    for address in coordinators {
        match endpoint.connect_any(*address, RoleKind::Coordinator).await {
            Ok(link) => {
                let (key, csr) = certificate_request()?;
                let enrolled = ask(&link, StreamKind::Renew, &RenewRequest { csr }).await;
                link.close("renewed");
                let enrolled = enrolled?;
                let identity = Identity::new(enrolled.cluster, &enrolled.ca, &enrolled.certificate, &key)?;
                identity.save(&config.identity_dir())?;
                endpoint.identity().replace(identity);
                return Ok(());
            }
            Err(error) => attempts.push(describe(&error)),
        }
    }
    Err(EnrollError::Unreachable { attempts })
}

async fn ask<R: serde::Serialize + Sync>(
    link: &Link,
    kind: StreamKind,
    request: &R,
) -> Result<Enrolled, EnrollError> {
    let mut stream = link.open(kind).await?;
    stream.send(request).await?;
    stream.finish();
    Ok(stream.recv::<Result<Enrolled, JoinDenied>>().await??)
}

fn former_host(config: &Config) -> Option<HostId> {
    match Identity::load(&config.identity_dir()).ok()?.role {
        Role::Agent { host } => Some(host),
        Role::Coordinator { .. } => None,
    }
}

fn keep(
    config: &Config,
    identity: &Identity,
    coordinators: &[CoordinatorAddress],
) -> Result<(), EnrollError> {
    let failed = |path: PathBuf| move |cause| EnrollError::File { path, cause };
    fs::create_dir_all(&config.data_dir).map_err(failed(config.data_dir.clone()))?;
    let path = coordinators_file(config);
    let bytes = novacron_common::wire::codec::encode(&coordinators.to_vec()).unwrap_or_default();
    fs::write(&path, bytes).map_err(failed(path.clone()))?;
    Ok(identity.save(&config.identity_dir())?)
}

fn coordinators_file(config: &Config) -> PathBuf {
    config.data_dir.join("coordinators")
}
