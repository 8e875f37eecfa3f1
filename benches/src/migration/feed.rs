//! Real file data for a guest's memory: the ELF files of this machine, one after the other.

use crate::guest::COMMAND_LIMIT;
use anyhow::{Context, Result, ensure};
use novacron_tests::{cluster::Cluster, serial::Recorder};
use std::{
    fs::{self, File},
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

const FROM: &str = "/usr";
const ELF: &[u8; 4] = b"\x7fELF";
/// Where the guest takes it.
const PORT: u16 = 9;
/// zstd's fastest level of the usual ones: the measure of how real the data is.
const LEVEL: i32 = 1;

/// So many bytes of them. Prints how well they compress.
pub fn elf_files(bytes: usize) -> Result<Vec<u8>> {
    let mut data = Vec::with_capacity(bytes);
    gather(Path::new(FROM), bytes, &mut data)?;
    ensure!(data.len() == bytes, "{FROM} has only {} MiB of ELF files", data.len() >> 20);
    let packed = zstd::bulk::compress(&data, LEVEL).context("compressing the files")?.len();
    #[allow(clippy::cast_precision_loss)]
    let ratio = bytes as f64 / packed as f64;
    println!("{} MiB of ELF files, {ratio:.2} times smaller with zstd -{LEVEL}", bytes >> 20);
    Ok(data)
}

/// Walks in the order of the names, so that two runs on a machine take the same files.
fn gather(folder: &Path, most: usize, data: &mut Vec<u8>) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type()?;
        if data.len() == most {
            break;
        } else if kind.is_dir() {
            gather(&entry.path(), most, data)?;
        } else if kind.is_file() {
            append_elf(&entry.path(), most, data)?;
        }
    }
    Ok(())
}

fn append_elf(path: &Path, most: usize, data: &mut Vec<u8>) -> Result<()> {
    let (begin, left) = (data.len(), most - data.len());
    File::open(path)?.take(left as u64).read_to_end(data)?;
    if !data[begin..].starts_with(ELF) {
        data.truncate(begin);
    }
    Ok(())
}

/// The guest listens a moment after it has said that it is ready.
fn connect(at: Ipv4Addr) -> Result<TcpStream> {
    let deadline = Instant::now() + COMMAND_LIMIT;
    loop {
        match TcpStream::connect((at, PORT)) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(50));
            }
            answer => return answer.with_context(|| format!("connecting to {at}")),
        }
    }
}

/// Sends `data` to the guest at `at`, and waits until it has all of it.
pub fn give(cluster: &Cluster, console: &Recorder, at: Ipv4Addr, data: &[u8]) -> Result<()> {
    let since = console.now();
    cluster.lab.outside().on_network(|| {
        let mut guest = connect(at)?;
        guest.set_write_timeout(Some(COMMAND_LIMIT))?;
        Ok(guest.write_all(data)?)
    })?;
    let fed = console.wait_for(since, COMMAND_LIMIT, |line| line.starts_with("FED"))?;
    let all = format!("FED bytes={} ", data.len());
    ensure!(fed.text.starts_with(&all), "the guest took something else: {}", fed.text);
    Ok(())
}
