//! Asks the agent in a machine, over a channel that blocks.

use super::protocol::{self, BadAnswer, Ended};
use crate::{
    hypervisor::libvirt::guest::{Channel, NoAnswer},
    text::describe,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How long a guest agent is waited for: the machine may only just have been started.
const REACH_MAX: Duration = Duration::from_secs(30);
/// Pause before it is asked again.
const REACH_PAUSE: Duration = Duration::from_millis(500);
/// How long it may take to answer. An emulated guest under load is slow.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Pauses between two looks at a command: the first, and the longest.
pub const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Why a command did not come to an end that is known.
#[derive(Debug, thiserror::Error)]
pub enum Unfinished {
    /// Nobody answers, or with a refusal.
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    /// The answer makes no sense.
    #[error(transparent)]
    Bad(#[from] BadAnswer),
    /// Ours.
    #[error("the call into libvirt was broken off")]
    BrokenOff(#[source] tokio::task::JoinError),
}

impl Unfinished {
    /// Whether to ask again is of any use.
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::NoAnswer(NoAnswer::NoAgent { .. } | NoAnswer::Libvirt { .. }) => true,
            Self::NoAnswer(
                NoAnswer::NotHere { .. } | NoAnswer::NotRunning { .. } | NoAnswer::Refused { .. },
            )
            | Self::Bad(_)
            | Self::BrokenOff(_) => false,
        }
    }
}

/// A refusal is an answer too: what was asked for is not there.
pub fn unless_refused<T>(answer: Result<T, Unfinished>) -> Result<Option<T>, Unfinished> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Unfinished::NoAnswer(NoAnswer::Refused { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A channel, for calls that block on another thread.
#[derive(Clone)]
pub struct Guest(Arc<Mutex<Box<dyn Channel>>>);

impl Guest {
    /// Over this channel.
    pub fn new(channel: Box<dyn Channel>) -> Self {
        Self(Arc::new(Mutex::new(channel)))
    }

    /// One command of the guest agent, and its answer.
    pub async fn ask(&self, command: String) -> Result<String, Unfinished> {
        let channel = Arc::clone(&self.0);
        let asked = tokio::task::spawn_blocking(move || {
            channel.lock().unwrap_or_else(PoisonError::into_inner).ask(&command, ANSWER_MAX)
        });
        Ok(asked.await.map_err(Unfinished::BrokenOff)??)
    }

    /// Until it answers, or for [`REACH_MAX`].
    pub async fn reach(&self) -> Result<(), Unfinished> {
        let until = Instant::now() + REACH_MAX;
        loop {
            match self.ask(protocol::ping()).await {
                Ok(_) => return Ok(()),
                Err(error) if !error.may_pass() || Instant::now() >= until => return Err(error),
                Err(_) => sleep(REACH_PAUSE).await,
            }
        }
    }

    /// How a command ended; `None` while it runs, or while libvirtd or the guest agent is silent.
    pub async fn look(&self, pid: i64) -> Result<Option<Ended>, Unfinished> {
        match self.ask(protocol::status(pid)).await {
            Ok(answer) => Ok(protocol::ended(&answer)?),
            Err(error) if !error.may_pass() => Err(error),
            Err(error) => {
                tracing::debug!(error = describe(&error), "could not look at a command");
                Ok(None)
            }
        }
    }

    /// Looks at a command until it has ended.
    pub async fn ended(&self, pid: i64) -> Result<Ended, Unfinished> {
        let (mut pause, longest) = LOOK;
        loop {
            if let Some(ended) = self.look(pid).await? {
                return Ok(ended);
            }
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }
}
