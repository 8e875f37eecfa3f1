//! The certificate of the HTTPS API, issued by the cluster's CA so that `novactl` can pin it. A coordinator that
//! has just joined listens at once and has a certificate as soon as the ledger has reached it.

use super::{
    Authority, AuthorityError, now,
    renewal::{due_at, pause_until},
};
use novacron_common::units::UnixMillis;
use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Pause before the next try while it cannot be issued.
const RETRY: Duration = Duration::from_millis(300);

/// Holds the newest certificate; every new handshake uses it.
#[derive(Debug, Default)]
pub struct HttpsCertificate {
    current: RwLock<Option<Arc<CertifiedKey>>>,
}

impl HttpsCertificate {
    /// TLS 1.3 with this certificate, HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// rustls' if its provider does not do TLS 1.3: a mistake in this program.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let provider = Arc::new(novacron_transport::crypto_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Whether there is one yet.
    pub fn is_issued(&self) -> bool {
        self.current.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Issues it as soon as that can be done, and anew at half life, until `stop`. `advertised` is where clients
    /// are told to go.
    pub async fn keep(
        self: Arc<Self>,
        authority: Authority,
        advertised: SocketAddr,
        stop: CancellationToken,
    ) {
        let names = names(advertised);
        loop {
            let due = self.reissue(&authority, &names);
            while now() < due {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause_until(due)) => {}
                }
            }
        }
    }

    /// Issues it and says when to come again.
    fn reissue(&self, authority: &Authority, names: &[String]) -> UnixMillis {
        match issue(authority, names) {
            Ok(key) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(key));
                return due_at(now().plus(authority.validity()), authority.validity());
            }
            Err(AuthorityError::NotReady) => tracing::debug!("waiting for the ledger before serving HTTPS"),
            Err(error) => {
                tracing::error!(%error, cause = ?std::error::Error::source(&error), "HTTPS certificate not issued");
            }
        }
        now().plus(RETRY)
    }
}

impl ResolvesServerCert for HttpsCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn issue(authority: &Authority, names: &[String]) -> Result<CertifiedKey, AuthorityError> {
    let (_, ca) = authority.ca()?;
    let (certificate, key) = authority.issue_https(names)?;
    // The CA goes along: a client that pins it needs it in the chain.
    let chain = vec![CertificateDer::from(certificate), CertificateDer::from(ca.certificate_der().to_vec())];
    let key = PrivatePkcs8KeyDer::from(key.to_vec());
    Ok(CertifiedKey::from_der(chain, key.into(), &novacron_transport::crypto_provider())?)
}

/// Every name under which a client may reach this machine's API.
fn names(advertised: SocketAddr) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    names.push(advertised.ip().to_string());
    // proc(5): the host's name as the kernel knows it; a name that is no DNS name would spoil the certificate.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    if !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')) {
        names.push(host.to_owned());
    }
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_reached_by_loopback_and_by_the_advertised_address() {
        let names = names(SocketAddr::from(([10, 0, 0, 7], 8090)));
        for wanted in ["localhost", "127.0.0.1", "::1", "10.0.0.7"] {
            assert!(names.iter().any(|n| n == wanted), "{wanted} is missing");
        }
    }
}
