//! Moving machines to and from this host.
//!
//! libvirt carries the VM, the agents carry the bytes. libvirt migrates peer to peer over UNIX sockets that lead no
//! further than the agents; what comes in there crosses to the other agent as lanes of one QUIC link.
//!
//! * [`Migrations`] owns all of it: one task a migration ([`source`], [`target`]), written down in a [`journal`];
//! * [`lane`] leads bytes from socket to socket, [`link`] carries them and outlives cuts, [`filter`] judges what reaches the target's libvirtd;
//! * [`checkpoint`] keeps what a machine that leaves had in memory, so that less crosses when it returns;
//! * [`channels`] says over how many connections memory crosses;
//! * [`outcome`], [`progress`] and `climb` are pure: how it ended, how far it is, how hard it is pushed;
//! * [`preview`] measures before a move, for its forecast, and says what speaks against it;
//! * [`ports`] is what all this needs of the rest of the agent, and `adapters` ties it to the real thing; [`road`] is the way
//!   to other hosts, as a migration sees it.
//!
//! A link that is cut is no failure: lanes go on from the last byte that arrived once the source has dialled again. If it
//! stays away longer than `migration.link_grace_seconds`, the migration ends fully back.
//!
//! A migration ends fully there or fully back. The source says *gone* only when it has seen that its machine is gone;
//! the target holds what arrived until the hand-over is committed. No time-out on either side lets a guest run.

mod adapters;
pub mod channels;
pub mod checkpoint;
mod climb;
mod compare;
pub mod filter;
pub mod journal;
pub mod lane;
pub mod legacy;
pub mod link;
mod migrations;
pub mod outcome;
mod parts;
pub mod ports;
pub mod preview;
pub mod progress;
pub mod road;
mod source;
mod target;
#[cfg(test)]
mod tests;

pub use lane::{
    road::QuicRoads,
    sockets::{SocketError, SocketRoom},
};
pub use link::pace::{Budget, Pacer};
pub use migrations::Migrations;
pub use parts::MigrationsParts;
pub use preview::{Preview, PreviewParts, probe::Prober};
pub use road::Directory;
pub use source::QemuProcesses;
