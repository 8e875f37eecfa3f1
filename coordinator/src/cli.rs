//! The command line of `novacron-coordinator`.

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// NovaCron's coordinator: the replicated ledger, the HTTP API and the cluster's certificate authority.
///
/// One coordinator is a complete cluster; three or five survive the loss of one or two.
#[derive(Debug, Parser)]
#[command(name = "novacron-coordinator", version, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
First coordinator:
  novacron-coordinator init --config /etc/novacron/coordinator.toml   prints the API token, once
  novacron-coordinator run  --config /etc/novacron/coordinator.toml

A second one, on another machine:
  novactl host token --coordinator                                    (where the first one runs)
  novacron-coordinator join --config … --token nvj1.…
  novacron-coordinator run  --config …

Exit codes: 0 stopped as asked, 1 failed, 2 wrong usage, 78 the configuration cannot be used.";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Found a new cluster: its certificate authority, its ledger, and the first API token.
    ///
    /// The token is printed once and kept nowhere: note it. Refused where a ledger exists already.
    Init(ConfigArg),
    /// Join an existing cluster with a one-time token.
    ///
    /// Fetches this coordinator's certificate and the seal key. `run` then receives the ledger from the others and
    /// becomes a voter as soon as it has caught up.
    Join {
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArg,
        /// The one-time join token (nvj1.…) for a coordinator.
        #[arg(long, env = "NOVACRON_JOIN_TOKEN", hide_env_values = true)]
        token: String,
    },
    /// Run until SIGTERM.
    Run(ConfigArg),
    /// Begin anew with the content of a backup (`novactl cluster backup`), while this coordinator is stopped.
    ///
    /// Refused where the present ledger has something that the backup has not, unless --accept-loss is given; what
    /// would be lost is listed. The former ledger is set aside. The other coordinators have to join anew. A machine
    /// without an identity needs the cluster's seal key, which is not in the backup.
    Restore {
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArg,
        /// The backup.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Go on though something is lost.
        #[arg(long)]
        accept_loss: bool,
    },
}

/// Where the configuration is.
#[derive(Debug, clap::Args)]
pub struct ConfigArg {
    /// The configuration file.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/novacron/coordinator.toml",
        env = "NOVACRON_CONFIG"
    )]
    pub config: PathBuf,
}

impl Command {
    /// The configuration file.
    pub fn config(&self) -> &std::path::Path {
        match self {
            Self::Init(config)
            | Self::Run(config)
            | Self::Join { config, .. }
            | Self::Restore { config, .. } => &config.config,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
