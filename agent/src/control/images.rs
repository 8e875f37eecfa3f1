//! Images between agents: given to those who ask, and asked of those who may have them.

use crate::{
    image::{ImageStore, PeerImage, PeerImages},
    peers::Peers,
};
use async_trait::async_trait;
use novacron_common::{
    ids::HostId,
    spec::Sha256Digest,
    units::ByteCount,
    wire::{ImageRequest, ImageResponse, StreamKind},
};
use novacron_transport::{Endpoint, LinkError, Role, Stream};
use std::{io, time::Duration};
use tokio::io::AsyncWriteExt;

/// How long a peer may take to say whether it has the image.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// Gives an image to another agent.
pub(super) async fn serve(mut stream: Stream, images: &ImageStore) -> Result<(), LinkError> {
    let ImageRequest { sha256 } = stream.recv().await?;
    let found = images.serve(sha256).await.unwrap_or_else(|error| {
        tracing::warn!(%sha256, %error, "an image is here but cannot be read");
        None
    });
    let Some((mut file, length)) = found else {
        stream.send(&ImageResponse::Absent).await?;
        stream.finish();
        return Ok(());
    };
    stream.send(&ImageResponse::Bytes(length.0)).await?;
    let (mut send, _recv) = stream.split();
    let broken = |e: io::Error| LinkError::Broken { doing: "sending an image", reason: e.to_string() };
    tokio::io::copy(&mut file, &mut send).await.map_err(broken)?;
    send.shutdown().await.map_err(broken)
}

/// Asks the other hosts of the directory.
pub struct PeerFetch {
    endpoint: Endpoint,
    peers: Peers,
}

impl PeerFetch {
    /// Over `endpoint`.
    pub fn new(endpoint: Endpoint, peers: Peers) -> Self {
        Self { endpoint, peers }
    }

    async fn ask(&self, peer: HostId, sha256: Sha256Digest) -> Result<Option<PeerImage>, LinkError> {
        let gone = || LinkError::NotAMember(Role::Agent { host: peer });
        let address = self.peers.host(peer).ok_or_else(gone)?.quic;
        let link = self.endpoint.reach(address, &Role::Agent { host: peer }).await?;
        let mut stream = link.open(StreamKind::Image).await?;
        stream.send(&ImageRequest { sha256 }).await?;
        stream.finish();
        match stream.recv::<ImageResponse>().await? {
            ImageResponse::Absent => Ok(None),
            ImageResponse::Bytes(length) => {
                let (_send, recv) = stream.split();
                Ok(Some(PeerImage { length: ByteCount(length), bytes: Box::pin(recv) }))
            }
        }
    }
}

#[async_trait]
impl PeerImages for PeerFetch {
    async fn holders(&self, _image: Sha256Digest) -> Vec<HostId> {
        // Nobody keeps a list of who has what: asking costs one round trip.
        self.peers.hosts().into_iter().map(|h| h.host).collect()
    }

    async fn open(&self, peer: HostId, image: Sha256Digest) -> io::Result<Option<PeerImage>> {
        let asked = tokio::time::timeout(ANSWER_DEADLINE, self.ask(peer, image)).await;
        asked.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map_err(io::Error::other)
    }
}
