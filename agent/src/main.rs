//! Starts the agent, or, when the agent calls itself, the supervisor of one attempt.

use clap::Parser;
use novacron_agent::{
    attempt::supervisor,
    cli::{Cli, Verb},
    config::Config,
    enroll, run,
    text::describe,
};
use std::{path::Path, process::ExitCode};

/// `EX_CONFIG` of sysexits.h.
const BAD_CONFIG: u8 = 78;

fn main() -> ExitCode {
    // Before any thread exists: the supervisor forks.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == "supervise") {
        return supervisor::main(&words.collect::<Vec<_>>());
    }
    let (config, token) = match Cli::parse().verb {
        Verb::Join { config, token } => (config, Some(token)),
        Verb::Run { config } => (config, None),
    };
    let config = match load(&config) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    runtime.block_on(async {
        match token {
            Some(token) => join(&config, &token).await,
            None => serve(config).await,
        }
    })
}

fn load(path: &Path) -> Result<Config, ExitCode> {
    Config::load(path).map_err(|error| {
        eprintln!("novacron-agent: {}", describe(&error));
        ExitCode::from(BAD_CONFIG)
    })
}

async fn join(config: &Config, token: &str) -> ExitCode {
    let token = match token.parse() {
        Ok(token) => token,
        Err(error) => return fail::<novacron_common::wire::BadJoinToken>(&error),
    };
    match enroll::join(config, &token).await {
        Ok(identity) => {
            println!("joined {} as {}", identity.cluster, identity.role);
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

async fn serve(config: Config) -> ExitCode {
    match run::run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail<E: std::error::Error + 'static>(error: &E) -> ExitCode {
    eprintln!("novacron-agent: {}", describe(error));
    ExitCode::FAILURE
}
