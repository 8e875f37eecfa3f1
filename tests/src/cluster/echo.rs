//! A TCP connection to a guest that is kept busy while the guest moves: any byte lost, doubled or out of order ends it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::lab::Node;

/// The guest's echo service: line `x` is answered by the number of the line, a space and `x`.
const PORT: u16 = 7;
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// A reply that takes longer means that the connection is dead.
const REPLY_LIMIT: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(50);

/// How the connection fared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EchoReport {
    /// Lines asked and answered rightly.
    pub answered: u64,
    /// The longest wait for one answer.
    pub longest_wait: Duration,
    /// Why it ended early; `None`: it was alive when it was closed.
    pub fault: Option<String>,
}

/// A connection in use until it is finished or dropped.
pub struct Echo {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: Option<JoinHandle<EchoReport>>,
}

impl Echo {
    /// Connects from `from` to the guest and keeps asking.
    ///
    /// # Errors
    /// When the guest cannot be connected to.
    pub fn start(from: &Node, guest: Ipv4Addr) -> Result<Self> {
        let stream = connect(from, guest)?;
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&answered));
        let thread = std::thread::spawn(move || ask_until(stream, &stopped, &count));
        Ok(Self { stop, answered, thread: Some(thread) })
    }

    /// Waits for `count` answers more.
    ///
    /// # Errors
    /// When they do not come within `limit`.
    pub fn wait_for_answers(&self, count: u64, limit: Duration) -> Result<()> {
        let wanted = self.answered.load(Ordering::Relaxed) + count;
        let deadline = Instant::now() + limit;
        while self.answered.load(Ordering::Relaxed) < wanted {
            ensure!(Instant::now() < deadline, "the guest's echo was silent for {limit:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Closes the connection and says how it fared.
    ///
    /// # Errors
    /// When the asking thread panicked.
    pub fn finish(mut self) -> Result<EchoReport> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the connection was already finished")?;
        thread.join().map_err(|_| anyhow!("the asking thread panicked"))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The guest says that it is ready a moment before its echo service listens.
fn connect(from: &Node, guest: Ipv4Addr) -> Result<TcpStream> {
    let to = SocketAddr::from((guest, PORT));
    let deadline = Instant::now() + CONNECT_LIMIT;
    let stream = loop {
        match from
            .on_network(|| TcpStream::connect_timeout(&to, CONNECT_LIMIT).context("connecting to the guest"))
        {
            Err(_) if Instant::now() < deadline => std::thread::sleep(ASK_EVERY),
            other => break other?,
        }
    };
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(REPLY_LIMIT))?;
    Ok(stream)
}

fn ask_until(stream: TcpStream, stop: &AtomicBool, answered: &AtomicU64) -> EchoReport {
    let (mut report, mut stream) = (EchoReport::default(), BufReader::new(stream));
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        if let Err(fault) = ask(&mut stream, report.answered + 1) {
            report.fault = Some(format!("{fault:#}"));
            return report;
        }
        report.answered += 1;
        report.longest_wait = report.longest_wait.max(asked.elapsed());
        answered.store(report.answered, Ordering::Relaxed);
        std::thread::sleep(ASK_EVERY);
    }
    report
}

fn ask(stream: &mut BufReader<TcpStream>, number: u64) -> Result<()> {
    let word = format!("line-{number}");
    stream.get_mut().write_all(format!("{word}\n").as_bytes()).context("asking the guest")?;
    let mut reply = String::new();
    stream.read_line(&mut reply).context("waiting for the guest's answer")?;
    ensure!(
        reply == format!("{number} {word}\n"),
        "asked {word:?} as line {number}, the guest answered {reply:?}"
    );
    Ok(())
}
