//! NovaCron's agent: runs the machines of one host, and moves them.

pub mod attempt;
pub mod bridge;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod enroll;
pub mod facts;
pub mod gossip;
pub mod handover;
pub mod hypervisor;
pub mod image;
pub mod ledger;
pub mod memory;
pub mod metrics;
pub mod migrate;
#[cfg(test)]
mod need;
pub mod peers;
mod pidfd;
pub mod room;
pub mod run;
pub mod text;
pub mod vm;
