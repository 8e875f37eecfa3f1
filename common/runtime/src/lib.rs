//! Where tasks run and timers fire: on tokio in every shipped program, and inside a simulation in the simulated
//! [`World`], so that what is simulated is the shipped code and not a model of it.
//!
//! tokio finds its runtime through a thread-local variable; so does this crate, with one that only a simulation
//! sets ([`enter`]). The names are tokio's, so that a use reads the same: [`spawn`], [`time::sleep`],
//! [`task::JoinSet`]. tokio's channels, `Notify`, `Mutex` and `select!` need no runtime and are used as they are; a
//! `select!` whose branches can be ready together is `biased`, because tokio's fair choice cannot be seeded.
//!
//! Code that forgets this crate and calls `tokio::spawn` or `tokio::time` does not go unnoticed: inside a
//! simulation tokio panics, as there is no runtime of its.

pub mod task;
pub mod time;
mod world;

pub use task::{block_in_place, spawn, spawn_blocking};
pub use world::{Entered, Job, TaskId, TimerId, Work, World, enter, entered};

#[cfg(test)]
mod tests;
