//! Gossip over the authenticated transport: chitchat's scuttlebutt (van Renesse et al., "Efficient Reconciliation
//! and Flow Control for Anti-Entropy Protocols"), with QUIC streams in place of its plaintext UDP.
//!
//! Gossip is a hint. Nothing is decided by it alone: it wakes somebody who looks.

use crate::{Endpoint, Link, Stream};
use async_trait::async_trait;
use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, ChitchatMessage, Deserializable, FailureDetectorConfig,
    Serializable,
    transport::{Socket, Transport},
};
use novacron_common::{
    ids::ClusterId,
    units::Incarnation,
    wire::{GossipFrame, StreamKind},
};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio::sync::{Mutex, Semaphore, mpsc};

/// Messages that wait to be read or sent; further ones are dropped, as UDP would.
const QUEUE: usize = 256;
/// How long a message may take to leave.
const SEND_DEADLINE: Duration = Duration::from_secs(3);

/// Who takes part, and where.
#[derive(Debug, Clone)]
pub struct GossipSettings {
    /// Messages of another cluster are ignored.
    pub cluster: ClusterId,
    /// Unique in the cluster: a host id, or `coordinator-N`.
    pub id: String,
    /// A later life supersedes an earlier one.
    pub incarnation: Incarnation,
    /// Where others reach this process.
    pub advertise: SocketAddr,
    /// How often each process gossips with a few others.
    pub interval: Duration,
}

/// A process's part in the gossip.
pub struct Gossip {
    handle: ChitchatHandle,
    inbox: mpsc::Sender<GossipFrame>,
}

/// A peer that is heard from, and what it says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GossipPeer {
    /// Its id.
    pub id: String,
    /// Its keys and values.
    pub values: BTreeMap<String, String>,
}

impl Gossip {
    /// Takes part from now on.
    ///
    /// # Errors
    /// chitchat's, if it cannot start.
    pub async fn start(endpoint: Endpoint, settings: GossipSettings) -> anyhow::Result<Self> {
        let (inbox, receiver) = mpsc::channel(QUEUE);
        let transport =
            QuicTransport { endpoint, advertise: settings.advertise, receiver: Mutex::new(Some(receiver)) };
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(settings.id, settings.incarnation.0, settings.advertise),
            cluster_id: settings.cluster.to_string(),
            gossip_interval: settings.interval,
            listen_addr: settings.advertise,
            seed_nodes: Vec::new(),
            failure_detector_config: FailureDetectorConfig::default(),
            marked_for_deletion_grace_period: Duration::from_secs(3600),
            catchup_callback: None,
            extra_liveness_predicate: None,
        };
        let handle = chitchat::spawn_chitchat(config, Vec::new(), &transport).await?;
        Ok(Self { handle, inbox })
    }

    /// Handles one `Gossip` stream that `link` opened. A message that claims to come from elsewhere is dropped.
    pub async fn receive(&self, link: &Link, mut stream: Stream) {
        if let Ok(frame) = stream.recv::<GossipFrame>().await {
            if frame.from == link.remote_address() {
                let _ = self.inbox.try_send(frame);
            } else {
                tracing::debug!(claimed = %frame.from, actual = %link.remote_address(), "gossip from elsewhere dropped");
            }
        }
        stream.finish();
    }

    /// Gossips with `address` now: how members of the directory get to know each other.
    pub fn greet(&self, address: SocketAddr) {
        let _ = self.handle.gossip(address);
    }

    /// Says something of this process.
    pub async fn say(&self, key: &str, value: &str) {
        self.handle.with_chitchat(|c| c.self_node_state().set(key, value)).await;
    }

    /// Every peer that is heard from, this process included.
    pub async fn live(&self) -> Vec<GossipPeer> {
        self.handle
            .with_chitchat(|c| {
                let live: Vec<_> = c.live_nodes().cloned().collect();
                live.iter()
                    .filter_map(|id| c.node_state(id).map(|state| (id, state)))
                    .map(|(id, state)| GossipPeer {
                        id: id.node_id.to_string(),
                        values: state.key_values().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
                    })
                    .collect()
            })
            .await
    }

    /// Stops taking part.
    ///
    /// # Errors
    /// chitchat's.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.handle.shutdown().await
    }
}

struct QuicTransport {
    endpoint: Endpoint,
    advertise: SocketAddr,
    receiver: Mutex<Option<mpsc::Receiver<GossipFrame>>>,
}

#[async_trait]
impl Transport for QuicTransport {
    async fn open(&self, _listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let receiver = self.receiver.lock().await.take();
        let receiver = receiver.ok_or_else(|| anyhow::anyhow!("gossip was started twice on one endpoint"))?;
        Ok(Box::new(QuicSocket {
            endpoint: self.endpoint.clone(),
            advertise: self.advertise,
            receiver,
            sending: Arc::new(Semaphore::new(QUEUE)),
        }))
    }
}

struct QuicSocket {
    endpoint: Endpoint,
    advertise: SocketAddr,
    receiver: mpsc::Receiver<GossipFrame>,
    sending: Arc<Semaphore>,
}

#[async_trait]
impl Socket for QuicSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let message = message.serialize_to_vec();
        // Like a datagram: it goes if there is room, and nobody waits for it.
        if let Ok(permit) = self.sending.clone().try_acquire_owned() {
            let (endpoint, frame) = (self.endpoint.clone(), GossipFrame { from: self.advertise, message });
            tokio::spawn(async move {
                let sent = tokio::time::timeout(SEND_DEADLINE, deliver(&endpoint, to, &frame)).await;
                if let Ok(Err(error)) = sent {
                    tracing::trace!(%to, %error, "gossip not delivered");
                }
                drop(permit);
            });
        }
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let frame = self.receiver.recv().await.ok_or_else(|| anyhow::anyhow!("gossip was stopped"))?;
            match ChitchatMessage::deserialize(&mut frame.message.as_slice()) {
                Ok(message) => return Ok((frame.from, message)),
                Err(error) => tracing::debug!(from = %frame.from, %error, "malformed gossip dropped"),
            }
        }
    }
}

async fn deliver(endpoint: &Endpoint, to: SocketAddr, frame: &GossipFrame) -> Result<(), crate::LinkError> {
    let link = endpoint.reach_member(to).await?;
    let mut stream = link.open(StreamKind::Gossip).await?;
    stream.send(frame).await?;
    stream.finish();
    // The stream must outlive its bytes: dropping the receiving half early would only stop the empty answer.
    let _ = stream.recv_opt::<()>().await;
    Ok(())
}
