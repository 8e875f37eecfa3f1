//! What ends a call from outside: a request to kill it, and the end of its lease.

use crate::hypervisor::namespace::{
    folder::Folder,
    lease::{LeaseHold, Standing},
    step::{Doing, StepError},
    supervise::receive_signals,
};
use nix::sys::signalfd::SignalFd;
use novacron_common::record::AttemptOutcome;
use std::os::fd::{AsFd, AsRawFd};
use tokio::io::{Interest, unix::AsyncFd};

/// Waits for either.
pub struct Interrupts<'a> {
    folder: &'a Folder,
    signals: AsyncFd<SignalFd>,
    lease: Option<AsyncFd<LeaseHold>>,
}

impl<'a> Interrupts<'a> {
    /// Signals have to be held back, and the lease's timer to be set.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn new(folder: &'a Folder, lease: Option<LeaseHold>) -> Result<Self, StepError> {
        Ok(Self {
            folder,
            signals: watched(receive_signals()?).doing("receive signals")?,
            lease: lease.map(watched).transpose().doing("watch the lease")?,
        })
    }

    /// The outcome that the interruption means.
    pub async fn next(&mut self) -> AttemptOutcome {
        loop {
            // A request may have come before signals were received.
            if matches!(self.folder.kill_request(), Ok(Some(_))) {
                return AttemptOutcome::Killed;
            }
            tokio::select! {
                () = signalled(&self.signals) => {}
                () = fired(self.lease.as_ref()) => {
                    if self.lease.as_ref().is_some_and(|l| l.get_ref().look(self.folder) == Standing::Lost) {
                        return AttemptOutcome::LeaseLost;
                    }
                }
            }
        }
    }
}

fn watched<T: AsFd + AsRawFd>(source: T) -> std::io::Result<AsyncFd<T>> {
    // SAFETY: both kinds of source own their descriptor, and never replace it while they live.
    Ok(unsafe { AsyncFd::register_with_interest(source, Interest::READABLE) }?)
}

/// A signal alone says nothing; the caller looks whether there is a request.
async fn signalled(signals: &AsyncFd<SignalFd>) {
    // An error would mean that the reactor is gone, and with it this process.
    let Ok(mut ready) = signals.readable().await else { return };
    while let Ok(Some(_)) = signals.get_ref().read_signal() {}
    ready.clear_ready();
}

async fn fired(lease: Option<&AsyncFd<LeaseHold>>) {
    let Some(lease) = lease else { return std::future::pending().await };
    if let Ok(mut ready) = lease.readable().await {
        let _read_so_that_it_is_not_readable_any_more = lease.get_ref().has_fired();
        ready.clear_ready();
    }
}
