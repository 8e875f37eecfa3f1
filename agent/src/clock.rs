//! The host's clock, for stamps that people read. Nothing is decided by comparing it with another host's.

use novacron_common::units::UnixMillis;
use std::time::{SystemTime, UNIX_EPOCH};

/// Now.
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
