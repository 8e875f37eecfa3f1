//! A node's `config`, which depends on its type.

use crate::{
    api::{JobTargetBody, Period},
    ids::JobId,
    spec::{
        Faults, JobTarget,
        workflow::{
            Approve, Condition, Items, MapBody, MapSpec, NodeKind, NodeType, Template, Wait, WorkflowSpec,
            squeeze, texts,
        },
    },
    units::UnixMillis,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

/// Finds a job by its name.
pub type JobNamed<'a> = &'a dyn Fn(&str) -> Option<JobId>;

/// Longest message of an approval, bytes.
const MESSAGE_MAX: usize = 1024;
/// Most approvers that are named.
const APPROVERS_MAX: usize = 32;
/// Most items of one map at the same time, where nothing is said.
const PARALLELISM_DEFAULT: u32 = 8;
/// Longest wait: ten years.
const WAIT_MAX_MS: u64 = 10 * 366 * 24 * 3_600_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobConfig {
    #[serde(rename = "jobId", alias = "job_id", alias = "job")]
    job_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitConfig {
    duration: Option<Period>,
    until: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ApproveConfig {
    message: String,
    approvers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionConfig {
    #[serde(rename = "if")]
    condition: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnItemFailure {
    Fail,
    Continue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MapConfig {
    items: Value,
    each: EachBody,
    parallelism: Option<u32>,
    on_item_failure: Option<OnItemFailure>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EachBody {
    #[serde(rename = "type")]
    node_type: NodeType,
    #[serde(default)]
    config: Value,
}

/// Checks one node's config.
pub struct Reader<'a> {
    /// How the config is called in faults: `nodes[3].config`.
    pub at: String,
    /// What is wrong so far.
    pub faults: &'a mut Faults,
    /// Finds jobs by name.
    pub job_named: JobNamed<'a>,
}

impl Reader<'_> {
    /// What the node does; `None` if that cannot be made out.
    pub fn kind(&mut self, node_type: NodeType, config: &Value) -> Option<NodeKind> {
        match node_type {
            NodeType::Job => self.job(config).map(NodeKind::Job),
            NodeType::Wait => self.wait(config).map(NodeKind::Wait),
            NodeType::Approve => self.approve(config).map(NodeKind::Approve),
            NodeType::Condition => self.condition(config).map(NodeKind::Condition),
            NodeType::Map => self.map(config).map(NodeKind::Map),
            target => self.target(target, config).map(NodeKind::Task),
        }
    }

    fn fault(&mut self, field: &str, reason: impl Into<String>) {
        self.faults.add(format!("{}{field}", self.at), reason);
    }

    fn read<T: DeserializeOwned>(&mut self, config: &Value) -> Option<T> {
        let config = if config.is_null() { json!({}) } else { config.clone() };
        let read = T::deserialize(config);
        let at = self.at.clone();
        self.faults.take(&at, read)
    }

    fn job(&mut self, config: &Value) -> Option<JobId> {
        let text = self.read::<JobConfig>(config)?.job_id;
        let found = text.parse().ok().or_else(|| (self.job_named)(&text));
        if found.is_none() {
            let shown: String = text.chars().take(80).collect();
            self.fault(".jobId", format!("there is no job {shown:?}: give the id or the name of one"));
        }
        found
    }

    fn wait(&mut self, config: &Value) -> Option<Wait> {
        let wait: WaitConfig = self.read(config)?;
        match (wait.duration, wait.until) {
            (Some(duration), None) => {
                let field = format!("{}.duration", self.at);
                let ms = self.faults.take(&field, duration.millis())?;
                if ms > WAIT_MAX_MS {
                    self.fault(".duration", "must be at most ten years");
                }
                Some(Wait::For(ms))
            }
            (None, Some(until)) if Template::is_one(&until) => Some(Wait::UntilText(squeeze(&until))),
            (None, Some(until)) => {
                let instant = instant(&until);
                if instant.is_none() {
                    self.fault(".until", "is no instant: write it like \"2027-01-01T00:00:00Z\" (RFC 3339)");
                }
                instant.map(Wait::Until)
            }
            _ => {
                self.fault("", "must have either duration or until");
                None
            }
        }
    }

    fn approve(&mut self, config: &Value) -> Option<Approve> {
        let approve: ApproveConfig = self.read(config)?;
        if approve.message.len() > MESSAGE_MAX {
            self.fault(".message", format!("has more than {MESSAGE_MAX} bytes"));
        }
        let too_long = approve.approvers.iter().any(|name| name.len() > 128);
        if approve.approvers.len() > APPROVERS_MAX || too_long {
            self.fault(".approvers", format!("must be at most {APPROVERS_MAX} names of API tokens"));
        }
        Some(Approve { message: squeeze(&approve.message), approvers: approve.approvers })
    }

    fn condition(&mut self, config: &Value) -> Option<Condition> {
        let condition: ConditionConfig = self.read(config)?;
        let field = format!("{}.if", self.at);
        self.faults.take(&field, condition.condition.parse())
    }

    fn map(&mut self, config: &Value) -> Option<MapSpec> {
        let map: MapConfig = self.read(config)?;
        let parallelism = map.parallelism.unwrap_or(PARALLELISM_DEFAULT);
        if !(1..=WorkflowSpec::PARALLELISM_MAX).contains(&parallelism) {
            self.fault(".parallelism", format!("must be 1 to {}", WorkflowSpec::PARALLELISM_MAX));
        }
        let items = self.items(map.items);
        self.at.push_str(".each.config");
        let each = match map.each.node_type {
            NodeType::Job => self.job(&map.each.config).map(MapBody::Job),
            NodeType::Wait | NodeType::Approve | NodeType::Condition | NodeType::Map => {
                self.fault(
                    "",
                    "a map does a job, command, vm_command, vm, http, noop or record for each item",
                );
                None
            }
            target => self.target(target, &map.each.config).map(MapBody::Task),
        };
        let keep_going = map.on_item_failure == Some(OnItemFailure::Continue);
        Some(MapSpec { items: items?, each: each?, parallelism, keep_going })
    }

    fn items(&mut self, items: Value) -> Option<Items> {
        match items {
            Value::Array(list) if list.len() > WorkflowSpec::ITEMS_MAX => {
                self.fault(
                    ".items",
                    format!("has {} items: at most {}", list.len(), WorkflowSpec::ITEMS_MAX),
                );
                None
            }
            Value::Array(list) => {
                let text = Value::Array(list).to_string();
                if text.len() > WorkflowSpec::INPUT_MAX {
                    self.fault(".items", format!("has more than {} bytes", WorkflowSpec::INPUT_MAX));
                }
                Some(Items::Listed(text))
            }
            Value::String(text) => {
                let inside = text.trim().strip_prefix("{{").and_then(|t| t.strip_suffix("}}"));
                Some(Items::From(inside.unwrap_or(&text).trim().to_owned()))
            }
            _ => {
                self.fault(
                    ".items",
                    "must be a list, or a reference to one such as \"nodes.a.output.files\"",
                );
                None
            }
        }
    }

    fn target(&mut self, node_type: NodeType, config: &Value) -> Option<JobTarget> {
        let mut fields = match config {
            Value::Null => Map::new(),
            Value::Object(fields) => fields.clone(),
            _ => {
                self.fault("", "must be an object");
                return None;
            }
        };
        if matches!(node_type, NodeType::Noop | NodeType::Record) && !fields.is_empty() {
            self.fault("", "must be empty for this type");
        }
        if fields.contains_key("type") {
            self.fault(".type", "belongs to the node, not to its config");
        }
        fields.insert("type".to_owned(), json!(node_type));
        fields.values_mut().for_each(squeeze_all);
        let body: JobTargetBody = self.read(&Value::Object(fields))?;
        let target = body.check(&self.at, self.faults);
        Some(target)
    }
}

/// Squeezes every text in a value.
fn squeeze_all(value: &mut Value) {
    match value {
        Value::String(text) => *text = squeeze(text),
        Value::Array(items) => items.iter_mut().for_each(squeeze_all),
        Value::Object(fields) => fields.values_mut().for_each(squeeze_all),
        _ => {}
    }
}

fn instant(text: &str) -> Option<UnixMillis> {
    chrono::DateTime::parse_from_rfc3339(text).ok().map(|t| UnixMillis(t.timestamp_millis()))
}

/// The config of a node as it was asked for.
pub fn show(kind: &NodeKind) -> Value {
    match kind {
        NodeKind::Job(job) => json!({ "jobId": job }),
        NodeKind::Task(target) => show_target(target).1,
        NodeKind::Wait(Wait::For(ms)) => json!({ "duration": ms }),
        NodeKind::Wait(Wait::Until(at)) => json!({ "until": at.rfc3339() }),
        NodeKind::Wait(Wait::UntilText(text)) => json!({ "until": text }),
        NodeKind::Approve(approve) => json!({ "message": approve.message, "approvers": approve.approvers }),
        NodeKind::Condition(condition) => json!({ "if": condition.as_str() }),
        NodeKind::Map(map) => show_map(map),
    }
}

fn show_map(map: &MapSpec) -> Value {
    let items = match &map.items {
        Items::Listed(text) => serde_json::from_str(text).unwrap_or(Value::Null),
        Items::From(text) => Value::String(text.clone()),
    };
    let (node_type, config) = match &map.each {
        MapBody::Job(job) => (json!("job"), json!({ "jobId": job })),
        MapBody::Task(target) => show_target(target),
    };
    let on_item_failure = if map.keep_going { OnItemFailure::Continue } else { OnItemFailure::Fail };
    json!({
        "items": items,
        "each": { "type": node_type, "config": config },
        "parallelism": map.parallelism,
        "on_item_failure": on_item_failure,
    })
}

/// A target's type and its config without it.
fn show_target(target: &JobTarget) -> (Value, Value) {
    let mut body = json!(JobTargetBody::from(target));
    let node_type = body.as_object_mut().and_then(|fields| fields.remove("type")).unwrap_or(Value::Null);
    (node_type, body)
}

/// The templates in what a node does, and whether `item` stands for something in them.
pub fn templates(kind: &NodeKind) -> (Vec<String>, bool) {
    let of = |target: &JobTarget| {
        let mut target = target.clone();
        let found = texts(&mut target).into_iter().filter(|text| Template::is_one(text));
        found.map(|text| text.clone()).collect()
    };
    match kind {
        NodeKind::Task(target) => (of(target), false),
        NodeKind::Map(MapSpec { each: MapBody::Task(target), .. }) => (of(target), true),
        NodeKind::Wait(Wait::UntilText(text)) => (vec![text.clone()], false),
        NodeKind::Approve(approve) => (vec![approve.message.clone()], false),
        NodeKind::Job(_) | NodeKind::Wait(_) | NodeKind::Condition(_) | NodeKind::Map(_) => {
            (Vec::new(), false)
        }
    }
}
