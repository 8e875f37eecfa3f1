//! Root file systems of namespace machines, made from archives that users name.
//!
//! ```text
//! archive (checked as a whole by the image store)
//!    │ archive: where its members lie          manifest: what it says of itself
//!    ▼
//! layer ── gunzip, unzstd ── stream: tar members ── member: judged ── apply: limits ── tree: on disk
//! ```
//!
//! [`layers`] keeps the result: each layer once, by the SHA-256 of its uncompressed stream, shared by all machines
//! whose images have it, and never written to again.

mod apply;
mod archive;
#[cfg(test)]
mod fixture;
pub mod layers;
pub mod manifest;
mod member;
mod stream;
mod tree;

pub use layers::LayerStore;

use apply::LayerFault;
use manifest::ManifestFault;
use novacron_common::spec::Sha256Digest;
use std::{io, path::PathBuf};
use stream::StreamFault;

/// Why an archive gave no root file system.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// The archive itself. A compressed one is none to begin with.
    #[error("the archive is refused (an OCI or docker archive must not be compressed as a whole)")]
    Archive(#[source] StreamFault),
    /// More than any image has.
    #[error("the archive has more than {0} members: is it a root file system? Then its format is rootfs")]
    Members(usize),
    /// It names something that it does not have.
    #[error(
        "the archive has no {0}: it is neither an OCI image layout nor a docker archive, or a damaged one"
    )]
    Missing(String),
    /// Longer than any such document.
    #[error("{0} of the archive is too long")]
    Document(String),
    /// They lead to one another.
    #[error("more than {0} indexes lead to one another")]
    Indexes(usize),
    /// What it says about itself.
    #[error(transparent)]
    Manifest(#[from] ManifestFault),
    /// Something else than what it goes by.
    #[error("the content is sha256 {found}, the image says {wanted}")]
    Checksum {
        /// In manifest or configuration.
        wanted: Sha256Digest,
        /// Of what was there.
        found: Sha256Digest,
    },
    /// A layer.
    #[error("layer {number} is refused")]
    Layer {
        /// The lowest is 1.
        number: usize,
        /// Why.
        #[source]
        cause: LayerFault,
    },
    /// The record of an image is damaged.
    #[error("{} is damaged: remove it, and the image is unpacked again", path.display())]
    Record {
        /// Which.
        path: PathBuf,
        /// Where it ends to be one.
        #[source]
        cause: serde_json::Error,
    },
    /// Reading or writing failed.
    #[error("could not {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The kernel's error.
        #[source]
        cause: io::Error,
    },
}

impl RootfsError {
    /// The thread that unpacked it did not come to an end of its own.
    pub fn ended(cause: tokio::task::JoinError) -> Self {
        Self::Io { doing: "unpack the image", cause: io::Error::other(cause) }
    }

    /// For `map_err`.
    fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Io { doing, cause }
    }
}
