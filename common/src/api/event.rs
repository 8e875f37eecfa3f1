//! The event stream (`/api/v1/ws`, also `/ws/status`): one JSON text message an event.

use crate::units::UnixMillis;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A machine changed; `object` is a `VmView`.
    Vm,
    /// A host changed; `object` is a `HostView`.
    Host,
    /// A template changed; `object` is a `TemplateView`.
    Template,
    /// A job changed; `object` is a `JobView`.
    Job,
    /// A fire changed; `object` is a `FireView`.
    Fire,
    /// A migration changed; `object` is a `MigrationView`.
    Migration,
    /// A coordinator's clock is off (or right again: `null`); `object` is an `AlarmView`.
    Alarm,
    /// A job's fires or ticks have not succeeded within its `expected_by` (or one has since: `null`); `id` is the job's,
    /// `object` is an `OverdueView`.
    Overdue,
    /// Events before this one are not kept any more: read the lists anew. `object` says why.
    Gap,
    /// A workflow changed; `object` is a `WorkflowView` without its nodes.
    Workflow,
    /// A run of a workflow changed; `object` is a `RunView`.
    Run,
    /// A node of a run changed; `object` is a `NodeRunView` without its output, `id` is `run-…/node`.
    Node,
    /// A tenant network was made or removed; `object` is a `NetworkView`.
    Network,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// The log index of the command that changed it: grows, the same on every coordinator.
    pub index: u64,
    /// When it was committed.
    pub at: UnixMillis,
    /// The event's place: `?resume=` with it, at any coordinator, goes on behind it.
    pub token: String,
    /// What kind of thing.
    pub kind: EventKind,
    /// Its id.
    pub id: String,
    /// The thing after the change; `null` if it is gone.
    #[schema(value_type = Option<Object>)]
    pub object: Option<serde_json::Value>,
}
