//! What a runner of attempts is opened with.

use super::table::Table;
use std::path::PathBuf;

/// Settings of a runner.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The supervisors' program, run as `PROGRAM supervise FOLDER`.
    pub supervisor: PathBuf,
    /// Attempts at once, at most [`Settings::LIVE_MAX`].
    pub live_max: u32,
}

impl Settings {
    /// Most attempts at once on any host: there are so many ranges of user ids for them.
    pub const LIVE_MAX: u32 = Table::LIVE_MAX;

    /// As many attempts as can be, with this program.
    pub fn new(supervisor: impl Into<PathBuf>) -> Self {
        Self { supervisor: supervisor.into(), live_max: Self::LIVE_MAX }
    }
}
