//! The lightest attempt: one line in the agent's record file. Everything before and after is as with any other, so
//! what is in the file tells an auditor which attempts ran, when and under which epoch.

use crate::hypervisor::namespace::{
    folder::Folder,
    supervise::{failed_to_start, now},
};
use novacron_common::{
    record::{AttemptEnd, AttemptOutcome, Output},
    units::UnixMillis,
    wire::AttemptStart,
};
use std::{fs::File, io, io::Write, path::Path};

/// The file beside the attempts' folders.
const NAME: &str = "record.log";

/// An agent that starts sets a longer file aside.
const LENGTH_MAX: u64 = 64 << 20;

/// The line of an attempt, without the instant at which it is written: `fire number epoch scheduled_at`.
pub fn line_of(start: &AttemptStart) -> String {
    let (fire, number) = (&start.attempt.fire, start.attempt.number);
    format!("{fire} {number} {} {}", start.epoch.0, start.scheduled_at.0)
}

/// Appends the line and the instant, durably. The record file lies beside the attempt's own folder.
pub fn append(folder: &Folder, line: &str) -> AttemptEnd {
    let started_at = now();
    match try_append(&folder.path().join("..").join(NAME), line, started_at) {
        Ok(()) => AttemptEnd {
            outcome: AttemptOutcome::Exited(0),
            started_at: Some(started_at),
            ended_at: now(),
            output: Output::default(),
            result: None,
        },
        Err(error) => failed_to_start(format!("could not append to {NAME}: {error}")),
    }
}

/// One write of one line: the kernel appends it as a whole, whoever else appends meanwhile (`O_APPEND`, open(2)).
fn try_append(path: &Path, line: &str, at: UnixMillis) -> io::Result<()> {
    let mut file = File::options().create(true).append(true).open(path)?;
    let text = format!("{line} {}\n", at.0);
    let written = file.write(text.as_bytes())?;
    if written != text.len() {
        return Err(io::Error::new(io::ErrorKind::WriteZero, "only a part of the line was written"));
    }
    file.sync_data()
}

/// Sets a file aside that has grown too long. To be called while nobody appends in this place for the first time.
pub fn set_aside(attempts: &Path) -> io::Result<()> {
    let path = attempts.join(NAME);
    match std::fs::metadata(&path) {
        Ok(found) if found.len() > LENGTH_MAX => std::fs::rename(&path, path.with_extension("log.1")),
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_is_a_whole_line_and_no_line_is_lost() {
        let place = tempfile::tempdir().unwrap();
        let writers: Vec<_> = (0..8)
            .map(|n| {
                let folder = Folder::at(place.path().join(n.to_string()));
                std::fs::create_dir(folder.path()).unwrap();
                std::thread::spawn(move || {
                    for m in 0..20 {
                        assert_eq!(append(&folder, &format!("{n} {m}")).outcome, AttemptOutcome::Exited(0));
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let text = std::fs::read_to_string(place.path().join(NAME)).unwrap();
        let mut seen: Vec<(u32, u32)> = text
            .lines()
            .map(|line| {
                let words: Vec<_> = line.split(' ').collect();
                assert_eq!(words.len(), 3, "{line}");
                (words[0].parse().unwrap(), words[1].parse().unwrap())
            })
            .collect();
        seen.sort_unstable();
        let all: Vec<(u32, u32)> = (0..8).flat_map(|n| (0..20).map(move |m| (n, m))).collect();
        assert_eq!(seen, all);
    }

    #[test]
    fn a_record_that_cannot_be_written_is_a_failed_start() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::at(place.path().join("a"));
        std::fs::create_dir(folder.path()).unwrap();
        std::fs::create_dir(place.path().join(NAME)).unwrap();
        assert!(matches!(append(&folder, "x").outcome, AttemptOutcome::FailedToStart { .. }));
    }
}
