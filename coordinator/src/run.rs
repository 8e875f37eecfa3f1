//! `novacron-coordinator run`: starts the parts, hands every stream to its owner, and stops in order.

use crate::{
    AgentStreams, Parts,
    config::Config,
    identity::{self, Authority, AuthorityOptions, SealKey},
    raft::{Ledger, LedgerOptions, TRANSFER_MAX},
};
use anyhow::{Context, bail};
use novacron_common::wire::StreamKind;
use novacron_core::{CommandBody, record::CoordinatorRecord};
use novacron_transport::{Endpoint, Identity, IdentityCell, Link, LinkError, Role, Stream};
use std::{sync::Arc, time::Duration};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// How long the parts are given to end by themselves.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// How often a coordinator looks whether its ledger still runs.
const HEALTH_PERIOD: Duration = Duration::from_millis(500);

/// Pause between tries to tell the others where this coordinator is.
const ANNOUNCE_PERIOD: Duration = Duration::from_secs(1);

/// What serves agents and users: started once the ledger runs.
pub struct Services {
    /// Takes the agents' streams.
    pub agents: Arc<dyn AgentStreams>,
    /// Run until [`Parts::stop`]; one that ends before that ends the process.
    pub tasks: JoinSet<anyhow::Result<()>>,
}

/// Starts [`Services`].
pub type StartServices = fn(&Parts) -> anyhow::Result<Services>;

/// A running coordinator.
pub struct Coordinator {
    /// What its parts share.
    pub parts: Parts,
    services: JoinSet<anyhow::Result<()>>,
    tasks: JoinSet<()>,
}

impl Coordinator {
    /// Opens the ledger, binds the endpoint and starts everything.
    ///
    /// # Errors
    /// If this machine has not joined a cluster, a port is taken, or a file cannot be read.
    pub async fn start(config: Config, services: StartServices) -> anyhow::Result<Self> {
        let parts = assemble(config).await?;
        let Services { agents, tasks: services } = services(&parts)?;
        let mut tasks = JoinSet::new();
        let Parts { endpoint, ledger, authority, stop, .. } = parts.clone();
        let folder = parts.config.identity_dir();
        let advertised = parts.config.http.advertise;
        tasks.spawn(identity::keep_own_certificate(authority.clone(), folder, stop.clone()));
        tasks.spawn(parts.https.clone().keep(authority, advertised, stop.clone()));
        tasks.spawn(identity::guard(endpoint, ledger, stop));
        tasks.spawn(announce(parts.clone()));
        tasks.spawn(accept(Dispatch { parts: parts.clone(), agents }));
        Ok(Self { parts, services, tasks })
    }

    /// Waits until it should stop: on SIGTERM or SIGINT, or because a part of it failed.
    ///
    /// # Errors
    /// If a part failed.
    pub async fn until_stopped(&mut self) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("could not listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("could not listen for SIGINT")?;
        let mut health = tokio::time::interval(HEALTH_PERIOD);
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                () = self.parts.stop.cancelled() => return Ok(()),
                Some(ended) = self.services.join_next() => return failed(ended),
                _ = health.tick() => {
                    if !self.parts.ledger.status().running {
                        bail!("the ledger has stopped: its store failed, see above");
                    }
                    notify(sd_notify::NotifyState::Watchdog);
                }
            }
        }
    }

    /// Stops everything, the ledger last. A leader hands over first: the others need not find out by a time-out.
    pub async fn stop(mut self) {
        self.hand_over().await;
        self.parts.stop.cancel();
        let ended = async {
            while self.services.join_next().await.is_some() {}
            self.parts.ledger.shutdown().await;
            self.parts.endpoint.close().await;
            while self.tasks.join_next().await.is_some() {}
        };
        if tokio::time::timeout(STOP_DEADLINE, ended).await.is_err() {
            tracing::warn!("not everything ended in time; nothing that was acknowledged is lost");
        }
    }
}

impl Coordinator {
    async fn hand_over(&self) {
        let ledger = &self.parts.ledger;
        if !ledger.status().leads || ledger.members().iter().filter(|member| member.voter).count() < 2 {
            return;
        }
        match tokio::time::timeout(TRANSFER_MAX, ledger.transfer(None)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "leadership could not be handed over"),
            Err(_) => tracing::warn!("leadership was not handed over in time"),
        }
    }
}

/// Runs until it is told to stop.
///
/// # Errors
/// If it cannot start, or a part of it failed.
pub async fn run(config: Config, services: StartServices) -> anyhow::Result<()> {
    let mut coordinator = Coordinator::start(config, services).await?;
    tracing::info!(
        node = coordinator.parts.node,
        quic = %coordinator.parts.config.quic.listen,
        https = %coordinator.parts.config.http.listen,
        version = env!("CARGO_PKG_VERSION"),
        "ready"
    );
    notify(sd_notify::NotifyState::Ready);
    let outcome = coordinator.until_stopped().await;
    notify(sd_notify::NotifyState::Stopping);
    tracing::info!("stopping");
    coordinator.stop().await;
    outcome
}

/// Nothing to tell where systemd is not.
fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "systemd was not told");
    }
}

fn failed(ended: Result<anyhow::Result<()>, tokio::task::JoinError>) -> anyhow::Result<()> {
    match ended {
        Ok(Ok(())) => bail!("a service ended by itself"),
        Ok(Err(error)) => Err(error),
        Err(panicked) => Err(panicked).context("a service panicked"),
    }
}

async fn assemble(config: Config) -> anyhow::Result<Parts> {
    let identity = Identity::load(&config.identity_dir())
        .context("this machine belongs to no cluster yet: run `init` or `join` first")?;
    let (cluster, role) = (identity.cluster, identity.role);
    let Role::Coordinator { node } = role else {
        bail!("the identity in {} is an {role}", config.data_dir.display())
    };
    let seal_key = SealKey::load(&config.seal_key)?;
    let endpoint = Endpoint::bind(config.quic.listen, Arc::new(IdentityCell::new(identity)))?;
    let options = LedgerOptions { node, folder: config.ledger_dir(), endpoint: Some(endpoint.clone()) };
    let ledger = match Ledger::open(options).await {
        Ok(ledger) => ledger,
        Err(error) => {
            // Its own task would hold the port.
            endpoint.close().await;
            return Err(error.into());
        }
    };
    let authority = Authority::new(AuthorityOptions {
        ledger: ledger.clone(),
        endpoint: endpoint.clone(),
        seal_key,
        validity: config.certificate_validity,
    });
    Ok(Parts {
        config: Arc::new(config),
        cluster,
        node,
        ledger,
        endpoint,
        authority,
        https: Arc::default(),
        stop: CancellationToken::new(),
    })
}

/// Tells the others where this coordinator is reached, if its configuration has changed since it joined.
async fn announce(parts: Parts) {
    loop {
        tokio::select! {
            () = parts.stop.cancelled() => return,
            () = tokio::time::sleep(ANNOUNCE_PERIOD) => {}
        }
        let Some(kept) = parts.ledger.read(|state| state.coordinators().get(&parts.node).cloned()) else {
            continue;
        };
        let (quic, http) = (parts.config.quic.advertise, parts.config.http.advertise);
        let current = CoordinatorRecord { quic, http, name: parts.config.name.clone(), ..kept.clone() };
        if kept == current {
            return;
        }
        if let Err(error) = parts.ledger.propose(CommandBody::CoordinatorPut(current)).await {
            tracing::warn!(%error, "the others were not told of this coordinator's addresses; trying again");
        }
    }
}

/// Where streams go.
#[derive(Clone)]
struct Dispatch {
    parts: Parts,
    agents: Arc<dyn AgentStreams>,
}

/// Takes links until the endpoint closes; each link and each stream gets a task of its own. The transport bounds
/// both (handshakes under way, streams a link).
async fn accept(dispatch: Dispatch) {
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            link = dispatch.parts.endpoint.accept() => match link {
                Some(link) => drop(links.spawn(serve_link(dispatch.clone(), link))),
                None => return,
            },
            () = dispatch.parts.stop.cancelled() => return,
            Some(_) = links.join_next() => {}
        }
    }
}

async fn serve_link(dispatch: Dispatch, link: Link) {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            accepted = link.accept() => match accepted {
                Ok((kind, stream)) => {
                    let (dispatch, link) = (dispatch.clone(), link.clone());
                    streams.spawn(async move { dispatch.serve(link, kind, stream).await });
                }
                Err(_) => break,
            },
            Some(_) = streams.join_next() => {}
        }
    }
    // They notice by themselves that their link is gone, and tidy up.
    while streams.join_next().await.is_some() {}
}

impl Dispatch {
    async fn serve(&self, link: Link, kind: StreamKind, stream: Stream) {
        let peer = link.peer().copied();
        let served = match (kind, peer) {
            (StreamKind::Join, _) => self.parts.authority.serve_join(stream).await,
            (StreamKind::Renew, Some(peer)) => self.parts.authority.serve_renew(peer, stream).await,
            (StreamKind::Raft, Some(Role::Coordinator { node })) => {
                self.parts.ledger.serve_raft(node, stream).await
            }
            (StreamKind::Forward, Some(Role::Coordinator { .. })) => {
                self.parts.ledger.serve_forward(stream).await
            }
            (StreamKind::Session | StreamKind::Control | StreamKind::Gossip, Some(_)) => {
                self.agents.serve(link, kind, stream).await;
                Ok(())
            }
            // The transport's table lets nothing else through; dropping the stream resets it.
            (kind, peer) => Err(LinkError::Forbidden { who: format!("{peer:?}"), kind }),
        };
        if let Err(error) = served {
            tracing::debug!(%kind, ?peer, %error, "a stream ended badly");
        }
    }
}
