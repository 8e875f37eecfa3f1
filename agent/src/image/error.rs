//! Why an image could not be had.

use super::{qcow2::Qcow2Fault, url::UrlFault};
use novacron_common::{spec::Sha256Digest, units::ByteCount};
use std::{io, path::PathBuf, sync::Arc, time::Duration};

/// Why an image could not be had, or is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The content is not what the template says.
    #[error("the content is sha256 {found}, the template says {wanted}")]
    Checksum {
        /// In the template.
        wanted: Sha256Digest,
        /// Of what came.
        found: Sha256Digest,
    },
    /// It is larger than `images.size_max` allows.
    #[error("it is larger than the {max} allowed by images.size_max")]
    TooLarge {
        /// Allowed.
        max: ByteCount,
    },
    /// It took longer than `images.timeout_seconds` allows.
    #[error("it took longer than the {} s allowed by images.timeout_seconds", .0.as_secs())]
    TooSlow(Duration),
    /// The file system is too full for it.
    #[error("it needs {needed}, {free} are free")]
    NoRoom {
        /// Its length.
        needed: ByteCount,
        /// For us.
        free: ByteCount,
    },
    /// The address is not one that this host fetches from.
    #[error("{url} is refused")]
    Url {
        /// As given, or as redirected to.
        url: String,
        /// Why.
        #[source]
        cause: UrlFault,
    },
    /// The server's answer is no image.
    #[error("{url} answered {status}")]
    Status {
        /// The last one, after redirects.
        url: String,
        /// HTTP status code.
        status: u16,
    },
    /// The transfer failed.
    #[error("could not fetch {url}")]
    Http {
        /// The last one, after redirects.
        url: String,
        /// The client's error.
        #[source]
        cause: reqwest::Error,
    },
    /// The path does not lie under a configured folder.
    #[error("{} does not lie under a folder that images.folders of this host's agent.toml lists", path.display())]
    NotListed {
        /// As given.
        path: PathBuf,
    },
    /// The path is no regular file, or leads out of its folder.
    #[error("{} cannot be opened beneath its folder", path.display())]
    Path {
        /// As given.
        path: PathBuf,
        /// The kernel's word; `EXDEV` and `ELOOP` are attempts to leave.
        #[source]
        cause: io::Error,
    },
    /// A qcow2 image that must not be used.
    #[error("the qcow2 image is refused")]
    Qcow2(#[source] Qcow2Fault),
    /// Reading or writing failed.
    #[error("could not {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The kernel's error.
        #[source]
        cause: io::Error,
    },
    /// The fetch that this caller waited for, asked for by another, failed.
    #[error("the fetch under way failed")]
    Shared(#[source] Arc<ImageError>),
}

impl ImageError {
    /// For `map_err`.
    pub(super) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Io { doing, cause }
    }
}
