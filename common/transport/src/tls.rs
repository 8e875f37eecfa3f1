//! TLS 1.3 for QUIC: our CA as the only root, a certificate on both sides, AES-128-GCM first (the fastest here).

use crate::{IdentityCell, Role};
use novacron_common::{ids::ClusterId, spec::Sha256Digest, units::UnixMillis};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        ResolvesClientCert, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The DNS name in every member's certificate: who it is stands in the role's URI, not in a host name.
pub(crate) const SERVER_NAME: &str = "member.novacron.internal";
/// Application-layer protocol (RFC 7301).
const ALPN: &[u8] = b"novacron";

/// aws-lc with AES-128-GCM first.
pub fn crypto_provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|s| s.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

pub(crate) fn fingerprint(certificate: &[u8]) -> Sha256Digest {
    let digest = aws_lc_rs_digest(certificate);
    Sha256Digest(digest)
}

fn aws_lc_rs_digest(bytes: &[u8]) -> [u8; 32] {
    let digest = ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// What we read from a certificate.
pub(crate) struct Facts {
    pub role: Option<Role>,
    pub not_before: UnixMillis,
    pub not_after: UnixMillis,
}

pub(crate) fn facts(certificate: &[u8], cluster: ClusterId) -> Result<Facts, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| e.to_string())?;
    let names = parsed.subject_alternative_name().map_err(|e| e.to_string())?;
    let role = names.into_iter().flat_map(|names| &names.value.general_names).find_map(|name| match name {
        GeneralName::URI(uri) => Role::from_uri(uri, cluster),
        _ => None,
    });
    let validity = parsed.validity();
    Ok(Facts {
        role,
        not_before: UnixMillis(validity.not_before.timestamp() * 1000),
        not_after: UnixMillis(validity.not_after.timestamp() * 1000),
    })
}

fn roots(ca: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone())?;
    Ok(Arc::new(roots))
}

impl ResolvesServerCert for IdentityCell {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get().certified.clone())
    }
}

impl ResolvesClientCert for IdentityCell {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.get().certified.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Takes links without a certificate too: what they may open is [`crate::permitted`]'s to say.
pub(crate) fn server(identity: &Arc<IdentityCell>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(crypto_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(&identity.get().ca)?, provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|e| rustls::Error::General(e.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(identity.clone());
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

pub(crate) fn client(identity: &Arc<IdentityCell>) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(crypto_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(&identity.get().ca)?)
        .with_client_cert_resolver(identity.clone());
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would carry the peer's certificate of long ago.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// For a process that has only a token: trusts exactly the CA with this fingerprint.
pub(crate) fn enrolling_client(ca: Sha256Digest) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(crypto_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedCa { ca, provider }))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// Accepts a chain only if it ends at the CA whose fingerprint came with the token. "Dangerous" is rustls' word
/// for any own verifier; this one is stricter than the default, which it uses once the CA is found.
#[derive(Debug)]
struct PinnedCa {
    ca: Sha256Digest,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates
            .iter()
            .find(|c| fingerprint(c) == self.ca)
            .ok_or(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer))?;
        let verifier = WebPkiServerVerifier::builder_with_provider(
            roots(&ca.clone().into_owned())?,
            self.provider.clone(),
        )
        .build()
        .map_err(|e| rustls::Error::General(e.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let schemes = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, schemes)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
