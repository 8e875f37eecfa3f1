//! A process that was killed and runs again tells its peers that their links are gone, with QUIC's stateless reset
//! (RFC 9000, section 10.3): else they would talk into the void until the idle time-out, and a coordinator that came
//! back would receive no log for seconds.
//!
//! A reset carries a token that only its sender can make, out of a key that outlives the process: it is derived from
//! the private key of the process's certificate.

use crate::Identity;
use aws_lc_rs::{
    error::Unspecified,
    hmac::{self, HMAC_SHA256},
    rand::SystemRandom,
};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

const LABEL: &[u8] = b"novacron stateless reset";
const ID_BYTES: usize = 8;

/// The settings of an endpoint that can say of its former life's links that they are gone. Without random numbers
/// it cannot, and the idle time-out has to do.
pub(crate) fn config(identity: &Identity) -> EndpointConfig {
    resetting(identity).unwrap_or_default()
}

fn resetting(identity: &Identity) -> Result<EndpointConfig, Unspecified> {
    let derived = hmac::sign(&hmac::Key::new(HMAC_SHA256, identity.private_key()), LABEL);
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(HMAC_SHA256, derived.as_ref())));
    let ids =
        Ids { key: Arc::new(hmac::Key::generate(HMAC_SHA256, &SystemRandom::new())?), next: Arc::default() };
    // quinn's own generator takes the ids of a former life for noise, and says nothing.
    config.cid_generator(move || Box::new(ids.clone()));
    Ok(config)
}

/// Connection ids that nobody can guess or relate to each other.
#[derive(Clone)]
struct Ids {
    key: Arc<hmac::Key>,
    next: Arc<AtomicU64>,
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let tag = hmac::sign(&self.key, &number.to_le_bytes());
        ConnectionId::new(tag.as_ref().first_chunk::<ID_BYTES>().unwrap_or(&[0; ID_BYTES]))
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
