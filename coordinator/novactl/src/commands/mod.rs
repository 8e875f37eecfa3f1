//! One file a noun.

mod backup;
mod cluster;
mod console;
mod cp;
mod events;
mod exec;
mod host;
mod image;
mod input;
mod job;
mod job_logs;
mod job_options;
mod job_rows;
mod login;
mod migration;
mod network;
mod plan;
mod stats;
mod template;
mod token;
mod vm;
mod volume;
mod workflow;

use crate::{
    cli::{Cli, Format, Noun},
    client::Client,
    error::CtlError,
    output::word,
    settings::Settings,
};
use clap::CommandFactory;
use std::process::ExitCode;

/// What every command has at hand.
pub struct Context {
    /// The API.
    pub client: Client,
    /// How to print.
    pub format: Format,
}

/// Does what was typed.
pub async fn run(cli: Cli) -> Result<ExitCode, CtlError> {
    if let Noun::Completions { shell } = cli.noun {
        clap_complete::generate(shell, &mut Cli::command(), "novactl", &mut std::io::stdout());
        return Ok(ExitCode::SUCCESS);
    }
    if let Noun::Login = cli.noun {
        return login::run(&cli.connection).await.map(|()| ExitCode::SUCCESS);
    }
    let client = Client::new(Settings::resolve(&cli.connection)?)?;
    let context = Context { client, format: cli.output };
    let done = match cli.noun {
        Noun::Vm(verb) => return vm::run(&context, verb).await,
        Noun::Job(verb) => job::run(&context, verb).await,
        Noun::Workflow(verb) => workflow::run(&context, verb).await,
        Noun::Host(verb) => host::run(&context, verb).await,
        Noun::Template(verb) => template::run(&context, verb).await,
        Noun::Image(verb) => image::run(&context, verb).await,
        Noun::Network(verb) => network::run(&context, verb).await,
        Noun::Volume(verb) => volume::run(&context, verb).await,
        Noun::Migration(verb) => migration::run(&context, verb).await,
        Noun::Token(verb) => token::run(&context, verb).await,
        Noun::Cluster(verb) => cluster::run(&context, verb).await,
        Noun::Events(args) => events::run(&context, args).await,
        Noun::Login | Noun::Completions { .. } => Ok(()),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// What is added to a list's query where only one state is asked for.
fn by_status(status: Option<&impl serde::Serialize>) -> String {
    status.map_or_else(String::new, |status| format!("&status={}", word(status)))
}

/// A name or id as part of a path: what could change the path is percent-encoded (RFC 3986).
pub fn segment(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(b).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_cannot_change_the_path() {
        assert_eq!(super::segment("web-1.a_b"), "web-1.a_b");
        assert_eq!(super::segment("../x?y#z"), "..%2Fx%3Fy%23z");
    }
}
