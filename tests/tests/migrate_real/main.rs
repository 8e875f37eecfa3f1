//! Real QEMU under real libvirt, moved by the real programs: ticks, memory, disk and a TCP connection through every move,
//! and nothing left behind.

mod channels;
mod disks;
mod forecast;
mod gangs;
mod limits;
mod live;
mod many;
mod postcopy;
mod renewal;
mod returns;
mod stopped;
