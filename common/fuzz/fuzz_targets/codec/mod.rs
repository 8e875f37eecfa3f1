//! The page codec's modules as they stand, but for the proof, as the root of a fuzz target: they call each other by paths
//! from the root of their crate.

/// Takes them in; only for a target's root, from whose folder the paths are.
macro_rules! modules {
    () => {
        #[path = "../../../agent/codec/src/batch.rs"]
        mod batch;
        #[path = "../../../agent/codec/src/cache/mod.rs"]
        mod cache;
        #[path = "../../../agent/codec/src/choice.rs"]
        mod choice;
        #[path = "../../../agent/codec/src/decode/mod.rs"]
        mod decode;
        #[path = "../../../agent/codec/src/effort.rs"]
        mod effort;
        #[path = "../../../agent/codec/src/encode.rs"]
        mod encode;
        #[path = "../../../agent/codec/src/framer.rs"]
        mod framer;
        #[path = "../../../agent/codec/src/pack.rs"]
        mod pack;
        #[path = "../../../agent/codec/src/parcel.rs"]
        mod parcel;
        #[path = "../../../agent/codec/src/parse/mod.rs"]
        mod parse;
        #[path = "codec/proof.rs"]
        mod proof;
        #[path = "../../../agent/codec/src/rebuild.rs"]
        mod rebuild;
        #[path = "../../../agent/codec/src/stats.rs"]
        mod stats;
        #[path = "../../../agent/codec/src/stock.rs"]
        mod stock;
        #[path = "../../../agent/codec/src/wire/mod.rs"]
        mod wire;

        /// As in the codec's own lib.rs.
        const PAGE: usize = 4096;
        type Page = [u8; PAGE];
        const CACHE_DEFAULT: usize = 1 << 20;

        fn slots_in(bytes: usize) -> u32 {
            u32::try_from(bytes / cache::SLOT_COST).unwrap_or(u32::MAX)
        }
    };
}
pub(crate) use modules;
