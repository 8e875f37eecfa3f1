//! What was started here, on disk: the highest epoch seen of each fire, and which attempts have not been acknowledged.
//!
//! It outlives the attempts' own folders, for two reasons. A start command that arrives late, after the attempt was
//! acknowledged and its folder removed, must not run it again. And a folder need not be durable itself: an attempt
//! that stands here and has no folder any more was lost with the host, and is reported so.
//!
//! Starts that come together share one `fdatasync(2)`: whoever finds nobody at it writes and syncs for all that wait
//! (the group commit of databases: DeWitt et al., SIGMOD 1984).

use super::admission::Fence;
use novacron_common::{
    ids::{AttemptKey, FireKey},
    planted::{self, Mistake},
    units::Epoch,
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// Fires remembered: at one fire a second, more than half a day, where a command is late by seconds.
const FIRES_MAX: usize = 50_000;

/// Lines appended before the file is written anew.
const APPENDED_MAX: usize = 50_000;

/// The third number of a line that closes an attempt.
const CLOSED: &str = "closed";

/// A journal of one line a start and one an acknowledgement, and what it says.
#[derive(Debug)]
pub struct Fences {
    path: PathBuf,
    inner: Mutex<Inner>,
    /// Somebody has stopped writing.
    written: Condvar,
}

#[derive(Debug)]
struct Inner {
    seen: BTreeMap<FireKey, Seen>,
    next_age: u64,
    /// `None` while somebody writes, with the lock let go.
    file: Option<File>,
    pending: String,
    /// Lines noted so far, and how many of them are durable.
    noted: u64,
    durable: u64,
    /// Lines up to here could not be written.
    failed: Option<(u64, io::ErrorKind)>,
    appended: usize,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    fence: Fence,
    age: u64,
    /// Whether its end has been acknowledged.
    closed: bool,
}

impl Fences {
    /// Reads the journal, and writes it anew without what is out of date. A torn last line is what a crash leaves
    /// of a start that was never acted on.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let text = match std::fs::read(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let text = if planted::is(Mistake::FencesForgotten) { Vec::new() } else { text };
        let mut inner = Inner::new();
        for line in String::from_utf8_lossy(&text).split_inclusive('\n') {
            if let Some((fire, fence, closed)) = line.strip_suffix('\n').and_then(parse) {
                inner.note(fire, fence, closed);
            }
        }
        inner.forget_oldest();
        inner.file = Some(rewrite(path, &inner.text())?);
        Ok(Self { path: path.into(), inner: Mutex::new(inner), written: Condvar::new() })
    }

    /// What was seen of this fire.
    pub fn of(&self, fire: &FireKey) -> Option<Fence> {
        self.lock().seen.get(fire).map(|seen| seen.fence)
    }

    /// Attempts whose end was not acknowledged.
    pub fn unclosed(&self) -> Vec<(AttemptKey, Epoch)> {
        if planted::is(Mistake::LostNotReported) {
            return Vec::new();
        }
        let inner = self.lock();
        let open = inner.seen.iter().filter(|(_, seen)| !seen.closed);
        open.map(|(fire, seen)| (AttemptKey { fire: *fire, number: seen.fence.number }, seen.fence.epoch))
            .collect()
    }

    /// Remembers, durably. To be called before anything is started, and where a thread may wait.
    ///
    /// # Errors
    /// The file system's; nothing may be started then.
    pub fn raise(&self, fire: FireKey, fence: Fence) -> io::Result<()> {
        let mut inner = self.lock();
        inner.note(fire, fence, false);
        inner.pending.push_str(&line(&fire, fence, false));
        inner.noted += 1;
        let mine = inner.noted;
        while inner.durable < mine {
            if let Some((upto, kind)) = inner.failed.filter(|(upto, _)| mine <= *upto) {
                return Err(io::Error::new(kind, format!("the journal was not written up to line {upto}")));
            }
            inner = match inner.file.take() {
                Some(file) => self.commit(inner, file),
                None => self.written.wait(inner).unwrap_or_else(PoisonError::into_inner),
            };
        }
        Ok(())
    }

    /// Remembers that an attempt's end was acknowledged. If the host stops before this is on disk, the attempt is
    /// reported lost once more, which is refused as out of date.
    pub fn close(&self, attempt: AttemptKey) {
        let mut inner = self.lock();
        let Some(seen) = inner.seen.get_mut(&attempt.fire) else { return };
        if seen.fence.number != attempt.number {
            return;
        }
        seen.closed = true;
        let line = line(&attempt.fire, seen.fence, true);
        inner.pending.push_str(&line);
        inner.noted += 1;
        if let Some(mut file) = inner.file.take() {
            let text = std::mem::take(&mut inner.pending);
            if let Err(error) = file.write_all(text.as_bytes()) {
                tracing::warn!(%error, "could not note an acknowledgement");
            }
            inner.appended += 1;
            inner.file = Some(file);
        }
    }

    /// Writes and syncs everything that is pending, without the lock, and says so to all who wait.
    fn commit<'a>(&'a self, mut inner: MutexGuard<'a, Inner>, mut file: File) -> MutexGuard<'a, Inner> {
        let (text, upto) = (std::mem::take(&mut inner.pending), inner.noted);
        let anew = (inner.appended >= APPENDED_MAX).then(|| {
            inner.forget_oldest();
            inner.text()
        });
        drop(inner);
        let written = match &anew {
            Some(whole) => rewrite(&self.path, whole).map(|anew| file = anew),
            None => file.write_all(text.as_bytes()).and_then(|()| file.sync_data()),
        };
        let mut inner = self.lock();
        inner.file = Some(file);
        inner.appended = if anew.is_some() { 0 } else { inner.appended + text.lines().count() };
        match written {
            Ok(()) => inner.durable = upto,
            Err(cause) => {
                inner.failed = Some((upto, cause.kind()));
                // Half a line may be there, which would swallow the next one.
                inner.appended = APPENDED_MAX;
            }
        }
        self.written.notify_all();
        inner
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn new() -> Self {
        Self {
            seen: BTreeMap::new(),
            next_age: 0,
            file: None,
            pending: String::new(),
            noted: 0,
            durable: 0,
            failed: None,
            appended: 0,
        }
    }

    /// The later line wins only if it is not lower.
    fn note(&mut self, fire: FireKey, fence: Fence, closed: bool) {
        if self.seen.get(&fire).is_none_or(|seen| seen.fence.epoch <= fence.epoch) {
            self.seen.insert(fire, Seen { fence, age: self.next_age, closed });
            self.next_age += 1;
        }
    }

    /// What has not been acknowledged is never forgotten: those attempts are bounded by themselves.
    fn forget_oldest(&mut self) {
        let excess = self.seen.len().saturating_sub(FIRES_MAX);
        let mut ages: Vec<u64> = self.seen.values().filter(|seen| seen.closed).map(|seen| seen.age).collect();
        ages.sort_unstable();
        if let Some(oldest_kept) = ages.get(excess).or(ages.last()).copied().filter(|_| excess > 0) {
            self.seen.retain(|_, seen| !seen.closed || seen.age >= oldest_kept);
        }
    }

    fn text(&self) -> String {
        self.seen.iter().map(|(fire, seen)| line(fire, seen.fence, seen.closed)).collect()
    }
}

/// Writes the whole journal in place of what is there, and opens it to append.
fn rewrite(path: &Path, text: &str) -> io::Result<File> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    File::options().append(true).open(path)
}

fn line(fire: &FireKey, fence: Fence, closed: bool) -> String {
    let end = if closed { format!(" {CLOSED}") } else { String::new() };
    format!("{fire} {} {}{end}\n", fence.epoch.0, fence.number)
}

fn parse(line: &str) -> Option<(FireKey, Fence, bool)> {
    let mut fields = line.split(' ');
    let fire = fields.next()?.parse().ok()?;
    let (epoch, number) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let closed = match fields.next() {
        None => false,
        Some(CLOSED) => true,
        Some(_) => return None,
    };
    fields.next().is_none().then_some((fire, Fence { epoch: Epoch(epoch), number }, closed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::{
        ids::{FireCause, JobId},
        units::UnixMillis,
    };

    fn fire(at: i64) -> FireKey {
        FireKey { job: JobId::from_u128(1), scheduled_at: UnixMillis(at), cause: FireCause::Manual }
    }

    fn fence(epoch: u64) -> Fence {
        Fence { epoch: Epoch(epoch), number: 1 }
    }

    fn attempt(at: i64) -> AttemptKey {
        AttemptKey { fire: fire(at), number: 1 }
    }

    #[test]
    fn a_torn_line_is_dropped_and_the_rest_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fences");
        let fences = Fences::open(&path).unwrap();
        fences.raise(fire(1), fence(4)).unwrap();
        fences.raise(fire(2), fence(7)).unwrap();
        drop(fences);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 2]).unwrap();
        let fences = Fences::open(&path).unwrap();
        assert_eq!(fences.of(&fire(1)), Some(fence(4)));
        assert_eq!(fences.of(&fire(2)), None);
        // What is appended behind a torn line must not be swallowed by it.
        fences.raise(fire(3), fence(9)).unwrap();
        assert_eq!(Fences::open(&path).unwrap().of(&fire(3)), Some(fence(9)));
    }

    #[test]
    fn an_epoch_is_never_lowered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fences");
        let lines = [line(&fire(1), fence(9), false), line(&fire(1), fence(3), false)];
        std::fs::write(&path, lines.concat()).unwrap();
        assert_eq!(Fences::open(&path).unwrap().of(&fire(1)), Some(fence(9)));
    }

    #[test]
    fn what_was_not_acknowledged_is_still_known_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fences");
        let fences = Fences::open(&path).unwrap();
        fences.raise(fire(1), fence(1)).unwrap();
        fences.raise(fire(2), fence(1)).unwrap();
        fences.close(attempt(1));
        assert_eq!(fences.unclosed(), [(attempt(2), Epoch(1))]);
        drop(fences);
        let fences = Fences::open(&path).unwrap();
        assert_eq!(fences.unclosed(), [(attempt(2), Epoch(1))]);
        assert_eq!(fences.of(&fire(1)), Some(fence(1)), "closed, and still fenced");
        // The next attempt of the same fire opens it again.
        fences.raise(fire(1), Fence { epoch: Epoch(2), number: 2 }).unwrap();
        fences.close(attempt(1));
        assert_eq!(fences.unclosed().len(), 2);
    }

    #[test]
    fn many_at_once_are_all_durable_when_they_return() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fences");
        let fences = Fences::open(&path).unwrap();
        std::thread::scope(|scope| {
            for n in 0..16 {
                let (fences, path) = (&fences, &path);
                scope.spawn(move || {
                    for m in 0..20 {
                        let fire = fire(n * 100 + m);
                        fences.raise(fire, fence(1)).unwrap();
                        let text = std::fs::read_to_string(path).unwrap();
                        assert!(text.contains(&line(&fire, fence(1), false)));
                    }
                });
            }
        });
        drop(fences);
        assert_eq!(Fences::open(&path).unwrap().unclosed().len(), 320);
    }

    #[test]
    fn a_journal_that_is_written_anew_keeps_every_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fences");
        let fences = Fences::open(&path).unwrap();
        fences.raise(fire(1), fence(1)).unwrap();
        fences.lock().appended = APPENDED_MAX;
        fences.raise(fire(2), fence(1)).unwrap();
        fences.raise(fire(3), fence(1)).unwrap();
        drop(fences);
        assert_eq!(Fences::open(&path).unwrap().unclosed().len(), 3);
    }

    #[test]
    fn only_what_was_acknowledged_is_forgotten() {
        let mut inner = Inner::new();
        let most = i64::try_from(FIRES_MAX).unwrap();
        inner.note(fire(0), fence(1), false);
        (1..most + 10).for_each(|at| inner.note(fire(at), fence(1), true));
        inner.forget_oldest();
        assert_eq!(inner.seen.len(), FIRES_MAX);
        assert!(inner.seen.contains_key(&fire(0)) && !inner.seen.contains_key(&fire(10)));
    }
}
