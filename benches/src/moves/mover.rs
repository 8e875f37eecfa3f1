//! Who moves a guest.

/// The agents, or QEMU in one of its own modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mover {
    /// QEMU over TCP.
    Plain,
    /// QEMU over TCP with TLS.
    Tls,
    /// QEMU over four TCP connections.
    Multifd,
    /// The same, compressed with zstd.
    MultifdZstd,
    /// QEMU over TCP, slowing the guest down until it converges.
    AutoConverge,
    /// QEMU over TCP, sending deltas of pages in its cache.
    Xbzrle,
    /// QEMU over TCP: one pass, then the guest goes on at the target and fetches what is missing.
    PostCopy,
    /// The agents over QUIC.
    Ours,
}

impl Mover {
    /// As the rows name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "QEMU plain",
            Self::Tls => "QEMU TLS",
            Self::Multifd => "QEMU multifd-4",
            Self::MultifdZstd => "QEMU multifd-4 zstd",
            Self::AutoConverge => "QEMU auto-converge",
            Self::Xbzrle => "QEMU XBZRLE",
            Self::PostCopy => "QEMU post-copy",
            Self::Ours => "ours",
        }
    }

    /// What `virsh migrate` is told beyond the plain way (virsh(1)).
    pub fn words(self) -> &'static [&'static str] {
        const CACHE_OF_THE_WHOLE_SET: &str = "268435456";
        match self {
            Self::Plain | Self::Ours => &[],
            Self::Tls => &["--tls"],
            Self::Multifd => &["--parallel", "--parallel-connections", "4"],
            Self::MultifdZstd => {
                &["--parallel", "--parallel-connections", "4", "--compressed", "--comp-methods", "zstd"]
            }
            Self::AutoConverge => &["--auto-converge"],
            Self::Xbzrle => {
                &["--compressed", "--comp-methods", "xbzrle", "--comp-xbzrle-cache", CACHE_OF_THE_WHOLE_SET]
            }
            Self::PostCopy => &["--postcopy", "--postcopy-after-precopy"],
        }
    }
}
