//! `novacron-coordinator`: command line in, exit code out.

use clap::Parser;
use novacron_coordinator::{
    backup::{RestoreOptions, restore},
    cli::{Cli, Command},
    config::{Config, LogConfig, LogFormat},
    init::init,
    join::join,
    run::run,
    service,
};
use std::{io::IsTerminal, process::ExitCode};
use tracing_subscriber::EnvFilter;

/// sysexits.h: the configuration cannot be used.
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match Config::load(cli.command.config()) {
        Ok(config) => config,
        Err(fault) => {
            eprintln!("novacron-coordinator: {fault}");
            return ExitCode::from(EX_CONFIG);
        }
    };
    start_log(&config.log, matches!(cli.command, Command::Run(_)));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&anyhow::Error::new(error).context("could not start the runtime")),
    };
    match runtime.block_on(execute(cli.command, config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error),
    }
}

async fn execute(command: Command, config: Config) -> anyhow::Result<()> {
    match command {
        Command::Init(_) => {
            let founded = init(&config).await?;
            println!("{founded}");
            eprintln!("The token is shown once and kept nowhere. Next: novacron-coordinator run");
        }
        Command::Join { token, .. } => {
            let node = join(&config, &token).await?;
            println!("joined as coordinator {node}");
            eprintln!("Next: novacron-coordinator run");
        }
        Command::Run(_) => run(config, service::start).await?,
        Command::Restore { from, accept_loss, .. } => {
            let restored = restore(&config, &RestoreOptions { from, accept_loss })?;
            eprint!("{}", restored.difference);
            println!("restored as coordinator {}", restored.node);
            if let Some(former) = restored.former {
                eprintln!("The former ledger is kept in {}.", former.display());
            }
            for other in restored.others {
                eprintln!(
                    "Coordinator {other} has to join anew: remove its data folder and seal key, then join."
                );
            }
            eprintln!("Next: novacron-coordinator run");
        }
    }
    Ok(())
}

/// The whole chain of causes, once.
fn complain(error: &anyhow::Error) -> ExitCode {
    eprintln!("novacron-coordinator: {error:#}");
    ExitCode::FAILURE
}

/// To standard error. The short commands say nothing unless something is wrong; openraft's chatter is for its
/// developers unless it is asked for.
fn start_log(log: &LogConfig, runs: bool) {
    let level = if runs { log.level.as_str() } else { "warn" };
    let filter = EnvFilter::new(format!("openraft=warn,{level}"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match log.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}
