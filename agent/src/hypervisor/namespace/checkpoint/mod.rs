//! Saving the processes of a machine, and having them run again (CRIU).
//!
//! * [`scan`] names what the processes hold that cannot be saved; [`mounts`] which mounts CRIU is given;
//! * [`criu`] is the program, [`hook`] what it has done at its steps, [`users`] the one image that is written anew;
//! * [`reaper`] is the first process of a machine that can be saved;
//! * [`record`] is what is written down. The supervisor saves and restores (`supervise/save.rs`, `supervise/restore.rs`): CRIU and
//!   the machine depend on no life of the agent's.

pub mod criu;
pub mod hook;
pub mod mounts;
pub mod reaper;
pub mod record;
pub mod scan;
pub mod users;
