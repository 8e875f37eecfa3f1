//! A job as the ledger keeps it.

use super::{Name, Schedule, TimeZone};
use crate::units::ByteCount;
use serde::{Deserialize, Serialize};

/// The root file system that a command sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// The host's root, read-only, with what is secret masked.
    Host,
}

/// A command in a throw-away namespace machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandTarget {
    /// Program and arguments; no shell is added.
    pub argv: Vec<String>,
    /// Variables beside the `NOVACRON_…` ones.
    pub env: Vec<(String, String)>,
    /// Where it starts; `/` if absent.
    pub working_dir: Option<String>,
    /// What it may use of RAM.
    pub memory_max: ByteCount,
    /// How many processes it may have.
    pub pids_max: u32,
    /// Its share of one CPU in thousandths; 1000 is one whole CPU.
    pub cpu_millis: u32,
    /// What it sees as `/`.
    pub root: Root,
}

/// What a fire does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobTarget {
    /// Nothing but its own record: a heartbeat, or a place-holder until a target is set.
    Noop,
    /// A command in a throw-away namespace machine.
    Command(CommandTarget),
}

/// A scheduled job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Unique in the cluster.
    pub name: Name,
    /// When it is due.
    pub schedule: Schedule,
    /// Whose wall clock the schedule means.
    pub timezone: TimeZone,
    /// Whether it fires at all.
    pub enabled: bool,
    /// 0 to 9; the higher goes first where attempts have to wait.
    pub priority: u8,
    /// Tries after the first.
    pub max_retries: u32,
    /// Ends an attempt; milliseconds.
    pub timeout_ms: u64,
    /// What it does.
    pub target: JobTarget,
}

impl JobSpec {
    /// Longest time that an attempt may take: a week.
    pub const TIMEOUT_MAX_MS: u64 = 7 * 24 * 3600 * 1000;
    /// Most tries after the first.
    pub const RETRIES_MAX: u32 = 100;
    /// Highest priority.
    pub const PRIORITY_MAX: u8 = 9;
}
