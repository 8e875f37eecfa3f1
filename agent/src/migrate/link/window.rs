//! How many bytes each lane may have under way at most: sent and not yet passed on at the other end. What it has use for
//! is [`super::flow`]'s.
//!
//! A receiver takes every frame off the connection at once and holds it until its reader wants it, so the connection's
//! own windows never fill up because one reader is slow. For that the lanes' windows together must stay below the
//! connection's, and each below a stream's: asserted here, when the program is built. So a lane that is blocked cannot
//! keep another (libvirt's control lane, or the post-copy channel, which is a memory lane) from flowing: each has
//! credit of its own. The windows bound the memory of a migration, too: every lane's window once for what was sent and
//! once for what arrives, whatever the machine's size.

use novacron_common::wire::{LaneId, LaneKind};
use novacron_transport::{LINK_WINDOW, STREAM_WINDOW};

/// What a frame costs beside its bytes: its header, and what keeping it takes. Both sides count it, so that many small
/// frames are not many times their bytes.
pub const FRAME_COST: usize = 128;

/// A receiver says at least so often what it has passed on, bytes: well below the least that a sender keeps under way
/// ([`super::flow`]).
pub const ACK_EVERY: usize = 64 << 10;

/// A plain main channel and a single disk carry nearly everything: 1 Gbit/s at 64 ms.
const WIDE: usize = 8 << 20;
/// Further memory channels (multifd, post-copy) share the load.
const MEMORY: usize = 1 << 20;
/// libvirt's calls are a few kilobytes.
const CONTROL: usize = 1 << 20;
/// Disk connections beside the first.
const DISK: usize = 512 << 10;

/// Memory lanes: the main channel, and up to four of multifd's or the one of post-copy.
pub const MEMORY_MAX: u8 = 5;
/// Disk connections, those that are made again after a break included.
pub const DISK_MAX: u8 = 16;
/// libvirtd connects once.
pub const CONTROL_MAX: u8 = 1;
/// The target says once what it holds.
pub const HELD_MAX: u8 = 1;
/// 16 bytes for each page of 4096: half a mebibyte is what 128 MiB of the guest take.
const HELD: usize = 512 << 10;

/// All lanes of a migration together.
pub const SUM: usize =
    CONTROL + HELD + 2 * WIDE + (MEMORY_MAX as usize - 1) * MEMORY + (DISK_MAX as usize - 1) * DISK;
/// Those that nearly every migration has: libvirt's, QEMU's main channel, one disk, and what is held.
pub const USUAL: usize = CONTROL + HELD + 2 * WIDE;

const _: () = assert!(WIDE <= STREAM_WINDOW as usize, "a lane must fit a stream's window");
const _: () = assert!(SUM <= LINK_WINDOW as usize, "all lanes must fit the connection's window");

/// The window of a lane; `None` if a migration has no such lane.
pub fn of(lane: LaneId) -> Option<usize> {
    match (lane.kind, lane.number) {
        (LaneKind::Control, ..CONTROL_MAX) => Some(CONTROL),
        (LaneKind::Memory | LaneKind::Disk, 0) => Some(WIDE),
        (LaneKind::Memory, ..MEMORY_MAX) => Some(MEMORY),
        (LaneKind::Disk, ..DISK_MAX) => Some(DISK),
        (LaneKind::Held, ..HELD_MAX) => Some(HELD),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_that_there_may_be_has_a_window_and_together_they_are_the_sum() {
        let kinds = [LaneKind::Control, LaneKind::Memory, LaneKind::Disk, LaneKind::Held];
        let all = kinds.into_iter().flat_map(|kind| (0..=u8::MAX).map(move |number| LaneId { kind, number }));
        let windows: Vec<_> = all.filter_map(of).collect();
        assert_eq!(windows.len(), usize::from(CONTROL_MAX + MEMORY_MAX + DISK_MAX + HELD_MAX));
        assert_eq!(windows.iter().sum::<usize>(), SUM);
    }
}
