//! The volumes of a host.

use crate::{spec::Name, units::ByteCount};
use serde::{Deserialize, Serialize};

/// One volume, as its host sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSeen {
    /// Its name, which is one of its host's.
    pub name: Name,
    /// What fits in it.
    pub size: ByteCount,
    /// What it takes on the host's disk.
    pub used: ByteCount,
}
