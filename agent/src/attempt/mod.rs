//! Tries at fires: started once, watched to their end, reported until somebody has written the report down.
//!
//! An attempt is a folder under `attempts/` with a supervisor (`hypervisor::namespace`). The folder is the truth;
//! this module's memory is a view of it that is built anew at each start of the agent ([`AttemptRunner::open`]).
//!
//! ```text
//! start ─▶ admission (epoch) ─▶ epoch on disk ─▶ request on disk ─▶ supervisor ─▶ outcome on disk ─▶ report
//!                                                                                 acknowledge ─▶ folder removed
//! ```

pub mod admission;
mod adopt;
pub mod call;
mod error;
pub mod fence;
pub mod lease;
mod plan;
mod record;
mod runner;
mod settings;
mod shared;
mod start;
pub mod supervisor;
pub mod table;

pub use error::{AttemptError, OpenError};
pub use lease::Next;
pub use runner::{Admitted, AttemptRunner};
pub use settings::Settings;
