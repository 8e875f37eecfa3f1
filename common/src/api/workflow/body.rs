//! `POST` and `PUT /api/v1/workflows`, and the way from them to a [`WorkflowSpec`].

use super::{
    EdgeBody, NodeBody, OnFailureBody,
    config::{JobNamed, Reader},
    graph::{self, Numbers},
};
use crate::{
    api::{ConcurrencyBody, MisfireBody, RetryBody},
    spec::{
        Concurrency, Dst, Faults, JobSpec, Misfire, Name, RetryPolicy, TimeZone,
        workflow::{NodeSpec, OnFailure, Trigger, WorkflowHead, WorkflowSpec},
    },
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Nodes of one run at once, where nothing is said.
const MAX_PARALLEL_DEFAULT: u32 = 256;
/// Ended runs that are kept, where nothing is said.
const RUNS_KEPT_DEFAULT: u32 = 100;
/// Most faults that are listed.
const FAULTS_MAX: usize = 50;

/// The two bodies differ in what must be there, and in how they say it.
macro_rules! workflow_bodies {
    ($(
        $(#[$doc:meta])* $body:ident {
            $(#[$name_meta:meta])* name: $name:ty,
            description: $description_doc:tt,
            $($(#[$field_meta:meta])* $field:ident: $kind:ty,)*
            ..
            enabled: $enabled_doc:tt,
            schedule: $schedule_doc:tt,
            timezone: $timezone_doc:tt,
            dst: $dst_doc:tt,
            misfire: $misfire_doc:tt,
            concurrency: $concurrency_doc:tt,
            max_parallel: $max_parallel_doc:tt,
            runs_kept: $runs_kept_doc:tt,
        }
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $body {
            $(#[$name_meta])*
            pub name: $name,
            #[doc = $description_doc]
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub description: Option<String>,
            $($(#[$field_meta])* pub $field: $kind,)*
            #[doc = $enabled_doc]
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub enabled: Option<bool>,
            #[doc = $schedule_doc]
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub schedule: Option<String>,
            #[doc = $timezone_doc]
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub timezone: Option<String>,
            #[doc = $dst_doc]
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub dst: Option<Dst>,
            #[doc = $misfire_doc]
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub misfire: Option<MisfireBody>,
            #[doc = $concurrency_doc]
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub concurrency: Option<ConcurrencyBody>,
            #[doc = $max_parallel_doc]
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub max_parallel: Option<u32>,
            #[doc = $runs_kept_doc]
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub runs_kept: Option<u32>,
        }
    )*};
}

workflow_bodies! {
    /// `POST /api/v1/workflows`. `{name, nodes}` is enough.
    WorkflowCreate {
        /// Unique in the cluster.
        name: String,
        description: "For people.",
        /// At most 5,000.
        nodes: Vec<NodeBody>,
        /// At most 20,000, without cycles.
        #[serde(default)]
        edges: Vec<EdgeBody>,
        ..
        enabled: "Whether it may run (default true).",
        schedule: "A cron expression (default: it runs on request only).",
        timezone: "An IANA zone (default `UTC`).",
        dst: "What is done where that zone's clock jumps.",
        misfire: "What becomes of ticks that nobody committed in time.",
        concurrency: "What becomes of a run while another has not ended (default `allow`).",
        max_parallel: "Most nodes of one run at once, 1 to 1000 (default 256).",
        runs_kept: "Ended runs that are kept, 1 to 1000 (default 100).",
    }
    /// `PUT /api/v1/workflows/{id}`: fields that are absent stay as they are. Runs that have begun keep the definition
    /// that they began with.
    #[derive(Default)]
    WorkflowUpdate {
        /// A new name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        description: "A new description.",
        /// All nodes anew.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nodes: Option<Vec<NodeBody>>,
        /// All edges anew.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        edges: Option<Vec<EdgeBody>>,
        ..
        enabled: "Whether it may run.",
        schedule: "Another cron expression; an empty text takes it away.",
        timezone: "Another zone.",
        dst: "Another policy for jumps of the clock.",
        misfire: "Another policy for missed ticks.",
        concurrency: "Another policy for runs that overlap.",
        max_parallel: "Another number of nodes at once.",
        runs_kept: "Another number of runs that are kept.",
    }
}

impl WorkflowCreate {
    /// The workflow, with everything checked but that its jobs exist.
    ///
    /// # Errors
    /// [`Faults`] name every field that is wrong, up to fifty.
    pub fn check(&self, job_named: JobNamed<'_>) -> Result<WorkflowSpec, Faults> {
        let mut faults = Faults::default();
        if self.nodes.len() > WorkflowSpec::NODES_MAX {
            let reason =
                format!("there are {}: a workflow has at most {}", self.nodes.len(), WorkflowSpec::NODES_MAX);
            faults.add("nodes", reason);
            return Err(faults);
        }
        if self.nodes.is_empty() {
            faults.add("nodes", "a workflow needs at least one");
        }
        let head = self.head(&mut faults);
        let numbers = self.numbers(&mut faults);
        // All are checked before any is missed: each node's faults count, not just the first's.
        let nodes: Vec<Option<NodeSpec>> =
            (0..).zip(&self.nodes).map(|(n, node)| node.check(n, &numbers, job_named, &mut faults)).collect();
        let nodes: Option<Vec<NodeSpec>> = nodes.into_iter().collect();
        let spec = head.zip(nodes).map(|(head, nodes)| {
            let edges = graph::edges(&self.edges, &nodes, &numbers, &mut faults);
            WorkflowSpec { head, nodes, edges }
        });
        if let Some(spec) = spec.as_ref().filter(|_| faults.0.is_empty()) {
            graph::check(spec, &numbers, &mut faults);
        }
        shorten(&mut faults);
        faults.into_result(spec)
    }

    fn head(&self, faults: &mut Faults) -> Option<WorkflowHead> {
        let name = faults.take("name", self.name.parse::<Name>());
        let description = self.description.clone().unwrap_or_default();
        if description.len() > WorkflowSpec::DESCRIPTION_MAX {
            faults.add("description", format!("has more than {} bytes", WorkflowSpec::DESCRIPTION_MAX));
        }
        let concurrency = self.concurrency.map_or(Concurrency::Allow, |c| c.check(faults));
        let max_parallel = self.max_parallel.unwrap_or(MAX_PARALLEL_DEFAULT);
        if !(1..=WorkflowSpec::MAX_PARALLEL_MAX).contains(&max_parallel) {
            faults.add("max_parallel", format!("must be 1 to {}", WorkflowSpec::MAX_PARALLEL_MAX));
        }
        let runs_kept = self.runs_kept.unwrap_or(RUNS_KEPT_DEFAULT);
        if !(1..=WorkflowSpec::RUNS_KEPT_MAX).contains(&runs_kept) {
            faults.add("runs_kept", format!("must be 1 to {}", WorkflowSpec::RUNS_KEPT_MAX));
        }
        let enabled = self.enabled.unwrap_or(true);
        let trigger = self.trigger(faults);
        Some(WorkflowHead {
            name: name?,
            description,
            enabled,
            trigger,
            concurrency,
            max_parallel,
            runs_kept,
        })
    }

    fn trigger(&self, faults: &mut Faults) -> Option<Trigger> {
        let schedule = self.schedule.as_ref().filter(|text| !text.is_empty());
        let timezone =
            self.timezone.as_ref().map_or(Some(TimeZone::UTC), |z| faults.take("timezone", z.parse()));
        let misfire = self.misfire.as_ref().map_or_else(Misfire::default, |m| m.check(faults));
        let schedule = faults.take("schedule", schedule?.parse());
        Some(Trigger { schedule: schedule?, timezone: timezone?, dst: self.dst.unwrap_or_default(), misfire })
    }

    fn numbers(&self, faults: &mut Faults) -> Numbers {
        let mut numbers = Numbers::new();
        for (n, node) in (0u32..).zip(&self.nodes) {
            let Some(id) = faults.take(&format!("nodes[{n}].id"), node.id.parse()) else { continue };
            if let Some(first) = numbers.get(&id) {
                faults.add(format!("nodes[{n}].id"), format!("{id} is the id of nodes[{first}] already"));
            } else {
                numbers.insert(id, n);
            }
        }
        numbers
    }
}

impl NodeBody {
    /// Longest name, bytes.
    const NAME_MAX: usize = 256;

    fn check(
        &self,
        n: u32,
        numbers: &Numbers,
        job_named: JobNamed<'_>,
        faults: &mut Faults,
    ) -> Option<NodeSpec> {
        let at = |field: &str| format!("nodes[{n}].{field}");
        // A bad id was told when they were numbered.
        let id = self.id.parse().ok();
        if self.name.as_ref().is_some_and(|name| name.len() > Self::NAME_MAX) {
            faults.add(at("name"), format!("has more than {} bytes", Self::NAME_MAX));
        }
        let kind = Reader { at: at("config"), faults, job_named }.kind(self.node_type, &self.config);
        let timeout_ms = self.timeout.as_ref().and_then(|t| faults.take(&at("timeout"), t.millis()));
        if timeout_ms.is_some_and(|ms| !(1..=JobSpec::TIMEOUT_MAX_MS).contains(&ms)) {
            faults.add(at("timeout"), format!("must be 1 to {} milliseconds", JobSpec::TIMEOUT_MAX_MS));
        }
        let retry = self.retry_policy(&at("retry"), faults);
        let on_failure = self.on_failure(&at("compensation"), numbers, faults);
        Some(NodeSpec {
            name: self.name.clone().unwrap_or_else(|| self.id.clone()),
            id: id?,
            kind: kind?,
            timeout_ms,
            retry,
            on_failure,
        })
    }

    fn retry_policy(&self, at: &str, faults: &mut Faults) -> RetryPolicy {
        let body = self.retry.clone().unwrap_or_default();
        let max_retries = self.max_retries.or(body.max_retries);
        RetryBody { max_retries, ..body }.check(at, faults)
    }

    fn on_failure(&self, at: &str, numbers: &Numbers, faults: &mut Faults) -> OnFailure {
        let compensation = self.compensation.as_ref();
        match (self.on_failure.unwrap_or_default(), compensation) {
            (OnFailureBody::Fail, None) => OnFailure::Fail,
            (OnFailureBody::Continue, None) => OnFailure::Continue,
            (OnFailureBody::Compensate, Some(id)) => {
                let number = id.parse().ok().and_then(|id| numbers.get(&id).copied());
                if number.is_none() {
                    let shown: String = id.chars().take(80).collect();
                    faults.add(at, format!("there is no node {shown:?}"));
                }
                number.map_or(OnFailure::Fail, OnFailure::Compensate)
            }
            (OnFailureBody::Compensate, None) => {
                faults.add(at, "must name the node that undoes this one");
                OnFailure::Fail
            }
            (_, Some(_)) => {
                faults.add(at, "is for on_failure: compensate only");
                OnFailure::Fail
            }
        }
    }
}

/// A graph of thousands of nodes can have thousands of faults; nobody reads them all.
fn shorten(faults: &mut Faults) {
    let more = faults.0.len().saturating_sub(FAULTS_MAX);
    if more > 0 {
        faults.0.truncate(FAULTS_MAX);
        faults.add("nodes", format!("and {more} more faults"));
    }
}

impl WorkflowUpdate {
    /// The workflow after the update.
    ///
    /// # Errors
    /// As [`WorkflowCreate::check`].
    pub fn apply_to(&self, spec: &WorkflowSpec, job_named: JobNamed<'_>) -> Result<WorkflowSpec, Faults> {
        let old = WorkflowCreate::from(spec);
        let new = WorkflowCreate {
            name: self.name.clone().unwrap_or(old.name),
            description: self.description.clone().or(old.description),
            nodes: self.nodes.clone().unwrap_or(old.nodes),
            edges: self.edges.clone().unwrap_or(old.edges),
            enabled: self.enabled.or(old.enabled),
            schedule: self.schedule.clone().or(old.schedule),
            timezone: self.timezone.clone().or(old.timezone),
            dst: self.dst.or(old.dst),
            misfire: self.misfire.clone().or(old.misfire),
            concurrency: self.concurrency.or(old.concurrency),
            max_parallel: self.max_parallel.or(old.max_parallel),
            runs_kept: self.runs_kept.or(old.runs_kept),
        };
        new.check(job_named)
    }

    /// Whether nodes or edges are changed.
    pub const fn changes_shape(&self) -> bool {
        self.nodes.is_some() || self.edges.is_some()
    }
}

impl From<&WorkflowSpec> for WorkflowCreate {
    fn from(spec: &WorkflowSpec) -> Self {
        let head = &spec.head;
        let trigger = head.trigger.as_ref();
        Self {
            name: head.name.to_string(),
            description: Some(head.description.clone()),
            nodes: spec.nodes.iter().map(|node| NodeBody::new(node, &spec.nodes)).collect(),
            edges: spec.edges.iter().filter_map(|edge| EdgeBody::new(*edge, &spec.nodes)).collect(),
            enabled: Some(head.enabled),
            schedule: trigger.map(|t| t.schedule.to_string()),
            timezone: trigger.map(|t| t.timezone.to_string()),
            dst: trigger.map(|t| t.dst),
            misfire: trigger.map(|t| t.misfire.into()),
            concurrency: Some(head.concurrency.into()),
            max_parallel: Some(head.max_parallel),
            runs_kept: Some(head.runs_kept),
        }
    }
}
