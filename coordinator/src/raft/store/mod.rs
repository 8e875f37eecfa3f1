//! openraft's storage on `novacron_store`: the log, durable before it is acknowledged, and the state machine.
//!
//! | tree              | keys                                     | values                                    |
//! |-------------------|------------------------------------------|-------------------------------------------|
//! | `raft`            | 0 + `vote`, `committed`, `purged`        | format version + bincode                  |
//! | `raft`            | 1 + index (u64 big endian) + part        | format version + bincode of the entry     |
//! | `state-a`, `-b`   | 0 + `applied`                            | last applied log id and membership        |
//! | `state-a`, `-b`   | 1 + table + key                          | the core's encoding of the row            |
//! | `pointer`         | `state`                                  | which of the two state trees is the one   |
//!
//! What is synced when: votes and log entries before they are acknowledged (`journal` says how that goes on beside Raft
//! and not in its way); the state only before the log that could rebuild it is purged (`mirror` says how its rows follow
//! the state in memory), and when a snapshot was installed.
//! One sled database is one log on disk, so the sync of an entry carries everything that was written before it.

mod journal;
mod log;
mod log_disk;
mod machine;
mod mirror;
mod parts;
mod rows;
mod seed;
mod snapshot;
mod tail;

pub(crate) use journal::Journal;
pub(crate) use log::LogStore;
pub(crate) use machine::StateMachine;
pub(crate) use seed::{peek, seed};

use super::types::StorageIoError;
use novacron_common::wire::codec::{self, CodecError};
use novacron_core::DecodeError;
use novacron_store::StoreError;
use serde::{Serialize, de::DeserializeOwned};

/// First byte of every record that is stored here.
const FORMAT: u8 = 1;

/// The ledger's files cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreFault {
    /// The store refused.
    #[error("the ledger's store failed")]
    Store(#[from] StoreError),
    /// A record is not what was written, or too long.
    #[error("a record of the ledger cannot be coded")]
    Codec(#[from] CodecError),
    /// A row of the state is not what was written.
    #[error("the ledger's state cannot be read")]
    State(#[from] DecodeError),
    /// A record of a newer program, or none of ours.
    #[error(
        "a record of the ledger has format {0}, this program reads format {FORMAT}: upgrade this coordinator"
    )]
    Format(u8),
    /// A row of a table that this program does not know.
    #[error("the ledger has a table {0} that this program does not know: upgrade this coordinator")]
    Table(u8),
    /// A part of a long value is missing.
    #[error(
        "the value at key {key} is incomplete: restore the ledger from a backup, or rejoin this coordinator"
    )]
    Parts {
        /// The key, in hex.
        key: String,
    },
    /// A snapshot ends before its end, or goes on behind it.
    #[error("a snapshot is incomplete: {0}")]
    Snapshot(&'static str),
    /// An earlier write of the log failed; nothing is written after that.
    #[error("the log could not be written")]
    Log(#[source] std::sync::Arc<StoreFault>),
    /// An earlier write of the state's rows failed; nothing is applied after that.
    #[error("the state's rows could not be written")]
    Rows(#[source] std::sync::Arc<StoreFault>),
    /// The thread that should have done it is gone.
    #[error("a storage task ended early")]
    Task(#[from] novacron_runtime::task::JoinError),
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreFault> {
    let mut bytes = vec![FORMAT];
    bytes.extend(codec::encode(value)?);
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreFault> {
    match bytes.split_first() {
        Some((&FORMAT, record)) => Ok(codec::decode(record)?),
        other => Err(StoreFault::Format(other.map_or(0, |(format, _)| *format))),
    }
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreFault> + Send + 'static,
) -> Result<T, StoreFault> {
    novacron_runtime::spawn_blocking(work).await?
}

/// Gives a fault the clothes that openraft wants; after one it stops, which is right: what is on disk is unknown.
fn fatal<F: FnOnce(openraft::AnyError) -> StorageIoError>(
    kind: F,
) -> impl FnOnce(StoreFault) -> super::types::StorageError {
    move |fault| {
        tracing::error!(error = %Chain(&fault), "the ledger's store failed");
        kind(openraft::AnyError::new(&fault)).into()
    }
}

/// An error with its causes on one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
