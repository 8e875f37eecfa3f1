//! The seed of a run: the same seed makes the same plan of faults.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

/// The variable that replays a run's plan.
pub const SEED: &str = "NOVACRON_SEED";

/// The seed of this run: that of [`SEED`], or one of the clock.
///
/// # Errors
/// When the variable holds no number.
pub fn seed() -> Result<u64> {
    match std::env::var(SEED) {
        Ok(text) => text.parse().with_context(|| format!("{SEED} is no number: {text:?}")),
        Err(_) => Ok(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())),
    }
}
