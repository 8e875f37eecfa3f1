//! Both directions of one lane on one side. Pure: whoever moves the frames is elsewhere.

use super::{
    Lie,
    incoming::Incoming,
    outgoing::{Outbound, Outgoing},
};
use bytes::Bytes;
use novacron_common::wire::LaneFrame;
use std::time::Instant;

/// The state of a lane on one side.
#[derive(Debug)]
pub struct Duplex {
    /// What this side says.
    pub out: Outgoing,
    /// What the other says.
    pub incoming: Incoming,
}

impl Duplex {
    /// A lane whose directions may each have `window` under way.
    pub fn new(window: usize) -> Self {
        Self { out: Outgoing::new(window), incoming: Incoming::new(window) }
    }

    /// The next frame to be sent, and its bytes. Acknowledgements first: the peer may be waiting for them.
    pub fn next_frame(&mut self) -> Option<(LaneFrame, Bytes)> {
        if let Some(offset) = self.incoming.acknowledgement() {
            return Some((LaneFrame::Ack { offset }, Bytes::new()));
        }
        Some(match self.out.next_frame()? {
            Outbound::Data { offset, bytes } => {
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                (LaneFrame::Data { offset, length }, bytes)
            }
            Outbound::End { offset } => (LaneFrame::End { offset }, Bytes::new()),
        })
    }

    /// Takes a frame of the peer's.
    ///
    /// # Errors
    /// [`Lie`]: the lane cannot go on.
    pub fn take(&mut self, frame: LaneFrame, bytes: Bytes, now: Instant) -> Result<(), Lie> {
        match frame {
            LaneFrame::Data { offset, .. } => self.incoming.data(offset, bytes),
            LaneFrame::End { offset } => self.incoming.end(offset),
            LaneFrame::Ack { offset } => self.out.acknowledge(offset, now),
        }
    }

    /// A new carrier, on which the peer has said that it has everything up to `received`.
    ///
    /// # Errors
    /// [`Lie`].
    pub fn resume(&mut self, received: u64) -> Result<(), Lie> {
        self.out.resume(received)?;
        self.incoming.resume();
        Ok(())
    }

    /// Whether both directions have ended and each side knows that the other has all of it.
    pub fn is_complete(&self) -> bool {
        self.out.is_done() && self.incoming.is_done()
    }
}
