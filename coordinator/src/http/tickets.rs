//! Single-use tickets for WebSockets, because a browser cannot send a header with one and a token in a URL ends
//! up in logs. The ledger keeps their digests, so that a ticket opens a socket at any coordinator, once.

use super::{
    App,
    problem::{ApiError, ApiResult},
};
use crate::identity::{NoRandomness, now, sha256};
use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use novacron_common::api::{ProblemCode, TokenRole};
use novacron_core::{Applied, CommandBody, command::TicketPut, record::TicketRecord};
use std::time::Duration;

/// How long a ticket is good for.
pub const VALIDITY: Duration = Duration::from_secs(30);

/// A new one, with the rights of whoever asks.
pub async fn issue(app: &App, role: TokenRole) -> ApiResult<String> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    let ticket = URL_SAFE_NO_PAD.encode(bytes);
    let put = TicketPut { digest: sha256(ticket.as_bytes()), role, expires_at: now().plus(VALIDITY) };
    app.propose(CommandBody::TicketPut(put)).await?;
    Ok(ticket)
}

/// Spends a ticket.
pub async fn spend(app: &App, ticket: &str) -> ApiResult<TokenRole> {
    let digest = sha256(ticket.as_bytes());
    let known = || app.ledger.read(|state| state.table::<TicketRecord>().has(&digest));
    // Looked for first: somebody who guesses must not be able to make the cluster commit anything.
    if !known() {
        app.ledger.linearizable().await?;
        if !known() {
            return Err(not_valid());
        }
    }
    match app.propose(CommandBody::TicketUse { digest }).await? {
        Applied::TicketSpent(role) => Ok(role),
        _ => Err(not_valid()),
    }
}

fn not_valid() -> ApiError {
    ApiError::new(ProblemCode::Unauthenticated, "the ticket is not valid (any more)")
        .fix("get a new one with POST /api/v1/ws/tickets: it works once, for 30 seconds")
}
