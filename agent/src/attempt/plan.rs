//! From a start command to what the supervisor is told. Pure.

use super::call::GuestCall;
use crate::hypervisor::namespace::{
    request::{Isolated, Limits, Lower, PATH, Rights, Terms},
    result,
};
use novacron_common::{
    spec::{CommandTarget, OnLeaseLost, Program, Root, STDIN_MAX, VmCommandTarget},
    units::ByteCount,
    wire::{AttemptStart, Lease},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Below this not even a shell starts; the kernel would kill it and the report would mislead.
const MEMORY_MIN: ByteCount = ByteCount::mib(4);

/// What the host adds to a start command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place<'a> {
    /// The attempt's cgroup.
    pub cgroup: String,
    /// Its range of user ids.
    pub id_slot: u32,
    /// Paths to mask beside the usual ones.
    pub masked: Vec<PathBuf>,
    /// The folder of root file systems.
    pub roots: &'a Path,
}

/// A command that cannot be run as it is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCommand {
    /// No program.
    #[error("argv is empty: give a program and its arguments")]
    NoProgram,
    /// A NUL byte, which ends a text for the kernel.
    #[error("{field} holds a NUL byte")]
    Nul {
        /// Where.
        field: &'static str,
    },
    /// An environment name that no program could read.
    #[error("the environment variable {name:?} has an empty name, or '=' in it")]
    Name {
        /// It.
        name: String,
    },
    /// Too little memory.
    #[error("memory_max is {asked}: give at least {MEMORY_MIN}")]
    Memory {
        /// As given.
        asked: ByteCount,
    },
    /// No process.
    #[error("pids_max is 0: give at least 1")]
    Pids,
    /// More than is taken on the way to a command.
    #[error("stdin has {length} bytes: give at most {STDIN_MAX}, or have the command fetch its input")]
    Stdin {
        /// As given.
        length: usize,
    },
    /// No machine has such an id.
    #[error("there is no machine {vm:?}")]
    Machine {
        /// As given.
        vm: String,
    },
    /// A lease that cannot be kept.
    #[error("the lease is {duration_ms} ms: give {LEASE_MIN_MS} to {LEASE_MAX_MS}")]
    Lease {
        /// As given.
        duration_ms: u64,
    },
    /// The end of a lease would end it, and it has none.
    #[error("on_lease_lost is kill and there is no lease: give one")]
    NoLease,
}

/// Shortest lease: below this a renewal that is late by a switch of the scheduler would cost a healthy attempt.
const LEASE_MIN_MS: u64 = 500;

/// Longest lease. A lost host's attempts are given up only after it.
const LEASE_MAX_MS: u64 = 24 * 3600 * 1000;

/// The terms of the attempt's lease, if it has one.
///
/// # Errors
/// [`BadCommand`], before anything is written down.
pub fn terms(start: &AttemptStart) -> Result<Option<Terms>, BadCommand> {
    match (start.lease, start.on_lease_lost) {
        (None, OnLeaseLost::Kill) => Err(BadCommand::NoLease),
        (None, OnLeaseLost::Keep) => Ok(None),
        (Some(Lease { duration_ms }), _) if !(LEASE_MIN_MS..=LEASE_MAX_MS).contains(&duration_ms) => {
            Err(BadCommand::Lease { duration_ms })
        }
        (Some(Lease { duration_ms }), on_lost) => {
            Ok(Some(Terms { duration: Duration::from_millis(duration_ms), on_lost }))
        }
    }
}

/// What the supervisor is told.
///
/// # Errors
/// [`BadCommand`], before anything is written down.
pub fn isolate(
    start: &AttemptStart,
    target: &CommandTarget,
    place: Place<'_>,
) -> Result<Isolated, BadCommand> {
    check(target)?;
    Ok(Isolated {
        program: Program { env: environment(start, &target.program.env), ..target.program.clone() },
        hostname: "novacron-job".into(),
        limits: Limits::of(target),
        lower: Lower::Folder(match &target.root {
            Root::Host => PathBuf::from("/"),
            Root::Image(name) => place.roots.join(name.as_str()),
        }),
        user: None,
        rights: Rights::None,
        masked: place.masked,
        cgroup: place.cgroup,
        id_slot: place.id_slot,
        card: None,
        volumes: Vec::new(),
        timeout_ms: Some(start.timeout_ms),
    })
}

/// What a command in a machine is told, and the way there.
///
/// # Errors
/// [`BadCommand`], before anything is written down.
pub fn in_guest(
    start: &AttemptStart,
    target: &VmCommandTarget,
    libvirt_uri: &str,
) -> Result<GuestCall, BadCommand> {
    let vm =
        target.vm.parse().map_err(|_| BadCommand::Machine { vm: target.vm.chars().take(80).collect() })?;
    check_texts(&target.program)?;
    // The file that NOVACRON_OUTPUT names is on this host: a command in a machine has none.
    let env = with_ours(&target.program.env, variables(start));
    let command = Program { env, ..target.program.clone() };
    Ok(GuestCall { libvirt_uri: libvirt_uri.to_owned(), vm, command })
}

fn check(target: &CommandTarget) -> Result<(), BadCommand> {
    check_texts(&target.program)?;
    match target {
        CommandTarget { memory_max, .. } if *memory_max < MEMORY_MIN => {
            Err(BadCommand::Memory { asked: *memory_max })
        }
        CommandTarget { pids_max: 0, .. } => Err(BadCommand::Pids),
        _ => Ok(()),
    }
}

fn check_texts(Program { argv, env, working_dir, stdin }: &Program) -> Result<(), BadCommand> {
    let has_nul = |text: &String| text.contains('\0');
    let name_is_bad = |name: &str| name.is_empty() || name.contains('=');
    if argv.first().is_none_or(String::is_empty) {
        return Err(BadCommand::NoProgram);
    }
    if argv.iter().any(has_nul) {
        return Err(BadCommand::Nul { field: "argv" });
    }
    if env.iter().any(|(name, value)| has_nul(name) || has_nul(value)) {
        return Err(BadCommand::Nul { field: "env" });
    }
    if working_dir.as_ref().is_some_and(has_nul) {
        return Err(BadCommand::Nul { field: "working_dir" });
    }
    if let Some((name, _)) = env.iter().find(|(name, _)| name_is_bad(name)) {
        return Err(BadCommand::Name { name: name.chars().take(80).collect() });
    }
    match stdin {
        Some(text) if text.len() > STDIN_MAX => Err(BadCommand::Stdin { length: text.len() }),
        _ => Ok(()),
    }
}

/// A job's variables, `PATH` if it states none, and ours, which it cannot replace.
fn environment(start: &AttemptStart, given: &[(String, String)]) -> Vec<(String, String)> {
    let mut ours = variables(start);
    ours.push((result::VARIABLE.to_owned(), result::PATH.to_owned()));
    with_ours(given, ours)
}

fn with_ours(given: &[(String, String)], ours: Vec<(String, String)>) -> Vec<(String, String)> {
    let is_ours = |name: &str| ours.iter().any(|(known, _)| known == name);
    let theirs = given.iter().filter(|(name, _)| !is_ours(name)).cloned();
    let path = (!given.iter().any(|(name, _)| name == "PATH")).then(|| ("PATH".to_owned(), PATH.to_owned()));
    let mut env: Vec<_> = path.into_iter().chain(theirs).collect();
    env.extend(ours);
    env
}

/// What an attempt is told about itself: by the agent, and, where that says nothing, by the coordinator.
pub fn variables(start: &AttemptStart) -> Vec<(String, String)> {
    let fire = &start.attempt.fire;
    let own = [
        ("NOVACRON_JOB_ID", fire.job.to_string()),
        ("NOVACRON_FIRE_ID", fire.to_string()),
        ("NOVACRON_EPOCH", start.epoch.0.to_string()),
        ("NOVACRON_ATTEMPT", start.attempt.number.to_string()),
        ("NOVACRON_SCHEDULED_AT", start.scheduled_at.rfc3339()),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value));
    let is_own = |name: &String| name == result::VARIABLE || own.iter().any(|(known, _)| known == name);
    let further = start.env.iter().filter(|(name, _)| !is_own(name)).cloned();
    own.iter().cloned().chain(further).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::{
        ids::{AttemptKey, FireCause, FireKey, JobId},
        spec::{JobTarget, OnLeaseLost, Root},
        units::{Epoch, UnixMillis},
    };

    fn start() -> AttemptStart {
        let scheduled_at = UnixMillis(1_700_000_000_000);
        let fire = FireKey { job: JobId::from_u128(1), scheduled_at, cause: FireCause::Schedule };
        AttemptStart {
            attempt: AttemptKey { fire, number: 2 },
            epoch: Epoch(7),
            target: JobTarget::Noop,
            timeout_ms: 1000,
            scheduled_at,
            lease: None,
            on_lease_lost: OnLeaseLost::Keep,
            env: Vec::new(),
        }
    }

    fn target() -> CommandTarget {
        CommandTarget {
            program: Program::new(["true"]),
            memory_max: ByteCount::mib(64),
            pids_max: 16,
            cpu_millis: 1000,
            root: Root::Host,
        }
    }

    fn place() -> Place<'static> {
        Place { cgroup: "g".into(), id_slot: 0, masked: Vec::new(), roots: Path::new("/roots") }
    }

    #[test]
    fn an_image_is_a_folder_of_that_name() {
        let root = |root| isolate(&start(), &CommandTarget { root, ..target() }, place()).unwrap().lower;
        assert_eq!(root(Root::Host), Lower::Folder("/".into()));
        assert_eq!(root(Root::Image("debian".parse().unwrap())), Lower::Folder("/roots/debian".into()));
    }

    #[test]
    fn a_job_cannot_replace_what_it_is_told_about_itself() {
        let given = vec![
            ("NOVACRON_EPOCH".into(), "99".into()),
            ("NOVACRON_RUN_ID".into(), "mine".into()),
            ("PATH".into(), "/opt".into()),
            ("A".into(), "b".into()),
        ];
        let further =
            vec![("NOVACRON_RUN_ID".into(), "run-1".into()), ("NOVACRON_ATTEMPT".into(), "99".into())];
        let start = AttemptStart { env: further, ..start() };
        let program = Program { env: given, ..target().program };
        let env = isolate(&start, &CommandTarget { program, ..target() }, place()).unwrap().program.env;
        let value = |name: &str| {
            let found: Vec<_> = env.iter().filter(|(known, _)| known == name).collect();
            assert_eq!(found.len(), 1, "{name}");
            found[0].1.clone()
        };
        assert_eq!((value("NOVACRON_EPOCH"), value("NOVACRON_ATTEMPT")), ("7".into(), "2".into()));
        assert_eq!((value("PATH"), value("A")), ("/opt".into(), "b".into()));
        assert_eq!(value("NOVACRON_SCHEDULED_AT"), "2023-11-14T22:13:20.000Z");
        assert_eq!(
            (value("NOVACRON_RUN_ID"), value("NOVACRON_OUTPUT")),
            ("run-1".into(), result::PATH.into())
        );
        assert_eq!(env.len(), 9);
    }

    #[test]
    fn a_lease_is_neither_too_short_nor_missing_where_it_is_needed() {
        let with = |lease: Option<u64>, on_lease_lost| {
            let lease = lease.map(|duration_ms| Lease { duration_ms });
            terms(&AttemptStart { lease, on_lease_lost, ..start() })
        };
        assert_eq!(with(None, OnLeaseLost::Keep), Ok(None));
        assert_eq!(with(None, OnLeaseLost::Kill), Err(BadCommand::NoLease));
        assert_eq!(with(Some(499), OnLeaseLost::Kill), Err(BadCommand::Lease { duration_ms: 499 }));
        assert!(with(Some(u64::MAX), OnLeaseLost::Keep).is_err());
        let terms = with(Some(30_000), OnLeaseLost::Kill).unwrap().unwrap();
        assert_eq!((terms.duration, terms.on_lost), (Duration::from_secs(30), OnLeaseLost::Kill));
    }

    #[test]
    fn what_cannot_run_is_refused_by_field() {
        let bad = |change: fn(&mut CommandTarget)| {
            let mut target = target();
            change(&mut target);
            isolate(&start(), &target, place()).unwrap_err()
        };
        assert_eq!(bad(|t| t.program.argv.clear()), BadCommand::NoProgram);
        assert_eq!(bad(|t| t.program.argv.push("a\0b".into())), BadCommand::Nul { field: "argv" });
        assert_eq!(
            bad(|t| t.program.env.push(("A=B".into(), String::new()))),
            BadCommand::Name { name: "A=B".into() }
        );
        assert_eq!(bad(|t| t.memory_max = ByteCount(1)), BadCommand::Memory { asked: ByteCount(1) });
        assert_eq!(bad(|t| t.pids_max = 0), BadCommand::Pids);
        let length = STDIN_MAX + 1;
        assert_eq!(bad(|t| t.program.stdin = Some("x".repeat(STDIN_MAX + 1))), BadCommand::Stdin { length });
    }

    #[test]
    fn a_command_in_a_machine_is_told_who_it_is_and_has_no_file_for_its_result() {
        let given = vec![("NOVACRON_EPOCH".into(), "99".into()), ("A".into(), "b".into())];
        let vm = novacron_common::ids::VmId::from_u128(5);
        let program = Program { env: given, ..Program::new(["true"]) };
        let target = VmCommandTarget { vm: vm.to_string(), program };
        let call = in_guest(&start(), &target, "qemu:///system").unwrap();
        assert_eq!(call.vm, vm);
        let value = |name: &str| call.command.variable(name);
        assert_eq!(
            (value("NOVACRON_EPOCH"), value("A"), value("NOVACRON_OUTPUT")),
            (Some("7"), Some("b"), None)
        );
        assert!(value("PATH").is_some_and(|path| path.contains("/bin")));
        assert_eq!(call.command.env.len(), 7);
        let bad = |change: fn(&mut VmCommandTarget)| {
            let mut target = target.clone();
            change(&mut target);
            in_guest(&start(), &target, "").unwrap_err()
        };
        assert_eq!(bad(|t| t.vm = "web-1".into()), BadCommand::Machine { vm: "web-1".into() });
        assert_eq!(bad(|t| t.program.argv.clear()), BadCommand::NoProgram);
        assert_eq!(
            bad(|t| t.program.working_dir = Some("/a\0".into())),
            BadCommand::Nul { field: "working_dir" }
        );
        let length = STDIN_MAX + 1;
        assert_eq!(bad(|t| t.program.stdin = Some("x".repeat(STDIN_MAX + 1))), BadCommand::Stdin { length });
    }
}
