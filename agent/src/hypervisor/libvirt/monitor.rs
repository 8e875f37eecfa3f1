//! A machine's own QMP monitor, beside libvirt's: a socket in its folder, made by QEMU for a machine that allows post-copy.
//!
//! When post-copy breaks, libvirt keeps the domain's job for good and lets nobody else's command through to QEMU, and its own way
//! out (`VIR_MIGRATE_POSTCOPY_RESUME`) crashes the target's libvirtd in 11.3. QEMU itself takes the two halves of a guest
//! together again by two commands (QEMU, docs/devel/migration/postcopy.rst, "Postcopy recovery"); libvirt follows by the
//! events, and ends its jobs by itself. On the target they go out of band: QEMU's main loop may wait for a page there.

use crate::handover::socket_of;
use serde_json::{Value, json};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};
use uuid::Uuid;

/// How long QEMU may take for an answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// The longest line that is read: an answer to our commands has some hundred bytes.
const LINE_MAX: u64 = 64 << 10;

/// QEMU could not be told.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// Nobody answers there: the process ended, or was started before its machine allowed post-copy.
    #[error(
        "its QEMU has no monitor at {at}: it was started before the machine allowed post-copy, or has ended"
    )]
    Absent {
        /// Where.
        at: String,
        /// The kernel's reason.
        #[source]
        cause: io::Error,
    },
    /// The connection broke, or what came is not QMP.
    #[error("its QEMU's monitor broke off")]
    Broken(#[from] io::Error),
    /// No answer.
    #[error("its QEMU did not answer within {} s", ANSWER_DEADLINE.as_secs())]
    Silent,
    /// It does not want to.
    #[error("QEMU refuses: {0}")]
    Refused(String),
}

/// An open connection to one. QEMU agrees to out-of-band commands in its main loop, so it is opened before the guest runs where
/// not all of its memory is.
pub struct Monitor {
    from: BufReader<OwnedReadHalf>,
    to: OwnedWriteHalf,
    usable: bool,
}

impl Monitor {
    /// Opens it, out-of-band commands included.
    ///
    /// # Errors
    /// [`MonitorError`].
    pub async fn open(at: &Path) -> Result<Self, MonitorError> {
        let connected = UnixStream::connect(at).await;
        let connection =
            connected.map_err(|cause| MonitorError::Absent { at: at.display().to_string(), cause })?;
        let mut monitor = Self::on(connection);
        let enable = json!({ "execute": "qmp_capabilities", "arguments": { "enable": ["oob"] } });
        monitor.tell(enable).await?;
        Ok(monitor)
    }

    /// One that a predecessor opened.
    ///
    /// # Errors
    /// [`MonitorError::Broken`]: it is no socket.
    pub fn adopt(descriptor: OwnedFd) -> Result<Self, MonitorError> {
        Ok(Self::on(socket_of(descriptor)?))
    }

    fn on(connection: UnixStream) -> Self {
        let (from, to) = connection.into_split();
        Self { from: BufReader::new(from), to, usable: true }
    }

    /// Whether another command would be heard. A refusal is heard, too.
    pub fn is_usable(&self) -> bool {
        self.usable
    }

    /// On the target: has QEMU, whose half of the guest is cut off, listen at `uri` for the other half. May be said again.
    ///
    /// # Errors
    /// [`MonitorError`].
    pub async fn listen_again(&mut self, uri: &str) -> Result<(), MonitorError> {
        self.tell(json!({ "exec-oob": "migrate-recover", "arguments": { "uri": uri } })).await.map(drop)
    }

    /// On the source: has QEMU go on with what it could not send, to whoever listens at `uri`.
    ///
    /// # Errors
    /// [`MonitorError`]; QEMU refuses if its copy is not broken.
    pub async fn send_again(&mut self, uri: &str) -> Result<(), MonitorError> {
        let arguments = json!({ "uri": uri, "resume": true });
        self.tell(json!({ "execute": "migrate", "arguments": arguments })).await.map(drop)
    }

    /// On the source: whether QEMU has ended its copy as a failed one, which it never takes up again. So it does if the connection
    /// breaks when all is sent, and the other side has not yet said that it came.
    ///
    /// # Errors
    /// [`MonitorError`].
    pub async fn copy_failed(&mut self) -> Result<bool, MonitorError> {
        Ok(self.tell(json!({ "execute": "query-migrate" })).await?["status"] == "failed")
    }

    async fn tell(&mut self, command: Value) -> Result<Value, MonitorError> {
        let answer = timeout(ANSWER_DEADLINE, self.ask(command)).await.unwrap_or(Err(MonitorError::Silent));
        // An answer that comes late would be taken for the next one.
        self.usable &= matches!(answer, Ok(_) | Err(MonitorError::Refused(_)));
        answer
    }

    async fn ask(&mut self, mut command: Value) -> Result<Value, MonitorError> {
        // Tells its answer from events, the greeting, and what a predecessor has not heard.
        let id = Uuid::now_v7().to_string();
        command["id"] = json!(id);
        self.to.write_all(format!("{command}\n").as_bytes()).await?;
        loop {
            let mut line = Vec::new();
            let read = (&mut self.from).take(LINE_MAX).read_until(b'\n', &mut line).await?;
            if read == 0 || !line.ends_with(b"\n") {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            // A predecessor may have read the beginning of the first.
            let Ok(mut said) = serde_json::from_slice::<Value>(&line) else { continue };
            if said["id"] != id {
                continue;
            }
            return match said.get("error") {
                None => Ok(said["return"].take()),
                Some(error) => Err(MonitorError::Refused(
                    error["desc"].as_str().unwrap_or("without a reason").to_owned(),
                )),
            };
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let connection: &UnixStream = self.to.as_ref();
        connection.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    /// A QEMU whose copy has failed: it greets, tells of an event before each answer, and refuses what `refuses` names. Returns
    /// what it was told.
    async fn play(listener: UnixListener, refuses: &'static str) -> Vec<Value> {
        let (from, mut to) = listener.accept().await.unwrap().0.into_split();
        let (mut lines, mut told) = (BufReader::new(from).lines(), Vec::new());
        to.write_all(b"{\"QMP\": {\"capabilities\": [\"oob\"]}}\r\n").await.unwrap();
        while let Some(line) = lines.next_line().await.unwrap() {
            let command: Value = serde_json::from_str(&line).unwrap();
            let name = command.get("execute").or(command.get("exec-oob")).unwrap().as_str().unwrap();
            let answer = match name == refuses {
                true => {
                    json!({ "id": command["id"], "error": { "class": "GenericError", "desc": "not now" } })
                }
                false if name == "query-migrate" => {
                    json!({ "id": command["id"], "return": { "status": "failed" } })
                }
                false => json!({ "id": command["id"], "return": {} }),
            };
            to.write_all(format!("{{\"event\": \"MIGRATION\"}}\r\n{answer}\r\n").as_bytes()).await.unwrap();
            told.push(command);
        }
        told
    }

    #[tokio::test]
    async fn qemu_is_greeted_told_and_heard() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("monitor");
        let qemu = tokio::spawn(play(UnixListener::bind(&at).unwrap(), ""));
        Monitor::open(&at).await.unwrap().listen_again("unix:/m").await.unwrap();
        let told = qemu.await.unwrap();
        assert_eq!(told[0]["arguments"]["enable"][0], "oob");
        assert_eq!(
            (&told[1]["exec-oob"], &told[1]["arguments"]["uri"]),
            (&json!("migrate-recover"), &json!("unix:/m"))
        );
    }

    #[tokio::test]
    async fn a_refusal_has_qemus_reason_and_a_monitor_that_is_not_there_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("monitor");
        let absent = Monitor::open(&at).await.err().unwrap();
        assert!(matches!(absent, MonitorError::Absent { .. }), "{absent}");
        let qemu = tokio::spawn(play(UnixListener::bind(&at).unwrap(), "migrate"));
        let mut monitor = Monitor::open(&at).await.unwrap();
        let refused = monitor.send_again("unix:/m").await.unwrap_err();
        assert!(monitor.is_usable());
        assert!(monitor.copy_failed().await.unwrap());
        drop(monitor);
        assert_eq!(refused.to_string(), "QEMU refuses: not now");
        assert_eq!(qemu.await.unwrap()[1]["arguments"]["resume"], true);
    }

    #[tokio::test]
    async fn one_that_a_predecessor_opened_goes_on_behind_what_that_had_not_heard() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("monitor");
        let listener = UnixListener::bind(&at).unwrap();
        let client = std::os::unix::net::UnixStream::connect(&at).unwrap();
        let qemu = tokio::spawn(async move {
            let (from, mut to) = listener.accept().await.unwrap().0.into_split();
            to.write_all(b"ION\"}\r\n{\"id\": \"of another\", \"error\": {\"desc\": \"too late\"}}\r\n")
                .await
                .unwrap();
            let told = BufReader::new(from).lines().next_line().await.unwrap().unwrap();
            let told: Value = serde_json::from_str(&told).unwrap();
            to.write_all(format!("{}\r\n", json!({ "id": told["id"], "return": {} })).as_bytes())
                .await
                .unwrap();
            told
        });
        Monitor::adopt(client.into()).unwrap().listen_again("unix:/m").await.unwrap();
        assert_eq!(qemu.await.unwrap()["exec-oob"], "migrate-recover");
    }
}
