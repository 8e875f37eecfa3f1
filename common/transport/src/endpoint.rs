//! One UDP socket that dials and listens.

use crate::{
    IdentityCell, Link, LinkError, Role, RoleKind,
    connection::{Connection, RESTARTING},
    link::{Gate, LinkFacts},
    restart,
    settings::{self, Patience, Sharing},
    simulated::{Met, SimulatedNet},
    tls,
};
use novacron_common::{spec::Sha256Digest, units::UnixMillis};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls_pki_types::CertificateDer;
use std::{
    collections::HashMap,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

/// How long a handshake may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long a process that is started again waits until its peers know.
const RESTART_NOTICE: Duration = Duration::from_millis(500);
/// Handshakes that may be under way at once; further ones wait in the socket's buffer.
const HANDSHAKES_MAX: usize = 64;

/// QUIC's code for a link whose peer is no member.
const REMOVED: u32 = 2;

/// Links that were opened from here and are shared: by address, and by role where a certain one was wanted.
type Pool = Arc<tokio::sync::Mutex<HashMap<(SocketAddr, Option<Role>), Link>>>;
type Links = Arc<Mutex<HashMap<usize, (Role, Connection)>>>;

/// A process's place in the network.
#[derive(Clone)]
pub struct Endpoint {
    socket: Socket,
    identity: Arc<IdentityCell>,
    gate: Arc<RwLock<Arc<Gate>>>,
    links: Links,
    pool: Pool,
}

#[derive(Clone)]
enum Socket {
    Quic { quic: quinn::Endpoint, accepted: Arc<tokio::sync::Mutex<tokio::sync::mpsc::Receiver<Link>>> },
    Simulated(Arc<dyn SimulatedNet>),
}

impl Endpoint {
    /// Binds `address`. Until [`Endpoint::set_gate`] is called, every certificate of the CA is a member's.
    ///
    /// # Errors
    /// [`LinkError`] if the address is taken or TLS cannot be set up.
    pub fn bind(address: SocketAddr, identity: Arc<IdentityCell>) -> Result<Self, LinkError> {
        let server = tls::server(&identity).map_err(LinkError::Tls)?;
        let server = QuicServerConfig::try_from(server)
            .map_err(|e| LinkError::Tls(rustls::Error::General(e.to_string())))?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(server));
        server.transport_config(settings::transport(Patience::Usual, Sharing::Fair));
        let quic = bind_quic(address, restart::config(&identity.get()), Some(server))?;
        let (sender, receiver) = tokio::sync::mpsc::channel(HANDSHAKES_MAX);
        let accepted = Arc::new(tokio::sync::Mutex::new(receiver));
        let endpoint = Self::on(Socket::Quic { quic: quic.clone(), accepted }, identity);
        tokio::spawn(endpoint.clone().listen(quic, sender));
        Ok(endpoint)
    }

    /// A place in a simulated network.
    pub fn simulated(net: Arc<dyn SimulatedNet>, identity: Arc<IdentityCell>) -> Self {
        Self::on(Socket::Simulated(net), identity)
    }

    fn on(socket: Socket, identity: Arc<IdentityCell>) -> Self {
        let everybody: Arc<Gate> = Arc::new(|_: &Role| true);
        let gate = Arc::new(RwLock::new(everybody));
        Self { socket, identity, gate, links: Links::default(), pool: Arc::default() }
    }

    /// From now on a peer is a member only if `gate` says so; consulted for every link and every stream.
    pub fn set_gate(&self, gate: Arc<dyn Fn(&Role) -> bool + Send + Sync>) {
        *self.gate.write().unwrap_or_else(PoisonError::into_inner) = gate;
    }

    /// Cuts every link with `role`, at once.
    pub fn disconnect(&self, role: &Role) {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, connection) in links.values().filter(|(peer, _)| peer == role) {
            connection.close(REMOVED, "removed from the cluster");
        }
    }

    /// The newest identity.
    pub fn identity(&self) -> &Arc<IdentityCell> {
        &self.identity
    }

    /// The bound address.
    ///
    /// # Errors
    /// The system's, if the socket is gone.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        match &self.socket {
            Socket::Quic { quic, .. } => quic.local_addr(),
            Socket::Simulated(net) => Ok(net.local_addr()),
        }
    }

    /// A new link to exactly `expected`.
    ///
    /// # Errors
    /// [`LinkError`] if nobody or somebody else answers.
    pub async fn connect(&self, address: SocketAddr, expected: &Role) -> Result<Link, LinkError> {
        exactly(expected, self.dial(address, Patience::Usual, Sharing::Fair).await?)
    }

    /// As [`Endpoint::connect`], but for a link whose loss must be noticed soon: silence ends it within 2.5 s. What is sent
    /// on it from here shares the way as `sharing` says.
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    pub async fn connect_brisk(
        &self,
        address: SocketAddr,
        expected: &Role,
        sharing: Sharing,
    ) -> Result<Link, LinkError> {
        exactly(expected, self.dial(address, Patience::Brisk, sharing).await?)
    }

    /// A new link to anybody of that kind.
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    pub async fn connect_any(&self, address: SocketAddr, kind: RoleKind) -> Result<Link, LinkError> {
        let link = self.dial(address, Patience::Usual, Sharing::Fair).await?;
        match link.peer() {
            Some(peer) if peer.kind() == kind => Ok(link),
            found => Err(wrong_peer(&link, found, format!("{kind:?}").to_lowercase())),
        }
    }

    /// A link to exactly `expected`, shared with everybody who asks for the same while it is usable.
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    pub async fn reach(&self, address: SocketAddr, expected: &Role) -> Result<Link, LinkError> {
        let key = (address, Some(*expected));
        if let Some(link) = self.pooled(&key).await {
            return Ok(link);
        }
        let link = self.connect(address, expected).await?;
        self.keep(key, &link).await;
        Ok(link)
    }

    /// A link to whatever member serves `address`, shared like those of [`Endpoint::reach`].
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    pub async fn reach_member(&self, address: SocketAddr) -> Result<Link, LinkError> {
        let key = (address, None);
        if let Some(link) = self.pooled(&key).await {
            return Ok(link);
        }
        let link = self.dial(address, Patience::Usual, Sharing::Fair).await?;
        if link.peer().is_none() {
            return Err(wrong_peer(&link, None, "a member".into()));
        }
        self.keep(key, &link).await;
        Ok(link)
    }

    async fn pooled(&self, key: &(SocketAddr, Option<Role>)) -> Option<Link> {
        self.pool.lock().await.get(key).filter(|l| l.is_usable()).cloned()
    }

    async fn keep(&self, key: (SocketAddr, Option<Role>), link: &Link) {
        let mut pool = self.pool.lock().await;
        pool.retain(|_, link| link.is_usable());
        pool.insert(key, link.clone());
    }

    /// The next link that somebody else opened; `None` once the endpoint is closed.
    pub async fn accept(&self) -> Option<Link> {
        match &self.socket {
            Socket::Quic { accepted, .. } => accepted.lock().await.recv().await,
            Socket::Simulated(net) => loop {
                let Met { peer, line } = net.accept().await?;
                match self.admit_as(Some(peer), UnixMillis(i64::MAX), Connection::Simulated(line)) {
                    Ok(link) => return Some(link),
                    Err(error) => tracing::warn!(%peer, %error, "link refused"),
                }
            },
        }
    }

    /// Closes every link and the socket.
    pub async fn close(&self) {
        self.close_with(0, "shutting down");
        self.wait_idle().await;
    }

    /// As [`Endpoint::close`], for a process that is started again in a moment: to its peers the links are cut, at once. They
    /// wait for its successor meanwhile, so this does not wait long for them.
    pub async fn close_for_restart(&self) {
        self.close_with(RESTARTING, "the process is started again");
        let _those_that_heard_it_know = tokio::time::timeout(RESTART_NOTICE, self.wait_idle()).await;
    }

    fn close_with(&self, code: u32, reason: &str) {
        if let Socket::Quic { quic, .. } = &self.socket {
            quic.close(quinn::VarInt::from_u32(code), reason.as_bytes());
        }
    }

    async fn wait_idle(&self) {
        if let Socket::Quic { quic, .. } = &self.socket {
            quic.wait_idle().await;
        }
    }

    /// A link for a process that has no certificate yet, to a coordinator whose CA has this fingerprint. It can
    /// carry `Join` streams and nothing else. The endpoint lives as long as the link.
    ///
    /// # Errors
    /// [`LinkError`] if nobody answers or the CA is another.
    pub async fn enroll(address: SocketAddr, ca: Sha256Digest) -> Result<Link, LinkError> {
        let local = match address {
            SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
            SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
        };
        let quic = bind_quic(local, quinn::EndpointConfig::default(), None)?;
        let config = quic_client(
            tls::enrolling_client(ca).map_err(LinkError::Tls)?,
            (Patience::Usual, Sharing::Fair),
        )?;
        let connection = handshake(&quic, config, address).await?;
        let everybody: Arc<Gate> = Arc::new(|_: &Role| true);
        // It never accepts streams (its kind is Agent, which nobody may open Join to).
        let facts =
            LinkFacts { peer: None, own: RoleKind::Agent, expires_at: UnixMillis(i64::MAX), gate: everybody };
        Ok(Link::new(Connection::Quic(connection), facts))
    }

    async fn dial(
        &self,
        address: SocketAddr,
        patience: Patience,
        sharing: Sharing,
    ) -> Result<Link, LinkError> {
        match &self.socket {
            Socket::Quic { quic, .. } => {
                let tls = tls::client(&self.identity).map_err(LinkError::Tls)?;
                let config = quic_client(tls, (patience, sharing))?;
                self.admit(handshake(quic, config, address).await?)
            }
            Socket::Simulated(net) => {
                let Met { peer, line } =
                    net.dial(address).await.map_err(|reason| LinkError::Connect { address, reason })?;
                self.admit_as(Some(peer), UnixMillis(i64::MAX), Connection::Simulated(line))
            }
        }
    }

    /// Accepts handshakes, several at a time, for ever.
    async fn listen(self, quic: quinn::Endpoint, accepted: tokio::sync::mpsc::Sender<Link>) {
        let slots = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES_MAX));
        while let Some(incoming) = quic.accept().await {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let (endpoint, accepted) = (self.clone(), accepted.clone());
            tokio::spawn(async move {
                let from = incoming.remote_address();
                let shaken = tokio::time::timeout(CONNECT_DEADLINE, async { incoming.await }).await;
                drop(slot);
                match shaken.map_err(|_| "too slow".to_owned()).and_then(|r| r.map_err(|e| e.to_string())) {
                    Ok(connection) => match endpoint.admit(connection) {
                        Ok(link) => drop(accepted.send(link).await),
                        Err(error) => tracing::warn!(%from, %error, "link refused"),
                    },
                    Err(reason) => tracing::warn!(%from, reason, "handshake failed"),
                }
            });
        }
    }

    /// Reads who the peer is and asks the gate.
    fn admit(&self, connection: quinn::Connection) -> Result<Link, LinkError> {
        let own = self.identity.get();
        let peer = peer_facts(&connection, own.cluster);
        let (role, not_after) = peer.map_or((None, UnixMillis(i64::MAX)), |f| (f.role, f.not_after));
        self.admit_as(role, not_after.min(own.not_after()), Connection::Quic(connection))
    }

    fn admit_as(
        &self,
        role: Option<Role>,
        expires_at: UnixMillis,
        connection: Connection,
    ) -> Result<Link, LinkError> {
        let gate: Arc<Gate> = {
            let gate = self.gate.clone();
            Arc::new(move |role: &Role| (gate.read().unwrap_or_else(PoisonError::into_inner).clone())(role))
        };
        if let Some(role) = role {
            if !gate(&role) {
                connection.close(REMOVED, "removed from the cluster");
                return Err(LinkError::NotAMember(role));
            }
            self.remember(role, &connection);
        }
        let own = self.identity.get().role.kind();
        let facts = LinkFacts { peer: role, own, expires_at, gate };
        Ok(Link::new(connection, facts))
    }

    fn remember(&self, role: Role, connection: &Connection) {
        let id = connection.stable_id();
        self.links.lock().unwrap_or_else(PoisonError::into_inner).insert(id, (role, connection.clone()));
        // Waiting on a clone keeps nothing alive: the links themselves are closed explicitly or by idleness.
        let (links, connection) = (self.links.clone(), connection.clone());
        novacron_runtime::spawn(async move {
            connection.closed().await;
            links.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        });
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({:?})", self.local_addr())
    }
}

fn bind_quic(
    address: SocketAddr,
    config: quinn::EndpointConfig,
    server: Option<quinn::ServerConfig>,
) -> Result<quinn::Endpoint, LinkError> {
    let failed = |cause| LinkError::Bind { address, cause };
    let socket = UdpSocket::bind(address).map_err(failed)?;
    widen_buffers(&socket);
    let runtime =
        quinn::default_runtime().ok_or_else(|| failed(std::io::Error::other("no tokio runtime")))?;
    quinn::Endpoint::new(config, server, socket, runtime).map_err(failed)
}

/// Larger buffers than the default where we may; a smaller one costs speed, not correctness.
fn widen_buffers(socket: &UdpSocket) {
    use nix::sys::socket::{setsockopt, sockopt};
    let size = settings::SOCKET_BUFFER;
    if setsockopt(socket, sockopt::RcvBufForce, &size).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &size);
    }
    if setsockopt(socket, sockopt::SndBufForce, &size).is_err() {
        let _ = setsockopt(socket, sockopt::SndBuf, &size);
    }
}

fn quic_client(
    tls: rustls::ClientConfig,
    (patience, sharing): (Patience, Sharing),
) -> Result<quinn::ClientConfig, LinkError> {
    let crypto =
        QuicClientConfig::try_from(tls).map_err(|e| LinkError::Tls(rustls::Error::General(e.to_string())))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(settings::transport(patience, sharing));
    Ok(config)
}

async fn handshake(
    quic: &quinn::Endpoint,
    config: quinn::ClientConfig,
    address: SocketAddr,
) -> Result<quinn::Connection, LinkError> {
    let failed = |reason: String| LinkError::Connect { address, reason };
    let connecting =
        quic.connect_with(config, address, tls::SERVER_NAME).map_err(|e| failed(e.to_string()))?;
    let shaken = tokio::time::timeout(CONNECT_DEADLINE, connecting).await;
    shaken.map_err(|_| failed("no answer".into()))?.map_err(|e| failed(e.to_string()))
}

fn peer_facts(
    connection: &quinn::Connection,
    cluster: novacron_common::ids::ClusterId,
) -> Option<tls::Facts> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    tls::facts(chain.first()?, cluster).ok()
}

fn exactly(expected: &Role, link: Link) -> Result<Link, LinkError> {
    match link.peer() {
        Some(peer) if peer == expected => Ok(link),
        found => Err(wrong_peer(&link, found, expected.to_string())),
    }
}

fn wrong_peer(link: &Link, found: Option<&Role>, expected: String) -> LinkError {
    let found = found.map_or_else(|| "without a role".into(), Role::to_string);
    link.close("another peer was expected here");
    LinkError::WrongPeer { address: link.remote_address(), found, expected }
}
