//! Any interleaving of writes, reads, cuts and duplicates delivers every byte once and in order, and each end once.

use super::{Lie, carrier, duplex::Duplex, incoming::Incoming, outgoing::Outgoing};
use bytes::Bytes;
use novacron_common::wire::LaneFrame;
use proptest::{collection::vec, prelude::*};
use std::{collections::VecDeque, time::Instant};

const WINDOW: usize = 4096;

/// One side: its state, what it said, and what it read.
struct Side {
    duplex: Duplex,
    said: Vec<u8>,
    read: Vec<u8>,
    end_read: bool,
    /// Frames on their way to the other side.
    wire: VecDeque<(LaneFrame, Bytes)>,
}

impl Side {
    fn new() -> Self {
        let (said, read, wire) = (Vec::new(), Vec::new(), VecDeque::new());
        Self { duplex: Duplex::new(WINDOW), said, read, end_read: false, wire }
    }

    fn write(&mut self, count: usize) {
        let count = self.duplex.out.room_for(count);
        if self.duplex.out.is_ended() || count == 0 {
            return;
        }
        let bytes: Vec<u8> = (0..count).map(|at| ((self.said.len() + at) * 31 % 251) as u8).collect();
        self.said.extend(&bytes);
        self.duplex.out.push(bytes.into(), Instant::now());
    }

    fn send(&mut self, frames: usize) {
        self.wire.extend((0..frames).map_while(|_| self.duplex.next_frame()));
    }

    fn read(&mut self, count: usize) {
        let front = self.duplex.incoming.front().map(|front| front.to_vec());
        match front {
            Some(front) => {
                let count = count.min(front.len());
                self.read.extend(&front[..count]);
                self.duplex.incoming.pass(count);
            }
            None => self.end_read = self.duplex.incoming.pass_end(),
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Write(usize, usize),
    Send(usize, usize),
    Arrive(usize, usize),
    Duplicate(usize),
    Read(usize, usize),
    Finish(usize),
    Cut,
    Replace(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let side = 0..2usize;
    prop_oneof![
        6 => (side.clone(), prop_oneof![1..8usize, 1..3000usize]).prop_map(|(side, count)| Op::Write(side, count)),
        6 => (side.clone(), 1..6usize).prop_map(|(side, count)| Op::Send(side, count)),
        6 => (side.clone(), 1..6usize).prop_map(|(side, count)| Op::Arrive(side, count)),
        1 => side.clone().prop_map(Op::Duplicate),
        6 => (side.clone(), 1..3000usize).prop_map(|(side, count)| Op::Read(side, count)),
        1 => side.prop_map(Op::Finish),
        2 => Just(Op::Cut),
        1 => (0..2usize).prop_map(Op::Replace),
    ]
}

struct Model {
    sides: [Side; 2],
}

impl Model {
    fn arrive(&mut self, from: usize, count: usize) -> Result<(), Lie> {
        for _ in 0..count {
            let Some((frame, bytes)) = self.sides[from].wire.pop_front() else { break };
            self.sides[1 - from].duplex.take(frame, bytes, Instant::now())?;
        }
        Ok(())
    }

    fn cut(&mut self) -> Result<(), Lie> {
        let received = [0, 1].map(|side: usize| self.sides[side].duplex.incoming.received());
        for (side, received) in self.sides.iter_mut().zip([received[1], received[0]]) {
            side.wire.clear();
            side.duplex.resume(received)?;
        }
        Ok(())
    }

    fn run(&mut self, op: Op) -> Result<(), Lie> {
        match op {
            Op::Write(side, count) => self.sides[side].write(count),
            Op::Send(side, count) => self.sides[side].send(count),
            Op::Read(side, count) => self.sides[side].read(count),
            Op::Finish(side) => self.sides[side].duplex.out.finish(),
            Op::Arrive(side, count) => return self.arrive(side, count),
            Op::Duplicate(side) => {
                if let Some((frame, bytes)) = self.sides[side].wire.front().cloned() {
                    return self.sides[1 - side].duplex.take(frame, bytes, Instant::now());
                }
            }
            Op::Cut => return self.cut(),
            Op::Replace(side) => {
                let replaced = &mut self.sides[side].duplex;
                let out = Outgoing::restore(WINDOW, &replaced.out.save()).expect("as saved");
                let incoming = Incoming::restore(WINDOW, &replaced.incoming.save()).expect("as saved");
                *replaced = Duplex { out, incoming };
                return self.cut();
            }
        }
        Ok(())
    }

    fn check(&self) {
        for (reader, writer) in [(&self.sides[0], &self.sides[1]), (&self.sides[1], &self.sides[0])] {
            assert!(writer.said.starts_with(&reader.read), "bytes were lost, repeated or changed");
            assert!(
                !reader.end_read || (reader.read == writer.said && writer.duplex.out.is_ended()),
                "an early end"
            );
        }
    }

    /// Everything that is still owed flows, without cuts.
    fn drain(&mut self) -> Result<(), Lie> {
        for side in [0, 1] {
            self.sides[side].duplex.out.finish();
        }
        for _ in 0..100_000 {
            if self.sides.iter().all(|side| side.duplex.is_complete() && side.end_read) {
                return Ok(());
            }
            for side in [0, 1] {
                self.sides[side].send(1);
                self.arrive(side, 1)?;
                self.sides[1 - side].read(usize::MAX);
            }
        }
        panic!("it does not end");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_arrives_once_and_in_order_whatever_is_cut(ops in vec(op(), 0..400)) {
        let mut model = Model { sides: [Side::new(), Side::new()] };
        for op in ops {
            model.run(op).unwrap();
            model.check();
        }
        model.drain().unwrap();
        model.check();
        for (reader, writer) in [(0, 1), (1, 0)] {
            prop_assert_eq!(&model.sides[reader].read, &model.sides[writer].said);
        }
    }

    #[test]
    fn no_frames_of_a_peer_panic_or_hold_more_than_the_window(
        frames in vec((0..3u8, prop_oneof![0..9u64, any::<u64>()], 1..600usize), 0..200),
    ) {
        let mut side = Side::new();
        side.write(7);
        side.send(9);
        for (kind, offset, length) in frames {
            let bytes = Bytes::from(vec![7; length]);
            let frame = match kind {
                0 => LaneFrame::Data { offset, length: u32::try_from(length).unwrap() },
                1 => LaneFrame::End { offset },
                _ => LaneFrame::Ack { offset },
            };
            let before = side.duplex.incoming.received();
            if side.duplex.take(frame, bytes, Instant::now()).is_err() {
                prop_assert_eq!(side.duplex.incoming.received(), before, "a refused frame changed something");
            }
            prop_assert!(side.duplex.incoming.received() <= WINDOW as u64);
        }
    }
}

#[test]
fn a_lane_that_nobody_reads_takes_no_more_than_its_window_and_then_goes_on() {
    let mut model = Model { sides: [Side::new(), Side::new()] };
    for _ in 0..100 {
        model.run(Op::Write(0, 1000)).unwrap();
        model.run(Op::Send(0, 10)).unwrap();
        model.run(Op::Arrive(0, 10)).unwrap();
    }
    assert!(model.sides[0].said.len() < WINDOW, "back-pressure");
    model.run(Op::Write(1, 100)).unwrap();
    model.run(Op::Send(1, 1)).unwrap();
    model.run(Op::Arrive(1, 1)).unwrap();
    assert_eq!(model.sides[0].duplex.incoming.received(), 100, "the other direction flows");
    model.drain().unwrap();
    model.check();
}

#[tokio::test]
async fn a_frame_is_read_whole_or_is_an_error() {
    let mut bytes = LaneFrame::Data { offset: 3, length: 5 }.to_bytes().to_vec();
    bytes.extend(b"abcde");
    let whole = carrier::read_frame(&mut &bytes[..]).await.unwrap().unwrap();
    assert_eq!(whole, (LaneFrame::Data { offset: 3, length: 5 }, Bytes::from_static(b"abcde")));
    assert!(carrier::read_frame(&mut &b""[..]).await.unwrap().is_none());
    for cut in [1, 15, 16, 20] {
        assert!(carrier::read_frame(&mut &bytes[..cut]).await.is_err(), "{cut}");
    }
    bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(carrier::read_frame(&mut &bytes[..]).await, Err(carrier::CarryError::Frame(_))));
}
