//! What a supervisor is told to do. Written by the agent, read by a supervisor that may be a newer or older build:
//! the first byte of every file between them is the version of this protocol.

pub use super::{net::Card, privileges::Rights};

use crate::attempt::call::{Call, Callee};
use novacron_common::{
    ids::{AttemptKey, VmId},
    spec::{CommandTarget, FolderPath, OnLeaseLost, Program},
    units::{ByteCount, Epoch},
    wire::codec,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{path::PathBuf, time::Duration};

/// The version that this build writes.
pub const VERSION: u8 = 11;

/// What one isolated process tree may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// RAM, page cache and files in its temporary file systems together.
    pub memory_max: ByteCount,
    /// Processes and threads, the init among them.
    pub pids_max: u32,
    /// CPU time in thousandths of one CPU.
    pub cpu_millis: u32,
    /// What it may write to memory: its temporary folders, and the layer above a folder of the host.
    pub scratch_max: ByteCount,
}

impl Limits {
    /// The scratch space of a job or machine. It counts as memory too, so the memory limit may be reached first.
    pub const SCRATCH: ByteCount = ByteCount::mib(256);

    /// The limits that a job states.
    pub fn of(target: &CommandTarget) -> Self {
        Self {
            memory_max: target.memory_max,
            pids_max: target.pids_max.saturating_add(1), // the init is ours
            cpu_millis: target.cpu_millis,
            scratch_max: Self::SCRATCH,
        }
    }
}

/// What a tree sees as its root, below a layer of its own. That is in memory unless it says where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lower {
    /// A folder of the host, `/` for its own root. What is in it belongs to nobody inside.
    Folder(PathBuf),
    /// The layers of an image. What is in them belongs to whom the image says.
    Image {
        /// The lowest first.
        layers: Vec<PathBuf>,
        /// The file with the file system of the machine's own layer, which outlives the tree.
        own: PathBuf,
    },
}

/// One command, and the walls around it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolated {
    /// What runs, with its whole environment; without any arguments, the init waits until it is asked to end.
    pub program: Program,
    /// Its host name.
    pub hostname: String,
    /// What it may use.
    pub limits: Limits,
    /// What it sees as `/`.
    pub lower: Lower,
    /// Whom the command runs as, `user[:group]` in the names of `lower`; without it, as user 0.
    pub user: Option<String>,
    /// What user 0 may do.
    pub rights: Rights,
    /// Folders of the host that it must not see, beside those that nobody may.
    pub masked: Vec<PathBuf>,
    /// Its cgroup, below the agent's own.
    pub cgroup: String,
    /// Which range of user ids it gets.
    pub id_slot: u32,
    /// Ends it, milliseconds after its start.
    pub timeout_ms: Option<u64>,
    /// Its way to others; without a card it has none.
    pub card: Option<Card>,
    /// What else it sees, each after those that it lies within.
    pub volumes: Vec<Volume>,
}

/// Something of the host that a tree sees, and that outlives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// What, shown with the tree's own ids.
    pub source: VolumeFrom,
    /// Where.
    pub target: FolderPath,
    /// Whether it may only be read.
    pub read_only: bool,
}

/// What a volume is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeFrom {
    /// A file system in this file, which one tree at a time can have.
    Disk(PathBuf),
    /// A folder of the host.
    Folder {
        /// One that machines may be shown, with all that is below.
        allowed: PathBuf,
        /// From there to it; empty for itself.
        below: PathBuf,
    },
}

/// For whom a command runs, where it is an attempt. The supervisor does not read it; an agent that starts anew does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The attempt.
    pub attempt: AttemptKey,
    /// The epoch under which it was started.
    pub epoch: Epoch,
}

/// The file from which a supervisor starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The attempt, if it is one.
    pub claim: Option<Claim>,
    /// What to do.
    pub work: Work,
    /// The terms on which it may go on, if it has any.
    pub lease: Option<Terms>,
}

/// What a supervisor does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Nothing: the attempt is its own record.
    Nothing,
    /// Append this line, and the instant, to the agent's record file.
    Record {
        /// Without the instant.
        line: String,
    },
    /// Run a command within walls.
    Isolated(Isolated),
    /// Ask somebody else. Only the agent's own program can.
    Call(Call),
    /// Run a command within walls so that it can be saved.
    Migratable(Migratable),
}

/// A tree that can be saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migratable {
    /// The walls and the command.
    pub isolated: Isolated,
    /// How it begins.
    pub origin: Origin,
}

/// How a tree begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// Its command is started.
    Fresh,
    /// Its processes are those of the machine's checkpoint.
    Saved,
}

impl Work {
    /// The walls and the command, if there is one within walls.
    pub fn isolated(&self) -> Option<&Isolated> {
        match self {
            Self::Isolated(isolated) | Self::Migratable(Migratable { isolated, .. }) => Some(isolated),
            Self::Nothing | Self::Record { .. } | Self::Call(_) => None,
        }
    }
}

/// The terms of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// From the asking to the end.
    pub duration: Duration,
    /// What happens then. Only `Kill` concerns the supervisor.
    pub on_lost: OnLeaseLost,
}

impl Request {
    /// The machine in which the command runs, if it is to run in one.
    pub const fn machine(&self) -> Option<VmId> {
        match &self.work {
            Work::Call(Call { to: Callee::Guest(guest), .. }) => Some(guest.vm),
            Work::Call(Call { to: Callee::Http(_), .. })
            | Work::Nothing
            | Work::Record { .. }
            | Work::Isolated(_)
            | Work::Migratable(_) => None,
        }
    }

    /// Whether the supervisor ends the work when its lease has run out.
    pub fn dies_with_lease(&self) -> bool {
        self.lease.is_some_and(|terms| terms.on_lost == OnLeaseLost::Kill)
    }
}

/// The search path where a job states none (Debian's for root).
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Bytes that no supervisor of this version can use.
#[derive(Debug, thiserror::Error)]
pub enum BadRecord {
    /// Another version.
    #[error("it is written in version {found} of the supervisor protocol, and this build reads {VERSION}")]
    Version {
        /// Its first byte.
        found: u8,
    },
    /// No bytes.
    #[error("it is empty")]
    Empty,
    /// Not what the version promises.
    #[error("it is damaged")]
    Damaged(#[source] codec::CodecError),
}

/// The version, and the value.
///
/// # Errors
/// [`codec::CodecError`] if the value is too long.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, codec::CodecError> {
    let mut bytes = vec![VERSION];
    bytes.extend(codec::encode(value)?);
    Ok(bytes)
}

/// The value, if it is of this version.
///
/// # Errors
/// [`BadRecord`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BadRecord> {
    match bytes.split_first() {
        None => Err(BadRecord::Empty),
        Some((&VERSION, rest)) => codec::decode(rest).map_err(BadRecord::Damaged),
        Some((&found, _)) => Err(BadRecord::Version { found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_named_and_not_guessed_at() {
        let mut bytes = encode(&7u32).unwrap();
        assert_eq!(decode::<u32>(&bytes).unwrap(), 7);
        bytes[0] = 1;
        assert!(matches!(decode::<u32>(&bytes), Err(BadRecord::Version { found: 1 })));
        assert!(matches!(decode::<u32>(&[]), Err(BadRecord::Empty)));
        assert!(matches!(decode::<u32>(&[VERSION]), Err(BadRecord::Damaged(_))));
    }
}
