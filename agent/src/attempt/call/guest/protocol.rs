//! What is said to the agent in a machine, and what it says: `guest-ping`, `guest-exec`, `guest-exec-status`,
//! `guest-file-open`, `-seek`, `-read`, `-close` (QEMU: `qga/qapi-schema.json`). Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use novacron_common::{record::AttemptOutcome, spec::Program};
use serde::Deserialize;
use serde_json::json;

/// Changes to a folder, and becomes the command. Folder and arguments are arguments here too: no shell reads them.
const IN_FOLDER: &str = r#"cd -- "$1" && shift && exec "$@""#;

/// Ends processes and what they have started, as far as that is still below it. Each is held first, so that it starts
/// nothing more (`proc(5)`, `/proc/pid/task/tid/children`).
const END_TREE: &str = r#"end() {
    kill -STOP "$1"
    for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do end "$child"; done
    kill -KILL "$1"
}
for process; do end "$process"; done"#;

/// An answer that no guest agent should give.
#[derive(Debug, thiserror::Error)]
pub enum BadAnswer {
    /// Not the JSON that belongs to the command.
    #[error("the guest agent's answer cannot be read")]
    Json(#[from] serde_json::Error),
    /// Bytes that are not base64.
    #[error("the guest agent's answer holds output that cannot be read")]
    Base64(#[from] base64::DecodeError),
}

/// Whether anybody is there.
pub fn ping() -> String {
    json!({ "execute": "guest-ping" }).to_string()
}

/// Runs a command, with its output kept for its end.
pub fn exec(command: &Program) -> String {
    match command.working_dir.as_deref() {
        Some(folder) => started_by(&["/bin/sh", "-c", IN_FOLDER, "sh", folder], command, true),
        None => started_by(&[], command, true),
    }
}

/// Runs a command by another that sees to its output and gets it as further arguments.
pub fn exec_by(wrapper: &[&str], command: &Program) -> String {
    started_by(wrapper, command, false)
}

fn started_by(wrapper: &[&str], command: &Program, capture: bool) -> String {
    let mut argv: Vec<&str> =
        wrapper.iter().copied().chain(command.argv.iter().map(String::as_str)).collect();
    let path = if argv.is_empty() { "" } else { argv.remove(0) };
    let env: Vec<_> = command.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut arguments = json!({ "path": path, "arg": argv, "env": env, "capture-output": capture });
    if let Some(stdin) = &command.stdin {
        arguments["input-data"] = STANDARD.encode(stdin).into();
    }
    json!({ "execute": "guest-exec", "arguments": arguments }).to_string()
}

/// How a command is.
pub fn status(pid: i64) -> String {
    json!({ "execute": "guest-exec-status", "arguments": { "pid": pid } }).to_string()
}

/// Ends commands: the guest agent itself has no word for that.
pub fn end(pids: &[i64]) -> String {
    let pids: Vec<String> = pids.iter().map(i64::to_string).collect();
    script(END_TREE, &pids.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Runs a script of ours by the machine's shell. What it is about are its arguments.
pub fn script(text: &str, arguments: &[&str]) -> String {
    let argv: Vec<&str> = ["-c", text, "sh"].into_iter().chain(arguments.iter().copied()).collect();
    let arguments = json!({ "path": "/bin/sh", "arg": argv, "capture-output": true });
    json!({ "execute": "guest-exec", "arguments": arguments }).to_string()
}

/// Opens a file to read it.
pub fn open(path: &str) -> String {
    json!({ "execute": "guest-file-open", "arguments": { "path": path, "mode": "r" } }).to_string()
}

/// Goes to this byte of an open file.
pub fn seek(handle: i64, to: u64) -> String {
    let arguments = json!({ "handle": handle, "offset": to, "whence": "set" });
    json!({ "execute": "guest-file-seek", "arguments": arguments }).to_string()
}

/// Reads on in an open file.
pub fn read(handle: i64, most: usize) -> String {
    let arguments = json!({ "handle": handle, "count": most });
    json!({ "execute": "guest-file-read", "arguments": arguments }).to_string()
}

/// Lets go of an open file.
pub fn close(handle: i64) -> String {
    json!({ "execute": "guest-file-close", "arguments": { "handle": handle } }).to_string()
}

#[derive(Deserialize)]
struct Answer<T> {
    #[serde(rename = "return")]
    value: T,
}

#[derive(Deserialize)]
struct Started {
    pid: i64,
}

/// The number of the process that `exec` has started.
///
/// # Errors
/// [`BadAnswer`].
pub fn started(answer: &str) -> Result<i64, BadAnswer> {
    Ok(serde_json::from_str::<Answer<Started>>(answer)?.value.pid)
}

/// The open file's handle.
///
/// # Errors
/// [`BadAnswer`].
pub fn handle(answer: &str) -> Result<i64, BadAnswer> {
    Ok(serde_json::from_str::<Answer<i64>>(answer)?.value)
}

#[derive(Deserialize)]
struct Piece {
    #[serde(rename = "buf-b64")]
    bytes: String,
}

/// What was read: nothing at the end of the file.
///
/// # Errors
/// [`BadAnswer`].
pub fn piece(answer: &str) -> Result<Vec<u8>, BadAnswer> {
    Ok(STANDARD.decode(serde_json::from_str::<Answer<Piece>>(answer)?.value.bytes)?)
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Status {
    exited: bool,
    #[serde(default)]
    exitcode: Option<i32>,
    #[serde(default)]
    signal: Option<i32>,
    #[serde(default)]
    out_data: String,
    #[serde(default)]
    err_data: String,
    #[serde(default)]
    out_truncated: bool,
    #[serde(default)]
    err_truncated: bool,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit, or the signal.
    pub outcome: AttemptOutcome,
    /// What it wrote to standard output.
    pub out: Vec<u8>,
    /// And to standard error.
    pub err: Vec<u8>,
    /// Whether the guest agent has left out some of it.
    pub truncated: bool,
}

/// How a command ended; `None` while it runs.
///
/// # Errors
/// [`BadAnswer`].
pub fn ended(answer: &str) -> Result<Option<Ended>, BadAnswer> {
    let status = serde_json::from_str::<Answer<Status>>(answer)?.value;
    if !status.exited {
        return Ok(None);
    }
    let outcome = match (status.signal, status.exitcode) {
        (Some(signal), _) => AttemptOutcome::Signaled(signal),
        (None, code) => AttemptOutcome::Exited(code.unwrap_or(0)),
    };
    Ok(Some(Ended {
        outcome,
        out: STANDARD.decode(status.out_data)?,
        err: STANDARD.decode(status.err_data)?,
        truncated: status.out_truncated || status.err_truncated,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn command() -> Program {
        Program {
            env: vec![("A".into(), "b=c".into())],
            ..Program::new(["/bin/echo", "$HOME; rm -rf /", "'\""])
        }
    }

    fn arguments(text: &str) -> Value {
        serde_json::from_str::<Value>(text).unwrap()["arguments"].clone()
    }

    #[test]
    fn what_a_user_typed_stays_one_argument() {
        let said = arguments(&exec(&command()));
        assert_eq!(said["path"], "/bin/echo");
        assert_eq!(said["arg"], json!(["$HOME; rm -rf /", "'\""]));
        assert_eq!((&said["env"], &said["capture-output"]), (&json!(["A=b=c"]), &json!(true)));
        assert!(said.get("input-data").is_none());
        let folder = Some("/srv/a b; reboot".to_owned());
        let said = arguments(&exec(&Program { working_dir: folder, stdin: Some("hé".into()), ..command() }));
        assert_eq!(said["path"], "/bin/sh");
        let wanted =
            json!(["-c", IN_FOLDER, "sh", "/srv/a b; reboot", "/bin/echo", "$HOME; rm -rf /", "'\""]);
        assert_eq!((&said["arg"], &said["input-data"]), (&wanted, &json!("aMOp")));
    }

    #[test]
    fn the_answers_are_read() {
        assert_eq!(started(r#"{"return":{"pid":4711}}"#).unwrap(), 4711);
        assert_eq!(handle(r#"{"return":1000}"#).unwrap(), 1000);
        assert_eq!(piece(r#"{"return":{"count":2,"buf-b64":"aGk=","eof":false}}"#).unwrap(), b"hi");
        assert_eq!(ended(r#"{"return":{"exited":false}}"#).unwrap(), None);
        let text = r#"{"return":{"exited":true,"exitcode":3,"out-data":"aGk=","err-data":"bm8=","out-truncated":true}}"#;
        let done = ended(text).unwrap().unwrap();
        assert_eq!((done.outcome, done.truncated), (AttemptOutcome::Exited(3), true));
        assert_eq!((done.out, done.err), (b"hi".to_vec(), b"no".to_vec()));
        let killed = ended(r#"{"return":{"exited":true,"signal":9}}"#).unwrap().unwrap();
        assert_eq!(killed.outcome, AttemptOutcome::Signaled(9));
    }

    #[test]
    fn what_a_guest_makes_up_is_an_error_and_nothing_more() {
        for text in ["", "{}", "[]", r#"{"return":{}}"#, r#"{"return":{"pid":"1"}}"#, r#"{"return":null}"#] {
            assert!(started(text).is_err() && ended(text).is_err(), "{text}");
        }
        assert!(ended(r#"{"return":{"exited":true,"exitcode":0,"out-data":"%%"}}"#).is_err());
        for text in ["{}", r#"{"return":{}}"#, r#"{"return":{"count":1,"buf-b64":"%"}}"#] {
            assert!(handle(text).is_err() && piece(text).is_err(), "{text}");
        }
        assert!(ended(r#"{"return":{"exited":true,"exitcode":99999999999}}"#).is_err());
    }

    /// The tree is ended by this machine's own shell, as it would be by the guest's.
    #[test]
    fn a_process_is_ended_with_what_it_has_started() {
        use std::process::{Command as Run, Stdio};
        let mut parent = Run::new("sh")
            .args(["-c", "sleep 1000 & sleep 1000 & echo $!; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut child = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(parent.stdout.take().unwrap()), &mut child)
            .unwrap();
        let said = arguments(&end(&[i64::from(parent.id())]));
        let words: Vec<&str> = said["arg"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(Run::new(said["path"].as_str().unwrap()).args(words).status().unwrap().success());
        use std::os::unix::process::ExitStatusExt as _;
        assert_eq!(parent.wait().unwrap().signal(), Some(9));
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.trim()));
            stat.map_or(true, |text| text.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
        };
        while !gone() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}
