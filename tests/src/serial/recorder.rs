//! Follows console logs as they grow and stamps what arrives.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{Chunk, Line, Verdict, judge, lines};

/// How often the logs are looked at: the error of every stamp.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A recording that goes on until it is finished or dropped.
pub struct Recorder {
    began: Instant,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    chunks: Mutex<Vec<Chunk>>,
    stop: AtomicBool,
}

impl Recorder {
    /// Follows these logs, one for each host that the guest may run on. They need not exist yet, and may be cut or replaced.
    #[must_use]
    pub fn start(logs: Vec<PathBuf>) -> Self {
        let began = Instant::now();
        let shared = Arc::new(Shared { chunks: Mutex::new(Vec::new()), stop: AtomicBool::new(false) });
        let followed = Arc::clone(&shared);
        let thread =
            std::thread::spawn(move || follow(logs.into_iter().map(Tail::new).collect(), began, &followed));
        Self { began, shared, thread: Some(thread) }
    }

    /// Time on the recording's clock.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// All that was recorded so far.
    #[must_use]
    pub fn chunks(&self) -> Vec<Chunk> {
        self.shared.chunks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The verdict so far.
    #[must_use]
    pub fn judge(&self) -> Verdict {
        judge(&self.chunks())
    }

    /// Waits for a line that arrives at `since` or later and that `wanted` accepts.
    ///
    /// # Errors
    /// When none comes within `limit`; the error shows the last lines that did.
    pub fn wait_for(&self, since: Duration, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<Line> {
        let deadline = Instant::now() + limit;
        loop {
            let all = lines(&self.chunks());
            if let Some(line) = all.iter().find(|line| line.at >= since && wanted(&line.text)) {
                return Ok(line.clone());
            }
            if Instant::now() > deadline {
                let last: Vec<&str> = all.iter().rev().take(5).rev().map(|line| line.text.as_str()).collect();
                bail!("the console did not say what was waited for within {limit:?}; it last said {last:#?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for `count` ticks that arrive after now.
    ///
    /// # Errors
    /// When they do not come within `limit`.
    pub fn wait_for_ticks(&self, count: u64, limit: Duration) -> Result<()> {
        let wanted = self.judge().ticks + count;
        let deadline = Instant::now() + limit;
        while self.judge().ticks < wanted {
            if Instant::now() > deadline {
                bail!("expected {wanted} ticks within {limit:?}: {:?}", self.judge());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends the recording.
    #[must_use]
    pub fn finish(mut self) -> Vec<Chunk> {
        self.end();
        self.chunks()
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panics only if a lock is poisoned, and no holder of that lock panics.
            let _ = thread.join();
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.end();
    }
}

fn follow(mut tails: Vec<Tail>, began: Instant, shared: &Shared) {
    let mut active = 0;
    loop {
        let last = shared.stop.load(Ordering::Relaxed);
        // The log that grew last comes first: if two grew between two looks, the guest moved from that one to the other.
        let order = std::iter::once(active).chain((0..tails.len()).filter(|&other| other != active));
        for source in order.collect::<Vec<_>>() {
            let Some(bytes) = tails.get_mut(source).and_then(Tail::grown) else {
                continue;
            };
            active = source;
            let chunk = Chunk { source, at: began.elapsed(), bytes };
            shared.chunks.lock().unwrap_or_else(PoisonError::into_inner).push(chunk);
        }
        if last {
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// One log and how far it has been read.
struct Tail {
    path: PathBuf,
    open: Option<(File, u64)>,
    read: u64,
}

impl Tail {
    fn new(path: PathBuf) -> Self {
        Self { path, open: None, read: 0 }
    }

    /// What is new. A log that got shorter or was replaced is read from its beginning.
    fn grown(&mut self) -> Option<Vec<u8>> {
        let found = fs::metadata(&self.path).ok()?;
        if self.open.as_ref().is_none_or(|(_, inode)| *inode != found.ino()) {
            self.open = Some((File::open(&self.path).ok()?, found.ino()));
            self.read = 0;
        }
        if found.len() < self.read {
            self.read = 0;
        }
        let wanted = usize::try_from(found.len() - self.read).ok().filter(|&wanted| wanted > 0)?;
        let mut bytes = vec![0; wanted];
        let (file, _) = self.open.as_ref()?;
        let length = file.read_at(&mut bytes, self.read).ok().filter(|&length| length > 0)?;
        bytes.truncate(length);
        self.read += length as u64;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const SOON: Duration = Duration::from_secs(60);

    #[test]
    fn follows_logs_that_appear_grow_and_are_cut() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a.log", "b.log"].map(|name| folder.path().join(name));
        let recorder = Recorder::start(paths.to_vec());
        let mut first = File::create(&paths[0]).unwrap();
        first.write_all(b"one\ntw").unwrap();
        recorder.wait_for(Duration::ZERO, SOON, |text| text == "one").unwrap();
        fs::write(&paths[1], "o\n").unwrap();
        let joined = recorder.wait_for(Duration::ZERO, SOON, |text| text == "two").unwrap();
        assert_eq!(joined.source, 1);
        let since = recorder.now();
        fs::write(&paths[0], "3\n").unwrap();
        recorder.wait_for(since, SOON, |text| text == "3").unwrap();
        let texts: Vec<String> = lines(&recorder.finish()).into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["one", "two", "3"]);
    }

    #[test]
    fn waiting_in_vain_shows_what_was_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "only this\n").unwrap();
        let recorder = Recorder::start(vec![path]);
        recorder.wait_for(Duration::ZERO, SOON, |text| text == "only this").unwrap();
        let fault = recorder.wait_for(Duration::ZERO, Duration::from_millis(30), |_| false).unwrap_err();
        assert!(fault.to_string().contains("only this"), "{fault}");
    }
}
