//! Follows one stream of a command's output through the files that its relay writes in the machine (see [`super::relay`]).

use super::{
    asking::{Guest, Unfinished, unless_refused},
    protocol,
    relay::FILE_MIN,
};

/// Bytes that are asked for at once; base64 makes 4/3 of them, and libvirt carries 4 MiB.
const PIECE: usize = 256 * 1024;

/// What came next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// These bytes.
    Bytes(Vec<u8>),
    /// So many that nobody read in time.
    LeftOut(u64),
    /// No byte has come since the last look.
    Nothing,
}

/// Where the relay is: the number of the file that it writes, and where that one and the one before it begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    current: u64,
    previous_start: u64,
    current_start: u64,
}

impl Mark {
    /// `None` also for half a line: it is being written.
    fn read(text: &[u8]) -> Option<Self> {
        let mut numbers = std::str::from_utf8(text).ok()?.strip_suffix('\n')?.split(' ').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self { current: next()?, previous_start: next()?, current_start: next()? })
    }
}

/// A reader's place in a stream.
#[derive(Debug)]
pub struct Stream {
    base: String,
    /// The number of the file that is read.
    file: u64,
    /// It, open in the guest agent and at the place that `read` says.
    handle: Option<i64>,
    /// Handles with a question under way. One whose answer did not come may be at any place, and is only closed.
    doubtful: Vec<i64>,
    /// Bytes read of it.
    read: u64,
    /// Bytes of the stream before it.
    start: u64,
}

impl Stream {
    /// From the beginning of what goes through the pipe at `base`.
    pub const fn new(base: String) -> Self {
        Self { base, file: 0, handle: None, doubtful: Vec::new(), read: 0, start: 0 }
    }

    /// The next piece.
    pub async fn step(&mut self, guest: &Guest) -> Result<Step, Unfinished> {
        let bytes = self.more(guest).await?;
        let may_be_whole = self.handle.is_none() || self.read >= FILE_MIN;
        if !bytes.is_empty() || !may_be_whole {
            return Ok(if bytes.is_empty() { Step::Nothing } else { Step::Bytes(bytes) });
        }
        let Some(mark) = self.mark(guest).await?.filter(|mark| mark.current > self.file) else {
            return Ok(Step::Nothing);
        };
        // The file grows no more, but has perhaps since the first look.
        match self.more(guest).await? {
            bytes if !bytes.is_empty() => Ok(Step::Bytes(bytes)),
            _ => self.go_on(guest, mark).await,
        }
    }

    /// Into the next file, or, if that may be gone by now, the one before the newest.
    async fn go_on(&mut self, guest: &Guest, mark: Mark) -> Result<Step, Unfinished> {
        self.close(guest).await?;
        let (file, start) = match mark.current == self.file + 1 {
            true => (mark.current, mark.current_start),
            false => (mark.current - 1, mark.previous_start),
        };
        let left_out = start.saturating_sub(self.start.saturating_add(self.read));
        (self.file, self.start, self.read) = (file, start, 0);
        match left_out {
            0 => self.more(guest).await.map(|bytes| match bytes.is_empty() {
                true => Step::Nothing,
                false => Step::Bytes(bytes),
            }),
            left_out => Ok(Step::LeftOut(left_out)),
        }
    }

    /// How many bytes the relay had to leave out at the end; `None` while it has not ended.
    pub async fn ended(&self, guest: &Guest) -> Result<Option<u64>, Unfinished> {
        let said = whole(guest, &format!("{}.end", self.base)).await?.unwrap_or_default();
        let text = std::str::from_utf8(&said).ok().and_then(|text| text.strip_suffix('\n'));
        Ok(text.and_then(|text| text.parse().ok()))
    }

    /// Lets go of all files.
    pub async fn close(&mut self, guest: &Guest) -> Result<(), Unfinished> {
        self.doubtful.extend(self.handle.take());
        while let Some(handle) = self.doubtful.pop() {
            unless_refused(guest.ask(protocol::close(handle)).await)?;
        }
        Ok(())
    }

    async fn mark(&self, guest: &Guest) -> Result<Option<Mark>, Unfinished> {
        let said = whole(guest, &format!("{}.at", self.base)).await?;
        Ok(said.and_then(|said| Mark::read(&said)))
    }

    /// Nobody may be waiting for the answer any more when it comes, or it is lost on the way: then the file is opened
    /// again at the last byte that did come.
    async fn more(&mut self, guest: &Guest) -> Result<Vec<u8>, Unfinished> {
        let opened = match self.handle.take() {
            Some(handle) => Some(handle),
            None => self.open(guest).await?,
        };
        let Some(handle) = opened else { return Ok(Vec::new()) };
        self.doubtful.push(handle);
        let bytes = protocol::piece(&guest.ask(protocol::read(handle, PIECE)).await?)?;
        self.doubtful.pop();
        self.handle = Some(handle);
        self.read = self.read.saturating_add(bytes.len() as u64);
        Ok(bytes)
    }

    /// `None` if it is not there: nothing was written yet, or it is gone.
    async fn open(&self, guest: &Guest) -> Result<Option<i64>, Unfinished> {
        let path = format!("{}.{}", self.base, self.file);
        let Some(answer) = unless_refused(guest.ask(protocol::open(&path)).await)? else { return Ok(None) };
        let handle = protocol::handle(&answer)?;
        if self.read > 0 {
            guest.ask(protocol::seek(handle, self.read)).await?;
        }
        Ok(Some(handle))
    }
}

/// The beginning of a small file; `None` if it is not there.
async fn whole(guest: &Guest, path: &str) -> Result<Option<Vec<u8>>, Unfinished> {
    let Some(answer) = unless_refused(guest.ask(protocol::open(path)).await)? else { return Ok(None) };
    let handle = protocol::handle(&answer)?;
    let said = guest.ask(protocol::read(handle, 128)).await;
    guest.ask(protocol::close(handle)).await?;
    Ok(Some(protocol::piece(&said?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_whole_or_not_at_all() {
        let mark = Mark { current: 3, previous_start: 1_048_576, current_start: 2_200_000 };
        assert_eq!(Mark::read(b"3 1048576 2200000\n"), Some(mark));
        for text in
            ["", "3 1048576 22000", "3 1048576\n", "a b c\n", "-1 0 0\n", "3 1048576 99999999999999999999\n"]
        {
            assert_eq!(Mark::read(text.as_bytes()), None, "{text:?}");
        }
    }
}
