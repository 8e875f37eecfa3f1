//! The porter's watch over one command: what the agent sends goes in, what the command prints goes out, and its end is told.

use super::{frames::Frames, start::Running, terminal::resize};
use crate::hypervisor::namespace::step::{Doing, StepError};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, read, write},
};
use novacron_common::wire::{EXEC_BYTES_MAX, ExecEnd, ExecInput, ExecOutput, WindowSize};
use std::{
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

/// Input that may wait for the command to read it before nothing more is taken from the agent.
const UNREAD_MAX: usize = 4 * EXEC_BYTES_MAX;

/// How long a command whose user has gone may go on after SIGHUP.
const FAREWELL: Duration = Duration::from_secs(2);

/// Most bytes that are taken from one stream after the command ended: what a pipe holds. Somebody whom it left behind
/// may print for ever.
const LAST_WORDS_MAX: usize = 64 * 1024;

/// What a terminal takes for the end of its input, unless it was told otherwise (Ctrl-D).
const END_OF_INPUT: u8 = 4;

/// Watches one command.
pub struct Porter<'a> {
    frames: &'a mut Frames,
    pid: Pid,
    streams: [Option<Stream>; 2],
    /// Where input goes.
    input: Option<OwnedFd>,
    unread: Vec<u8>,
    /// Close the input once it is read.
    input_ends: bool,
    has_terminal: bool,
    children: SignalFd,
    /// The user has gone: when the command is killed.
    farewell: Option<Instant>,
    end: Option<ExecEnd>,
}

struct Stream {
    from: OwnedFd,
    frame: fn(Vec<u8>) -> ExecOutput,
}

impl<'a> Porter<'a> {
    /// Takes over a command that was just started.
    ///
    /// # Errors
    /// [`StepError`] if the kernel refuses.
    pub fn new(frames: &'a mut Frames, running: Running) -> Result<Self, StepError> {
        let child: SigSet = [Signal::SIGCHLD].into_iter().collect();
        child.thread_block().doing("block signals")?;
        let children = SignalFd::with_flags(&child, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .doing("receive signals")?;
        frames.wait_no_more()?;
        let has_terminal = running.errors.is_none();
        let output = Stream { from: running.output, frame: ExecOutput::Output };
        let errors = running.errors.map(|from| Stream { from, frame: ExecOutput::Errors });
        Ok(Self {
            frames,
            pid: running.pid,
            streams: [Some(output), errors],
            input: running.input,
            unread: Vec::new(),
            input_ends: false,
            has_terminal,
            children,
            farewell: None,
            end: None,
        })
    }

    /// Until the command has ended and everything is told, or nobody listens.
    ///
    /// # Errors
    /// [`StepError`] if it cannot be watched; it is killed then.
    pub fn until_ended(mut self) -> Result<(), StepError> {
        let watched = self.watch();
        if self.end.is_none() {
            self.signal(Signal::SIGKILL as i32);
        }
        watched?;
        while self.frames.has_more() {
            self.wait()?;
            self.frames.flush();
        }
        Ok(())
    }

    fn watch(&mut self) -> Result<(), StepError> {
        // It may have ended before its signal was received here.
        self.reap();
        while self.end.is_none() {
            self.wait()?;
            self.hear()?;
            self.feed();
            self.tell(EXEC_BYTES_MAX);
            self.frames.flush();
            self.heed_farewell();
            while let Ok(Some(_)) = self.children.read_signal() {
                self.reap();
            }
        }
        self.tell(LAST_WORDS_MAX);
        if let Some(end) = self.end {
            self.frames.put(&ExecOutput::Ended(end));
        }
        self.frames.flush();
        Ok(())
    }

    fn wait(&mut self) -> Result<(), StepError> {
        let mut sources = Vec::new();
        let mut of_socket = None;
        if !self.frames.is_over() {
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::POLLIN, self.unread.len() < UNREAD_MAX && self.end.is_none());
            wanted.set(PollFlags::POLLOUT, self.frames.has_more());
            of_socket = Some(sources.len());
            sources.push(PollFd::new(self.frames.as_fd(), wanted));
        }
        if self.end.is_none() {
            sources.push(PollFd::new(self.children.as_fd(), PollFlags::POLLIN));
            let wanted = self.streams.iter().flatten().filter(|_| !self.frames.is_full());
            sources.extend(wanted.map(|stream| PollFd::new(stream.from.as_fd(), PollFlags::POLLIN)));
            let keys = self.input.iter().filter(|_| !self.unread.is_empty());
            sources.extend(keys.map(|input| PollFd::new(input.as_fd(), PollFlags::POLLOUT)));
        }
        match poll(&mut sources, self.patience()) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(cause) => return Err(StepError::new("watch the command", cause)),
        }
        let events = of_socket.and_then(|at| sources[at].revents()).unwrap_or(PollFlags::empty());
        // What was sent before the hang-up is of no use to a user who has gone.
        if events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            self.frames.hung_up();
        }
        Ok(())
    }

    /// Rounded up to the next millisecond, so as not to spin through the last one.
    fn patience(&self) -> PollTimeout {
        let Some(farewell) = self.farewell else { return PollTimeout::NONE };
        let left = farewell.saturating_duration_since(Instant::now()).as_millis() + 1;
        u16::try_from(left).map_or(PollTimeout::MAX, PollTimeout::from)
    }

    fn hear(&mut self) -> Result<(), StepError> {
        if self.unread.len() < UNREAD_MAX && !self.frames.is_over() {
            self.frames.read();
        }
        while let Some(input) = self.frames.take::<ExecInput>()? {
            match input {
                ExecInput::Bytes(bytes) if self.input.is_some() && !self.input_ends => {
                    self.unread.extend(bytes)
                }
                ExecInput::Bytes(_) => {}
                ExecInput::End if self.has_terminal && self.input.is_some() => self.unread.push(END_OF_INPUT),
                ExecInput::End => self.input_ends = true,
                ExecInput::Resize(size) => self.resize(size),
                ExecInput::Signal(number) => self.signal(number.into()),
            }
        }
        if self.frames.is_over() && self.farewell.is_none() {
            self.signal(Signal::SIGHUP as i32);
            self.farewell = Some(Instant::now() + FAREWELL);
        }
        Ok(())
    }

    fn resize(&self, size: WindowSize) {
        if let Some(terminal) = self.streams[0].as_ref().filter(|_| self.has_terminal) {
            let _gone = resize(&terminal.from, size);
        }
    }

    /// To the command's process group. Its number is its own as long as the command is not collected.
    fn signal(&self, number: i32) {
        if let Ok(signal) = Signal::try_from(number)
            && self.end.is_none()
        {
            let _already_ended = kill(Pid::from_raw(-self.pid.as_raw()), signal);
        }
    }

    fn feed(&mut self) {
        let Some(input) = &self.input else { return };
        while !self.unread.is_empty() {
            match write(input, &self.unread) {
                Ok(length) => drop(self.unread.drain(..length)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                // It reads no more.
                Err(_) => {
                    self.unread.clear();
                    self.input_ends = true;
                }
            }
        }
        if self.input_ends {
            self.input = None;
        }
    }

    /// Passes on what the command prints, at most so many bytes of each stream.
    fn tell(&mut self, most: usize) {
        let mut buffer = [0; EXEC_BYTES_MAX];
        for stream in &mut self.streams {
            let mut told = 0;
            while let Some(open) = stream.as_ref()
                && told < most
                && (!self.frames.is_full() || self.end.is_some())
            {
                match read(&open.from, &mut buffer) {
                    Ok(0) => *stream = None,
                    Ok(length) => {
                        told += length;
                        self.frames.put(&(open.frame)(buffer[..length].to_vec()));
                    }
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => break,
                    // A terminal that nobody has open any more says EIO.
                    Err(_) => *stream = None,
                }
            }
        }
    }

    fn heed_farewell(&mut self) {
        if self.farewell.is_some_and(|farewell| farewell <= Instant::now()) {
            self.signal(Signal::SIGKILL as i32);
            self.farewell = None; // asked again, should it still not be gone
        }
    }

    fn reap(&mut self) {
        let ended = match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => ExecEnd::Exited(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                ExecEnd::Killed(u8::try_from(signal as i32).unwrap_or(u8::MAX))
            }
            _ => return,
        };
        self.end = Some(ended);
    }
}
