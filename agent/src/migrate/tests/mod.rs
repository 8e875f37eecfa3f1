//! Two agents with real QUIC, real sockets, the real filter and both state machines; only the hypervisor is played
//! (`libvirt`). Whatever goes wrong, a machine runs in one place at most, and a migration ends there or back.

mod cancels;
mod channels;
mod codec;
mod compare;
mod cuts;
mod lanes;
mod libvirt;
mod limits;
mod moves;
mod offers;
mod played_memory;
mod process;
mod restarts;
mod returns;
mod split;
mod wire;
pub(super) mod world;
