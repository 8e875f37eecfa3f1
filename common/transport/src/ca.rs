//! The cluster's own certificate authority (X.509, RFC 5280).

use crate::{Role, tls::SERVER_NAME};
use novacron_common::{ids::ClusterId, spec::Sha256Digest, units::UnixMillis};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use std::time::Duration;
use zeroize::Zeroizing;

/// How long the CA itself is good for.
const CA_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Certificates begin this much in the past, so that clocks may differ a little.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// A certificate could not be issued.
#[derive(Debug, thiserror::Error)]
#[error("could not {doing}")]
pub struct IssueError {
    doing: &'static str,
    #[source]
    cause: rcgen::Error,
}

fn failed(doing: &'static str) -> impl FnOnce(rcgen::Error) -> IssueError {
    move |cause| IssueError { doing, cause }
}

/// Issues the certificates of one cluster.
pub struct CertificateAuthority {
    cluster: ClusterId,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    /// A new one, for a new cluster.
    ///
    /// # Errors
    /// [`IssueError`] if no key could be made.
    pub fn generate(cluster: ClusterId, now: UnixMillis) -> Result<Self, IssueError> {
        let key = KeyPair::generate().map_err(failed("generate the CA's key"))?;
        let mut params = params(&format!("NovaCron CA of {cluster}"), CA_VALIDITY, now);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(failed("sign the CA's certificate"))?;
        let certificate = certificate.der().clone();
        Ok(Self { cluster, certificate, issuer: Issuer::new(params, key) })
    }

    /// The one whose certificate and private key (PKCS #8) were kept.
    ///
    /// # Errors
    /// [`IssueError`] if they are not that.
    pub fn from_der(cluster: ClusterId, certificate: &[u8], key: &[u8]) -> Result<Self, IssueError> {
        let certificate = CertificateDer::from(certificate.to_vec());
        let key = PrivatePkcs8KeyDer::from(key.to_vec());
        let key = KeyPair::try_from(&key).map_err(failed("read the CA's key"))?;
        let issuer =
            Issuer::from_ca_cert_der(&certificate, key).map_err(failed("read the CA's certificate"))?;
        Ok(Self { cluster, certificate, issuer })
    }

    /// Its certificate.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    /// Its private key (PKCS #8), to be sealed and kept.
    pub fn key_der(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.issuer.key().serialize_der())
    }

    /// SHA-256 of its certificate.
    pub fn fingerprint(&self) -> Sha256Digest {
        crate::tls::fingerprint(&self.certificate)
    }

    /// A member's certificate for the key in `csr` (PKCS #10, DER). Nothing else in the request is used.
    ///
    /// # Errors
    /// [`IssueError`] if the request is malformed or not signed by its key.
    pub fn issue(
        &self,
        csr: &[u8],
        role: &Role,
        validity: Duration,
        now: UnixMillis,
    ) -> Result<Vec<u8>, IssueError> {
        let csr = CertificateSigningRequestDer::from(csr.to_vec());
        let mut request = CertificateSigningRequestParams::from_der(&csr)
            .map_err(failed("read the certificate request"))?;
        request.params = params(&role.to_string(), validity, now);
        request.params.subject_alt_names = vec![
            SanType::URI(role.to_uri(self.cluster).try_into().map_err(failed("name the role"))?),
            SanType::DnsName(SERVER_NAME.try_into().map_err(failed("name the server"))?),
        ];
        request.params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = request.signed_by(&self.issuer).map_err(failed("sign the certificate"))?;
        Ok(certificate.der().to_vec())
    }

    /// Certificate and private key (PKCS #8) of the HTTP API under these names and addresses. It carries no role.
    ///
    /// # Errors
    /// [`IssueError`] if a name is not one.
    pub fn issue_https(
        &self,
        names: &[String],
        validity: Duration,
        now: UnixMillis,
    ) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), IssueError> {
        let key = KeyPair::generate().map_err(failed("generate a key"))?;
        let mut params = params("NovaCron API", validity, now);
        params.subject_alt_names =
            CertificateParams::new(names).map_err(failed("name the API server"))?.subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed("sign the certificate"))?;
        Ok((certificate.der().to_vec(), Zeroizing::new(key.serialize_der())))
    }
}

/// A new private key (PKCS #8) and a request for a certificate of it (PKCS #10), both in DER.
///
/// # Errors
/// [`IssueError`] if no key could be made.
pub fn certificate_request() -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), IssueError> {
    let key = KeyPair::generate().map_err(failed("generate a key"))?;
    let request = CertificateParams::default().serialize_request(&key).map_err(failed("make a request"))?;
    Ok((Zeroizing::new(key.serialize_der()), request.der().to_vec()))
}

fn params(common_name: &str, validity: Duration, now: UnixMillis) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    let now = std::time::UNIX_EPOCH + Duration::from_millis(u64::try_from(now.0).unwrap_or(0));
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + validity).into();
    params.use_authority_key_identifier_extension = true;
    params
}
