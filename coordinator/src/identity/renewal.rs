//! This coordinator's own certificate, renewed at half life. It issues it to itself: it holds the CA.

use super::{Authority, AuthorityError, now};
use novacron_common::units::UnixMillis;
use novacron_transport::{Identity, certificate_request};
use std::{path::PathBuf, time::Duration};
use tokio_util::sync::CancellationToken;

/// Shortest and longest pause between looks; the longest bounds what a jump of the clock can do.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// When a certificate that ends at `not_after` and is good for `validity` is to be renewed. Not reckoned from its
/// beginning, which is back-dated for the sake of other clocks.
pub(super) fn due_at(not_after: UnixMillis, validity: Duration) -> UnixMillis {
    let half = i64::try_from(validity.as_millis() / 2).unwrap_or(i64::MAX);
    UnixMillis(not_after.0.saturating_sub(half))
}

/// How long to sleep until `due`.
pub(super) fn pause_until(due: UnixMillis) -> Duration {
    due.since(now()).clamp(PAUSE_MIN, PAUSE_MAX)
}

/// Keeps the endpoint's identity fresh, in memory and in `folder`, until `stop`.
pub async fn keep_own_certificate(authority: Authority, folder: PathBuf, stop: CancellationToken) {
    loop {
        let current = authority.endpoint().identity().get();
        let due = due_at(current.not_after(), authority.validity());
        if now() >= due {
            match renew(&authority, &current) {
                Ok(identity) => adopt(&authority, identity, folder.clone()).await,
                Err(AuthorityError::NotReady) => tracing::debug!("waiting for the ledger before renewing"),
                Err(error) => {
                    tracing::error!(%error, cause = ?std::error::Error::source(&error), "own certificate not renewed");
                }
            }
        }
        let next = due_at(authority.endpoint().identity().get().not_after(), authority.validity());
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause_until(next)) => {}
        }
    }
}

fn renew(authority: &Authority, current: &Identity) -> Result<Identity, AuthorityError> {
    let (cluster, ca) = authority.ca()?;
    let (key, csr) = certificate_request()?;
    let certificate = authority.issue(&csr, &current.role)?;
    Ok(Identity::new(*cluster, ca.certificate_der(), &certificate, &key)?)
}

async fn adopt(authority: &Authority, identity: Identity, folder: PathBuf) {
    let saved = identity.clone();
    let not_after = identity.not_after();
    authority.endpoint().identity().replace(identity);
    match tokio::task::spawn_blocking(move || saved.save(&folder)).await {
        Ok(Ok(())) => tracing::info!(%not_after, "own certificate renewed"),
        // The one in memory serves; a restart issues another.
        Ok(Err(error)) => {
            tracing::error!(%error, cause = ?std::error::Error::source(&error), "own certificate not saved");
        }
        Err(error) => tracing::error!(%error, "own certificate not saved"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_certificate_is_renewed_half_way_though_it_is_back_dated() {
        let (issued, validity) = (UnixMillis(1_000_000), Duration::from_secs(60));
        assert_eq!(due_at(issued.plus(validity), validity), issued.plus(validity / 2));
    }
}
