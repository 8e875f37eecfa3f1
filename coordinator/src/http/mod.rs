//! The HTTP API: one file a resource. Handlers parse, ask the ledger and answer; what a request means is decided
//! in `novacron_core`, what it may say in `novacron_common::api`.
//!
//! Any coordinator answers: writes go through [`Ledger::propose`], which forwards to the leader; reads wait until
//! this node has applied what the leader had committed when the request came, unless they say `?stale=`.

mod auth;
mod cluster;
mod console;
mod events;
mod exec;
mod extract;
mod fires;
mod health;
mod hosts;
mod idempotency;
mod job_logs;
mod jobs;
mod layers;
mod lookup;
mod metrics;
mod migrations;
mod networks;
mod openapi;
mod plan;
mod problem;
mod request;
mod server;
mod templates;
mod tickets;
mod tokens;
mod vm_checkpoint;
mod vm_logs;
mod vm_stats;
mod vms;
mod volumes;
mod workflows;

pub use openapi::document;
pub use problem::{ApiError, ApiResult};
pub use server::{Listener, ServeError};

use crate::{Parts, agents::Agents, events::Hub, metrics::Metrics, raft::Ledger};
use axum::{Router, middleware::from_fn_with_state};
use novacron_core::{Applied, CommandBody, State};
use std::{ops::Deref, sync::Arc};

/// What every handler may use. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

/// The parts behind the API.
pub struct Inner {
    parts: Parts,
    ledger: Ledger,
    agents: Agents,
    events: Hub,
    metrics: Arc<Metrics>,
    kept: plan::Kept,
}

impl Deref for App {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    /// Over these parts.
    pub fn new(parts: Parts, agents: Agents, events: Hub, metrics: Arc<Metrics>) -> Self {
        let ledger = parts.ledger.clone();
        Self(Arc::new(Inner { parts, ledger, agents, events, metrics, kept: plan::Kept::default() }))
    }

    /// Commits a command; a refusal is the caller's problem.
    async fn propose(&self, body: CommandBody) -> ApiResult<Applied> {
        let applied = self.ledger.propose(body).await?;
        Ok(applied.accepted()?)
    }

    /// Reads the ledger, at least as new as when the request came, or as old as it allows.
    async fn read<R>(&self, look: impl FnOnce(&State) -> R) -> ApiResult<R> {
        self.ledger.current().await?;
        Ok(self.ledger.read(look))
    }
}

/// The whole API, ready to be served.
pub fn router(app: &App) -> Router {
    let (routes, document) = openapi::routes().split_for_parts();
    let routes = routes
        .merge(jobs::aliases())
        .merge(workflows::aliases())
        .merge(events::aliases())
        .merge(openapi::pages(document))
        .fallback(problem::no_such_path)
        .method_not_allowed_fallback(problem::no_such_method);
    let served = routes.layer(from_fn_with_state(app.clone(), request::serve));
    let guarded = served.layer(from_fn_with_state(app.clone(), auth::guard));
    layers::around(guarded, app).with_state(app.clone())
}
