//! What a fire does, as JSON: a kind of target in each file.

mod command;
mod http;
mod verb;

pub use command::{CommandTargetBody, VmCommandBody};
pub use http::{HttpBody, StatusBody};
pub use verb::VmVerbBody;

use crate::spec::{Faults, JobTarget};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What a fire does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum JobTargetBody {
    /// Nothing but its own record (the default).
    #[default]
    Noop,
    /// One line in the record file of the agent that runs the attempt.
    Record,
    /// A command in a throw-away namespace machine.
    Command(CommandTargetBody),
    /// A command inside a machine.
    VmCommand(VmCommandBody),
    /// Something done to a machine.
    Vm(VmVerbBody),
    /// A call over HTTP.
    Http(HttpBody),
}

impl JobTargetBody {
    /// The target, with its faults named as fields of `at`.
    pub fn check(&self, at: &str, faults: &mut Faults) -> JobTarget {
        match self {
            Self::Noop => JobTarget::Noop,
            Self::Record => JobTarget::Record,
            Self::Command(command) => JobTarget::Command(command.check(at, faults)),
            Self::VmCommand(command) => JobTarget::VmCommand(command.check(at, faults)),
            Self::Vm(verb) => JobTarget::Vm(verb.check(at, faults)),
            Self::Http(http) => JobTarget::Http(http.check(at, faults)),
        }
    }
}

impl From<&JobTarget> for JobTargetBody {
    fn from(target: &JobTarget) -> Self {
        match target {
            JobTarget::Noop => Self::Noop,
            JobTarget::Record => Self::Record,
            JobTarget::Command(c) => Self::Command(c.into()),
            JobTarget::VmCommand(c) => Self::VmCommand(c.into()),
            JobTarget::Vm(v) => Self::Vm(v.into()),
            JobTarget::Http(h) => Self::Http(h.into()),
        }
    }
}

/// Most bytes in arguments and environment together.
const TEXT_MAX: usize = 32 * 1024;
/// Longest name of a machine, a host or an image that is looked at.
const NAME_MAX: usize = 128;
/// Longest path or URL.
const URL_MAX: usize = 4096;

fn check_name(at: &str, field: &str, value: &str, faults: &mut Faults) {
    if value.is_empty() || value.len() > NAME_MAX || value.contains(char::is_whitespace) {
        faults.add(format!("{at}.{field}"), "must be a name or an id");
    }
}

fn sum(pairs: &[(String, String)]) -> usize {
    pairs.iter().map(|(k, v)| k.len() + v.len()).sum()
}

fn pairs(map: &BTreeMap<String, String>) -> Vec<(String, String)> {
    map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}
