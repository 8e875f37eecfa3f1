//! Who belongs to the cluster: its certificate authority, its tokens, and this coordinator's own certificates.
//!
//! The CA's private key is in the ledger, sealed under a key that is not (`seal`). Any coordinator that has the
//! seal key can issue certificates (`authority`), for those who show a join token or a certificate that is still
//! good (`enroll`), and for itself (`renewal`, `https`). Who was removed is cut off (`gate`).

mod authority;
mod enroll;
mod gate;
mod https;
mod renewal;
mod seal;
mod token;

pub use authority::{Authority, AuthorityError, AuthorityOptions};
pub(crate) use authority::{cluster_init, first_token};
pub use gate::guard;
pub use https::HttpsCertificate;
pub use renewal::keep_own_certificate;
pub use seal::{SealError, SealKey};
pub use token::{ApiToken, BadApiToken, NoRandomness, sha256};

use novacron_common::units::UnixMillis;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// This machine's clock. The core never reads it: commands carry it there.
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// How long until this machine's clock shows `at`, to the nanosecond; zero if it has.
pub fn until(at: UnixMillis) -> Duration {
    let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(at.0).unwrap_or(0));
    at.duration_since(SystemTime::now()).unwrap_or_default()
}
