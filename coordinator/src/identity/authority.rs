//! Issues certificates and makes join tokens, in the name of the cluster.

use super::{ApiToken, NoRandomness, SealError, SealKey, now, token};
use crate::raft::{Ledger, LedgerError};
use novacron_common::{
    api::{JoinTokenCreated, JoinTokenRole, Problem, ProblemCode},
    ids::{ClusterId, TokenId},
    spec::Sha256Digest,
    wire::{CoordinatorAddress, JoinToken},
};
use novacron_core::{Applied, CommandBody, command::JoinTokenPut};
use novacron_transport::{CertificateAuthority, Endpoint, IssueError, Role};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use zeroize::Zeroizing;

/// The authority could not do it.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A coordinator that has just joined.
    #[error("this coordinator has not received the ledger yet")]
    NotReady,
    /// The CA's key is out of reach.
    #[error("the certificate authority cannot be used")]
    Seal(#[from] SealError),
    /// The request for a certificate is malformed.
    #[error("a certificate could not be issued")]
    Issue(#[from] IssueError),
    /// The certificate that was issued is not one: a mistake in this program.
    #[error("the issued certificate cannot be used")]
    Identity(#[from] novacron_transport::IdentityError),
    /// The HTTPS key cannot be used: a mistake in this program.
    #[error("the issued key cannot be used")]
    Tls(#[from] rustls::Error),
    /// It could not be committed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The ledger refused.
    #[error("{0}")]
    Refused(#[from] novacron_core::Refusal),
    /// An earlier request with the same key made a token, and its answer was lost.
    #[error("the token was made, and its secret was lost before it could be answered")]
    SecretLost,
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

impl From<AuthorityError> for Problem {
    fn from(error: AuthorityError) -> Self {
        match error {
            AuthorityError::Ledger(error) => error.into(),
            AuthorityError::Refused(refusal) => refusal.into(),
            AuthorityError::NotReady => {
                Self::new(ProblemCode::Unavailable, error.to_string()).fix("try again soon")
            }
            AuthorityError::SecretLost => Self::new(ProblemCode::Conflict, error.to_string())
                .fix("make another one with a new Idempotency-Key"),
            other => Self::new(ProblemCode::Internal, other.to_string()).fix("look at the coordinator's log"),
        }
    }
}

/// What an authority is made of.
#[derive(Debug)]
pub struct AuthorityOptions {
    /// Where the CA is, sealed.
    pub ledger: Ledger,
    /// This process's certificates carry the CA's fingerprint.
    pub endpoint: Endpoint,
    /// Unseals the CA's key.
    pub seal_key: SealKey,
    /// How long certificates are good for.
    pub validity: Duration,
}

/// The cluster's certificate authority at this coordinator. Cheap to clone.
#[derive(Clone)]
pub struct Authority {
    options: Arc<AuthorityOptions>,
    /// The CA never changes, so it is unsealed once.
    ca: Arc<OnceLock<(ClusterId, CertificateAuthority)>>,
}

impl Authority {
    /// Over these.
    pub fn new(options: AuthorityOptions) -> Self {
        Self { options: Arc::new(options), ca: Arc::default() }
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.options.ledger
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.options.endpoint
    }

    pub(super) fn seal_key(&self) -> &SealKey {
        &self.options.seal_key
    }

    /// How long certificates are good for.
    pub fn validity(&self) -> Duration {
        self.options.validity
    }

    /// SHA-256 of the CA's certificate, by which it is pinned.
    pub fn ca_fingerprint(&self) -> Sha256Digest {
        self.options.endpoint.identity().get().ca_fingerprint()
    }

    /// The cluster and its CA.
    ///
    /// # Errors
    /// [`AuthorityError::NotReady`] on a coordinator that has just joined; [`AuthorityError::Seal`].
    pub(super) fn ca(&self) -> Result<&(ClusterId, CertificateAuthority), AuthorityError> {
        if let Some(ca) = self.ca.get() {
            return Ok(ca);
        }
        let kept =
            self.options.ledger.read(|state| state.cluster().cloned()).ok_or(AuthorityError::NotReady)?;
        let key = self.options.seal_key.unseal(kept.id, &kept.sealed_ca_key)?;
        let ca = CertificateAuthority::from_der(kept.id, &kept.ca_cert, &key)?;
        Ok(self.ca.get_or_init(|| (kept.id, ca)))
    }

    /// A certificate (DER) for the key in `csr` (PKCS #10, DER).
    ///
    /// # Errors
    /// [`AuthorityError::Issue`] if the request is malformed.
    pub fn issue(&self, csr: &[u8], role: &Role) -> Result<Vec<u8>, AuthorityError> {
        let (_, ca) = self.ca()?;
        Ok(ca.issue(csr, role, self.options.validity, now())?)
    }

    /// Certificate and key (DER) for the HTTPS API under `names`.
    ///
    /// # Errors
    /// [`AuthorityError::Issue`] if a name is not one.
    pub fn issue_https(&self, names: &[String]) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), AuthorityError> {
        let (_, ca) = self.ca()?;
        Ok(ca.issue_https(names, self.options.validity, now())?)
    }

    /// Every coordinator in the address book.
    pub fn coordinators(&self) -> Vec<CoordinatorAddress> {
        self.options.ledger.read(|state| state.coordinators().iter().map(|c| c.address()).collect())
    }

    /// A new one-time join token; the ledger keeps its digest.
    ///
    /// # Errors
    /// [`AuthorityError::Ledger`] if it could not be committed.
    pub async fn join_token(
        &self,
        role: JoinTokenRole,
        validity: Duration,
        replaces: Option<u64>,
    ) -> Result<JoinTokenCreated, AuthorityError> {
        let (id, secret) = (TokenId::generate(), token::random_secret()?);
        let expires_at = now().plus(validity);
        let put = JoinTokenPut { id, secret_sha256: token::sha256(&secret), role, expires_at, replaces };
        if self.commit(CommandBody::JoinTokenPut(put)).await? != Applied::TokenStored(id) {
            return Err(AuthorityError::SecretLost);
        }
        let coordinators = self.coordinators().into_iter().map(|c| c.quic).collect();
        let token = JoinToken { id, secret, ca: self.ca_fingerprint(), coordinators };
        Ok(JoinTokenCreated { token: token.to_string(), expires_at })
    }

    /// Seals an HTTP answer, which may hold a secret, for the ledger.
    ///
    /// # Errors
    /// [`AuthorityError::Seal`].
    pub fn seal_answer(&self, answer: &[u8]) -> Result<Vec<u8>, AuthorityError> {
        Ok(self.options.seal_key.seal(self.options.endpoint.identity().get().cluster, answer)?)
    }

    /// The answer that was sealed.
    ///
    /// # Errors
    /// [`AuthorityError::Seal`] if it was sealed for another cluster, or is damaged.
    pub fn unseal_answer(&self, sealed: &[u8]) -> Result<Vec<u8>, AuthorityError> {
        Ok(self.options.seal_key.unseal(self.options.endpoint.identity().get().cluster, sealed)?.to_vec())
    }

    pub(super) async fn commit(&self, body: CommandBody) -> Result<Applied, AuthorityError> {
        Ok(self.options.ledger.propose(body).await?.accepted()?)
    }
}

/// What the founder commits first: the cluster with its sealed CA.
///
/// # Errors
/// [`SealError`].
pub(crate) fn cluster_init(
    cluster: ClusterId,
    ca: &CertificateAuthority,
    seal_key: &SealKey,
) -> Result<CommandBody, SealError> {
    let sealed_ca_key = seal_key.seal(cluster, &ca.key_der())?;
    let ca_cert = ca.certificate_der().to_vec();
    Ok(CommandBody::ClusterInit(novacron_core::command::ClusterInit { cluster, ca_cert, sealed_ca_key }))
}

/// The first API token, with every right.
pub(crate) fn first_token(token: &ApiToken, name: novacron_common::spec::Name) -> CommandBody {
    CommandBody::TokenPut(novacron_core::command::TokenPut {
        id: token.id,
        name,
        role: novacron_common::api::TokenRole::Admin,
        secret_sha256: token.secret_sha256(),
    })
}
