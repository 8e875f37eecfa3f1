//! `novacron-coordinator init`: a new cluster with one coordinator.

use crate::{
    config::Config,
    identity::{ApiToken, SealKey, cluster_init, first_token, now},
    raft::{Ledger, LedgerOptions, Member},
};
use anyhow::{Context, bail, ensure};
use novacron_common::{ids::ClusterId, spec::Sha256Digest};
use novacron_core::{Applied, CommandBody, record::CoordinatorRecord};
use novacron_transport::{CertificateAuthority, Identity, Role, certificate_request};
use std::{fmt, net::SocketAddr, time::Duration};

/// The founder's number.
const FOUNDER: u64 = 1;
/// How long a single node may take to elect itself.
const ELECTION_DEADLINE: Duration = Duration::from_secs(10);

/// What the founder must note.
#[derive(Debug)]
pub struct Founded {
    /// The first API token, with its secret.
    pub token: ApiToken,
    /// SHA-256 of the CA's certificate, for `novactl` to pin.
    pub ca: Sha256Digest,
    /// Where the API will be.
    pub api: SocketAddr,
}

/// As printed, once.
impl fmt::Display for Founded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "token: {}", self.token)?;
        writeln!(f, "ca: {}", self.ca)?;
        write!(f, "api: https://{}", self.api)
    }
}

/// Founds a cluster. The identity is written last: without it the cluster does not count as founded.
///
/// # Errors
/// If there is a cluster already, or a file cannot be written.
pub async fn init(config: &Config) -> anyhow::Result<Founded> {
    refuse_existing(config)?;
    let seal_key = seal_key(config)?;
    let cluster = ClusterId::generate();
    let ca = CertificateAuthority::generate(cluster, now())?;
    let identity = founder_identity(config, cluster, &ca)?;
    let token = ApiToken::generate()?;
    let first = [
        cluster_init(cluster, &ca, &seal_key)?,
        CommandBody::CoordinatorPut(CoordinatorRecord {
            node: FOUNDER,
            name: config.name.clone(),
            quic: config.quic.advertise,
            http: config.http.advertise,
        }),
        first_token(&token, "init".parse()?),
    ];
    found(config, first.into()).await?;
    identity.save(&config.identity_dir()).context("the cluster's first identity could not be kept")?;
    Ok(Founded { token, ca: ca.fingerprint(), api: config.http.advertise })
}

fn refuse_existing(config: &Config) -> anyhow::Result<()> {
    let (identity, ledger) = (config.identity_dir(), config.ledger_dir());
    ensure!(
        !identity.exists(),
        "{} exists: this coordinator belongs to a cluster already; `run` starts it",
        identity.display()
    );
    ensure!(
        !ledger.exists(),
        "{} exists without an identity: an earlier init or join was interrupted; remove {} and try again",
        ledger.display(),
        config.data_dir.display()
    );
    Ok(())
}

/// The key that the administrator provided, or a new one.
fn seal_key(config: &Config) -> anyhow::Result<SealKey> {
    match SealKey::load(&config.seal_key) {
        Ok(key) => Ok(key),
        Err(_) if !config.seal_key.exists() => {
            let key = SealKey::generate()?;
            key.save(&config.seal_key)?;
            Ok(key)
        }
        Err(error) => Err(error.into()),
    }
}

fn founder_identity(
    config: &Config,
    cluster: ClusterId,
    ca: &CertificateAuthority,
) -> anyhow::Result<Identity> {
    let (key, csr) = certificate_request()?;
    let role = Role::Coordinator { node: FOUNDER };
    let certificate = ca.issue(&csr, &role, config.certificate_validity, now())?;
    Ok(Identity::new(cluster, ca.certificate_der(), &certificate, &key)?)
}

async fn found(config: &Config, first: Vec<CommandBody>) -> anyhow::Result<()> {
    let folder = config.ledger_dir();
    std::fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    let ledger = Ledger::open(LedgerOptions { node: FOUNDER, folder, endpoint: None }).await?;
    ledger.found(Member { quic: config.quic.advertise, http: config.http.advertise }).await?;
    let mut leadership = ledger.leadership();
    let elected = leadership.wait_for(super::raft::Leadership::is_leader);
    tokio::time::timeout(ELECTION_DEADLINE, elected).await.context("the new ledger elected no leader")??;
    let applied = ledger.propose(CommandBody::Batch(first)).await?;
    let Applied::Batch(outcomes) = applied else { bail!("the new ledger answered {applied:?}") };
    for outcome in outcomes {
        outcome.accepted().context("the new ledger refused its first commands")?;
    }
    ledger.shutdown().await;
    Ok(())
}
