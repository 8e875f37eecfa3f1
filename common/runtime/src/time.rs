//! Timers.

use crate::{TimerId, World, entered};
use pin_project_lite::pin_project;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

/// The monotonic clock. Inside a simulation the operating system's clock is the simulated one, so this type serves
/// both.
pub use tokio::time::Instant;

pin_project! {
    /// Ready at a time.
    #[project = SleepState]
    #[derive(Debug)]
    #[must_use = "futures do nothing unless awaited"]
    pub enum Sleep {
        #[doc(hidden)]
        Tokio { #[pin] sleep: tokio::time::Sleep },
        #[doc(hidden)]
        Simulated { timer: Timer },
    }
}

/// A timer of the world.
pub struct Timer {
    world: Arc<dyn World>,
    at: Instant,
    set: Option<(TimerId, Waker)>,
}

impl Timer {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.world.now() >= self.at {
            return Poll::Ready(());
        }
        match &self.set {
            Some((_, waker)) if waker.will_wake(context.waker()) => {}
            _ => {
                self.unset();
                let waker = context.waker().clone();
                self.set = Some((self.world.wake_at(self.at, waker.clone()), waker));
            }
        }
        Poll::Pending
    }

    fn unset(&mut self) {
        if let Some((timer, _)) = self.set.take() {
            self.world.cancel(timer);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.unset();
    }
}

impl std::fmt::Debug for Timer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Timer({:?})", self.at)
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match self.project() {
            SleepState::Tokio { sleep } => sleep.poll(context),
            SleepState::Simulated { timer } => timer.poll(context),
        }
    }
}

/// As [`tokio::time::sleep`].
pub fn sleep(duration: Duration) -> Sleep {
    match entered() {
        None => Sleep::Tokio { sleep: tokio::time::sleep(duration) },
        Some(world) => sleep_until(world.now() + duration),
    }
}

/// As [`tokio::time::sleep_until`].
pub fn sleep_until(at: Instant) -> Sleep {
    match entered() {
        None => Sleep::Tokio { sleep: tokio::time::sleep_until(at) },
        Some(world) => Sleep::Simulated { timer: Timer { world, at, set: None } },
    }
}

/// It took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("deadline has elapsed")]
pub struct Elapsed;

pin_project! {
    /// A future with a deadline.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless awaited"]
    pub struct Timeout<F> {
        #[pin]
        future: F,
        #[pin]
        sleep: Sleep,
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.future.poll(context) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => this.sleep.poll(context).map(|()| Err(Elapsed)),
        }
    }
}

/// As [`tokio::time::timeout`].
pub fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    Timeout { future, sleep: sleep(duration) }
}

/// As [`tokio::time::timeout_at`].
pub fn timeout_at<F: Future>(deadline: Instant, future: F) -> Timeout<F> {
    Timeout { future, sleep: sleep_until(deadline) }
}

/// Ticks: at once, and then a period after the tick before was taken, as [`tokio::time::interval`] with
/// [`MissedTickBehavior::Delay`](tokio::time::MissedTickBehavior::Delay).
#[derive(Debug)]
pub struct Interval {
    period: Duration,
    next: Instant,
}

impl Interval {
    /// Waits for the next tick. A wait that is dropped loses none.
    pub async fn tick(&mut self) {
        sleep_until(self.next).await;
        self.next = Instant::now() + self.period;
    }
}

/// As [`tokio::time::interval`]; see [`Interval`].
pub fn interval(period: Duration) -> Interval {
    Interval { period, next: Instant::now() }
}
