//! Eyes on every step that a process takes when walls are built and taken down, for tests that have a process die behind each of
//! them. Who names a step, by [`Doing`](super::step::Doing) or as a record of a [`Folder`](super::folder::Folder), has it seen.
//!
//! In debug builds only: what is shipped has no such eyes, and a step costs nothing there.

#[cfg(debug_assertions)]
mod on {
    use std::sync::OnceLock;

    static OBSERVER: OnceLock<fn(&str)> = OnceLock::new();

    /// From now on `observer` is told of each step that this process, and what is forked from it, has taken.
    pub fn every_step(observer: fn(&str)) {
        let _the_first_stays = OBSERVER.set(observer);
    }

    /// A step with this name is done.
    pub fn taken(step: &str) {
        if let Some(observer) = OBSERVER.get() {
            observer(step);
        }
    }
}

#[cfg(not(debug_assertions))]
mod off {
    /// Nobody looks.
    pub const fn every_step(_observer: fn(&str)) {}

    /// Nobody looks.
    pub const fn taken(_step: &str) {}
}

#[cfg(not(debug_assertions))]
pub use off::{every_step, taken};
#[cfg(debug_assertions)]
pub use on::{every_step, taken};
