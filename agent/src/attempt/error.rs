//! Why an attempt was not started or not ended, for logs and, as a [`Denial`], for the wire.

use super::{call::BadCall, plan::BadCommand};
use crate::{
    hypervisor::namespace::{folder::FolderError, home::HomeError, process::ProcessError},
    text::describe,
};
use novacron_common::{
    ids::AttemptKey,
    units::Epoch,
    wire::{Denial, DenialCode},
};
use std::path::PathBuf;

/// A refusal or a failure.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// The command comes from somebody who has lost the right to it.
    #[error("{attempt} comes under {asked}, and this host has seen {seen}")]
    Stale {
        /// Which.
        attempt: AttemptKey,
        /// As given.
        asked: Epoch,
        /// The higher one.
        seen: Epoch,
    },
    /// Two attempts of one fire must not live at once.
    #[error("{attempt} has to wait: attempt {running} of the same fire still runs here")]
    StillRuns {
        /// Which.
        attempt: AttemptKey,
        /// The living one.
        running: u32,
    },
    /// Nothing here has that key.
    #[error("{attempt} is not known here")]
    Unknown {
        /// Which.
        attempt: AttemptKey,
    },
    /// As many attempts as the host takes.
    #[error(
        "this host runs {running} attempts and takes {live_max}: see jobs.attempts_max in its agent.toml"
    )]
    NoRoom {
        /// How many.
        running: usize,
        /// How many at most.
        live_max: u32,
    },
    /// This agent has no means to run it.
    #[error("{attempt} has a target that this agent cannot run: {why}")]
    Unsupported {
        /// Which.
        attempt: AttemptKey,
        /// Why, and what to do instead.
        why: &'static str,
    },
    /// The command cannot be run as it is written.
    #[error("the command of {attempt} is not valid")]
    Invalid {
        /// Which.
        attempt: AttemptKey,
        /// Why.
        #[source]
        cause: BadCommand,
    },
    /// The call cannot be made as it is written.
    #[error("the call of {attempt} is not valid")]
    Call {
        /// Which.
        attempt: AttemptKey,
        /// Why.
        #[source]
        cause: BadCall,
    },
    /// The journal of epochs.
    #[error("could not write down {attempt} in {path}")]
    Fence {
        /// Which.
        attempt: AttemptKey,
        /// The journal.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// Its folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Its supervisor.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The task that did it ended early.
    #[error("the work on {attempt} was broken off")]
    BrokenOff {
        /// Which.
        attempt: AttemptKey,
        /// Why.
        #[source]
        cause: tokio::task::JoinError,
    },
}

/// A runner that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A supervisor's folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The file of the built-in record target.
    #[error("could not set the record file aside")]
    Record(#[source] std::io::Error),
    /// The journal of epochs.
    #[error("could not read the epochs in {path}")]
    Fences {
        /// The journal.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
}

impl From<&AttemptError> for Denial {
    fn from(error: &AttemptError) -> Self {
        let code = match error {
            AttemptError::Stale { .. } => DenialCode::StaleEpoch,
            AttemptError::StillRuns { .. } => DenialCode::Conflict,
            AttemptError::Unknown { .. } => DenialCode::Unknown,
            AttemptError::NoRoom { .. } => DenialCode::NoRoom,
            AttemptError::Invalid { .. } | AttemptError::Call { .. } => DenialCode::Invalid,
            AttemptError::Unsupported { .. } => DenialCode::Unsupported,
            AttemptError::Fence { .. }
            | AttemptError::Folder(_)
            | AttemptError::Process(_)
            | AttemptError::BrokenOff { .. } => DenialCode::Failed,
        };
        Denial { code, text: describe(error) }
    }
}
