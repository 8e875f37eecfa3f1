//! One connection of a migration: a UNIX socket on this host, a lane, and what each direction has read and not written yet.
//! It can be taken apart at any time, and put together again by the agent that is started in place of this one.

use super::control::Ends;
use super::relay::{Flow, Flows, Way};
use crate::migrate::link::{
    lane::{LaneReader, LaneWriter},
    saved::SavedLane,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{io, os::fd::OwnedFd};
use tokio::net::{
    UnixStream,
    unix::{OwnedReadHalf, OwnedWriteHalf},
};

/// A lane's halves.
pub type Halves = (LaneReader, LaneWriter);

/// A socket and its lane.
pub struct Connection {
    reader: LaneReader,
    writer: LaneWriter,
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
}

impl Connection {
    /// Of both.
    pub fn new((reader, writer): Halves, socket: UnixStream) -> Self {
        let (from, to) = socket.into_split();
        Self { reader, writer, from, to }
    }

    /// From the socket into the lane, and from the lane to the socket.
    pub fn ways(
        &mut self,
    ) -> (Way<&mut OwnedReadHalf, &mut LaneWriter>, Way<&mut LaneReader, &mut OwnedWriteHalf>) {
        let Self { reader, writer, from, to } = self;
        (Way { from, to: writer }, Way { from: reader, to })
    }

    /// All four ends.
    pub fn ends(&mut self) -> Ends<'_> {
        let Self { reader, writer, from, to } = self;
        Ends { reader, writer, from, to }
    }

    /// The lane as it stands, and the socket. `None` if the lane is broken.
    ///
    /// # Errors
    /// The system's.
    pub fn save(self) -> io::Result<Option<(SavedLane, OwnedFd)>> {
        let Some(lane) = self.reader.save() else { return Ok(None) };
        let socket = self.from.reunite(self.to).map_err(io::Error::other)?;
        Ok(Some((lane, socket.into_std()?.into())))
    }
}

/// [`Flows`] as they stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFlows {
    out: Bytes,
    back: Bytes,
}

impl SavedFlows {
    /// These.
    pub fn of(flows: &Flows) -> Self {
        Self { out: rest(&flows.out), back: rest(&flows.back) }
    }

    /// To be gone on with.
    pub fn restore(&self) -> Flows {
        Flows { out: Flow::of(self.out.to_vec()), back: Flow::of(self.back.to_vec()) }
    }
}

/// What is left of a flow.
pub fn rest(flow: &Flow) -> Bytes {
    Bytes::copy_from_slice(flow.rest())
}
