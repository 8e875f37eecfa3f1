//! What lies between the two QEMUs: for each connection a pump from source to target through the codec, and one back that
//! leaves the bytes alone.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use novacron_codec::parse::Channel;
use novacron_codec::{Decoder, Encoder, Means, Policy, Settings};

use crate::recording::{CACHE, Recording, secret};

const BUFFER: usize = 256 << 10;

/// Takes `count` connections at `from`, each to one of its own at `to`; returns what they carried when all are closed.
pub fn start(from: &Path, to: PathBuf, count: usize) -> Result<JoinHandle<Result<Vec<Recording>>>> {
    let listener = UnixListener::bind(from).context("listening for the source")?;
    Ok(thread::spawn(move || {
        let pumps = (0..count).map(|lane| {
            let (source, _) = listener.accept().context("taking a connection of the source's")?;
            let target = UnixStream::connect(&to).context("connecting to the target")?;
            both_ways(source, target, u32::try_from(lane)?)
        });
        let pumps = pumps.collect::<Result<Vec<_>>>()?;
        let ended = pumps.into_iter().map(|pump| pump.join().expect("a pump does not panic"));
        ended.collect()
    }))
}

fn both_ways(source: UnixStream, target: UnixStream, lane: u32) -> Result<JoinHandle<Result<Recording>>> {
    let (mut back_from, mut back_to) = (target.try_clone()?, source.try_clone()?);
    thread::spawn(move || {
        // The return path ends as the connection does, however that is.
        let _ = std::io::copy(&mut back_from, &mut back_to);
        let _ = back_to.shutdown(Shutdown::Write);
    });
    Ok(thread::spawn(move || through_the_codec(source, target, lane)))
}

fn through_the_codec(mut source: UnixStream, mut target: UnixStream, lane: u32) -> Result<Recording> {
    let means = Means::Full;
    let settings = Settings { cache: CACHE, policy: Policy::Fixed(means), ..Settings::new(secret(), lane) };
    let mut encoder = Encoder::new(settings);
    let mut decoder = Decoder::new(secret(), lane, CACHE);
    let (mut bytes, mut buffer, mut wire, mut back) = (Vec::new(), vec![0; BUFFER], Vec::new(), Vec::new());
    let (mut channel, mut given) = (Channel::Unknown, 0);
    loop {
        let count = source.read(&mut buffer).context("reading from the source")?;
        bytes.extend(&buffer[..count]);
        encoder.push(&buffer[..count], &mut wire);
        match count {
            0 => encoder.finish(&mut wire),
            _ if count < BUFFER => encoder.flush(&mut wire),
            _ => {}
        }
        if matches!(channel, Channel::Unknown) {
            channel = encoder.channel();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            rest = &rest[decoder.decode(rest, &mut back)?..];
        }
        wire.clear();
        anyhow::ensure!(bytes[given..].starts_with(&back), "lane {lane}: other bytes came back at {given}");
        given += back.len();
        target.write_all(&back).context("writing to the target")?;
        back.clear();
        if count == 0 {
            decoder.finish()?;
            let _ = target.shutdown(Shutdown::Write);
            let lost = encoder.channel() == Channel::Opaque;
            return Ok(Recording { bytes, channel, lost, means, stats: *encoder.stats() });
        }
    }
}
