//! NovaCron's coordinator: the shell around `novacron_core`.
//!
//! * [`raft`] replicates the core's commands and keeps its state on disk; [`raft::Ledger`] is all that the
//!   rest sees of it;
//! * [`identity`] is the cluster's certificate authority, its tokens and this process's own certificates;
//! * [`init`] and [`mod@join`] make this machine a coordinator; [`run`] starts the parts, hands each stream that arrives to its owner, and stops everything in order;
//! * [`service`] starts what stands on the ledger: sessions with [`agents`], [`reconcilers`], [`events`] and the
//!   [`http`] API;
//! * [`config`] and [`cli`] are what an administrator sees.

pub mod agents;
pub mod backup;
pub mod cli;
pub mod config;
pub mod events;
pub mod http;
pub mod identity;
pub mod init;
pub mod join;
pub mod metrics;
mod parts;
pub mod raft;
pub mod reconcilers;
pub mod run;
pub mod service;

pub use parts::{AgentStreams, Parts};
