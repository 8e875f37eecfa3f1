//! The parts above the ledger, started together: sessions with agents, reconcilers, events and the HTTP API.

use crate::{
    Parts,
    agents::{Agents, GossipPlace},
    events::Hub,
    http::{self, App, Listener},
    metrics::Metrics,
    reconcilers::{self, HostGrace, World},
    run::Services,
};
use anyhow::Context;
use axum_server::tls_rustls::RustlsConfig;
use futures_util::FutureExt;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Binds the API's addresses and starts everything. All of it ends when `parts.stop` is cancelled.
///
/// # Errors
/// If an address cannot be had, or plain HTTP is asked for off loopback.
pub fn start(parts: &Parts) -> anyhow::Result<Services> {
    let https = Listener::bind(parts.config.http.listen)?;
    let plain = parts.config.http.plain_loopback.map(Listener::bind_loopback).transpose()?;
    let metrics = Arc::new(Metrics::new()?);
    let agents = Agents::new(parts.ledger.clone(), parts.endpoint.clone());
    let hub = Hub::default();
    let app = App::new(parts.clone(), agents.clone(), hub.clone(), metrics.clone());
    let mut tasks = serve(parts, &app, https, plain)?;
    let (ledger, stop) = (parts.ledger.clone(), parts.stop.clone());
    tasks.spawn(agents.clone().keep(Some(gossip_place(parts)), stop.clone()).map(Ok));
    tasks.spawn(hub.pump(ledger, stop).map(Ok));
    tasks.spawn(reconcilers::run(world(parts, &agents, metrics)).map(Ok));
    Ok(Services { agents: Arc::new(agents), tasks })
}

fn gossip_place(parts: &Parts) -> GossipPlace {
    GossipPlace { cluster: parts.cluster, node: parts.node, advertise: parts.config.quic.advertise }
}

fn world(parts: &Parts, agents: &Agents, metrics: Arc<Metrics>) -> World {
    World {
        ledger: parts.ledger.clone(),
        agents: agents.clone(),
        metrics,
        grace: HostGrace::default(),
        jobs: parts.config.jobs,
        stop: parts.stop.clone(),
    }
}

fn serve(
    parts: &Parts,
    app: &App,
    https: Listener,
    plain: Option<Listener>,
) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let mut tasks = JoinSet::new();
    let router = http::router(app);
    let tls = parts.https.server_config().context("HTTPS cannot be set up")?;
    let (routes, stop) = (router.clone(), parts.stop.clone());
    tasks.spawn(async move { Ok(https.serve_tls(routes, RustlsConfig::from_config(tls), stop).await?) });
    if let Some(plain) = plain {
        let stop = parts.stop.clone();
        tasks.spawn(async move { Ok(plain.serve_plain(router, stop).await?) });
    }
    Ok(tasks)
}
