//! Templates: named, checksummed image definitions from which VMs are made.

use super::{HealthSpec, Name, Program, Signal};
use crate::units::ByteCount;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};

/// A SHA-256 digest (FIPS 180-4), written as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Digest(pub [u8; 32]);

/// A text that is not a SHA-256 digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not a SHA-256 digest: give 64 hex digits, as `sha256sum` prints them")]
pub struct BadDigest;

impl FromStr for Sha256Digest {
    type Err = BadDigest;
    fn from_str(text: &str) -> Result<Self, BadDigest> {
        if text.len() != 64 || !text.is_ascii() {
            return Err(BadDigest);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(pair).map_err(|_| BadDigest)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| BadDigest)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Sha256Digest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(self) } else { self.0.serialize(to) }
    }
}

impl<'de> Deserialize<'de> for Sha256Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(from).map(Self)
        }
    }
}

impl utoipa::PartialSchema for Sha256Digest {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        <String as utoipa::PartialSchema>::schema()
    }
}
impl utoipa::ToSchema for Sha256Digest {}

/// The format of an image file. Always stated, never probed: a guest that writes a qcow2 header into its raw
/// disk must not get to name files of the host (CVE-2008-2004).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImageFormat {
    /// Plain bytes: raw disks, kernels, initramfs archives.
    Raw,
    /// QEMU copy-on-write 2, without backing or data file.
    Qcow2,
    /// An archive of an OCI image layout, or one that `docker save` wrote: the layers of a namespace machine's root.
    Oci,
    /// A tar archive of a whole root file system, plain or compressed (gzip, zstd), for namespace machines.
    Rootfs,
}

impl ImageFormat {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Qcow2, Self::Raw, Self::Oci, Self::Rootfs];

    /// As it is written everywhere: in the API, to QEMU, as a file's extension.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Oci => "oci",
            Self::Rootfs => "rootfs",
        }
    }

    /// Whether it is an archive that is unpacked, in place of a disk that is read block by block.
    pub const fn is_archive(self) -> bool {
        matches!(self, Self::Oci | Self::Rootfs)
    }
}

/// Where an agent that has no copy gets an image from. Other agents are always asked first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageSource {
    /// An `http` or `https` address.
    Url(String),
    /// An absolute path on the agent's host, under a folder that its agent.toml lists.
    Path(String),
}

/// One file of a template, identified by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRef {
    /// The content.
    pub sha256: Sha256Digest,
    /// Where it comes from.
    pub source: ImageSource,
    /// How it is read.
    pub format: ImageFormat,
}

/// How a VM of a template boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootSource {
    /// By firmware, from its disk.
    Disk,
    /// Directly into a kernel ("direct kernel boot" in libvirt's domain XML).
    Kernel {
        /// The kernel image.
        kernel: ImageRef,
        /// The initial RAM file system.
        initramfs: Option<ImageRef>,
        /// The kernel's command line.
        cmdline: String,
    },
}

/// A named image definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateSpec {
    /// Unique in the cluster.
    pub name: Name,
    /// How its VMs boot.
    pub boot: BootSource,
    /// The image under each VM's overlay; without one a VM gets a blank disk (or none, if it asks for no storage).
    pub disk: Option<ImageRef>,
}

impl TemplateSpec {
    /// The archive of a root file system that its machines are made over, if it is for namespace machines.
    pub fn archive(&self) -> Option<&ImageRef> {
        self.disk.as_ref().filter(|image| image.format.is_archive())
    }

    /// Every file that a host needs before it can start a VM of this template.
    pub fn images(&self) -> impl Iterator<Item = &ImageRef> {
        let (kernel, initramfs) = match &self.boot {
            BootSource::Disk => (None, None),
            BootSource::Kernel { kernel, initramfs, .. } => (Some(kernel), initramfs.as_ref()),
        };
        kernel.into_iter().chain(initramfs).chain(&self.disk)
    }

    /// The longest kernel command line that x86 Linux takes (`COMMAND_LINE_SIZE`).
    pub const CMDLINE_MAX: ByteCount = ByteCount(2048);
}

/// What an image says of how it is run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRun {
    /// What it wants to be run; without arguments if it says nothing.
    pub program: Program,
    /// Whom it wants that to run as, `user[:group]`; if it says nothing, root.
    pub user: Option<String>,
    /// What it wants that to be sent, to end on; if it says nothing, TERM.
    #[serde(default)]
    pub stop_signal: Option<Signal>,
    /// How it wants to be asked whether it is well.
    #[serde(default)]
    pub health: HealthSpec,
}
