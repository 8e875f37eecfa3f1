//! Real QEMU, and somebody pulls a plug: whatever dies and whenever, afterwards exactly one copy of the machine runs, its
//! ticks are continuous, and no domain, disk, socket or reservation is left over.

mod after;
mod control_relay;
mod cut;
mod killed;
mod link;
mod matrix;
mod restarted;
mod split;
mod survived;
