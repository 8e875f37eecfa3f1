//! Commands in machines that run: their streams and ends, the walls around them, and what becomes of them.

use crate::{
    machine::definition,
    world::{eventually, exe, processes_with},
};
use novacron_agent::hypervisor::{Hypervisor, namespace::Namespace};
use novacron_common::{
    ids::VmId,
    wire::{ExecCommand, ExecEnd, ExecInput, WindowSize},
};
use novacron_tests::talk::{Said, Talk};
use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};
use tempfile::TempDir;

/// A machine that runs, over the host's root.
struct Place {
    namespace: Namespace,
    vm: VmId,
    _folder: TempDir,
}

impl Place {
    async fn running(cmdline: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let namespace = Namespace::open(folder.path(), exe()).await.unwrap();
        let wanted = definition(folder.path(), Some(cmdline));
        namespace.define(&wanted).await.unwrap();
        namespace.start(wanted.vm).await.unwrap();
        Self { namespace, vm: wanted.vm, _folder: folder }
    }

    async fn begin(&self, command: &ExecCommand) -> anyhow::Result<Talk> {
        Talk::begun(self.namespace.exec(self.vm, command).await?).await
    }

    async fn run(&self, command: &ExecCommand) -> Said {
        self.begin(command).await.unwrap().to_end().await.unwrap()
    }

    async fn leave(self) {
        self.namespace.undefine(self.vm).await.unwrap();
    }
}

fn shell(script: &str) -> ExecCommand {
    ExecCommand { argv: ["sh", "-c", script].map(str::to_owned).to_vec(), ..ExecCommand::default() }
}

const EXITED: Option<ExecEnd> = Some(ExecEnd::Exited(0));

#[tokio::test]
async fn streams_are_apart_and_the_exit_code_is_the_commands() {
    novacron_tests::require!(root);
    let place = Place::running("sleep 600.811").await;
    let command = ExecCommand {
        input: true,
        env: vec![("GREETING".into(), "hello".into())],
        working_dir: Some("/usr".into()),
        ..shell("read name; echo $GREETING $name from $PWD; echo complaint >&2; cat; exit 7")
    };
    let mut talk = place.begin(&command).await.unwrap();
    talk.type_in("nova\nrest\n").await.unwrap();
    talk.say(&ExecInput::End).await.unwrap();
    let said = talk.to_end().await.unwrap();
    assert_eq!(said.output, "hello nova from /usr\nrest\n");
    assert_eq!((said.errors.as_str(), said.end), ("complaint\n", Some(ExecEnd::Exited(7))));

    // Without input there is nothing to read, and what is printed last is not lost, however much it is.
    let said = place.run(&shell("cat; head -c 3000000 /dev/zero | tr '\\0' x; echo end")).await;
    assert!(said.output.len() == 3_000_004 && said.output.ends_with("xend\n"), "{}", said.output.len());
    let missing = ExecCommand { argv: vec!["no-such-program".into()], ..ExecCommand::default() };
    let error = place.begin(&missing).await.err().unwrap().to_string();
    assert!(error.contains("no-such-program"), "{error}");
    place.leave().await;
}

/// Links and lines of a process by which its walls can be told.
fn walls(pid: &str) -> BTreeMap<String, String> {
    let folder = PathBuf::from("/proc").join(pid);
    let spaces = ["user", "pid_for_children", "mnt", "net", "uts", "ipc", "cgroup"];
    let mut walls: BTreeMap<String, String> = spaces
        .iter()
        .map(|name| {
            ((*name).to_owned(), fs::read_link(folder.join("ns").join(name)).unwrap().display().to_string())
        })
        .collect();
    let status = fs::read_to_string(folder.join("status")).unwrap();
    let wanted =
        ["Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"];
    for line in status.lines() {
        let (name, value) = line.split_once(':').unwrap();
        if wanted.contains(&name) {
            walls.insert(name.to_owned(), value.trim().to_owned());
        }
    }
    for file in ["cgroup", "limits", "uid_map", "gid_map"] {
        walls.insert(file.to_owned(), fs::read_to_string(folder.join(file)).unwrap());
    }
    walls
}

fn pid_of(command: &str) -> Option<String> {
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let is_it = String::from_utf8_lossy(&line).replace('\0', " ").trim_end() == command;
        is_it.then(|| entry.file_name().into_string().unwrap())
    })
}

#[tokio::test]
async fn a_command_has_the_walls_of_its_machine_and_no_descriptor_of_the_agent() {
    novacron_tests::require!(root);
    let place = Place::running("sleep 600.821").await;
    let inside = ExecCommand { argv: vec!["sleep".into(), "600.822".into()], ..ExecCommand::default() };
    let talk = place.begin(&inside).await.unwrap();
    let (own, later) = (pid_of("sleep 600.821").unwrap(), pid_of("sleep 600.822").unwrap());
    let (own, later) = (walls(&own), walls(&later));
    assert_eq!(own, later);
    assert_eq!(own["CapEff"], "0000000000000000");
    assert_eq!(own["Seccomp"], "2");
    assert_ne!(own["user"], fs::read_link("/proc/self/ns/user").unwrap().display().to_string());
    drop(talk);
    let said = place.run(&shell("ls -l /proc/self/fd | grep -c -- '->'; ls /proc/self/fd")).await;
    // Its three streams, and the folder that ls itself has open.
    assert_eq!(said.output, "4\n0\n1\n2\n3\n", "{said:?}");
    let refused = place.run(&shell("mount -t tmpfs x /tmp; unshare -U true; kill -0 -1")).await;
    assert!(refused.errors.contains("mount"), "{refused:?}");
    place.leave().await;
}

#[tokio::test]
async fn a_command_runs_as_the_user_that_is_named() {
    novacron_tests::require!(root);
    let place = Place::running("sleep 600.831").await;
    let as_user = |user: &str| ExecCommand {
        user: Some(user.to_owned()),
        ..shell("echo $(id -u) $(id -g) $(id -G) $HOME; grep -h ^CapEff /proc/self/status")
    };
    let said = place.run(&as_user("www-data")).await;
    assert_eq!(said.output, "33 33 33 /var/www\nCapEff:\t0000000000000000\n", "{said:?}");
    let said = place.run(&as_user("1234:4321")).await;
    assert!(said.output.starts_with("1234 4321 4321 /\n"), "{said:?}");
    for nobody in ["no-such-user", "70000", "root:no-such-group"] {
        assert!(place.begin(&as_user(nobody)).await.is_err(), "{nobody}");
    }
    place.leave().await;
}

#[tokio::test]
async fn a_command_ends_with_whoever_asked_for_it_and_with_its_machine() {
    novacron_tests::require!(root);
    let place = Place::running("sleep 600.841").await;
    // One that heeds SIGHUP, and one that does not.
    for script in ["exec sleep 600.842", "trap '' HUP; sleep 600.842; sleep 600.842"] {
        let talk = place.begin(&shell(script)).await.unwrap();
        eventually("the command runs", || !processes_with("sleep 600.842").is_empty()).await;
        drop(talk);
        eventually("it is gone", || processes_with("sleep 600.842").is_empty()).await;
    }
    let mut talk = place.begin(&shell("exec sleep 600.843")).await.unwrap();
    talk.say(&ExecInput::Signal(15)).await.unwrap();
    assert_eq!(talk.to_end().await.unwrap().end, Some(ExecEnd::Killed(15)));

    let talk = place.begin(&shell("exec sleep 600.844")).await.unwrap();
    place.namespace.stop(place.vm, Duration::ZERO.into()).await.unwrap();
    assert_eq!(talk.to_end().await.unwrap().end.filter(|end| *end != ExecEnd::Killed(9)), None);
    assert_eq!(processes_with("sleep 600.844"), Vec::<String>::new());
    place.leave().await;
}

#[tokio::test]
async fn a_commands_memory_is_its_machines() {
    novacron_tests::require!(root);
    let place = Place::running("sleep 600.851").await;
    let said = place.run(&shell("exec perl -e '$x = \"a\" x (200 << 20); print length $x'")).await;
    assert_eq!((said.output.as_str(), said.end), ("", Some(ExecEnd::Killed(9))));
    let said = place.run(&shell("echo well")).await;
    assert_eq!((said.output.as_str(), said.end), ("well\n", EXITED));
    place.leave().await;
}

#[tokio::test]
async fn a_terminal_has_a_size_and_its_keys_are_signals() {
    novacron_tests::require!(root);
    let place = Place::running("sleep 600.861").await;
    let script = "trap 'stty size' WINCH; stty size; test -t 0 && test -t 2 && echo TERMINAL $TERM; \
                  (: >/dev/tty) && echo CONTROLLING; while :; do sleep 0.1; done";
    let command =
        ExecCommand { input: true, terminal: Some(WindowSize { rows: 24, columns: 80 }), ..shell(script) };
    let mut talk = place.begin(&command).await.unwrap();
    let heard = talk.hear("CONTROLLING").await.unwrap();
    assert!(heard.contains("24 80") && heard.contains("TERMINAL xterm"), "{heard}");
    talk.say(&ExecInput::Resize(WindowSize { rows: 50, columns: 132 })).await.unwrap();
    talk.hear("50 132").await.unwrap();
    talk.type_in("\x03").await.unwrap();
    assert_eq!(talk.to_end().await.unwrap().end, Some(ExecEnd::Killed(2)));

    // Its user owns it, and there is none of the host's or of another command's beside it.
    let command = ExecCommand { user: Some("33".into()), ..command };
    let command = ExecCommand { argv: shell("stat -L -c %u /proc/self/fd/0; exec cat").argv, ..command };
    let mut talk = place.begin(&command).await.unwrap();
    talk.hear("33").await.unwrap();
    talk.type_in("echoed\n").await.unwrap();
    talk.say(&ExecInput::End).await.unwrap();
    let said = talk.to_end().await.unwrap();
    assert_eq!((said.output.matches("echoed").count(), said.end), (2, EXITED), "{said:?}");
    place.leave().await;
}
