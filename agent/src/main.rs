//! Starts the agent, or, when the agent calls itself, the supervisor of one attempt or a command in a machine.

use clap::Parser;
use novacron_agent::{
    attempt::{call, supervisor},
    cli::{Cli, Verb},
    config::Config,
    enroll,
    hypervisor::namespace::{checkpoint::hook, exec},
    ledger::AgentLedger,
    memory, run,
    text::describe,
    vm::{self, ForgetError},
};
use novacron_common::ids::VmId;
use std::{path::Path, process::ExitCode};

/// `EX_CONFIG` of sysexits.h.
const BAD_CONFIG: u8 = 78;

fn main() -> ExitCode {
    // Before any thread exists: both fork.
    if let Some(code) = hook::called() {
        return code;
    }
    let mut words = std::env::args_os().skip(1);
    match words.next() {
        Some(word) if word == "supervise" => {
            return supervisor::main(&words.collect::<Vec<_>>(), Some(call::run));
        }
        Some(word) if word == "exec" => return exec::main(&words.collect::<Vec<_>>()),
        _ => {}
    }
    match Cli::parse().verb {
        Verb::Join { config, token } => with_config(&config, |config| serve(config, Some(token))),
        Verb::Run { config } => with_config(&config, |config| serve(config, None)),
        Verb::Forget { config, vm } => with_config(&config, |config| forget(&config, vm)),
    }
}

fn with_config(path: &Path, act: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match Config::load(path) {
        Ok(config) => act(config),
        Err(error) => {
            eprintln!("novacron-agent: {}", describe(&error));
            ExitCode::from(BAD_CONFIG)
        }
    }
}

fn serve(config: Config, token: Option<String>) -> ExitCode {
    memory::few_arenas();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    runtime.block_on(async {
        match token {
            Some(token) => join(&config, &token).await,
            None => match run::run(config).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error),
            },
        }
    })
}

fn forget(config: &Config, vm: VmId) -> ExitCode {
    let ledger = AgentLedger::open(&config.data_dir).map_err(ForgetError::from);
    match ledger.and_then(|ledger| vm::forget(&ledger, vm)) {
        Ok(()) => {
            println!("the damaged record of {vm} is removed: start the agent again");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
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

fn fail<E: std::error::Error + 'static>(error: &E) -> ExitCode {
    eprintln!("novacron-agent: {}", describe(error));
    ExitCode::FAILURE
}
