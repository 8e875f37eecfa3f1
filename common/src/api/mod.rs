//! The HTTP bodies of `/api/v1`: one source for the server, `novactl` and the OpenAPI document.
//!
//! Requests refuse unknown fields; answers may grow. Conversion into [`crate::spec`] is where a request is
//! checked, and each fault names the field as the user wrote it.

mod cluster;
mod event;
mod exec;
mod host;
mod job;
mod migrate;
mod migration;
mod network;
mod page;
mod plan;
mod problem;
mod schedule;
mod template;
mod vm;
mod vm_health;
mod vm_kind;
mod vm_stop;
mod vm_volumes;
mod volume;
mod workflow;

pub use cluster::{
    AlarmView, ClusterView, CoordinatorView, Health, HealthCheck, TokenCreate, TokenCreated, TokenRole,
    TokenView, TransferRequest, TransferView, WsTicket,
};
pub use event::{Event, EventKind};
pub use exec::{ExecControl, ExecEvent, ExecRequest, FileCopy, STDERR, STDOUT, WindowSize};
pub use host::{HostState, HostView, JoinTokenCreate, JoinTokenCreated, JoinTokenRole};
pub use job::{
    AttemptView, BackoffBody, CommandTargetBody, ConcurrencyBody, ExecuteAccepted, FireState, FireView,
    HttpBody, JobCreate, JobStatus, JobTargetBody, JobUpdate, JobView, LedgerEntry, LedgerTotals, LedgerView,
    MisfireBody, MisfirePolicyBody, OverdueView, Period, RetentionBody, RetryBody, RetryOnBody, StatusBody,
    TickState, VmCommandBody, VmVerbBody, parse_duration,
};
pub use migrate::MigrateRequest;
pub use migration::{MigrationState, MigrationStatus, MigrationView};
pub use network::{NetworkCreate, NetworkView};
pub use page::{JobQuery, Page, PageQuery};
pub use plan::{Actual, Candidate, MigrateQuery, MigrationPlan, PlannedGuest, PlannedLink};
pub use problem::{Problem, ProblemCode};
pub use schedule::{PreviewTick, ScheduleWarning, Transition};
pub use template::{BootBody, ImageBody, TemplateCreate, TemplateView};
pub use vm::{CloudInitBody, NetworkBody, Resources, VmCreate, VmDesired, VmKill, VmStats, VmUpdate, VmView};
pub use vm_health::HealthBody;
pub use vm_kind::{VmCheckpoint, VmMobility};
pub use vm_stop::VmStop;
pub use volume::VolumeView;
pub use workflow::{
    CriticalPath, Decision, EdgeBody, NodeBody, NodeCounts, NodeRunState, NodeRunView, OnFailureBody,
    RunAccepted, RunCause, RunDetail, RunRequest, RunRetryRequest, RunState, RunView, StepView,
    WorkflowCreate, WorkflowUpdate, WorkflowView,
};
