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
//! moves. At each start, stop and loss: one copy runs, where the ledger says, with its newest memory and disk. In the end: every
//! move has ended, every machine is as it is wanted, nothing is lent, open in a journal or left over. Not modelled, and refused:
//! post-copy; not modelled: gangs, checkpoints, and commands inside machines.
//!
//! When this was landed, on 2026-11-22, 2 of the first 40 seeds were red, and 6 of 80. 1, 48 and 52 said: a machine is wanted
//! running, is stopped, and in the hands of no move; 70 the same of one that is missing; 38 a departure that its host's journal
//! holds as gone, which nobody releases; 46 "an old disk". Why is not yet understood: it may be the model or the product. Until it
//! is, the seeds run in `make soak` only; by hand: `NOVACRON_SEEDS=40 cargo nextest run -p novacron-sim --profile soak
//! every_seed_of_moves`. Which seeds are red changes with anything that changes the order of events. On another base, with changes
//! to the ledger that are not finished, 8 of 40 were: 7, 18, 25, 26, 28, 39 and 40 with "a machine that is wanted does not run", 37
//! with "the only copy of the memory is thrown away". In 7, 17, 25, 26 and 40 that was here the model's: the last request to start
//! a machine was answered with `Unknown`, and not repeated; now it is.

pub mod checks;
pub mod copy;
pub mod libvirt;
pub mod metal;
pub mod road;
mod run;
pub mod storm;
pub mod truth;
pub mod users;
pub mod yard;

pub use run::{Verdict, run};
