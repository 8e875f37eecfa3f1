//! The alarm of a job, as the event stream tells it.

use crate::{ids::JobId, units::UnixMillis};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A job of which fires or ticks have not succeeded within its `expected_by`. The alarm is over with the first success
/// at or after `since`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OverdueView {
    /// The job.
    pub job: JobId,
    /// Its name.
    pub name: String,
    /// The instant that the alarm was raised for.
    pub since: UnixMillis,
    /// The latest instant that it was raised for.
    pub latest: UnixMillis,
    /// Fires and ticks that it was raised for.
    pub count: u64,
}
