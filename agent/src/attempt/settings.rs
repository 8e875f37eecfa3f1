//! What a runner of attempts is opened with.

use super::table::Table;
use std::path::PathBuf;

/// Settings of a runner.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The supervisors' program, run as `PROGRAM supervise FOLDER`.
    pub supervisor: PathBuf,
    /// The program of supervisors that make calls, run in the same way: the agent's own.
    pub caller: PathBuf,
    /// Host names and networks that HTTP calls may go to although they are private (`jobs.url_allow`).
    pub url_allow: Vec<String>,
    /// Where libvirtd is reached that runs this host's machines, if one does.
    pub libvirt_uri: Option<String>,
    /// Folder of the root file systems that commands may ask for by name (`jobs.roots`).
    pub roots: PathBuf,
    /// Attempts at once, at most [`Settings::LIVE_MAX`].
    pub live_max: u32,
}

impl Settings {
    /// Most attempts at once on any host: there are so many ranges of user ids for them.
    pub const LIVE_MAX: u32 = Table::LIVE_MAX;

    /// Where root file systems are kept unless agent.toml says otherwise.
    pub const ROOTS: &str = "/var/lib/novacron/roots";

    /// As many attempts as can be, with this program for all of them, and no private address for calls.
    pub fn new(supervisor: impl Into<PathBuf>) -> Self {
        let supervisor = supervisor.into();
        Self {
            caller: supervisor.clone(),
            supervisor,
            url_allow: Vec::new(),
            libvirt_uri: None,
            roots: Self::ROOTS.into(),
            live_max: Self::LIVE_MAX,
        }
    }
}
