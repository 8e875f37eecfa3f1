//! Tasks.

use crate::{TaskId, World, entered};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::oneshot;

/// A task did not end by itself.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// tokio's reason: it was aborted, or it panicked.
    #[error(transparent)]
    Tokio(#[from] tokio::task::JoinError),
    /// It was aborted, or its simulated machine crashed.
    #[error("the task was cancelled")]
    Cancelled,
}

impl JoinError {
    /// Whether the task panicked. (In a simulation a panic ends the run.)
    pub fn is_panic(&self) -> bool {
        matches!(self, Self::Tokio(error) if error.is_panic())
    }
}

/// A task that was started. Dropping it lets the task run on.
pub struct JoinHandle<T>(Handle<T>);

enum Handle<T> {
    Tokio(tokio::task::JoinHandle<T>),
    /// Without a task where it was done at once.
    Simulated {
        task: Option<(Arc<dyn World>, TaskId)>,
        ended: oneshot::Receiver<T>,
    },
}

impl<T> JoinHandle<T> {
    /// Drops the task at its next await.
    pub fn abort(&self) {
        match &self.0 {
            Handle::Tokio(handle) => handle.abort(),
            Handle::Simulated { task: Some((world, task)), .. } => world.abort(*task),
            Handle::Simulated { task: None, .. } => {}
        }
    }
}

impl<T> std::fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinHandle")
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Handle::Tokio(handle) => Pin::new(handle).poll(context).map_err(JoinError::Tokio),
            Handle::Simulated { ended, .. } => {
                Pin::new(ended).poll(context).map_err(|_| JoinError::Cancelled)
            }
        }
    }
}

/// As [`tokio::spawn`].
pub fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let Some(world) = entered() else { return JoinHandle(Handle::Tokio(tokio::spawn(future))) };
    let (sender, ended) = oneshot::channel();
    let task = world.spawn(Box::pin(async move {
        // Nobody waiting for it is fine.
        let _ = sender.send(future.await);
    }));
    JoinHandle(Handle::Simulated { task: Some((world, task)), ended })
}

/// As [`tokio::task::spawn_blocking`].
pub fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let Some(world) = entered() else {
        return JoinHandle(Handle::Tokio(tokio::task::spawn_blocking(work)));
    };
    let (sender, ended) = oneshot::channel();
    let (keep, kept) = std::sync::mpsc::channel();
    let waiting = world.blocking(Box::new(move || drop(keep.send(work()))));
    let give = move || drop(kept.try_recv().map(|outcome| sender.send(outcome)));
    let task = match waiting {
        None => {
            give();
            None
        }
        Some(waiting) => Some(world.spawn(Box::pin(async move {
            waiting.await;
            give();
        }))),
    };
    JoinHandle(Handle::Simulated { task: task.map(|task| (world, task)), ended })
}

/// As [`tokio::task::block_in_place`]: does `work` on this thread, which may block for a moment.
pub fn block_in_place<T>(work: impl FnOnce() -> T) -> T {
    let Some(world) = entered() else { return tokio::task::block_in_place(work) };
    let outcome = work();
    world.settle();
    outcome
}

/// Tasks that are dropped with their set, as [`tokio::task::JoinSet`].
pub struct JoinSet<T>(FuturesUnordered<JoinHandle<T>>);

impl<T: Send + 'static> JoinSet<T> {
    /// Empty.
    pub fn new() -> Self {
        Self(FuturesUnordered::new())
    }

    /// Starts a task.
    pub fn spawn(&mut self, future: impl Future<Output = T> + Send + 'static) {
        self.0.push(spawn(future));
    }

    /// Waits for one to end; `None` if there is none.
    pub async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        self.0.next().await
    }

    /// One that has ended.
    pub fn try_join_next(&mut self) -> Option<Result<T, JoinError>> {
        futures_util::FutureExt::now_or_never(self.0.next()).flatten()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Send + 'static> Default for JoinSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for JoinSet<T> {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl<T> std::fmt::Debug for JoinSet<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JoinSet({} tasks)", self.0.len())
    }
}
