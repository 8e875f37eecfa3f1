//! What a person types.

mod cluster;
mod job;
mod vm;
mod workflow;

pub use cluster::ClusterVerb;
pub use job::{
    JobCreateArgs, JobLogsArgs, JobUpdateArgs, JobVerb, PolicyOptions, RetryReason, TargetOptions,
};
pub use vm::{
    VmCheckpointArgs, VmCpArgs, VmCreateArgs, VmExecArgs, VmHealthArgs, VmMigrateArgs, VmStatsArgs,
    VmStopArgs, VmVerb, VmWait,
};
pub use workflow::{NodeLogsArgs, NodeName, RunName, WorkflowVerb};

use clap::{Args, Parser, Subcommand, ValueEnum};
use novacron_common::api::{HostState, MigrationState, TokenRole};
use std::path::PathBuf;

/// Cron that can move your machines, and machines that keep their appointments.
#[derive(Debug, Parser)]
#[command(name = "novactl", version, about, after_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub connection: Connection,
    /// How answers are printed.
    #[arg(long, short, global = true, help_heading = COMMON, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    #[command(subcommand)]
    pub noun: Noun,
}

const EXAMPLES: &str = "\
Examples:
  novactl login --server https://10.0.0.1:8090 --ca-fingerprint 3f… --token nva1.…
  novactl host token                              a token with which one host joins
  novactl vm create web-1 --template debian-12 --cpu 2 --memory 2G --storage 10G --wait
  novactl vm migrate web-1 --to host-2 --wait
  novactl job create nightly --schedule '0 2 * * *' --timezone Europe/Berlin -- /usr/bin/backup

Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 token, 5 unreachable, 6 conflict, 7 invalid request.";

/// The heading of what every command takes: its own options stand before, unmixed.
const COMMON: &str = "Common options";

/// Which cluster, and who asks.
#[derive(Debug, Clone, Args)]
pub struct Connection {
    /// The API's address [default: https://127.0.0.1:8090, or the file's].
    #[arg(long, global = true, help_heading = COMMON, env = "NOVACTL_SERVER")]
    pub server: Option<String>,
    /// SHA-256 of the cluster's CA certificate.
    #[arg(long, global = true, help_heading = COMMON, env = "NOVACTL_CA_FINGERPRINT")]
    pub ca_fingerprint: Option<String>,
    /// An API token.
    #[arg(long, global = true, help_heading = COMMON, env = "NOVACTL_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// The file with the above [default: ~/.config/novacron/novactl.toml].
    #[arg(long, global = true, help_heading = COMMON, env = "NOVACTL_CONFIG")]
    pub config: Option<PathBuf>,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Noun {
    /// Machines.
    #[command(subcommand)]
    Vm(VmVerb),
    /// Scheduled jobs.
    #[command(subcommand)]
    Job(JobVerb),
    /// Workflows and their runs.
    #[command(subcommand)]
    Workflow(WorkflowVerb),
    /// Hypervisor hosts.
    #[command(subcommand)]
    Host(HostVerb),
    /// Image definitions from which machines are made.
    #[command(subcommand)]
    Template(TemplateVerb),
    /// Root file systems of namespace machines.
    #[command(subcommand)]
    Image(ImageVerb),
    /// Tenant networks, which namespace machines are on.
    #[command(subcommand)]
    Network(NetworkVerb),
    /// Volumes of hosts: what namespace machines keep beside their own disks (`vm create --volume`).
    #[command(subcommand)]
    Volume(VolumeVerb),
    /// Migrations, past and present.
    #[command(subcommand)]
    Migration(MigrationVerb),
    /// API tokens.
    #[command(subcommand)]
    Token(TokenVerb),
    /// The coordinators.
    #[command(subcommand)]
    Cluster(ClusterVerb),
    /// Print what happens, one JSON object a line.
    Events(EventsArgs),
    /// Keep server, fingerprint and token in the configuration file, after trying them.
    Login,
    /// Print a shell's completions.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub enum HostVerb {
    /// List hosts.
    #[command(visible_alias = "ls")]
    List {
        /// Only those that are up, or down.
        #[arg(long, value_parser = parse_word::<HostState>)]
        status: Option<HostState>,
    },
    /// Show one.
    Show(HostName),
    /// Make a token with which one host (or coordinator) joins.
    Token {
        /// For a coordinator in place of a host.
        #[arg(long)]
        coordinator: bool,
        /// Seconds that it is good for.
        #[arg(long)]
        ttl: Option<u32>,
    },
    /// Keep new machines off it.
    Cordon(HostName),
    /// Let new machines on it again.
    Uncordon(HostName),
    /// Declare a host off that is out of sight. You vouch that nothing runs there any more: its attempts count as
    /// lost, and are tried elsewhere as their jobs say. Cut its power first.
    Fence(HostName),
    /// Remove it from the cluster; it is cut off at once.
    #[command(visible_alias = "rm")]
    Remove {
        #[command(flatten)]
        host: HostName,
        /// Although machines or attempts are on it, once it is seen down. You vouch that it is off and stays off: what was there
        /// loses its place, and moves to or from it end without it.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub struct HostName {
    /// The host's name or id.
    pub host: String,
}

#[derive(Debug, Subcommand)]
pub enum TemplateVerb {
    /// Make a template from a JSON file (`-` is standard input); the API's documentation shows its fields.
    Create {
        /// The file.
        file: PathBuf,
    },
    /// List templates.
    #[command(visible_alias = "ls")]
    List,
    /// Show one.
    Show {
        /// Its name or id.
        template: String,
    },
    /// Remove it. Machines made from it stay.
    #[command(visible_alias = "rm")]
    Delete {
        /// Its name or id.
        template: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum ImageVerb {
    /// Make a template of an image, on a host: it is put where the hosts' agents take images from, under the SHA-256 of its content.
    #[command(after_help = "\
Examples, on a host and as root:
  docker save alpine:3.20 -o alpine.tar && novactl image import alpine.tar
  skopeo copy docker://debian:12 oci:debian && novactl image import debian
  debootstrap bookworm root && novactl image import root --name bookworm

The first machine of it has to run on this host, or the folder has to be one that the hosts share; from then on the hosts fetch it \
from one another. Digests that an image states are checked by the agent that unpacks it.")]
    Import(ImageImportArgs),
}

#[derive(Debug, Args)]
pub struct ImageImportArgs {
    /// An OCI image layout (a folder, or a tar file of one), what `docker save` writes, a tar file of a root file system, plain or
    /// compressed, or a folder that is one, such as debootstrap makes.
    pub source: PathBuf,
    /// What the template is called (default: the file's or folder's name, up to its first dot).
    #[arg(long)]
    pub name: Option<String>,
    /// Where the archive is put: one of `images.folders` in the agents' agent.toml.
    #[arg(long, default_value = "/var/lib/novacron/import")]
    pub folder: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum VolumeVerb {
    /// List the volumes of a host, and the machines that have them.
    #[command(visible_alias = "ls")]
    List {
        /// Its name or id.
        #[arg(long)]
        host: String,
    },
    /// Delete a volume with all that is in it, once no machine has it.
    #[command(visible_alias = "rm")]
    Delete {
        /// Its name.
        volume: String,
        /// The host that it is on, by name or id.
        #[arg(long)]
        host: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum NetworkVerb {
    /// Make a network. Machines on it reach each other on their host; machines of other networks do not reach them.
    Create {
        /// Its name.
        name: String,
        /// Its addresses, such as 10.1.2.0/24; the first is the gateway's (default: a free range in 10.213.0.0/16).
        #[arg(long)]
        subnet: Option<String>,
        /// A resolver of its machines; may be given again.
        #[arg(long, value_name = "ADDRESS")]
        dns: Vec<std::net::IpAddr>,
    },
    /// List networks.
    #[command(visible_alias = "ls")]
    List,
    /// Show one.
    Show {
        /// Its name or id.
        network: String,
    },
    /// Remove it, once no machine is on it.
    #[command(visible_alias = "rm")]
    Delete {
        /// Its name or id.
        network: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum MigrationVerb {
    /// List migrations.
    #[command(visible_alias = "ls")]
    List {
        /// Only those in this state, such as copying or failed.
        #[arg(long, value_parser = parse_word::<MigrationState>)]
        status: Option<MigrationState>,
    },
    /// Show one.
    Show {
        /// Its id.
        migration: String,
    },
    /// End it and go back; possible until the hand-over.
    Cancel {
        /// Its id.
        migration: String,
    },
    /// Give a stranded guest up: its halves, which lost each other in post-copy, end, and its machine is on the target,
    /// stopped, with its disk.
    GiveUp {
        /// Its id.
        migration: String,
    },
    /// Follow it to its end with a progress bar.
    Watch {
        /// Its id.
        migration: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum TokenVerb {
    /// Make an API token; it is shown once.
    Create {
        /// What it is for.
        name: String,
        /// May look, but change nothing.
        #[arg(long)]
        reader: bool,
    },
    /// List tokens, without their secrets.
    #[command(visible_alias = "ls")]
    List,
    /// End one.
    #[command(visible_alias = "rm")]
    Delete {
        /// Its id.
        token: String,
    },
}

impl TokenVerb {
    /// The role that the flag stands for.
    pub fn role(reader: bool) -> TokenRole {
        if reader { TokenRole::Reader } else { TokenRole::Admin }
    }
}

/// How the event stream is followed.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Connect again when the stream is cut, and go on where it was.
    #[arg(long, short)]
    pub follow: bool,
    /// Begin behind the event with this token.
    #[arg(long)]
    pub resume: Option<String>,
}

/// A state by the name that the API has for it; serde's refusal lists all names.
fn parse_word<S: serde::de::DeserializeOwned>(text: &str) -> Result<S, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
