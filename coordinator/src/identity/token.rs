//! API tokens: `nva1.<id>.<secret>`. The ledger keeps the secret's SHA-256 only; a secret has 256 random bits, so
//! a plain hash is enough (nothing can be guessed from it, unlike from a password).

use aws_lc_rs::{constant_time, digest, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use novacron_common::{ids::TokenId, spec::Sha256Digest};
use std::{fmt, str::FromStr};

const PREFIX: &str = "nva1";
const SECRET_BYTES: usize = 32;

/// The system's random number generator failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct NoRandomness;

/// A text that is not an API token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not an API token: copy the whole of it (nva1.…)")]
pub struct BadApiToken;

/// An API token with its secret, as its holder sends it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// The ledger's record of it.
    pub id: TokenId,
    secret: [u8; SECRET_BYTES],
}

impl ApiToken {
    /// A new one.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn generate() -> Result<Self, NoRandomness> {
        Ok(Self { id: TokenId::generate(), secret: random_secret()? })
    }

    /// What the ledger keeps of the secret.
    pub fn secret_sha256(&self) -> Sha256Digest {
        sha256(&self.secret)
    }

    /// Whether this is the token whose digest is kept; takes the same time either way.
    pub fn is(&self, kept: &Sha256Digest) -> bool {
        constant_time::verify_slices_are_equal(&self.secret_sha256().0, &kept.0).is_ok()
    }
}

pub(super) fn random_secret() -> Result<[u8; SECRET_BYTES], NoRandomness> {
    let mut secret = [0; SECRET_BYTES];
    rand::fill(&mut secret).map_err(|_| NoRandomness)?;
    Ok(secret)
}

/// SHA-256 (FIPS 180-4).
pub fn sha256(bytes: &[u8]) -> Sha256Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    Sha256Digest(out)
}

impl fmt::Display for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.{}.{}", self.id, URL_SAFE_NO_PAD.encode(self.secret))
    }
}

/// The id only: a token in a log would be a key in a log.
impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiToken({})", self.id)
    }
}

impl FromStr for ApiToken {
    type Err = BadApiToken;
    fn from_str(text: &str) -> Result<Self, BadApiToken> {
        let rest = text.trim().strip_prefix(PREFIX).and_then(|r| r.strip_prefix('.')).ok_or(BadApiToken)?;
        let (id, secret) = rest.split_once('.').ok_or(BadApiToken)?;
        let secret = URL_SAFE_NO_PAD.decode(secret).map_err(|_| BadApiToken)?;
        let secret = secret.try_into().map_err(|_| BadApiToken)?;
        Ok(Self { id: id.parse().map_err(|_| BadApiToken)?, secret })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_round_trips_and_matches_its_digest_only() {
        let (token, other) = (ApiToken::generate().unwrap(), ApiToken::generate().unwrap());
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert!(token.is(&token.secret_sha256()));
        assert!(!token.is(&other.secret_sha256()));
    }

    #[test]
    fn what_is_no_token_is_refused_and_debug_hides_the_secret() {
        let token = ApiToken::generate().unwrap();
        let text = token.to_string();
        for bad in ["", "nva1", "nva1..", "nva2.x.y", &text[..text.len() - 4], &text.replace("tok-", "vm-")] {
            assert_eq!(bad.parse::<ApiToken>(), Err(BadApiToken), "{bad:?}");
        }
        let secret = text.rsplit('.').next().unwrap();
        assert!(!format!("{token:?}").contains(secret));
    }
}
