//! A process's own certificate and key, and the cell from which every handshake takes the newest.

use crate::{Role, tls};
use novacron_common::{ids::ClusterId, spec::Sha256Digest, units::UnixMillis};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, RwLock},
    time::Duration,
};
use zeroize::Zeroizing;

/// Certificate and key do not make an identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The certificate cannot be read.
    #[error("the certificate is malformed: {0}")]
    Certificate(String),
    /// It says nothing of a role in this cluster.
    #[error("the certificate carries no role of cluster {0}")]
    NoRole(ClusterId),
    /// The key is not the certificate's.
    #[error("the private key cannot be used")]
    Key(#[source] rustls::Error),
    /// The files cannot be read or written.
    #[error("could not {doing}")]
    File {
        /// What was being done.
        doing: String,
        /// The system's reason.
        #[source]
        cause: io::Error,
    },
}

/// Who this process is, with the proof of it.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The role that the certificate carries.
    pub role: Role,
    not_before: UnixMillis,
    not_after: UnixMillis,
    pub(crate) ca: CertificateDer<'static>,
    certificate: CertificateDer<'static>,
    key: Zeroizing<Vec<u8>>,
    pub(crate) certified: Arc<CertifiedKey>,
}

const FILES: [&str; 4] = ["cluster", "ca.der", "certificate.der", "key.der"];

impl Identity {
    /// Certificates in DER, the key in PKCS #8.
    ///
    /// # Errors
    /// [`IdentityError`] if they do not belong together.
    pub fn new(cluster: ClusterId, ca: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let (ca, certificate) =
            (CertificateDer::from(ca.to_vec()), CertificateDer::from(certificate.to_vec()));
        let facts = tls::facts(&certificate, cluster).map_err(IdentityError::Certificate)?;
        let role = facts.role.ok_or(IdentityError::NoRole(cluster))?;
        let der = PrivatePkcs8KeyDer::from(key.to_vec());
        let certified = CertifiedKey::from_der(
            vec![certificate.clone(), ca.clone()],
            der.into(),
            &tls::crypto_provider(),
        )
        .map_err(IdentityError::Key)?;
        Ok(Self {
            cluster,
            role,
            not_before: facts.not_before,
            not_after: facts.not_after,
            ca,
            certificate,
            key: Zeroizing::new(key.to_vec()),
            certified: Arc::new(certified),
        })
    }

    /// The private key, PKCS #8.
    pub(crate) fn private_key(&self) -> &[u8] {
        &self.key
    }

    /// Reads what [`Identity::save`] wrote.
    ///
    /// # Errors
    /// [`IdentityError::File`] with `NotFound` where there is none yet.
    pub fn load(folder: &Path) -> Result<Self, IdentityError> {
        let old = folder.with_extension("old");
        // A crash in the middle of `save` leaves the former one set aside.
        let folder = if !folder.exists() && old.exists() { &old } else { folder };
        let read = |name: &str| {
            fs::read(folder.join(name)).map_err(|cause| IdentityError::File {
                doing: format!("read {}", folder.join(name).display()),
                cause,
            })
        };
        let [cluster, ca, certificate, key] = FILES;
        let cluster = String::from_utf8_lossy(&read(cluster)?)
            .trim()
            .parse()
            .map_err(|e: novacron_common::ids::BadId| IdentityError::Certificate(e.to_string()))?;
        Self::new(cluster, &read(ca)?, &read(certificate)?, &Zeroizing::new(read(key)?))
    }

    /// Writes it to `folder`, readable by this user only. The whole folder is exchanged at once, so that a crash
    /// leaves the old pair or the new one, never a certificate beside another key.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn save(&self, folder: &Path) -> Result<(), IdentityError> {
        let failed = |doing: String| move |cause| IdentityError::File { doing, cause };
        let staging = folder.with_extension("new");
        let old = folder.with_extension("old");
        let _ = fs::remove_dir_all(&staging);
        fs::create_dir_all(&staging).map_err(failed(format!("make {}", staging.display())))?;
        let cluster = self.cluster.to_string();
        let contents: [&[u8]; 4] = [cluster.as_bytes(), &self.ca, &self.certificate, &self.key];
        for (name, content) in FILES.iter().zip(contents) {
            let path = staging.join(name);
            write_private(&path, content).map_err(failed(format!("write {}", path.display())))?;
        }
        let _ = fs::remove_dir_all(&old);
        if folder.exists() {
            fs::rename(folder, &old).map_err(failed(format!("set {} aside", folder.display())))?;
        }
        fs::rename(&staging, folder).map_err(failed(format!("put {} in place", folder.display())))?;
        let _ = fs::remove_dir_all(&old);
        Ok(())
    }

    /// When it ends.
    pub fn not_after(&self) -> UnixMillis {
        self.not_after
    }

    /// When it should be renewed: half-way between its issue and its end.
    pub fn half_life(&self) -> UnixMillis {
        self.issued_at().plus(self.validity() / 2)
    }

    /// How long the certificate is good for from its issue on.
    pub fn validity(&self) -> Duration {
        self.not_after.since(self.issued_at())
    }

    /// Certificates are back-dated; reckoned from `not_before`, a short one would be half-way over at its issue.
    fn issued_at(&self) -> UnixMillis {
        self.not_before.plus(crate::ca::CLOCK_SKEW)
    }

    /// SHA-256 of the CA's certificate.
    pub fn ca_fingerprint(&self) -> Sha256Digest {
        tls::fingerprint(&self.ca)
    }

    /// The CA's certificate (DER).
    pub fn ca_der(&self) -> &[u8] {
        &self.ca
    }
}

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, content)?;
    file.sync_all()
}

/// Holds the newest identity; every new handshake, in and out, uses it.
#[derive(Debug)]
pub struct IdentityCell {
    current: RwLock<Arc<Identity>>,
}

impl IdentityCell {
    /// With a first identity.
    pub fn new(identity: Identity) -> Self {
        Self { current: RwLock::new(Arc::new(identity)) }
    }

    /// The newest.
    pub fn get(&self) -> Arc<Identity> {
        self.current.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// From now on this one.
    pub fn replace(&self, identity: Identity) {
        *self.current.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(identity);
    }
}
