//! openraft's runtime is `novacron_runtime`: tokio in the shipped program, the simulated world in a simulation.

use novacron_runtime::{
    World, entered,
    task::{JoinError, JoinHandle},
    time::{self, Elapsed, Instant, Sleep, Timeout},
};
use openraft::{AsyncRuntime, OptionalSend, TokioRuntime};
use rand::RngCore;
use std::{future::Future, sync::Arc, time::Duration};

/// See [`AsyncRuntime`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Runtime;

/// Chance, for election time-outs: the thread's generator, or the seed of the simulated world.
pub struct Chance(Source);

enum Source {
    Thread(<TokioRuntime as AsyncRuntime>::ThreadLocalRng),
    World(Arc<dyn World>),
}

impl RngCore for Chance {
    fn next_u32(&mut self) -> u32 {
        match &mut self.0 {
            Source::Thread(rng) => rng.next_u32(),
            // The upper half.
            Source::World(world) => (world.random() >> 32) as u32,
        }
    }

    fn next_u64(&mut self) -> u64 {
        match &mut self.0 {
            Source::Thread(rng) => rng.next_u64(),
            Source::World(world) => world.random(),
        }
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        match &mut self.0 {
            Source::Thread(rng) => rng.fill_bytes(bytes),
            Source::World(world) => bytes
                .chunks_mut(8)
                .for_each(|chunk| chunk.copy_from_slice(&world.random().to_le_bytes()[..chunk.len()])),
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = JoinError;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = Instant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = Chance;
    type OneshotSender<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotSender<T>;
    type OneshotReceiverError = <TokioRuntime as AsyncRuntime>::OneshotReceiverError;
    type OneshotReceiver<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotReceiver<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        novacron_runtime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        time::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        time::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        time::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        time::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        join_error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Chance(match entered() {
            None => Source::Thread(TokioRuntime::thread_rng()),
            Some(world) => Source::World(world),
        })
    }

    fn oneshot<T: OptionalSend>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>) {
        TokioRuntime::oneshot()
    }
}
