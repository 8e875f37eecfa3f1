//! What a fire does, as JSON.

use super::{Period, unique};
use crate::{
    spec::{
        CommandTarget, Faults, HttpMethod, HttpTarget, JobTarget, Root, STDIN_MAX, StatusRange,
        VmCommandTarget, VmVerb, VmVerbTarget,
    },
    units::ByteCount,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A command in a throw-away namespace machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandTargetBody {
    /// Program and arguments; no shell is added.
    pub command: Vec<String>,
    /// Variables.
    #[serde(default, deserialize_with = "unique::map")]
    pub env: BTreeMap<String, String>,
    /// Where it starts (default `/`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// What it reads from standard input (at most 16 KiB; default nothing).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// RAM in MiB (default 256).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Processes (default 256).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Thousandths of a CPU (default 1000).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// The image that it sees as `/`. Refused today: a command sees the host's root, read-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// A command inside a machine, through its guest agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmCommandBody {
    /// The machine's name or id.
    pub vm: String,
    /// Program and arguments; no shell is added.
    pub command: Vec<String>,
    /// Variables.
    #[serde(default, deserialize_with = "unique::map")]
    pub env: BTreeMap<String, String>,
    /// Where it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// What it reads from standard input (at most 16 KiB; default nothing).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
}

/// Something done to a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmVerbBody {
    /// The machine's name or id.
    pub vm: String,
    /// `start`, `stop`, `restart` or `migrate`.
    pub verb: String,
    /// For `stop`: how long the guest has before it is switched off (default 30 s).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Period>,
    /// For `migrate`: a host's name or id (default: chosen by placement).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// For `migrate`: whether it keeps running (default true).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<bool>,
}

/// One status code, or a range such as `"200-299"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum StatusBody {
    /// One.
    Code(u16),
    /// From and to, both included.
    Range(String),
}

/// A call over HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpBody {
    /// How (default `GET`).
    #[serde(default)]
    pub method: HttpMethod,
    /// Whom: `http://…` or `https://…`.
    pub url: String,
    /// Headers.
    #[serde(default, deserialize_with = "unique::map")]
    pub headers: BTreeMap<String, String>,
    /// What is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The answers that count as success (default 200 to 299).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<StatusBody>,
}

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

/// Most bytes in arguments and environment together.
const TEXT_MAX: usize = 32 * 1024;
/// Longest name of a machine, a host or an image that is looked at.
const NAME_MAX: usize = 128;
/// Longest URL.
const URL_MAX: usize = 4096;

/// The texts that commands of both kinds have.
struct Texts<'a> {
    command: &'a [String],
    env: &'a BTreeMap<String, String>,
    working_dir: Option<&'a String>,
    stdin: Option<&'a String>,
}

impl Texts<'_> {
    fn check(&self, at: &str, faults: &mut Faults) {
        if self.command.first().is_none_or(String::is_empty) {
            faults.add(format!("{at}.command"), "names no program");
        }
        let text = self.command.iter().map(String::len).sum::<usize>() + sum(self.env);
        if text > TEXT_MAX {
            faults.add(format!("{at}.command"), format!("and env have more than {TEXT_MAX} bytes together"));
        }
        let has_nul = |s: &String| s.contains('\0');
        if self.command.iter().any(has_nul) || self.env.iter().any(|(k, v)| has_nul(k) || has_nul(v)) {
            faults.add(format!("{at}.command"), "or env has a NUL character");
        }
        for key in self.env.keys().filter(|k| k.is_empty() || k.contains('=') || k.starts_with("NOVACRON_")) {
            let key: String = key.chars().take(80).collect();
            faults.add(
                format!("{at}.env.{key}"),
                "is no name for a variable, or one that NovaCron sets itself",
            );
        }
        if self.working_dir.is_some_and(|d| !d.starts_with('/') || has_nul(d) || d.len() > URL_MAX) {
            faults.add(
                format!("{at}.working_dir"),
                format!("must be an absolute path of at most {URL_MAX} bytes"),
            );
        }
        if self.stdin.is_some_and(|s| s.len() > STDIN_MAX) {
            faults.add(
                format!("{at}.stdin"),
                format!("has more than {STDIN_MAX} bytes: let the command fetch it"),
            );
        }
    }
}

fn sum(map: &BTreeMap<String, String>) -> usize {
    map.iter().map(|(k, v)| k.len() + v.len()).sum()
}

fn pairs(map: &BTreeMap<String, String>) -> Vec<(String, String)> {
    map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

impl CommandTargetBody {
    fn check(&self, at: &str, faults: &mut Faults) -> CommandTarget {
        let texts = Texts {
            command: &self.command,
            env: &self.env,
            working_dir: self.working_dir.as_ref(),
            stdin: self.stdin.as_ref(),
        };
        texts.check(at, faults);
        let memory_mb = self.memory_mb.unwrap_or(256);
        if !(4..=1 << 20).contains(&memory_mb) {
            faults.add(format!("{at}.memory_mb"), "must be 4 to 1048576");
        }
        let pids = self.pids.unwrap_or(256);
        if !(1..=32_768).contains(&pids) {
            faults.add(format!("{at}.pids"), "must be 1 to 32768");
        }
        let cpu_millis = self.cpu_millis.unwrap_or(1000);
        if !(10..=512_000).contains(&cpu_millis) {
            faults.add(format!("{at}.cpu_millis"), "must be 10 to 512000");
        }
        if self.image.is_some() {
            let why = "cannot be used yet: commands run on the host's own root, read-only; leave it out";
            faults.add(format!("{at}.image"), why);
        }
        CommandTarget {
            argv: self.command.clone(),
            env: pairs(&self.env),
            working_dir: self.working_dir.clone(),
            stdin: self.stdin.clone(),
            memory_max: ByteCount(memory_mb.min(1 << 20) << 20),
            pids_max: pids,
            cpu_millis,
            root: Root::Host,
        }
    }
}

fn check_name(at: &str, field: &str, value: &str, faults: &mut Faults) {
    if value.is_empty() || value.len() > NAME_MAX || value.contains(char::is_whitespace) {
        faults.add(format!("{at}.{field}"), "must be a name or an id");
    }
}

impl VmCommandBody {
    fn check(&self, at: &str, faults: &mut Faults) -> VmCommandTarget {
        check_name(at, "vm", &self.vm, faults);
        let texts = Texts {
            command: &self.command,
            env: &self.env,
            working_dir: self.working_dir.as_ref(),
            stdin: self.stdin.as_ref(),
        };
        texts.check(at, faults);
        VmCommandTarget {
            vm: self.vm.clone(),
            argv: self.command.clone(),
            env: pairs(&self.env),
            working_dir: self.working_dir.clone(),
            stdin: self.stdin.clone(),
        }
    }
}

impl VmVerbBody {
    /// Where a `stop` states none.
    const GRACE_DEFAULT_MS: u64 = 30_000;
    /// Longest grace: an hour.
    const GRACE_MAX_MS: u64 = 3_600_000;

    fn check(&self, at: &str, faults: &mut Faults) -> VmVerbTarget {
        check_name(at, "vm", &self.vm, faults);
        if let Some(target) = &self.target {
            check_name(at, "target", target, faults);
        }
        self.refuse_strangers(at, faults);
        let verb = match self.verb.as_str() {
            "start" => VmVerb::Start,
            "stop" => VmVerb::Stop { grace_ms: self.grace_ms(at, faults) },
            "restart" => VmVerb::Restart,
            "migrate" => VmVerb::Migrate { target: self.target.clone(), live: self.live.unwrap_or(true) },
            other => {
                faults.add(format!("{at}.verb"), no_such_verb(other));
                VmVerb::Start
            }
        };
        VmVerbTarget { vm: self.vm.clone(), verb }
    }

    /// A field of another verb is a misunderstanding.
    fn refuse_strangers(&self, at: &str, faults: &mut Faults) {
        if self.grace.is_some() && self.verb != "stop" {
            faults.add(format!("{at}.grace"), "is for the verb stop only");
        }
        if self.target.is_some() && self.verb != "migrate" {
            faults.add(format!("{at}.target"), "is for the verb migrate only");
        }
        if self.live.is_some() && self.verb != "migrate" {
            faults.add(format!("{at}.live"), "is for the verb migrate only");
        }
    }

    fn grace_ms(&self, at: &str, faults: &mut Faults) -> u64 {
        let asked = self.grace.as_ref().and_then(|g| faults.take(&format!("{at}.grace"), g.millis()));
        let grace_ms = asked.unwrap_or(Self::GRACE_DEFAULT_MS);
        if grace_ms > Self::GRACE_MAX_MS {
            faults.add(format!("{at}.grace"), "must be at most an hour");
        }
        grace_ms
    }
}

fn no_such_verb(verb: &str) -> String {
    const KNOWN: &str = "start, stop, restart or migrate";
    match verb {
        "clone" | "snapshot" | "backup" | "delete" => {
            format!("{verb} cannot be scheduled yet: use {KNOWN}")
        }
        other => {
            let shown: String = other.chars().take(40).collect();
            format!("{shown:?} is nothing that can be done to a machine: use {KNOWN}")
        }
    }
}

impl StatusBody {
    fn range(&self) -> Option<StatusRange> {
        let (first, last) = match self {
            Self::Code(code) => (*code, *code),
            Self::Range(text) => {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                (first.trim().parse().ok()?, last.trim().parse().ok()?)
            }
        };
        ((100..=599).contains(&first) && first <= last && last <= 599).then_some(StatusRange { first, last })
    }
}

impl HttpBody {
    fn check(&self, at: &str, faults: &mut Faults) -> HttpTarget {
        let rest = self.url.strip_prefix("http://").or_else(|| self.url.strip_prefix("https://"));
        let bad_host = |rest: &str| rest.split(['/', '?', '#']).next().is_none_or(str::is_empty);
        if rest.is_none_or(bad_host) || self.url.len() > URL_MAX || self.url.contains(is_outside_url) {
            faults.add(
                format!("{at}.url"),
                format!(
                    "must be http://host… or https://host… of at most {URL_MAX} bytes, without spaces or control \
                     characters"
                ),
            );
        }
        for (name, value) in &self.headers {
            if !is_token(name) || value.contains(['\r', '\n', '\0']) {
                let shown: String = name.chars().take(80).collect();
                faults.add(format!("{at}.headers.{shown}"), "is no header of HTTP (RFC 9110, section 5)");
            }
        }
        if sum(&self.headers) > TEXT_MAX / 2 {
            faults.add(format!("{at}.headers"), format!("have more than {} bytes", TEXT_MAX / 2));
        }
        if self.body.as_ref().is_some_and(|b| b.len() > STDIN_MAX) {
            faults.add(format!("{at}.body"), format!("has more than {STDIN_MAX} bytes"));
        }
        HttpTarget {
            method: self.method,
            url: self.url.clone(),
            headers: pairs(&self.headers),
            body: self.body.clone(),
            expect: self.expected(at, faults),
        }
    }

    fn expected(&self, at: &str, faults: &mut Faults) -> Vec<StatusRange> {
        const RANGES_MAX: usize = 32;
        if self.expect.is_empty() {
            return vec![StatusRange::SUCCESS];
        }
        let ranges: Option<Vec<_>> = self.expect.iter().map(StatusBody::range).collect();
        ranges.filter(|ranges| ranges.len() <= RANGES_MAX).unwrap_or_else(|| {
            faults.add(
                format!("{at}.expect"),
                format!(
                    "must be at most {RANGES_MAX} of: a status of 100 to 599, or a range such as \"200-299\""
                ),
            );
            Vec::new()
        })
    }
}

fn is_outside_url(c: char) -> bool {
    c.is_whitespace() || c.is_control()
}

/// RFC 9110, section 5.6.2.
fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

impl From<&JobTarget> for JobTargetBody {
    fn from(target: &JobTarget) -> Self {
        match target {
            JobTarget::Noop => Self::Noop,
            JobTarget::Record => Self::Record,
            JobTarget::Command(c) => Self::Command(c.into()),
            JobTarget::VmCommand(c) => Self::VmCommand(VmCommandBody {
                vm: c.vm.clone(),
                command: c.argv.clone(),
                env: c.env.iter().cloned().collect(),
                working_dir: c.working_dir.clone(),
                stdin: c.stdin.clone(),
            }),
            JobTarget::Vm(v) => Self::Vm(v.into()),
            JobTarget::Http(h) => Self::Http(h.into()),
        }
    }
}

impl From<&CommandTarget> for CommandTargetBody {
    fn from(c: &CommandTarget) -> Self {
        Self {
            command: c.argv.clone(),
            env: c.env.iter().cloned().collect(),
            working_dir: c.working_dir.clone(),
            stdin: c.stdin.clone(),
            memory_mb: Some(c.memory_max.as_mib()),
            pids: Some(c.pids_max),
            cpu_millis: Some(c.cpu_millis),
            image: match &c.root {
                Root::Host => None,
                Root::Image(name) => Some(name.to_string()),
            },
        }
    }
}

impl From<&VmVerbTarget> for VmVerbBody {
    fn from(v: &VmVerbTarget) -> Self {
        let vm = v.vm.clone();
        match &v.verb {
            VmVerb::Start => Self { vm, verb: "start".into(), ..Self::default() },
            VmVerb::Stop { grace_ms } => {
                Self { vm, verb: "stop".into(), grace: Some(Period::Millis(*grace_ms)), ..Self::default() }
            }
            VmVerb::Restart => Self { vm, verb: "restart".into(), ..Self::default() },
            VmVerb::Migrate { target, live } => Self {
                vm,
                verb: "migrate".into(),
                target: target.clone(),
                live: Some(*live),
                ..Self::default()
            },
        }
    }
}

impl From<&HttpTarget> for HttpBody {
    fn from(h: &HttpTarget) -> Self {
        let range = |r: &StatusRange| match r.first == r.last {
            true => StatusBody::Code(r.first),
            false => StatusBody::Range(format!("{}-{}", r.first, r.last)),
        };
        Self {
            method: h.method,
            url: h.url.clone(),
            headers: h.headers.iter().cloned().collect(),
            body: h.body.clone(),
            expect: h.expect.iter().map(range).collect(),
        }
    }
}
