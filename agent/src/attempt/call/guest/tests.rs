//! The conversation with a guest agent, with a scripted one: its machine lacks what relays need.

use super::{Channel, run};
use crate::{
    attempt::call::{Answer, Printer},
    hypervisor::{
        libvirt::guest::NoAnswer,
        namespace::{folder::Folder, output::Capture, spool::Spool},
    },
};
use novacron_common::{ids::VmId, record::AttemptOutcome, spec::Program};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::sync::oneshot;

const VM: VmId = VmId::from_u128(1);
const PONG: &str = r#"{"return":{}}"#;
const STARTED: &str = r#"{"return":{"pid":42}}"#;
const RUNS: &str = r#"{"return":{"exited":false}}"#;
const DONE: &str = r#"{"return":{"exited":true,"exitcode":0,"out-data":"aGk="}}"#;
const KILLED: &str = r#"{"return":{"exited":true,"signal":9}}"#;

type Reply = Result<&'static str, NoAnswer>;

/// Gives one reply after the other, and notes what it was asked. Tells when it has no more, and then says no more.
#[derive(Default)]
struct Script {
    replies: VecDeque<Reply>,
    asked: Vec<String>,
    at_end: Option<oneshot::Sender<()>>,
}

struct Scripted(Arc<Mutex<Script>>);

impl Channel for Scripted {
    fn ask(&mut self, command: &str, _: Duration) -> Result<String, NoAnswer> {
        let mut script = self.0.lock().unwrap();
        script.asked.push(command.to_owned());
        let reply = script.replies.pop_front().unwrap_or(Ok(RUNS));
        if script.replies.is_empty()
            && let Some(tell) = script.at_end.take()
        {
            let _gone = tell.send(());
        }
        reply.map(str::to_owned)
    }
}

/// Speaks `first` on the first channel and `second` on the one after it. With a second one, the command is to end as
/// soon as the first is at its end.
async fn converse(first: Vec<Reply>, second: Vec<Reply>) -> (Answer, String, Vec<String>) {
    let folder = TempDir::new().unwrap();
    let folder = Folder::at(folder.path());
    let mut printer = Printer { folder: &folder, capture: Capture::default(), spool: Spool::default() };
    let (tell, told) = oneshot::channel();
    let is_to_end = !second.is_empty();
    let scripts: [Arc<Mutex<Script>>; 2] = [
        Script { replies: first.into(), at_end: Some(tell), ..Script::default() },
        Script { replies: second.into(), ..Script::default() },
    ]
    .map(|script| Arc::new(Mutex::new(script)));
    let next = Mutex::new(scripts.iter());
    let open = || {
        let script = next.lock().unwrap().next().expect("a third channel");
        Box::new(Scripted(Arc::clone(script))) as Box<dyn Channel>
    };
    let to_end = async {
        if told.await.is_err() || !is_to_end {
            std::future::pending::<()>().await;
        }
        AttemptOutcome::Killed
    };
    let command = Program::new(["true"]);
    let answer = run(&open, &command, &mut printer, to_end).await;
    let asked = scripts.iter().flat_map(|script| script.lock().unwrap().asked.clone()).collect();
    (answer, printer.capture.finish().to_text(), asked)
}

fn silent() -> NoAnswer {
    NoAnswer::NoAgent { vm: VM, cause: "nobody is there".into() }
}

fn refused() -> NoAnswer {
    NoAnswer::Refused { cause: "no such file".into() }
}

#[tokio::test]
async fn an_agent_that_comes_late_or_is_silent_for_a_while_is_waited_for() {
    let replies =
        vec![Err(silent()), Ok(PONG), Err(refused()), Ok(STARTED), Ok(RUNS), Err(silent()), Ok(DONE)];
    let (answer, said, asked) = converse(replies, Vec::new()).await;
    assert_eq!((answer.outcome, answer.result.as_deref()), (AttemptOutcome::Exited(0), Some("hi")));
    assert_eq!((said.as_str(), asked.len()), ("hi", 7));
}

#[tokio::test]
async fn what_never_began_what_may_have_begun_and_what_is_lost_are_told_apart() {
    let outcome = async |replies| converse(replies, Vec::new()).await.0.outcome;
    let gone = outcome(vec![Err(NoAnswer::NotHere { vm: VM })]).await;
    assert!(
        matches!(&gone, AttemptOutcome::Declined { reason } if reason.contains("not on this host")),
        "{gone:?}"
    );
    let off = outcome(vec![Err(NoAnswer::NotRunning { vm: VM })]).await;
    assert!(
        matches!(&off, AttemptOutcome::FailedToStart { reason } if reason.contains("does not run")),
        "{off:?}"
    );
    let bad = outcome(vec![Ok(PONG), Err(refused()), Err(refused())]).await;
    assert!(
        matches!(&bad, AttemptOutcome::FailedToStart { reason } if reason.contains("no such file")),
        "{bad:?}"
    );
    let vague = outcome(vec![Ok(PONG), Err(refused()), Err(silent())]).await;
    assert!(
        matches!(&vague, AttemptOutcome::Failed { reason } if reason.contains("may or may not")),
        "{vague:?}"
    );
    for lost in [Err(refused()), Err(NoAnswer::NotHere { vm: VM }), Ok("nonsense")] {
        let lost = outcome(vec![Ok(PONG), Err(refused()), Ok(STARTED), lost]).await;
        assert!(
            matches!(&lost, AttemptOutcome::Failed { reason } if reason.contains("cannot be told")),
            "{lost:?}"
        );
    }
}

#[tokio::test]
async fn a_command_that_is_to_end_is_ended_by_another_and_what_is_not_seen_to_end_is_named() {
    let running = || vec![Ok(PONG), Err(refused()), Ok(STARTED), Ok(RUNS)];
    let (answer, said, asked) = converse(running(), vec![Ok(STARTED), Ok(KILLED)]).await;
    assert_eq!((answer.outcome, said.as_str()), (AttemptOutcome::Killed, ""));
    let kill = asked.iter().find(|text| text.contains("kill -KILL")).expect("a command that ends it");
    assert!(kill.contains(r#""42""#), "{kill}");
    let (answer, said, _) = converse(running(), vec![Err(refused())]).await;
    assert_eq!(answer.outcome, AttemptOutcome::Killed);
    assert!(said.contains("process 42 may still run in the machine"), "{said}");
}
