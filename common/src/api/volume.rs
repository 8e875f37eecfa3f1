//! The volumes of a host over HTTP.

use crate::units::ByteCount;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A volume, as its host sees it when it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeView {
    /// Its name, which is one of its host's.
    pub name: String,
    /// The host's name.
    pub host: String,
    /// What fits in it, bytes.
    pub size: ByteCount,
    /// What it takes on the host's disk, bytes.
    pub used: ByteCount,
    /// The names of the machines that have it, running or not.
    pub machines: Vec<String>,
}
