//! What a person types.

mod cluster;
mod job;
mod workflow;

pub use cluster::ClusterVerb;
pub use job::{
    JobCreateArgs, JobLogsArgs, JobUpdateArgs, JobVerb, PolicyOptions, RetryReason, TargetOptions,
};
pub use workflow::{NodeLogsArgs, NodeName, RunName, WorkflowVerb};

use clap::{Args, Parser, Subcommand, ValueEnum};
use novacron_common::{
    api::{HostState, MigrationState, TokenRole},
    record::{Strategy, VmState},
};
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
pub enum VmVerb {
    /// Make a machine from a template.
    Create(VmCreateArgs),
    /// List machines.
    #[command(visible_alias = "ls")]
    List {
        /// Only those in this state.
        #[arg(long, value_parser = parse_word::<VmState>)]
        status: Option<VmState>,
    },
    /// Show one.
    Show(VmName),
    /// Start it.
    Start(VmWait),
    /// Ask it to shut down, then cut its power.
    Stop(VmStopArgs),
    /// Stop it and start it.
    Restart(VmStopArgs),
    /// Stop it, and remove it with its disk.
    #[command(visible_alias = "rm")]
    Delete(VmWait),
    /// Move it to another host.
    Migrate(VmMigrateArgs),
    /// Its serial console; ctrl-] leaves.
    Console(VmName),
    /// The last part of what its console printed.
    Log {
        #[command(flatten)]
        vm: VmName,
        /// How many bytes.
        #[arg(long, default_value_t = 64 * 1024)]
        bytes: u32,
    },
}

#[derive(Debug, Args)]
pub struct VmName {
    /// The machine's name or id.
    pub vm: String,
}

#[derive(Debug, Args)]
pub struct VmWait {
    /// The machine's name or id.
    pub vm: String,
    /// Return when it is done, not when it is asked for.
    #[arg(long)]
    pub wait: bool,
}

#[derive(Debug, Args)]
pub struct VmStopArgs {
    /// The machine's name or id.
    pub vm: String,
    /// Seconds that the guest is given to shut down (0 cuts its power at once).
    #[arg(long)]
    pub grace: Option<u32>,
    /// Return when it is done, not when it is asked for.
    #[arg(long)]
    pub wait: bool,
}

#[derive(Debug, Args)]
pub struct VmMigrateArgs {
    /// The machine's name or id. Several go one after the other, as a gang: what they have in common in memory, such as
    /// machines of one template, crosses once for all that go to the same host.
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,
    /// The target host's name or id; without it the placement decides, for each machine by itself.
    #[arg(long)]
    pub to: Option<String>,
    /// Stop it, move it and start it, in place of moving it running.
    #[arg(long, conflicts_with_all = ["max_downtime", "max_slowdown", "deadline", "strategy"])]
    pub offline: bool,
    /// What may be done to a guest that changes its memory faster than the link carries it: auto slows it and pauses it
    /// for longer, as far as the limits below allow, and lets it go over at last if the machine allows post-copy; precopy does
    /// none of that; stop_and_copy pauses it until the rest is sent; postcopy lets it go over, and the rest follows.
    #[arg(long, value_parser = parse_word::<Strategy>)]
    pub strategy: Option<Strategy>,
    /// The longest pause that may be planned for, such as 500ms or 2s (default 300ms; none with stop_and_copy).
    #[arg(long, value_name = "TIME")]
    pub max_downtime: Option<String>,
    /// How much of its processors' time may be withheld from the guest, 0 to 99 percent (default 0; only with auto).
    #[arg(long, value_name = "PERCENT")]
    pub max_slowdown: Option<u32>,
    /// How long the copy may take, such as 10m; then the machine stays where it is (default: for as long as it converges).
    #[arg(long, value_name = "TIME")]
    pub deadline: Option<String>,
    /// What this move may take of its host's link, Mbit (10^6 bits) a second (default: what the host allows its moves).
    #[arg(long, value_name = "MBIT")]
    pub bandwidth_mbit: Option<u32>,
    /// Follow it to its end with a progress bar.
    #[arg(long, conflicts_with = "plan")]
    pub wait: bool,
    /// Move nothing: measure for some seconds, and show for each host what the move would take and what speaks against it.
    #[arg(long)]
    pub plan: bool,
}

#[derive(Debug, Args)]
pub struct VmCreateArgs {
    /// Its name.
    pub name: String,
    /// The template's name or id.
    #[arg(long)]
    pub template: String,
    /// Virtual CPUs.
    #[arg(long, default_value_t = 1)]
    pub cpu: u32,
    /// RAM, such as 512M or 4G.
    #[arg(long, default_value = "1G", value_parser = parse_size_mb)]
    pub memory: u64,
    /// Disk, such as 10G.
    #[arg(long, value_parser = parse_size_mb)]
    pub storage: Option<u64>,
    /// In place of the template's kernel command line, or of the command that a namespace machine's image names.
    #[arg(long)]
    pub cmdline: Option<String>,
    /// A fixed address with prefix length, such as 10.0.0.7/24.
    #[arg(long)]
    pub address: Option<String>,
    /// The default route.
    #[arg(long)]
    pub gateway: Option<std::net::IpAddr>,
    /// A bridge of the hosts.
    #[arg(long)]
    pub bridge: Option<String>,
    /// A file with public keys for the default user, one a line.
    #[arg(long)]
    pub ssh_keys: Option<PathBuf>,
    /// A file with cloud-init user-data.
    #[arg(long)]
    pub user_data: Option<PathBuf>,
    /// The host's name or id; without it the placement decides.
    #[arg(long)]
    pub host: Option<String>,
    /// Start it again by itself after a host boot or when it ends.
    #[arg(long)]
    pub restart_always: bool,
    /// Allow post-copy: a live move that does not converge lets the guest go over before all of its memory has. If the link
    /// or a host fails just then, the guest stands still until both are back, or is lost.
    #[arg(long)]
    pub post_copy: bool,
    /// Make it, but leave it stopped.
    #[arg(long)]
    pub no_start: bool,
    /// Return when it runs, not when it is asked for.
    #[arg(long)]
    pub wait: bool,
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

/// `512M`, `4G`, `1T`, in MiB.
fn parse_size_mb(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: write 512M, 4G or 1T");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let factor = match text[split..].to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "M" => 1,
        "G" => 1 << 10,
        "T" => 1 << 20,
        _ => return Err(wrong()),
    };
    text[..split].parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size_mb("512M"), Ok(512));
        assert_eq!(parse_size_mb("4GiB"), Ok(4096));
        for bad in ["", "4", "G", "-1G", "4X", "99999999999999999999G"] {
            assert!(parse_size_mb(bad).is_err(), "{bad}");
        }
    }
}
