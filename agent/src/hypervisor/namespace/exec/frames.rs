//! Frames to and from the agent over a socket, for a process that has one thread and waits with `poll(2)`.

use crate::hypervisor::namespace::step::{Doing, StepError};
use novacron_common::wire::{
    EXEC_BYTES_MAX, ExecCommand,
    codec::{self, LENGTH_BYTES},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io::{ErrorKind, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
};

/// Longest frame that is taken: a command with all its words.
const FRAME_MAX: usize = 2 * ExecCommand::BYTES_MAX;

/// Bytes that may wait for the agent to take them before nothing more is read from the command.
const WAITING_MAX: usize = 4 * EXEC_BYTES_MAX;

/// Both directions of the socket.
pub struct Frames {
    socket: UnixStream,
    /// What came and is no whole frame yet.
    came: Vec<u8>,
    /// What the agent has not taken yet.
    waiting: Vec<u8>,
    /// Whether the other end is closed.
    over: bool,
}

impl Frames {
    /// Over this socket.
    pub fn new(socket: UnixStream) -> Self {
        Self { socket, came: Vec::new(), waiting: Vec::new(), over: false }
    }

    /// Waits for the first frame; `None` if the other end is closed before it came.
    ///
    /// # Errors
    /// [`StepError`] if the bytes are no such frame, or cannot be had.
    pub fn wait_for<T: DeserializeOwned>(&mut self) -> Result<Option<T>, StepError> {
        loop {
            if let Some(value) = self.take()? {
                return Ok(Some(value));
            }
            if self.over {
                return Ok(None);
            }
            self.read();
        }
    }

    /// From here on reading and writing do not wait.
    ///
    /// # Errors
    /// [`StepError`] if the kernel refuses.
    pub fn wait_no_more(&self) -> Result<(), StepError> {
        self.socket.set_nonblocking(true).doing("use the agent's socket")
    }

    /// Reads what there is. A socket that is closed or broken is [over](Self::is_over).
    pub fn read(&mut self) {
        let mut bytes = [0; EXEC_BYTES_MAX];
        match self.socket.read(&mut bytes) {
            Ok(0) => self.over = true,
            Ok(length) => self.came.extend_from_slice(&bytes[..length]),
            Err(error) if is_for_later(&error) => {}
            Err(_) => self.over = true,
        }
    }

    /// The next whole frame of what was read.
    ///
    /// # Errors
    /// [`StepError`] if it is too long or no such frame.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, StepError> {
        let Some(prefix) = self.came.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let bad = |cause| StepError::new("understand the agent", cause);
        let length = codec::frame_length(*prefix).map_err(bad)?;
        if length > FRAME_MAX {
            return Err(StepError::new("understand the agent", format!("a frame of {length} bytes")));
        }
        let end = LENGTH_BYTES + length;
        let Some(frame) = self.came.get(LENGTH_BYTES..end) else { return Ok(None) };
        let value = codec::decode(frame).map_err(bad)?;
        self.came.drain(..end);
        Ok(Some(value))
    }

    /// Says this, as soon as the agent takes it.
    pub fn put<T: Serialize>(&mut self, value: &T) {
        match codec::encode_frame(value) {
            Ok(frame) => self.waiting.extend_from_slice(&frame),
            Err(error) => tracing::error!(%error, "could not tell the agent"),
        }
    }

    /// Writes as much as the agent takes now, or, before [`Self::wait_no_more`], everything.
    pub fn flush(&mut self) {
        while !self.waiting.is_empty() && !self.over {
            match self.socket.write(&self.waiting) {
                Ok(0) => self.over = true,
                Ok(length) => drop(self.waiting.drain(..length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_for_later(&error) => return,
                Err(_) => self.over = true,
            }
        }
    }

    /// Whether anything waits for the agent to take it.
    pub fn has_more(&self) -> bool {
        !self.waiting.is_empty() && !self.over
    }

    /// Whether so much waits that nothing more should be put.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX
    }

    /// Whether the other end is closed.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The other end is closed, as `poll(2)` told.
    pub fn hung_up(&mut self) {
        self.over = true;
    }

    /// For `poll(2)`.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn is_for_later(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::wire::{ExecInput, ExecOutput};

    #[test]
    fn frames_arrive_whole_however_they_are_cut() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut frames = Frames::new(ours);
        frames.wait_no_more().unwrap();
        let said = [ExecInput::Bytes(b"ls\n".to_vec()), ExecInput::Signal(15), ExecInput::End];
        let bytes: Vec<u8> = said.iter().flat_map(|frame| codec::encode_frame(frame).unwrap()).collect();
        let mut heard = Vec::new();
        for byte in bytes {
            theirs.write_all(&[byte]).unwrap();
            frames.read();
            heard.extend(frames.take::<ExecInput>().unwrap());
        }
        assert_eq!(heard, said);
        assert!(!frames.is_over());
        drop(theirs);
        frames.read();
        assert!(frames.is_over());
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_by_its_length_alone() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut frames = Frames::new(ours);
        theirs.write_all(&u32::try_from(FRAME_MAX + 1).unwrap().to_le_bytes()).unwrap();
        assert!(frames.wait_for::<ExecInput>().is_err());
    }

    #[test]
    fn what_the_agent_does_not_take_waits_and_is_bounded_by_who_puts_it() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut frames = Frames::new(ours);
        frames.wait_no_more().unwrap();
        let mut put = 0;
        while !frames.is_full() {
            frames.put(&ExecOutput::Output(vec![7; EXEC_BYTES_MAX]));
            frames.flush();
            put += 1;
        }
        assert!(frames.has_more());
        let mut seen = 0;
        while frames.has_more() {
            let mut bytes = [0; 4096];
            seen += theirs.read(&mut bytes).unwrap();
            frames.flush();
        }
        drop(frames);
        let mut rest = Vec::new();
        seen += theirs.read_to_end(&mut rest).unwrap();
        assert!(seen > put * EXEC_BYTES_MAX);
    }
}
