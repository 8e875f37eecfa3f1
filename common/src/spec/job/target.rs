//! What a fire does.

use crate::{spec::Name, units::ByteCount};
use serde::{Deserialize, Serialize};

/// The root file system that a command sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// The host's root, read-only, with what is secret masked.
    Host,
    /// The root file system of this name, where the host keeps one (`jobs.roots` of agent.toml). As the host's: read-only,
    /// with a layer above it that vanishes with the command.
    Image(Name),
}

/// Most bytes of standard input that a job states.
pub const STDIN_MAX: usize = 16 * 1024;

/// What is executed, wherever that is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its name and arguments; no shell is added.
    pub argv: Vec<String>,
    /// Variables. As a job states them: beside the `NOVACRON_…` ones.
    pub env: Vec<(String, String)>,
    /// Where it starts; if absent, at `/`, or as the guest agent does.
    pub working_dir: Option<String>,
    /// What it reads from standard input, at most [`STDIN_MAX`] bytes; nothing if absent.
    pub stdin: Option<String>,
}

impl Program {
    /// One with nothing but its arguments.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// The value of a variable.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A command in a throw-away namespace machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandTarget {
    /// What it runs.
    pub program: Program,
    /// What it may use of RAM.
    pub memory_max: ByteCount,
    /// How many processes it may have.
    pub pids_max: u32,
    /// Its share of one CPU in thousandths; 1000 is one whole CPU.
    pub cpu_millis: u32,
    /// What it sees as `/`.
    pub root: Root,
}

/// A command inside a machine of the cluster, through its guest agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmCommandTarget {
    /// The machine's name or id, looked up at each attempt.
    pub vm: String,
    /// What it runs.
    pub program: Program,
}

/// Something done to a machine. The coordinator does it: no agent runs an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmVerbTarget {
    /// The machine's name or id, looked up at each attempt.
    pub vm: String,
    /// What is done.
    pub verb: VmVerb,
}

/// What is done to a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum VmVerb {
    /// Run it; done once it runs.
    Start,
    /// Stop it; done once it has stopped.
    Stop {
        /// Milliseconds that the guest has before it is switched off.
        grace_ms: u64,
    },
    /// Stop it and run it again; done once it runs again.
    Restart,
    /// Move it; done once the migration has ended.
    Migrate {
        /// A host's name or id; chosen by placement if absent.
        target: Option<String>,
        /// Whether it keeps running.
        live: bool,
    },
}

/// The methods of RFC 9110 (and RFC 5789's PATCH) that a job may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// The default.
    #[default]
    Get,
    /// Headers only.
    Head,
    /// With a body.
    Post,
    /// With a body.
    Put,
    /// With a body.
    Patch,
    /// Remove.
    Delete,
}

/// Status codes from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl StatusRange {
    /// 200 to 299: what is expected where a job states nothing.
    pub const SUCCESS: Self = Self { first: 200, last: 299 };

    /// Whether `status` lies in it.
    pub const fn holds(self, status: u16) -> bool {
        self.first <= status && status <= self.last
    }
}

/// A call over HTTP, made by the supervisor of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpTarget {
    /// How.
    pub method: HttpMethod,
    /// Whom: `http://` or `https://`.
    pub url: String,
    /// Beside those that the call needs anyway.
    pub headers: Vec<(String, String)>,
    /// What is sent.
    pub body: Option<String>,
    /// The answers that count as success.
    pub expect: Vec<StatusRange>,
}

/// What a fire does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobTarget {
    /// Nothing but its own record: a heartbeat, or a place-holder until a target is set.
    Noop,
    /// One line in the record file of the agent that runs the attempt: the normal path of an attempt at the lowest
    /// price, for audits of that path.
    Record,
    /// A command in a throw-away namespace machine.
    Command(CommandTarget),
    /// A command inside a machine.
    VmCommand(VmCommandTarget),
    /// Something done to a machine.
    Vm(VmVerbTarget),
    /// A call over HTTP.
    Http(HttpTarget),
}
