//! `novacron-coordinator restore`: a new cluster history with the content of a backup, on a coordinator that is
//! stopped. The others join it anew, because their logs belong to the history that is given up.

use super::{Backup, Difference};
use crate::{
    config::Config,
    identity::{SealKey, now},
    raft::{self, Member},
};
use anyhow::{Context, bail, ensure};
use novacron_core::{Command, CommandBody, State, record::CoordinatorRecord};
use novacron_transport::{CertificateAuthority, Identity, Role, certificate_request};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Log indexes that the given-up history may have used beyond what is known here. None of them is used again: what
/// events and requests are counted by must not mean two things.
const INDEX_MARGIN: u64 = 1_000_000;

/// What to restore.
#[derive(Debug)]
pub struct RestoreOptions {
    /// The backup.
    pub from: PathBuf,
    /// Go on though something that is there now would be lost.
    pub accept_loss: bool,
}

/// What was done.
#[derive(Debug)]
pub struct Restored {
    /// This coordinator's number.
    pub node: u64,
    /// Where the former ledger is kept.
    pub former: Option<PathBuf>,
    /// What the present state had and the restored one has not, and the other way round.
    pub difference: Difference,
    /// Coordinators that have to join anew.
    pub others: Vec<String>,
}

/// Restores. Nothing is changed unless all of it succeeds; the former ledger is set aside, not removed.
///
/// # Errors
/// If the file is no whole backup of this cluster, the coordinator runs, something would be lost and that was not
/// accepted, or a file cannot be written.
pub fn restore(config: &Config, options: &RestoreOptions) -> anyhow::Result<Restored> {
    let from = options.from.display();
    let file = fs::read(&options.from).with_context(|| format!("could not read {from}"))?;
    let backup = Backup::read(&file).with_context(|| format!("{from} cannot be restored"))?;
    let (present_index, difference) = compare(config, &backup)?;
    if difference.loses() && !options.accept_loss {
        bail!(
            "the present ledger is not the backup's:\n{difference}give --accept-loss to restore all the same"
        );
    }
    let cluster = backup.state.cluster().context("the backup holds no cluster")?.clone();
    ensure!(cluster.id == backup.header.cluster, "the backup's header and its content differ");
    let (node, identity) = identity(config, &backup)?;
    let member = Member { quic: config.quic.advertise, http: config.http.advertise };
    let others = others(&backup.state, node);
    let state = alone(backup.state, config, node)?;
    let index = backup.header.applied.max(present_index).saturating_add(INDEX_MARGIN);
    let former = put_in_place(&config.ledger_dir(), |folder| {
        Ok(raft::begin_with(folder, &state, index, (node, member))?)
    })?;
    if let Some(identity) = identity {
        identity.save(&config.identity_dir()).context("the new identity could not be kept")?;
    }
    Ok(Restored { node, former, difference, others })
}

fn compare(config: &Config, backup: &Backup) -> anyhow::Result<(u64, Difference)> {
    let folder = config.ledger_dir();
    if !folder.exists() {
        return Ok((0, Difference::default()));
    }
    let (index, present) = raft::look_into(&folder)
        .with_context(|| format!("could not look into {}: does the coordinator run?", folder.display()))?;
    Ok((index, Difference::between(&present, &backup.state)))
}

/// This machine's identity, or a new one, made with the sealed CA of the backup.
fn identity(config: &Config, backup: &Backup) -> anyhow::Result<(u64, Option<Identity>)> {
    if config.identity_dir().exists() {
        let identity = Identity::load(&config.identity_dir())?;
        ensure!(
            identity.cluster == backup.header.cluster,
            "this machine belongs to cluster {}, the backup is of cluster {}",
            identity.cluster,
            backup.header.cluster
        );
        let Role::Coordinator { node } = identity.role else {
            bail!("this machine's identity is an {}", identity.role)
        };
        return Ok((node, None));
    }
    let cluster = backup.state.cluster().context("the backup holds no cluster")?;
    let seal = SealKey::load(&config.seal_key)
        .context("a machine without an identity needs the cluster's seal key beside the backup")?;
    let key = seal.unseal(cluster.id, &cluster.sealed_ca_key)?;
    let ca = CertificateAuthority::from_der(cluster.id, &cluster.ca_cert, &key)?;
    let (node, (key, csr)) = (cluster.next_node, certificate_request()?);
    let certificate = ca.issue(&csr, &Role::Coordinator { node }, config.certificate_validity, now())?;
    let identity = Identity::new(cluster.id, ca.certificate_der(), &certificate, &key)?;
    Ok((node, Some(identity)))
}

fn others(state: &State, node: u64) -> Vec<String> {
    state.coordinators().iter().filter(|c| c.node != node).map(|c| c.name.to_string()).collect()
}

/// The state with this coordinator and no other.
fn alone(mut state: State, config: &Config, node: u64) -> anyhow::Result<State> {
    let own = CoordinatorRecord {
        node,
        name: config.name.clone(),
        quic: config.quic.advertise,
        http: config.http.advertise,
    };
    let gone: Vec<u64> = state.coordinators().iter().map(|c| c.node).filter(|other| *other != node).collect();
    let put = std::iter::once(CommandBody::CoordinatorPut(own));
    let remove = gone.into_iter().map(|node| CommandBody::CoordinatorRemove { node });
    for body in put.chain(remove) {
        state
            .apply(0, Command { at: now(), body })
            .accepted()
            .context("the backup's coordinators are odd")?;
    }
    Ok(state)
}

/// Makes the new folder beside the old one, and changes them when it is whole.
fn put_in_place(
    folder: &Path,
    make: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<Option<PathBuf>> {
    let new = folder.with_extension("restoring");
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| format!("could not remove {}", new.display()))?;
    }
    fs::create_dir_all(&new).with_context(|| format!("could not make {}", new.display()))?;
    make(&new)?;
    let former = folder.exists().then(|| folder.with_extension(format!("before-restore-{}", now().0)));
    if let Some(former) = &former {
        fs::rename(folder, former).with_context(|| format!("could not set {} aside", folder.display()))?;
    }
    fs::rename(&new, folder).with_context(|| format!("could not name {}", folder.display()))?;
    Ok(former)
}
