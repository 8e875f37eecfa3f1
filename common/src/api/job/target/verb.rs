//! Something done to a machine.

use super::check_name;
use crate::{
    api::Period,
    spec::{Faults, VmVerb, VmVerbTarget},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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

impl VmVerbBody {
    /// Where a `stop` states none.
    const GRACE_DEFAULT_MS: u64 = 30_000;
    /// Longest grace: an hour.
    const GRACE_MAX_MS: u64 = 3_600_000;

    pub(super) fn check(&self, at: &str, faults: &mut Faults) -> VmVerbTarget {
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
