//! Coordinators in this process, on loopback: everything but the HTTP API and the agents' sessions is real.

use anyhow::Context;
use async_trait::async_trait;
use novacron_common::{
    api::JoinTokenRole,
    spec::Sha256Digest,
    wire::{Enrolled, JoinDenied, JoinPurpose, JoinRequest, JoinToken, StreamKind},
};
use novacron_coordinator::{
    AgentStreams, Parts,
    config::{Config, HttpConfig, Listen, LogConfig, LogFormat},
    init::init,
    join::join,
    raft::{Ledger, Member},
    run::{Coordinator, Services},
};
use novacron_core::{Applied, CommandBody, command::TokenPut};
use novacron_transport::{Endpoint, Identity, IdentityCell, Link, Role, Stream, certificate_request};
use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Long enough for a slow machine; nothing waits for all of it.
pub const A_WHILE: Duration = Duration::from_secs(60);

/// One coordinator with its folder.
pub struct Node {
    _folder: TempDir,
    pub config: Config,
    pub running: Option<Coordinator>,
}

struct NoAgents;

#[async_trait]
impl AgentStreams for NoAgents {
    async fn serve(&self, _link: Link, _kind: StreamKind, _stream: Stream) {}
}

fn ledger_only(parts: &Parts) -> anyhow::Result<Services> {
    let (stop, mut tasks) = (parts.stop.clone(), JoinSet::new());
    tasks.spawn(async move {
        stop.cancelled().await;
        Ok(())
    });
    Ok(Services { agents: Arc::new(NoAgents), tasks })
}

/// A port on a loopback address of this process's own (all of 127.0.0.0/8 is loopback), so that tests in other
/// processes cannot take it in between.
pub fn free_port() -> SocketAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    UdpSocket::bind((Ipv4Addr::new(127, high | 0x40, middle, low), 0)).unwrap().local_addr().unwrap()
}

fn config(name: &str, folder: &Path, validity: Duration) -> Config {
    let (quic, http) = (free_port(), free_port());
    Config {
        name: name.parse().unwrap(),
        data_dir: folder.join("data"),
        seal_key: folder.join("seal.key"),
        quic: Listen { listen: quic, advertise: quic },
        http: HttpConfig { listen: http, advertise: http, plain_loopback: None },
        certificate_validity: validity,
        jobs: novacron_coordinator::config::JobsConfig::default(),
        log: LogConfig { level: "info".into(), format: LogFormat::Text },
    }
}

impl Node {
    fn new(name: &str, validity: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = config(name, folder.path(), validity);
        Self { _folder: folder, config, running: None }
    }

    /// The first coordinator of a new cluster, running.
    pub async fn found(validity: Duration) -> Self {
        let mut node = Self::new("c1", validity);
        init(&node.config).await.unwrap();
        node.start().await;
        node
    }

    /// One more coordinator, running.
    pub async fn join(name: &str, through: &Self) -> Self {
        let token = through.join_token(JoinTokenRole::Coordinator, A_WHILE).await;
        Self::join_with(name, &token.to_string(), through.config.certificate_validity).await
    }

    /// One more coordinator, running, with this token.
    pub async fn join_with(name: &str, token: &str, validity: Duration) -> Self {
        let mut node = Self::new(name, validity);
        join(&node.config, token).await.unwrap();
        node.start().await;
        node
    }

    /// Its files may be held for a moment by what was just stopped.
    pub async fn start(&mut self) {
        let began = Instant::now();
        loop {
            match Coordinator::start(self.config.clone(), ledger_only).await {
                Ok(running) => {
                    self.running = Some(running);
                    return;
                }
                Err(error) => assert!(began.elapsed() < A_WHILE, "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn stop(&mut self) {
        self.running.take().unwrap().stop().await;
    }

    pub fn parts(&self) -> &Parts {
        &self.running.as_ref().unwrap().parts
    }

    pub fn ledger(&self) -> &Ledger {
        &self.parts().ledger
    }

    pub fn number(&self) -> u64 {
        self.parts().node
    }

    pub async fn join_token(&self, role: JoinTokenRole, validity: Duration) -> JoinToken {
        let ready = || self.ledger().read(|state| state.cluster().is_some());
        eventually("the ledger has arrived", async || ready()).await;
        self.parts().authority.join_token(role, validity, None).await.unwrap().token.parse().unwrap()
    }

    pub fn tokens(&self) -> usize {
        self.ledger().read(|state| state.api_tokens().len())
    }

    pub fn voters(&self) -> Vec<u64> {
        self.ledger().members().iter().filter(|m| m.voter).map(|m| m.node).collect()
    }

    pub fn member(&self) -> Member {
        Member { quic: self.config.quic.advertise, http: self.config.http.advertise }
    }
}

/// Three coordinators, all of them voters.
pub async fn three(validity: Duration) -> [Node; 3] {
    let first = Node::found(validity).await;
    let second = Node::join("c2", &first).await;
    let third = Node::join("c3", &first).await;
    let nodes = [first, second, third];
    for node in &nodes {
        eventually("all three vote", async || node.voters() == [1, 2, 3]).await;
    }
    nodes
}

/// Waits until `holds`.
pub async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < A_WHILE, "not so after {A_WHILE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A small write.
pub fn write() -> CommandBody {
    CommandBody::TokenPut(TokenPut {
        id: novacron_common::ids::TokenId::generate(),
        name: "test".parse().unwrap(),
        role: novacron_common::api::TokenRole::Reader,
        secret_sha256: Sha256Digest([0; 32]),
    })
}

pub async fn must_write(ledger: &Ledger) {
    let applied = ledger.propose(write()).await;
    assert!(matches!(applied, Ok(Applied::TokenStored(_))), "{applied:?}");
}

/// Asks to join as an agent, as `novacron-agent join` does.
pub async fn join_as_agent(
    token: &JoinToken,
    name: &str,
    csr: Option<Vec<u8>>,
) -> anyhow::Result<Result<(Enrolled, Vec<u8>), JoinDenied>> {
    join_as(token, JoinPurpose::Agent { name: name.parse()?, rejoin: None }, csr).await
}

/// Asks to join for `purpose`.
pub async fn join_as(
    token: &JoinToken,
    purpose: JoinPurpose,
    csr: Option<Vec<u8>>,
) -> anyhow::Result<Result<(Enrolled, Vec<u8>), JoinDenied>> {
    let (key, own_csr) = certificate_request()?;
    let csr = csr.unwrap_or(own_csr);
    let request = JoinRequest { token: token.id, secret: token.secret, purpose, csr };
    let address = *token.coordinators.first().context("no coordinator")?;
    let link = Endpoint::enroll(address, token.ca).await?;
    let mut stream = link.open(StreamKind::Join).await?;
    stream.send(&request).await?;
    stream.finish();
    let verdict: Result<Enrolled, JoinDenied> = stream.recv().await?;
    Ok(verdict.map(|enrolled| (enrolled, key.to_vec())))
}

/// An agent's endpoint with a good certificate.
pub async fn agent(through: &Node, name: &str) -> (Endpoint, Role) {
    let token = through.join_token(JoinTokenRole::Agent, A_WHILE).await;
    let (enrolled, key) = join_as_agent(&token, name, None).await.unwrap().unwrap();
    let identity = Identity::new(enrolled.cluster, &enrolled.ca, &enrolled.certificate, &key).unwrap();
    let role = identity.role;
    (Endpoint::bind(free_port(), Arc::new(IdentityCell::new(identity))).unwrap(), role)
}
