//! Output through relays, with the real shell, `dd` and pipes of this machine.

use super::{Channel, local::Local, run};
use crate::{
    attempt::call::{Answer, Printer},
    hypervisor::namespace::{
        folder::Folder,
        output::Capture,
        spool::{Spool, SpoolReader},
    },
};
use novacron_common::{
    record::{AttemptOutcome, Output},
    spec::Program,
};
use std::{future::pending, path::Path, time::Duration};
use tempfile::TempDir;

/// Runs a command to its end.
async fn ran(machine: &Local, command: &Program) -> (Answer, Output) {
    let folder = TempDir::new().unwrap();
    ran_at(machine, command, folder.path(), pending()).await
}

async fn ran_at(
    machine: &Local,
    command: &Program,
    at: &Path,
    to_end: impl Future<Output = AttemptOutcome>,
) -> (Answer, Output) {
    let folder = Folder::at(at);
    let mut printer = Printer { folder: &folder, capture: Capture::default(), spool: Spool::default() };
    let open = || Box::new(machine.clone()) as Box<dyn Channel>;
    let answer = run(&open, command, &mut printer, to_end).await;
    (answer, printer.capture.finish())
}

fn sh(script: &str) -> Program {
    let env = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    Program { env, ..Program::new(["/bin/sh", "-c", script]) }
}

/// The folder in which the machine had the output, from what was opened in it.
fn nothing_is_left(machine: &Local) {
    let path = machine.0.lock().unwrap().opened.first().expect("nothing was read").clone();
    let folder = Path::new(&path).parent().unwrap();
    assert!(folder.file_name().unwrap().to_str().unwrap().starts_with("novacron-"), "{folder:?}");
    while folder.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until those who look on see this.
async fn shown(folder: &Path, text: &str) {
    loop {
        let folder = Folder::at(folder);
        if let Some(mut reader) = SpoolReader::open(&folder).unwrap() {
            let (_, bytes) = reader.next(usize::MAX).unwrap();
            if String::from_utf8_lossy(&bytes).contains(text) {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Nine million bytes between two lines.
const FLOOD: &str =
    r"echo first; dd if=/dev/zero bs=1000 count=9000 2>/dev/null | tr '\0' x; echo last; exit 4";

fn flood_is_bounded_and_counted(answer: &Answer, output: &Output) {
    assert_eq!(answer.outcome, AttemptOutcome::Exited(4));
    assert_eq!(output.total, 6 + 9_000_000 + 5);
    assert_eq!((output.head.len(), output.tail.len()), (Output::PART_MAX, Output::PART_MAX));
    assert!(output.head.starts_with(b"first\nxxx") && output.tail.ends_with(b"xxxlast\n"));
    let left_out = 9_000_011 - 2 * Output::PART_MAX;
    assert!(output.to_text().contains(&format!("[… {left_out} bytes left out …]")));
    let result = answer.result.as_deref().unwrap();
    assert!(result.starts_with("first\nxxx") && result.len() == Output::PART_MAX);
}

#[tokio::test]
async fn of_a_flood_head_and_tail_are_kept_and_the_rest_is_counted() {
    let machine = Local::default();
    let (answer, output) = ran(&machine, &sh(FLOOD)).await;
    flood_is_bounded_and_counted(&answer, &output);
    nothing_is_left(&machine);
}

#[tokio::test]
async fn a_reader_that_comes_too_late_for_the_middle_has_both_ends_and_the_right_count() {
    let machine = Local::default();
    machine.0.lock().unwrap().reads_late = true;
    let (answer, output) = ran(&machine, &sh(FLOOD)).await;
    flood_is_bounded_and_counted(&answer, &output);
    let opened = |end: &str| machine.0.lock().unwrap().opened.iter().any(|path| path.ends_with(end));
    assert!(opened("/out.0") && opened("/out.at"), "the first file, and then where to go on");
    nothing_is_left(&machine);
}

#[tokio::test]
async fn what_a_command_prints_is_shown_while_it_runs() {
    let (machine, folder) = (Local::default(), TempDir::new().unwrap());
    let gate = folder.path().join("gate");
    let script =
        r#"echo "a line"; echo oh >&2; while [ ! -e "$GATE" ]; do sleep 0.02; done; echo end; kill -TERM $$"#;
    let mut command = sh(script);
    command.env.push(("GATE".to_owned(), gate.to_str().unwrap().to_owned()));
    let open_gate = async {
        shown(folder.path(), "a line\n").await;
        shown(folder.path(), "oh\n").await;
        std::fs::write(&gate, "").unwrap();
    };
    let ((answer, output), ()) =
        tokio::join!(ran_at(&machine, &command, folder.path(), pending()), open_gate);
    assert_eq!(answer.outcome, AttemptOutcome::Signaled(15));
    assert_eq!(answer.result.as_deref(), Some("a line\nend\n"));
    assert_eq!(output.total, 14);
    nothing_is_left(&machine);
}

#[tokio::test]
async fn a_command_has_its_own_environment_folder_and_input_and_no_word_of_it_is_read_by_a_shell() {
    let names = ["n", "base", "file", "size", "start", "name", "place", "relay", "process"];
    let mut command = sh(r#"cat; pwd; echo "$n$base$file$size$start$name$place$relay$process" "$0" "$1""#);
    command.env.extend(names.map(|name| (name.to_owned(), "=".to_owned())));
    command.argv.extend(["$(reboot)".to_owned(), "'; \"`".to_owned()]);
    command.working_dir = Some("/proc/sys".to_owned());
    command.stdin = Some("in\n".to_owned());
    let (answer, _) = ran(&Local::default(), &command).await;
    let said = "in\n/proc/sys\n========= $(reboot) '; \"`\n";
    assert_eq!((answer.outcome, answer.result.as_deref()), (AttemptOutcome::Exited(0), Some(said)));
}

#[tokio::test]
async fn a_program_that_is_not_there_never_started_but_one_that_exits_with_127_did() {
    for missing in ["/nowhere/at-all", "no-such-program-at-all"] {
        let machine = Local::default();
        let (answer, _) = ran(&machine, &Program { argv: vec![missing.to_owned()], ..sh("") }).await;
        let AttemptOutcome::FailedToStart { reason } = &answer.outcome else {
            panic!("{:?}", answer.outcome)
        };
        assert!(reason.contains(missing), "{reason}");
        nothing_is_left(&machine);
    }
    let (answer, _) = ran(&Local::default(), &sh("exit 127")).await;
    assert_eq!(answer.outcome, AttemptOutcome::Exited(127));
}

#[tokio::test]
async fn what_was_printed_before_a_command_was_ended_is_kept() {
    let (machine, folder) = (Local::default(), TempDir::new().unwrap());
    let killed = async {
        shown(folder.path(), "begun\n").await;
        AttemptOutcome::Killed
    };
    let command = sh("echo begun; sleep 1000 & sleep 1000");
    let (answer, output) = ran_at(&machine, &command, folder.path(), killed).await;
    assert_eq!((answer.outcome, output.to_text().as_str()), (AttemptOutcome::Killed, "begun\n"));
    nothing_is_left(&machine);
}
