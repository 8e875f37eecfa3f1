//! The key that seals the CA's private key (AES-256-GCM, NIST SP 800-38D), and its file.
//!
//! Whoever copies the ledger's disk, or a backup of it, has the sealed key only. The seal key is a file of its
//! own, readable by the coordinator alone; where systemd hands it over as a credential, that one is used.

use super::NoRandomness;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use novacron_common::ids::ClusterId;
use std::{
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Sealed forms begin with this.
const FORMAT: u8 = 1;
/// Name of the credential in `$CREDENTIALS_DIRECTORY` (systemd.exec(5)).
const CREDENTIAL: &str = "novacron.seal-key";
const KEY_BYTES: usize = 32;

/// The seal key, or what it sealed, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The file cannot be read or written.
    #[error("could not {doing} the seal key {path}", path = path.display())]
    File {
        /// "read" or "write".
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        cause: io::Error,
    },
    /// The file is not a seal key.
    #[error("{path} is not a seal key: it must hold 64 hex digits", path = path.display())]
    NotAKey {
        /// Which file.
        path: PathBuf,
    },
    /// It was sealed with another key, for another cluster, or is damaged.
    #[error("the CA's key cannot be unsealed: the seal key is another cluster's, or the ledger is damaged")]
    Unseal,
    /// No random bytes.
    #[error("the CA's key could not be sealed")]
    Random(#[from] NoRandomness),
}

/// Seals and unseals.
#[derive(Clone)]
pub struct SealKey(Zeroizing<[u8; KEY_BYTES]>);

impl SealKey {
    /// A new one.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn generate() -> Result<Self, NoRandomness> {
        Ok(Self(Zeroizing::new(super::token::random_secret()?)))
    }

    /// The one with these bytes, as a join brings it.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Its bytes, for a coordinator that joins. They cross the wire inside TLS only.
    pub fn to_bytes(&self) -> [u8; KEY_BYTES] {
        *self.0
    }

    /// Reads the credential that systemd handed over, else `path`.
    ///
    /// # Errors
    /// [`SealError::File`], [`SealError::NotAKey`].
    pub fn load(path: &Path) -> Result<Self, SealError> {
        let credential = std::env::var_os("CREDENTIALS_DIRECTORY").map(|d| Path::new(&d).join(CREDENTIAL));
        let path = credential.filter(|c| c.exists()).unwrap_or_else(|| path.to_owned());
        let read = fs::read_to_string(&path);
        let text = Zeroizing::new(read.map_err(|cause| SealError::File {
            doing: "read",
            path: path.clone(),
            cause,
        })?);
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        hex::decode_to_slice(text.trim(), &mut *key).map_err(|_| SealError::NotAKey { path })?;
        Ok(Self(key))
    }

    /// Writes a new file that only this user can read. An existing file is never replaced: it may be the only
    /// copy of the key to another ledger.
    ///
    /// # Errors
    /// [`SealError::File`].
    pub fn save(&self, path: &Path) -> Result<(), SealError> {
        let failed = |cause| SealError::File { doing: "write", path: path.to_owned(), cause };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        let text = Zeroizing::new(format!("{}\n", hex::encode(*self.0)));
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
    }

    /// Seals `secret` for `cluster`: format, nonce, ciphertext and tag.
    ///
    /// # Errors
    /// [`SealError::Random`].
    pub fn seal(&self, cluster: ClusterId, secret: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| NoRandomness)?;
        let mut sealed = Zeroizing::new(secret.to_vec());
        let key = self.key()?;
        let tag = key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad(cluster), &mut sealed)
            .map_err(|_| SealError::Unseal)?;
        Ok([&[FORMAT], nonce.as_slice(), sealed.as_slice(), tag.as_ref()].concat())
    }

    /// What was sealed.
    ///
    /// # Errors
    /// [`SealError::Unseal`].
    pub fn unseal(&self, cluster: ClusterId, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let rest = sealed.strip_prefix(&[FORMAT]).ok_or(SealError::Unseal)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Unseal)?;
        let mut secret = Zeroizing::new(ciphertext.to_vec());
        let key = self.key()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length =
            key.open_in_place(nonce, aad(cluster), &mut secret).map_err(|_| SealError::Unseal)?.len();
        secret.truncate(length);
        Ok(secret)
    }

    fn key(&self) -> Result<LessSafeKey, SealError> {
        let unbound = UnboundKey::new(&AES_256_GCM, &*self.0).map_err(|_| SealError::Unseal)?;
        Ok(LessSafeKey::new(unbound))
    }
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey")
    }
}

/// Binds a sealed key to its cluster and purpose.
fn aad(cluster: ClusterId) -> Aad<String> {
    Aad::from(format!("novacron ca key of {cluster}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const CLUSTER: ClusterId = ClusterId::from_u128(1);

    #[test]
    fn what_is_sealed_opens_with_the_same_key_for_the_same_cluster_only() {
        let (key, other) = (SealKey::generate().unwrap(), SealKey::generate().unwrap());
        let sealed = key.seal(CLUSTER, b"secret").unwrap();
        assert_eq!(key.unseal(CLUSTER, &sealed).unwrap().as_slice(), b"secret");
        assert!(other.unseal(CLUSTER, &sealed).is_err());
        assert!(key.unseal(ClusterId::from_u128(2), &sealed).is_err());
        let mut damaged = sealed.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(key.unseal(CLUSTER, &damaged).is_err());
        assert!(key.unseal(CLUSTER, &sealed[..5]).is_err());
        assert_ne!(key.seal(CLUSTER, b"secret").unwrap(), sealed, "the nonce must differ");
    }

    #[test]
    fn the_file_is_private_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/seal.key");
        let key = SealKey::generate().unwrap();
        key.save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(SealKey::load(&path).unwrap().to_bytes(), key.to_bytes());
        assert!(key.save(&path).is_err());
        fs::write(&path, "short").unwrap();
        assert!(matches!(SealKey::load(&path), Err(SealError::NotAKey { .. })));
    }
}
