//! A process that runs attempts as the agent does, for a test to kill, and the supervisors' own program.
//!
//! `attempt-driver supervise FOLDER` is a supervisor. `attempt-driver hold DATA_DIR PROGRAM ARGUMENT…` starts one
//! attempt, says `started`, and waits to be killed.

use novacron_agent::attempt::{AttemptRunner, supervisor};
use novacron_common::{
    ids::{AttemptKey, FireCause, FireKey, JobId},
    spec::{CommandTarget, JobTarget, OnLeaseLost, Root},
    units::{ByteCount, Epoch, UnixMillis},
    wire::AttemptStart,
};
use std::{ffi::OsString, path::Path, process::ExitCode};

/// The attempt that `hold` starts; tests ask for it again by this key.
fn held(argv: Vec<String>) -> AttemptStart {
    let fire =
        FireKey { job: JobId::from_u128(77), scheduled_at: UnixMillis(60_000), cause: FireCause::Schedule };
    AttemptStart {
        attempt: AttemptKey { fire, number: 1 },
        epoch: Epoch(1),
        target: JobTarget::Command(CommandTarget {
            argv,
            env: Vec::new(),
            working_dir: None,
            stdin: None,
            memory_max: ByteCount::mib(128),
            pids_max: 32,
            cpu_millis: 1000,
            root: Root::Host,
        }),
        timeout_ms: 60_000,
        scheduled_at: fire.scheduled_at,
        lease: None,
        on_lease_lost: OnLeaseLost::Keep,
        env: Vec::new(),
    }
}

fn hold(data_dir: &str, argv: &[String]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let runner = AttemptRunner::open(Path::new(data_dir), std::env::current_exe()?).await?;
        runner.start(held(argv.to_vec())).await?;
        println!("started");
        std::future::pending::<()>().await;
        Ok(())
    })
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["supervise", rest @ ..] => supervisor::main(&rest.iter().map(OsString::from).collect::<Vec<_>>()),
        ["hold", data_dir, ..] => match hold(data_dir, &words[2..]) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("attempt-driver supervise FOLDER | hold DATA_DIR PROGRAM ARGUMENT…");
            ExitCode::from(64)
        }
    }
}
