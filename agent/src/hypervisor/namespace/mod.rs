//! Machines made of Linux namespaces, and the isolation of a job's command.
//!
//! Every isolated command has its own **supervisor**: a small process of one thread (`novacron-agent supervise
//! FOLDER`) that neither shares the agent's runtime nor its fate. What agent and supervisor say to each other goes
//! through files in a [`folder`], so that either may be killed at any point:
//!
//! ```text
//! agent ── request, kill, SIGTERM ──▶ supervisor ── clone3 ──▶ init (pid 1) ── fork ──▶ the command
//!       ◀─ pid, started, outcome ────    │ root file system      │ identity, mounts, capabilities,
//!          (and the lock that it holds)  │ cgroup, time, output  │ seccomp; reaps
//! ```
//!
//! * [`supervise`] is the supervisor's whole life, [`enter`] the order in which the new process gives up rights;
//! * [`root`], [`cgroup`], [`ids`], [`identity`], [`seccomp`], [`privileges`], [`output`], [`net`] are one measure each;
//! * [`exec`] brings one more command into a tree that runs;
//! * [`home`] and [`process`] are the agent's side of it; [`Namespace`] is the hypervisor made from these.

pub mod cgroup;
pub mod checkpoint;
mod command;
mod disk;
mod enter;
pub mod exec;
pub mod folder;
pub mod follow;
pub mod home;
mod identity;
mod ids;
mod init;
pub mod lease;
mod limit;
mod machine;
pub mod net;
pub mod observe;
mod outcome;
pub mod output;
mod privileges;
pub mod process;
pub mod request;
pub mod result;
mod root;
mod seccomp;
mod sparse;
mod spawn;
pub mod spool;
pub mod step;
pub mod supervise;

pub use machine::{Namespace, Shelf, Volumes};
