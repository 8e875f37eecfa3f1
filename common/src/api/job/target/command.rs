//! Commands: in a throw-away namespace machine, or inside a machine of the cluster.

use super::{TEXT_MAX, URL_MAX, check_name, pairs, sum};
use crate::{
    api::job::unique,
    spec::{CommandTarget, Faults, Program, Root, STDIN_MAX, VmCommandTarget},
    units::ByteCount,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Both kinds say alike what is run, and differ in where.
macro_rules! command_bodies {
    ($(
        $(#[$doc:meta])* $body:ident {
            [$($(#[$before_doc:meta])* $before:ident: $before_kind:ty,)*]
            working_dir: $dir_doc:tt,
            [$($(#[$after_doc:meta])* $after:ident: $after_kind:ty,)*]
        }
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $body {
            $($(#[$before_doc])* pub $before: $before_kind,)*
            /// Program and arguments; no shell is added.
            pub command: Vec<String>,
            /// Variables.
            #[serde(default, deserialize_with = "unique::map")]
            pub env: BTreeMap<String, String>,
            #[doc = $dir_doc]
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub working_dir: Option<String>,
            /// What it reads from standard input (at most 16 KiB; default nothing).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub stdin: Option<String>,
            $($(#[$after_doc])* pub $after: $after_kind,)*
        }

        impl $body {
            /// What is run, its faults named as fields of `at`.
            fn program(&self, at: &str, faults: &mut Faults) -> Program {
                let program = Program {
                    argv: self.command.clone(),
                    env: pairs(&self.env),
                    working_dir: self.working_dir.clone(),
                    stdin: self.stdin.clone(),
                };
                check_program(&program, at, faults);
                program
            }

            /// Nothing but what is run.
            fn of(program: &Program) -> Self {
                Self {
                    command: program.argv.clone(),
                    env: program.env.iter().cloned().collect(),
                    working_dir: program.working_dir.clone(),
                    stdin: program.stdin.clone(),
                    ..Self::default()
                }
            }
        }
    )*};
}

command_bodies! {
    /// A command in a throw-away namespace machine.
    CommandTargetBody {
        []
        working_dir: "Where it starts (default `/`).",
        [
            /// RAM in MiB (default 256).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            memory_mb: Option<u64>,
            /// Processes (default 256).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pids: Option<u32>,
            /// Thousandths of a CPU (default 1000).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            cpu_millis: Option<u32>,
            /// The root file system that it sees as `/`: the name of a folder below `jobs.roots` on the host. Left out, it
            /// sees the host's own root, read-only.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            image: Option<String>,
        ]
    }
    /// A command inside a machine, through its guest agent.
    VmCommandBody {
        [
            /// The machine's name or id.
            vm: String,
        ]
        working_dir: "Where it starts.",
        []
    }
}

fn check_program(Program { argv, env, working_dir, stdin }: &Program, at: &str, faults: &mut Faults) {
    if argv.first().is_none_or(String::is_empty) {
        faults.add(format!("{at}.command"), "names no program");
    }
    let text = argv.iter().map(String::len).sum::<usize>() + sum(env);
    if text > TEXT_MAX {
        faults.add(format!("{at}.command"), format!("and env have more than {TEXT_MAX} bytes together"));
    }
    let has_nul = |s: &String| s.contains('\0');
    if argv.iter().any(has_nul) || env.iter().any(|(k, v)| has_nul(k) || has_nul(v)) {
        faults.add(format!("{at}.command"), "or env has a NUL character");
    }
    let is_bad = |name: &str| name.is_empty() || name.contains('=') || name.starts_with("NOVACRON_");
    for (name, _) in env.iter().filter(|(name, _)| is_bad(name)) {
        let name: String = name.chars().take(80).collect();
        let why = "is no name for a variable, or one that NovaCron sets itself";
        faults.add(format!("{at}.env.{name}"), why);
    }
    let is_bad = |folder: &String| !folder.starts_with('/') || has_nul(folder) || folder.len() > URL_MAX;
    if working_dir.as_ref().is_some_and(is_bad) {
        let why = format!("must be an absolute path of at most {URL_MAX} bytes");
        faults.add(format!("{at}.working_dir"), why);
    }
    if stdin.as_ref().is_some_and(|text| text.len() > STDIN_MAX) {
        let why = format!("has more than {STDIN_MAX} bytes: let the command fetch it");
        faults.add(format!("{at}.stdin"), why);
    }
}

impl CommandTargetBody {
    pub(super) fn check(&self, at: &str, faults: &mut Faults) -> CommandTarget {
        let program = self.program(at, faults);
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
        CommandTarget {
            program,
            memory_max: ByteCount(memory_mb.min(1 << 20) << 20),
            pids_max: pids,
            cpu_millis,
            root: self.root(at, faults),
        }
    }

    fn root(&self, at: &str, faults: &mut Faults) -> Root {
        match self.image.as_deref().map(str::parse) {
            None => Root::Host,
            Some(Ok(name)) => Root::Image(name),
            Some(Err(fault)) => {
                faults.add(format!("{at}.image"), format!("names a root file system on the host: {fault}"));
                Root::Host
            }
        }
    }
}

impl VmCommandBody {
    pub(super) fn check(&self, at: &str, faults: &mut Faults) -> VmCommandTarget {
        check_name(at, "vm", &self.vm, faults);
        VmCommandTarget { vm: self.vm.clone(), program: self.program(at, faults) }
    }
}

impl From<&CommandTarget> for CommandTargetBody {
    fn from(c: &CommandTarget) -> Self {
        Self {
            memory_mb: Some(c.memory_max.as_mib()),
            pids: Some(c.pids_max),
            cpu_millis: Some(c.cpu_millis),
            image: match &c.root {
                Root::Host => None,
                Root::Image(name) => Some(name.to_string()),
            },
            ..Self::of(&c.program)
        }
    }
}

impl From<&VmCommandTarget> for VmCommandBody {
    fn from(c: &VmCommandTarget) -> Self {
        Self { vm: c.vm.clone(), ..Self::of(&c.program) }
    }
}
