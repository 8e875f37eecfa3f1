//! What can go wrong with the store.

/// The store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// sled refused or found damage.
    #[error("could not {doing}")]
    Engine {
        /// What was being done.
        doing: String,
        /// sled's reason.
        #[source]
        cause: sled::Error,
    },
    /// The file system refused.
    #[error("could not {doing}")]
    File {
        /// What was being done.
        doing: String,
        /// The system's reason.
        #[source]
        cause: std::io::Error,
    },
    /// A value is not what was written.
    #[error(
        "the value of key {key} in tree {tree} is damaged (checksum): restore the store from a backup or rejoin"
    )]
    Damaged {
        /// Which tree.
        tree: String,
        /// Which key, in hex.
        key: String,
    },
    /// The caller must cut the value into several.
    #[error("a value of {length} bytes in tree {tree} is longer than the {max} allowed", max = crate::VALUE_MAX)]
    TooLong {
        /// Which tree.
        tree: String,
        /// How long.
        length: usize,
    },
}
