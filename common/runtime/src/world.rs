//! What a simulation provides, and how it is found.

use std::{cell::RefCell, future::Future, marker::PhantomData, pin::Pin, sync::Arc, task::Waker};
use tokio::time::Instant;

/// A task.
pub type Job = Pin<Box<dyn Future<Output = ()> + Send>>;
/// Something that blocks.
pub type Work = Box<dyn FnOnce() + Send>;

/// A task of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

/// A timer of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerId(pub u64);

/// A simulated world, as the code that runs in it sees it.
pub trait World: Send + Sync {
    /// Runs `job` beside the one that calls, on the same simulated machine.
    fn spawn(&self, job: Job) -> TaskId;
    /// Drops a task; one that has ended is no error.
    fn abort(&self, task: TaskId);
    /// The simulated monotonic clock.
    fn now(&self) -> Instant;
    /// Wakes `waker` at `at`.
    fn wake_at(&self, at: Instant, waker: Waker) -> TimerId;
    /// Forgets a timer; one that has fired is no error.
    fn cancel(&self, timer: TimerId);
    /// Does `work`, and answers with what to wait for until the simulated disk is done with it; `None` if it is.
    fn blocking(&self, work: Work) -> Option<Job>;
    /// The simulated disk is done with all that it was asked for: who blocks in place has waited for it.
    fn settle(&self);
    /// 64 bits of the seed's.
    fn random(&self) -> u64;
}

thread_local! {
    static WORLD: RefCell<Option<Arc<dyn World>>> = const { RefCell::new(None) };
}

/// The thread is in a world until this is dropped.
#[must_use]
pub struct Entered {
    before: Option<Arc<dyn World>>,
    /// Belongs to its thread.
    _thread: PhantomData<*const ()>,
}

/// Puts this thread into `world`.
pub fn enter(world: Arc<dyn World>) -> Entered {
    let before = WORLD.with(|now| now.borrow_mut().replace(world));
    Entered { before, _thread: PhantomData }
}

/// The world in which this thread is; `None` in every shipped program.
pub fn entered() -> Option<Arc<dyn World>> {
    WORLD.with(|now| now.borrow().clone())
}

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.before.take();
        WORLD.with(|now| *now.borrow_mut() = before);
    }
}
