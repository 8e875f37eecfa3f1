//! What an administrator types.

use clap::{Parser, Subcommand};
use novacron_common::ids::VmId;
use std::path::PathBuf;

/// NovaCron's agent: runs the machines of this host, and moves them.
#[derive(Debug, Parser)]
#[command(name = "novacron-agent", version, about, after_help = AFTER)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

const AFTER: &str = "\
To add this host to a cluster:
  1. on a machine with novactl:   novactl host token
  2. here, as root:               novacron-agent join --token nvj1.…
  3. here, as root:               systemctl enable --now novacron-agent";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Spend a join token and become a member of its cluster.
    Join {
        /// The agent's configuration.
        #[arg(long, default_value = "/etc/novacron/agent.toml")]
        config: PathBuf,
        /// What `novactl host token` printed. Where others can list processes, use NOVACRON_JOIN_TOKEN.
        #[arg(long, env = "NOVACRON_JOIN_TOKEN", hide_env_values = true)]
        token: String,
    },
    /// Run as a service.
    Run {
        /// The agent's configuration.
        #[arg(long, default_value = "/etc/novacron/agent.toml")]
        config: PathBuf,
    },
    /// Remove the damaged ledger record of one machine (the agent must be stopped). A sound record is left alone.
    Forget {
        /// The agent's configuration.
        #[arg(long, default_value = "/etc/novacron/agent.toml")]
        config: PathBuf,
        /// The machine's id, as the agent's message names it.
        vm: VmId,
    },
}
