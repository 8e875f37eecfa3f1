//! Death behind every step of a machine's making and end, whoever dies: what runs is adopted, of all else nothing is left, and
//! the machine starts again. A step that is new in the code is among them by itself.

use crate::{
    network::{on_a_host, traces},
    place::{Place, place},
    upper::devices,
    world::{eventually, exe, groups, pids_of, processes_with},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use novacron_agent::hypervisor::{Definition, Hypervisor, namespace::Namespace};
use novacron_common::{
    ids::{NetworkId, VmId},
    record::VmState,
    spec::NetworkSpec,
    splitmix::SplitMix64,
};
use novacron_tests::steps::{Board, Role, Step};
use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsString,
    fmt, fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const ADDRESS: &str = "10.77.1.2/24";
const GATEWAY: &str = "10.77.1.1";

/// No other process of the host has these words.
pub const COMMAND: &str = "sleep 600.8161";

/// The id of the host that user 0 of an agent's first machine stands for: the first of the upper half of the ranges.
pub const FIRST_ID: &str = "1946157056";

/// A death takes half a second.
const OF_EACH_KIND: usize = 4;

fn wanted(place: &Place) -> Definition {
    let mut wanted = place.definition();
    wanted.vm = VmId::from_u128(7);
    wanted.spec.cmdline = Some(COMMAND.into());
    wanted.spec.network = NetworkSpec {
        address: Some(ADDRESS.parse().unwrap()),
        gateway: Some(GATEWAY.parse().unwrap()),
        tenant: Some(NetworkId::from_u128(1)),
        ..NetworkSpec::default()
    };
    wanted.spec.volumes = vec!["kept:/srv/kept".parse().unwrap()];
    wanted
}

/// One process that makes a machine, starts it, stops it and removes it, from the beginning on.
fn live(place: &Place) -> (Board, Child) {
    for kept in [home(place), place.folder.path().join("volumes")] {
        let _none_yet = fs::remove_dir_all(kept);
    }
    let board = Board::make(place.folder.path()).unwrap();
    let image = serde_json::to_string(&place.image).unwrap();
    let mut agent = Command::new(exe());
    agent
        .arg("life")
        .arg(place.folder.path())
        .args([ADDRESS, GATEWAY, COMMAND, &image])
        .stderr(Stdio::null());
    (board, agent.spawn().unwrap())
}

pub fn home(place: &Place) -> PathBuf {
    place.folder.path().join("machines")
}

/// What is on the host of what a machine is made of, its own files apart.
fn remains(place: &Place) -> Vec<String> {
    let here = place.folder.path().to_str().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(here)).map(str::to_owned).collect();
    let groups = if home(place).join(".instance").exists() { groups(&home(place)) } else { Vec::new() };
    let groups = groups.into_iter().map(|group| group.display().to_string()).collect();
    let supervisors = processes_with(&format!("{} supervise {here}", exe().display()));
    [traces(), devices(place), mounts, groups, supervisors, processes_with(COMMAND)].concat()
}

pub async fn nothing_remains(place: &Place, when: &str) {
    for _ in 0..500 {
        if remains(place).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{when}: {:?}", remains(place));
}

/// The machine's supervisor.
fn supervisor(place: &Place) -> Option<Pid> {
    let run = home(place).join(VmId::from_u128(7).to_string()).join("run");
    // Of its copies, which have the same words, it is the eldest.
    pids_of(&format!("{} supervise {}", exe().display(), run.display())).first().copied()
}

/// The machine's first process.
fn init(place: &Place) -> Option<Pid> {
    let supervisor = supervisor(place)?;
    let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).ok()?;
    children.split_ascii_whitespace().next()?.parse().ok().map(Pid::from_raw)
}

/// The ids of the host that user 0 of the machine stands for.
fn first_id(place: &Place) -> Option<String> {
    let map = fs::read_to_string(format!("/proc/{}/uid_map", init(place)?)).ok()?;
    map.split_ascii_whitespace().nth(1).map(str::to_owned)
}

/// One death: who, and behind which step of whom.
struct Death {
    victim: Role,
    step: Step,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} killed behind {}", self.victim, self.step)
    }
}

/// Whoever takes the step can die behind it, and so can those above.
const fn mortals(role: Role) -> &'static [Role] {
    match role {
        Role::Agent => &[Role::Agent],
        Role::Supervisor => &[Role::Supervisor, Role::Agent],
        Role::Init => &[Role::Init, Role::Supervisor, Role::Agent],
    }
}

/// Every death of a life with these steps. Of a loop's rounds that have nothing else in them the first two stand for all.
fn deaths(steps: &[Step]) -> Vec<Death> {
    let mut deaths = Vec::new();
    for role in [Role::Agent, Role::Supervisor, Role::Init] {
        let own: Vec<&Step> = steps.iter().filter(|step| step.role == role).collect();
        let is_another_round = |at: usize| at >= 2 && own[at - 2..at].iter().all(|s| s.name == own[at].name);
        for (_, step) in own.iter().enumerate().filter(|(at, _)| !is_another_round(*at)) {
            let victims = mortals(role).iter();
            deaths.extend(victims.map(|victim| Death { victim: *victim, step: (*step).clone() }));
        }
    }
    deaths
}

impl Death {
    /// Carries it out, and looks at what is left. Says whether that step came this time: threads of the agent, and what wakes a
    /// supervisor, take turns as they like.
    async fn happen(&self, place: &Place) -> bool {
        let (board, mut agent) = live(place);
        board.halt_behind(&self.step);
        let mut has_ended = false;
        eventually(&format!("{}", self.step), || {
            has_ended = agent.try_wait().unwrap().is_some();
            has_ended || board.is_halted()
        })
        .await;
        if has_ended {
            board.go_on();
            nothing_remains(place, "after a life that nobody disturbed").await;
            return false;
        }
        let process = match self.victim {
            Role::Agent => Some(Pid::from_raw(agent.id().cast_signed())),
            Role::Supervisor => supervisor(place),
            Role::Init => init(place),
        };
        kill(process.unwrap_or_else(|| panic!("{self}: it is not there")), Signal::SIGKILL).unwrap();
        if self.victim == Role::Agent {
            agent.wait().unwrap();
        }
        board.go_on();
        if self.victim != Role::Agent {
            // It goes on, sees what happened, and leaves in order.
            eventually(&format!("{self}: the agent ends"), || agent.try_wait().unwrap().is_some()).await;
            nothing_remains(place, &format!("{self}, and the agent lived on")).await;
            assert!(!home(place).join(VmId::from_u128(7).to_string()).exists(), "{self}");
        }
        starts_again(place, self).await;
        true
    }
}

/// What the next life of the agent finds is a machine that runs, or nothing; and it can do with it what it likes.
async fn starts_again(place: &Place, death: &Death) {
    let wanted = wanted(place);
    let host = Namespace::open(place.folder.path(), exe()).await.unwrap();
    if host.state(wanted.vm).await.unwrap() != VmState::Running {
        nothing_remains(place, &format!("{death}, at the next start of the agent")).await;
    }
    match host.stop(wanted.vm, Duration::ZERO.into()).await {
        Ok(_) => assert_eq!(host.state(wanted.vm).await.unwrap(), VmState::Stopped, "{death}"),
        Err(error) => assert_eq!(host.state(wanted.vm).await.unwrap(), VmState::Missing, "{death}: {error}"),
    }
    nothing_remains(place, &format!("{death}, and ended after that")).await;
    host.define(&wanted).await.unwrap();
    host.start(wanted.vm).await.unwrap_or_else(|error| panic!("{death}: {error:?}"));
    assert_eq!(processes_with(COMMAND).len(), 1, "{death}");
    assert_eq!(first_id(place).as_deref(), Some(FIRST_ID), "{death}: its ids are not given back");
    host.undefine(wanted.vm).await.unwrap();
    nothing_remains(place, &format!("{death}, started anew and removed")).await;
    let left = fs::read_dir(home(place)).unwrap().map(|entry| entry.unwrap().file_name());
    let left: BTreeSet<_> = left.collect();
    // Blank disks are the agent's, for machines to come.
    assert_eq!(left, [".blanks", ".instance"].map(OsString::from).into(), "{death}");
}

/// Every step of a life that nobody disturbs.
async fn steps(place: &Place) -> Vec<Step> {
    let (board, mut agent) = live(place);
    assert!(agent.wait().unwrap().success());
    nothing_remains(place, "after an undisturbed life").await;
    board.steps()
}

/// All deaths in a soak; else some of each kind, in an order of chance, which `NOVACRON_STEPS_SEED` repeats.
fn chosen(all: Vec<Death>) -> Vec<Death> {
    if std::env::var_os("NOVACRON_SOAK").is_some() {
        return all;
    }
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seed = std::env::var("NOVACRON_STEPS_SEED").map_or_else(|_| clock(), |seed| seed.parse().unwrap());
    eprintln!("NOVACRON_STEPS_SEED={seed}");
    let mut all = all;
    SplitMix64::new(seed).shuffle(&mut all);
    let mut drawn: HashMap<(Role, Role), usize> = HashMap::new();
    all.retain(|death| {
        let drawn = drawn.entry((death.step.role, death.victim)).or_default();
        *drawn += 1;
        *drawn <= OF_EACH_KIND
    });
    all
}

#[test]
fn death_behind_any_step_leaves_nothing_and_the_machine_starts_again() {
    novacron_tests::require!(root);
    on_a_host(|| async {
        let place = place("#!/bin/sh\n", &["/bin/sh", "/bin/sleep"]);
        let all = deaths(&steps(&place).await);
        // Every process is seen, from its first step to its last.
        for (role, name) in [
            (Role::Agent, "make the folder"),
            (Role::Agent, "give a disk its name"),
            (Role::Agent, "remove a folder"),
            (Role::Supervisor, "block signals"),
            (Role::Supervisor, "mount the overlay"),
            (Role::Supervisor, "outcome"),
            (Role::Init, "pivot into the new root"),
            (Role::Init, "start the command"),
        ] {
            assert!(all.iter().any(|death| (death.step.role, &*death.step.name) == (role, name)), "{name}");
        }
        let chosen = chosen(all);
        let mut missed = Vec::new();
        for death in &chosen {
            if !death.happen(&place).await {
                missed.push(death.to_string());
            }
        }
        assert!(missed.len() * 10 <= chosen.len(), "did not come about: {missed:?}");
    });
}
