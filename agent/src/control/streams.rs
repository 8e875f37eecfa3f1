//! Hands every stream that arrives to its owner. Who may open what was settled by the transport.

use super::{Dispatch, console, exec, images};
use crate::{image::ImageStore, migrate::Migrations, text::describe, vm::Machines};
use novacron_common::wire::StreamKind;
use novacron_transport::{Endpoint, Gossip, Link, Role, Stream};
use std::sync::Arc;

/// Who serves which kind of stream.
pub struct StreamOwners {
    /// Commands.
    pub dispatch: Dispatch,
    /// Consoles.
    pub machines: Machines,
    /// Lanes.
    pub migrations: Migrations,
    /// Images.
    pub images: Arc<ImageStore>,
    /// Gossip.
    pub gossip: Gossip,
}

/// Accepts links until the endpoint is closed.
pub async fn serve_endpoint(endpoint: Endpoint, owners: Arc<StreamOwners>) {
    while let Some(link) = endpoint.accept().await {
        tokio::spawn(serve_link(link, owners.clone()));
    }
}

/// Serves the streams that the other side of `link` opens, until it is over.
pub async fn serve_link(link: Link, owners: Arc<StreamOwners>) {
    loop {
        match link.accept().await {
            Ok((kind, stream)) => drop(tokio::spawn(serve(link.clone(), kind, stream, owners.clone()))),
            Err(error) => {
                tracing::debug!(?link, reason = describe(&error), "link over");
                return;
            }
        }
    }
}

async fn serve(link: Link, kind: StreamKind, stream: Stream, owners: Arc<StreamOwners>) {
    let served = match (kind, link.peer()) {
        (StreamKind::Command, _) => owners.dispatch.serve(stream).await,
        (StreamKind::Console, _) => console::serve(stream, &owners.machines).await,
        (StreamKind::Exec, _) => exec::serve(stream, &owners.machines).await,
        (StreamKind::Image, _) => images::serve(stream, &owners.images).await,
        (StreamKind::Lane, Some(Role::Agent { host })) => {
            owners.migrations.accept_lane(*host, stream).await;
            Ok(())
        }
        (StreamKind::Probe, Some(Role::Agent { .. })) => {
            owners.dispatch.preview.prober().serve(stream, owners.migrations.is_idle()).await
        }
        (StreamKind::Gossip, _) => {
            owners.gossip.receive(&link, stream).await;
            Ok(())
        }
        _ => Ok(()),
    };
    if let Err(error) = served {
        tracing::debug!(?link, %kind, reason = describe(&error), "stream broke");
    }
}
