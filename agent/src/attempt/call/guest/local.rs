//! A guest agent whose machine is this one: commands are real processes, and files real files. As QEMU's, it tells of a
//! command whose output it keeps only once nobody holds that output any more.

use super::Channel;
use crate::hypervisor::libvirt::guest::NoAnswer;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::{JoinHandle, spawn},
    time::Duration,
};

type Collected = Option<JoinHandle<io::Result<Vec<u8>>>>;

struct Process {
    child: Child,
    out: Collected,
    err: Collected,
}

/// What it has open and running.
#[derive(Default)]
pub struct State {
    processes: HashMap<i64, Process>,
    files: HashMap<i64, File>,
    last_handle: i64,
    /// Whether files cannot be opened while a command runs whose output it does not keep.
    pub reads_late: bool,
    /// Paths that were opened.
    pub opened: Vec<String>,
}

/// The machine; every channel speaks with the same one.
#[derive(Clone, Default)]
pub struct Local(pub Arc<Mutex<State>>);

impl Channel for Local {
    fn ask(&mut self, command: &str, _: Duration) -> Result<String, NoAnswer> {
        let command: Value = serde_json::from_str(command).unwrap();
        let value = self.0.lock().unwrap().answer(&command);
        let value = value.map_err(|error| NoAnswer::Refused { cause: error.into() })?;
        Ok(json!({ "return": value }).to_string())
    }
}

impl State {
    fn answer(&mut self, command: &Value) -> io::Result<Value> {
        let given = &command["arguments"];
        let number = |name: &str| given[name].as_i64().unwrap();
        match command["execute"].as_str().unwrap() {
            "guest-ping" => Ok(json!({})),
            "guest-exec" => self.exec(given),
            "guest-exec-status" => self.status(number("pid")),
            "guest-file-open" => self.open(given["path"].as_str().unwrap()),
            "guest-file-seek" => {
                let to = number("offset").try_into().unwrap();
                self.file(number("handle"))?.seek(SeekFrom::Start(to)).map(|to| json!({ "position": to }))
            }
            "guest-file-read" => {
                let mut bytes = Vec::new();
                let most = number("count").try_into().unwrap();
                self.file(number("handle"))?.take(most).read_to_end(&mut bytes)?;
                Ok(json!({ "count": bytes.len(), "buf-b64": STANDARD.encode(&bytes), "eof": false }))
            }
            "guest-file-close" => self.files.remove(&number("handle")).map(|_| json!({})).ok_or_else(gone),
            other => panic!("{other} is not known"),
        }
    }

    fn file(&mut self, handle: i64) -> io::Result<&mut File> {
        self.files.get_mut(&handle).ok_or_else(gone)
    }

    fn open(&mut self, path: &str) -> io::Result<Value> {
        let runs =
            |process: &mut Process| process.out.is_none() && process.child.try_wait().unwrap().is_none();
        if self.reads_late && self.processes.values_mut().any(runs) {
            return Err(gone());
        }
        self.opened.push(path.to_owned());
        let file = File::open(path)?;
        self.last_handle += 1;
        self.files.insert(self.last_handle, file);
        Ok(self.last_handle.into())
    }

    fn exec(&mut self, given: &Value) -> io::Result<Value> {
        let texts = |name: &str| {
            let all = given[name].as_array().cloned().unwrap_or_default();
            all.into_iter().map(|text| text.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let mut command = Command::new(given["path"].as_str().unwrap());
        command.args(texts("arg")).stdin(Stdio::piped());
        if given.get("env").is_some() {
            command.env_clear();
            command.envs(texts("env").iter().filter_map(|pair| pair.split_once('=')));
        }
        let keeps = given["capture-output"] == true;
        let end = || if keeps { Stdio::piped() } else { Stdio::null() };
        let mut child = command.stdout(end()).stderr(end()).spawn()?;
        let input = STANDARD.decode(given["input-data"].as_str().unwrap_or_default()).unwrap();
        child.stdin.take().unwrap().write_all(&input)?;
        let pid = i64::from(child.id());
        let (out, err) = (child.stdout.take().map(collect), child.stderr.take().map(collect));
        self.processes.insert(pid, Process { child, out, err });
        Ok(json!({ "pid": pid }))
    }

    fn status(&mut self, pid: i64) -> io::Result<Value> {
        let process = self.processes.get_mut(&pid).ok_or_else(gone)?;
        let holds = |output: &Collected| output.as_ref().is_some_and(|output| !output.is_finished());
        let Some(status) = process.child.try_wait()?.filter(|_| !holds(&process.out) && !holds(&process.err))
        else {
            return Ok(json!({ "exited": false }));
        };
        let process = self.processes.remove(&pid).ok_or_else(gone)?;
        let text = |output: Collected| {
            let bytes = output.map_or_else(|| Ok(Vec::new()), |output| output.join().unwrap());
            bytes.map(|bytes| STANDARD.encode(bytes))
        };
        let (out, err) = (text(process.out)?, text(process.err)?);
        let mut said = json!({ "exited": true, "out-data": out, "err-data": err });
        match (status.code(), status.signal()) {
            (Some(code), _) => said["exitcode"] = code.into(),
            (None, signal) => said["signal"] = signal.into(),
        }
        Ok(said)
    }
}

fn gone() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<io::Result<Vec<u8>>> {
    spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).map(|_| bytes)
    })
}
