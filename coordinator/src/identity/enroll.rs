//! `Join` and `Renew` streams: how a process gets its first certificate, and each further one.

use super::{Authority, AuthorityError, token};
use novacron_common::{
    ids::HostId,
    wire::{Enrolled, JoinDenied, JoinPurpose, JoinRequest, RenewRequest},
};
use novacron_core::{Applied, CommandBody, State, command::JoinTokenUse};
use novacron_transport::{LinkError, Role, Stream};
use std::time::Duration;

/// How long a peer may take to send its request.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

type Verdict = Result<Enrolled, JoinDenied>;

impl Authority {
    /// Serves a `Join` stream: one request, one [`Enrolled`] or [`JoinDenied`].
    ///
    /// # Errors
    /// [`LinkError`] if the stream broke.
    pub async fn serve_join(&self, mut stream: Stream) -> Result<(), LinkError> {
        let request: JoinRequest = receive(&mut stream).await?;
        let (id, purpose) = (request.token, request.purpose.clone());
        let verdict = self.join(request).await;
        match &verdict {
            Ok(enrolled) => {
                tracing::info!(token = %id, ?purpose, host = ?enrolled.host, node = ?enrolled.node, "joined")
            }
            Err(denied) => tracing::warn!(token = %id, ?purpose, %denied, "not joined"),
        }
        answer(stream, &verdict).await
    }

    /// Serves a `Renew` stream of `peer`, whose certificate is still good: one request, one answer as for a join.
    ///
    /// # Errors
    /// [`LinkError`] if the stream broke.
    pub async fn serve_renew(&self, peer: Role, mut stream: Stream) -> Result<(), LinkError> {
        let request: RenewRequest = receive(&mut stream).await?;
        let verdict = self.renew(peer, &request);
        match &verdict {
            Ok(_) => tracing::debug!(%peer, "certificate renewed"),
            Err(denied) => tracing::warn!(%peer, %denied, "certificate not renewed"),
        }
        answer(stream, &verdict).await
    }

    async fn join(&self, request: JoinRequest) -> Verdict {
        // A malformed request must not use up the token.
        self.enrolled(&request.csr, Role::Coordinator { node: 0 })?;
        let command = JoinTokenUse {
            id: request.token,
            secret_sha256: token::sha256(&request.secret),
            purpose: request.purpose.clone(),
            new_host: HostId::generate(),
        };
        let applied = self.ledger().propose(CommandBody::JoinTokenUse(command)).await;
        let role = match applied.map_err(|e| JoinDenied::Unavailable(e.to_string()))? {
            Applied::Enrolled { host: Some(host), .. } => Role::Agent { host },
            Applied::Enrolled { node: Some(node), .. } => Role::Coordinator { node },
            Applied::JoinDenied(denied) => return Err(denied),
            other => return Err(JoinDenied::Unavailable(format!("the ledger answered {other:?}"))),
        };
        let enrolled = self.enrolled(&request.csr, role)?;
        let seals = matches!(request.purpose, JoinPurpose::Coordinator { .. });
        Ok(Enrolled { seal_key: seals.then(|| self.seal_key().to_bytes()), ..enrolled })
    }

    fn renew(&self, peer: Role, request: &RenewRequest) -> Verdict {
        if !self.ledger().read(|state| is_member(state, &peer)) {
            return Err(JoinDenied::Removed);
        }
        self.enrolled(&request.csr, peer)
    }

    fn enrolled(&self, csr: &[u8], role: Role) -> Verdict {
        let (cluster, ca) = self.ca().map_err(denied)?;
        let certificate = self.issue(csr, &role).map_err(denied)?;
        let (host, node) = match role {
            Role::Agent { host } => (Some(host), None),
            Role::Coordinator { node } => (None, Some(node)),
        };
        Ok(Enrolled {
            cluster: *cluster,
            ca: ca.certificate_der().to_vec(),
            certificate,
            host,
            node,
            seal_key: None,
            coordinators: self.coordinators(),
        })
    }
}

/// Whether the ledger knows `role`'s holder.
pub(super) fn is_member(state: &State, role: &Role) -> bool {
    match role {
        Role::Agent { host } => state.host(*host).is_some(),
        Role::Coordinator { node } => state.coordinators().get(node).is_some(),
    }
}

fn denied(error: AuthorityError) -> JoinDenied {
    match error {
        AuthorityError::Issue(_) => JoinDenied::BadRequest,
        other => {
            tracing::error!(error = %other, cause = ?std::error::Error::source(&other), "no certificate was issued");
            JoinDenied::Unavailable(other.to_string())
        }
    }
}

async fn receive<T: serde::de::DeserializeOwned>(stream: &mut Stream) -> Result<T, LinkError> {
    let late = LinkError::Broken { doing: "waiting for a request", reason: "too slow".into() };
    tokio::time::timeout(REQUEST_DEADLINE, stream.recv()).await.unwrap_or(Err(late))
}

async fn answer(mut stream: Stream, verdict: &Verdict) -> Result<(), LinkError> {
    stream.send(verdict).await?;
    stream.finish();
    // Dropping the stream now is fine: what was finished is delivered.
    Ok(())
}
