//! `novactl`: NovaCron's command line. It speaks the HTTP API and knows nothing else.
//!
//! * `cli` is what a person types, and its help; `settings` is where the address and the token come from;
//! * `client` is HTTPS with the cluster's CA pinned; `socket` the same for WebSockets;
//! * `terminal` is the terminal that it was started on;
//! * `commands` has one file a noun; `output` prints tables or JSON, `graph` graphs; `progress` follows long work;
//! * `error` decides the exit code.

mod cli;
mod client;
mod commands;
mod error;
mod graph;
mod output;
mod progress;
mod retry;
mod settings;
mod socket;
mod terminal;
mod tls;

use clap::Parser;
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::run(cli).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("novactl: {}", error.describe());
            error.exit_code()
        }
    }
}
