//! The machines of this host. One task owns one machine; everybody else holds a [`Machines`] handle.
//!
//! * `admission` and `decide` are pure: what is taken, and what is done next;
//! * `farewell` is what is said of a machine that was stopped;
//! * `record` is what the ledger keeps of a machine;
//! * `task` drives one machine towards what is wanted of it;
//! * `damaged` stands in for the task of a machine whose record cannot be read;
//! * `board` is what is seen of all of them;
//! * `console_log` keeps what their guests print from filling the disk.

mod admission;
mod board;
mod console_log;
mod damaged;
mod decide;
mod farewell;
mod files;
mod machines;
mod record;
mod task;
#[cfg(test)]
mod tests;

pub use board::Board;
pub use console_log::keep_bounded;
pub use damaged::{ForgetError, SHELF, forget};
pub use files::{Files, FilesError};
pub use machines::{Hypervisors, Machines, MachinesError, MachinesParts};
pub use record::{Entry, VmRecord, archives};
