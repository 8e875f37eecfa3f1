//! `novacron-coordinator join`: one more coordinator for an existing cluster.

use crate::{config::Config, identity::SealKey};
use anyhow::{Context, anyhow, bail, ensure};
use novacron_common::wire::{Enrolled, JoinDenied, JoinPurpose, JoinRequest, JoinToken, StreamKind};
use novacron_transport::{Endpoint, Identity, LinkError, certificate_request};
use std::{net::SocketAddr, time::Duration};

/// How long one coordinator may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15);

/// Joins with a one-time token and keeps what that brings: an identity and the seal key. The ledger itself
/// arrives when this coordinator runs.
///
/// # Errors
/// If the token is refused, nobody can be reached, or a file cannot be written.
pub async fn join(config: &Config, token: &str) -> anyhow::Result<u64> {
    let token: JoinToken = token.parse()?;
    refuse_existing(config)?;
    let (key, csr) = certificate_request()?;
    let request = JoinRequest {
        token: token.id,
        secret: token.secret,
        purpose: JoinPurpose::Coordinator {
            name: config.name.clone(),
            quic: config.quic.advertise,
            http: config.http.advertise,
        },
        csr,
    };
    let enrolled = ask_each(&token, &request).await?;
    let node = enrolled.node.context("the coordinator's answer names no node number")?;
    let identity = Identity::new(enrolled.cluster, &enrolled.ca, &enrolled.certificate, &key)?;
    ensure!(
        identity.ca_fingerprint() == token.ca,
        "the coordinator's CA is not the one that the token names"
    );
    let seal_key =
        SealKey::from_bytes(enrolled.seal_key.context("the coordinator's answer holds no seal key")?);
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("could not make {}", config.data_dir.display()))?;
    seal_key.save(&config.seal_key)?;
    identity.save(&config.identity_dir()).context("the identity could not be kept")?;
    Ok(node)
}

/// Before the token is used up.
fn refuse_existing(config: &Config) -> anyhow::Result<()> {
    for path in [config.identity_dir(), config.ledger_dir(), config.seal_key.clone()] {
        ensure!(
            !path.exists(),
            "{} exists: this machine has belonged to a cluster; remove it if that is over, then join again",
            path.display()
        );
    }
    Ok(())
}

async fn ask_each(token: &JoinToken, request: &JoinRequest) -> anyhow::Result<Enrolled> {
    ensure!(!token.coordinators.is_empty(), "the token names no coordinator: make a new one");
    let mut last = anyhow!("nobody was asked");
    for address in &token.coordinators {
        match tokio::time::timeout(ANSWER_DEADLINE, ask(*address, token, request)).await {
            Ok(Ok(Ok(enrolled))) => return Ok(enrolled),
            Ok(Ok(Err(denied @ JoinDenied::Unavailable(_)))) => last = anyhow!(denied),
            Ok(Ok(Err(denied))) => bail!(denied),
            Ok(Err(error)) => last = anyhow!(error),
            Err(_) => last = anyhow!("{address} does not answer"),
        }
    }
    Err(last.context("no coordinator of the token let this one join"))
}

async fn ask(
    address: SocketAddr,
    token: &JoinToken,
    request: &JoinRequest,
) -> Result<Result<Enrolled, JoinDenied>, LinkError> {
    let link = Endpoint::enroll(address, token.ca).await?;
    let mut stream = link.open(StreamKind::Join).await?;
    stream.send(request).await?;
    stream.finish();
    stream.recv().await
}
