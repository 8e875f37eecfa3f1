//! Machines that move between two hosts: the shipped core, ledger, reconcilers and sessions on three coordinators; on each host
//! the agent's shipped owner of machines, registry of moves, source, target and journal, over a modelled libvirt, QEMU and link.
//!
//! * [`metal`] is a host's libvirtd with its guests, [`copy`] a copy that it carries out, [`libvirt`] the agent's ports over it;
//! * [`road`] is the way between two agents;
//! * [`truth`] knows where each guest really runs, and judges every start, stop and loss on the spot;
//! * [`yard`] is what an agent's life has of machines;
//! * [`users`] act, [`storm`] is what goes wrong, by chance and at every edge of a move;
//! * [`checks`] is what must be true in the end; [`run()`] puts them together.
//!
//! People move machines, cancel, stop, start, restart and delete them; messages are lost, late, doubled or repeated long
//! afterwards; coordinators, agents, libvirtds, guests and hosts are killed by chance, and agents and libvirtds at the edges of
//! moves. At each start, stop and loss: one copy runs, where the ledger says, with its newest memory and disk. In the end:
//! every move has ended, every machine is as it is wanted, nothing is lent, open in a journal or left over; and who calls a
//! move off on a calm day is answered, and then it ends within five seconds. Of a guest that goes over before its
//! memory has (post-copy): neither half of it is ended while the other is there, and no two halves stay apart. There a QEMU
//! that waits for a page heeds nobody new for a while, not for ever, and a libvirtd that is killed costs the target nothing.
//! Not modelled: gangs, checkpoints, and commands inside machines.
//!
//! Which seeds show what changes with anything that changes the order of events. How a seed went, line by line:
//! `NOVACRON_SEED=46 NOVACRON_TELL=info,openraft=off cargo nextest run -p novacron-sim --no-capture every_seed_of_moves`.

pub mod checks;
pub mod copy;
mod gate;
pub mod libvirt;
pub mod metal;
pub mod road;
mod run;
pub mod storm;
pub mod truth;
pub mod users;
pub mod yard;

#[cfg(feature = "planted")]
pub use run::run_with;
pub use run::{Verdict, run};
