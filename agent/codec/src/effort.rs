//! How hard zstd tries: harder where the link holds a lane up, and a processor has the time meanwhile.

use crate::choice::Measured;
use zstd::zstd_safe::CParameter;

/// How hard zstd tries. What it packs is unpacked in the same way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Effort {
    /// As fast as is worth its time (×2.22 at 373 MB/s on ELF files in batches of 270 KiB).
    #[default]
    Quick,
    /// A tenth less is left of them (×2.51 at 95 MB/s).
    Thorough,
}

/// How much longer zstd takes when it tries harder.
const DEARER: u32 = 4;
/// Of one processor, per cent: what packing may take when it does. The guest, and QEMU, run on the same ones.
const SHARE: u32 = 60;

impl Effort {
    /// What zstd is told. Tables as large as its level 7 takes by itself would be 6 MiB, and find a hundredth more.
    pub(crate) const fn parameters(self) -> [CParameter; 3] {
        const BY_LEVEL: u32 = 0;
        let (level, log) = match self {
            Self::Quick => (1, BY_LEVEL),
            Self::Thorough => (7, 16),
        };
        [CParameter::CompressionLevel(level), CParameter::HashLog(log), CParameter::ChainLog(log)]
    }

    /// What is best after bytes that took so long with this one.
    pub(crate) fn after(self, measured: &Measured) -> Self {
        let thorough = match self {
            Self::Quick => measured.packing * DEARER,
            Self::Thorough => measured.packing,
        };
        let has_time = thorough * 100 < measured.busy * SHARE;
        if measured.is_held_up() && has_time { Self::Thorough } else { Self::Quick }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A lane that is packed with `effort` and so is left with `blocked` of `busy`, all in milliseconds.
    fn after(effort: Effort, packing: u64, blocked: u64, busy: u64) -> Effort {
        let [packing, blocked, busy] = [packing, blocked, busy].map(Duration::from_millis);
        effort.after(&Measured { plain: 1, busy, blocked, packing })
    }

    #[test]
    fn zstd_tries_harder_where_the_link_is_slow_and_a_processor_idle() {
        assert_eq!(after(Effort::Quick, 16, 130, 140), Effort::Thorough);
        assert_eq!(after(Effort::Thorough, 64, 130, 140), Effort::Thorough);
    }

    #[test]
    fn it_does_not_where_that_would_hold_the_lane_up_or_does() {
        assert_eq!(
            after(Effort::Quick, 16, 30, 50),
            Effort::Quick,
            "it would take more than a processor has"
        );
        assert_eq!(after(Effort::Thorough, 64, 60, 100), Effort::Quick, "it takes more than it may");
        assert_eq!(after(Effort::Thorough, 10, 40, 100), Effort::Quick, "the link waits for the processors");
        assert_eq!(after(Effort::Quick, 10, 40, 100), Effort::Quick);
    }
}
