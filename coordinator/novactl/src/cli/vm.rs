//! What a person types of machines.

use super::{job::parse_pair, parse_word};
use clap::{Args, Subcommand};
use novacron_common::{
    api::parse_duration,
    record::{Strategy, VmState},
    spec::Signal,
};
use std::path::PathBuf;

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
    /// Run a command in a namespace machine; its exit code is that of novactl.
    #[command(after_help = EXEC)]
    Exec(VmExecArgs),
    /// Copy a file or folder into a namespace machine, or out of it.
    #[command(after_help = CP)]
    Cp(VmCpArgs),
    /// Send a signal to a namespace machine's command; KILL ends a machine of any kind at once. It has then ended by itself:
    /// one with --restart-always starts again (end it for good with stop --timeout 0).
    Kill(VmKillArgs),
    /// Hold it where it is: its memory stays, its time stands still.
    Pause(VmWait),
    /// Let it run on after a pause.
    Resume(VmWait),
    /// Save the processes of a machine that was made with --migratable on its host. It is paused then and uses nothing but disk, also
    /// while its host restarts, until it is restored; or it runs on.
    Checkpoint(VmCheckpointArgs),
    /// Have it run on as it was when it was saved; one that was left running goes back to that, with its disk.
    Restore(VmWait),
    /// What machines use: processors, memory, processes, disk, network; since they were started, and of processors just now.
    Stats(VmStatsArgs),
    /// What a namespace machine's command prints; the last 256 KiB of its last run are kept.
    Logs(VmLogsArgs),
    /// The last part of what a KVM machine's console printed; logs has what a namespace machine's command prints.
    Log {
        #[command(flatten)]
        vm: VmName,
        /// How many bytes.
        #[arg(long, default_value_t = 64 * 1024)]
        bytes: u32,
    },
}

const EXEC: &str = "\
Examples:
  novactl vm exec box -- cat /etc/os-release
  novactl vm exec box -it -- sh                      a shell on this terminal
  novactl vm exec box -i -- tar -x -C /srv <files.tar

The command runs within the machine's limits, and with no more rights than the machine's own. Exit codes: the command's own,
128 and its number for a signal, 126 if the machine could not run it; 1 to 7 also as for all of novactl. Ctrl-C without a
terminal is passed on; a second one leaves, which ends the command.";

#[derive(Debug, Args)]
pub struct VmExecArgs {
    /// The machine's name or id.
    pub vm: String,
    /// Pass standard input on; without it the command reads nothing.
    #[arg(long, short)]
    pub interactive: bool,
    /// Give it a terminal, of the size of this one.
    #[arg(long, short)]
    pub tty: bool,
    /// A user of the machine by name or number, and perhaps a group: web, 33, web:logs (default: user 0).
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Where it starts (default: where the machine's own command does).
    #[arg(long, short, value_name = "FOLDER")]
    pub workdir: Option<String>,
    /// A variable, over those of the machine's own command; may be given again.
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = parse_pair)]
    pub env: Vec<(String, String)>,
    /// The command and its arguments; no shell is added.
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct VmLogsArgs {
    /// The machine's name or id.
    pub vm: String,
    /// Go on until this run of the machine has ended.
    #[arg(long, short)]
    pub follow: bool,
    /// Begin with this many of the last lines.
    #[arg(long, short = 'n', value_name = "LINES")]
    pub tail: Option<u32>,
}

const CP: &str = "\
Examples:
  novactl vm cp app.conf box:/etc/app/           into a folder that is there
  novactl vm cp site box:/srv/www                the folder site as /srv/www, or as /srv/www/site if that is there
  novactl vm cp box:/var/log/app.log .

Files that are there are replaced, folders are merged. Permissions and times are kept but set-user-id; what goes in belongs to
the machine's user 0, or to --user. Symbolic links are copied as links, but that which is named here is followed. Paths and links in
the machine lead to what is in it, never to its host's files.";

#[derive(Debug, Args)]
pub struct VmCpArgs {
    /// What is copied: a path here, or NAME:PATH in a machine. (A file here with a colon in its name: ./a:b.)
    #[arg(value_name = "FROM")]
    pub from: String,
    /// What it becomes; if that is a folder, it goes into it.
    #[arg(value_name = "TO")]
    pub to: String,
    /// As this user of the machine, and perhaps a group, by name or number (default: user 0).
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
}

#[derive(Debug, Args)]
pub struct VmKillArgs {
    /// The machine's name or id.
    pub vm: String,
    /// By name or number: HUP, SIGHUP, 1. One of HUP, INT, QUIT, KILL, USR1, USR2, ALRM, TERM, CONT, WINCH.
    #[arg(long, short, value_name = "SIGNAL", default_value_t = Signal::Kill)]
    pub signal: Signal,
}

#[derive(Debug, Args)]
pub struct VmStatsArgs {
    /// Their names or ids.
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,
    /// Show them again every so many seconds, until interrupted.
    #[arg(long, short, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub every: Option<u32>,
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
    /// What the command of a namespace machine is sent, to end on: TERM, INT, QUIT, HUP, USR1 ... (default: what its image names as
    /// its stop signal, or else TERM); KILL ends it at once. A KVM machine is asked by its power button.
    #[arg(long, value_name = "SIG")]
    pub signal: Option<Signal>,
    /// How long it is given to end, such as 10s or 2m (30s if nothing is said; 0 ends it at once). Then it is killed, or its power
    /// cut; `novactl vm show` says which it was.
    #[arg(long, alias = "grace", value_name = "DURATION", value_parser = parse_seconds)]
    pub timeout: Option<u32>,
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
    /// Compare the disk that was copied with the one it was copied from, both read anew, before the machine goes on. If they differ
    /// it is its old host's again, and starts from its disk there.
    #[arg(long)]
    pub verify_disk: bool,
    /// Follow it to its end with a progress bar.
    #[arg(long, conflicts_with = "plan")]
    pub wait: bool,
    /// Move nothing: measure for some seconds, and show for each host what the move would take and what speaks against it.
    #[arg(long)]
    pub plan: bool,
}

#[derive(Debug, Args)]
pub struct VmCheckpointArgs {
    /// The machine's name or id.
    pub vm: String,
    /// Let it run on; what it writes until it is restored is undone then.
    #[arg(long)]
    pub leave_running: bool,
    /// Return when its state is seen, not when it is asked for.
    #[arg(long)]
    pub wait: bool,
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
    /// The tenant network that a namespace machine is on, which gives it an address (default: no network at all).
    #[arg(long, conflicts_with_all = ["address", "gateway", "bridge"])]
    pub network: Option<String>,
    /// A port of its host that leads to it, such as 8080:80 or 5353:53/udp; may be given again.
    #[arg(long, requires = "network", value_name = "HOST:MACHINE[/udp]")]
    pub publish: Vec<String>,
    /// What it is shown of its host: NAME:/path, a volume that is made when it is first asked for and outlives the machine, or
    /// /folder:/path, a folder that the host's configuration allows; may be given again. Needs --host: it stays there.
    #[arg(long, short = 'v', requires = "host", value_name = "NAME|/FOLDER:/PATH[:ro]")]
    pub volume: Vec<String>,
    /// A file with public keys for the default user, one a line.
    #[arg(long)]
    pub ssh_keys: Option<PathBuf>,
    /// A file with cloud-init user-data.
    #[arg(long)]
    pub user_data: Option<PathBuf>,
    /// The host's name or id; without it the placement decides.
    #[arg(long)]
    pub host: Option<String>,
    /// Start it again by itself after a host boot, when it ends, or, stopped first, when its health check finds it unhealthy.
    #[arg(long)]
    pub restart_always: bool,
    #[command(flatten)]
    pub health: VmHealthArgs,
    /// Allow post-copy: a live move that does not converge lets the guest go over before all of its memory has. If the link
    /// or a host fails just then, the guest stands still until both are back, or is lost.
    #[arg(long)]
    pub post_copy: bool,
    /// Start a namespace machine so that its processes can be saved and restored; what cannot be carried along is refused.
    #[arg(long, conflicts_with = "post_copy")]
    pub migratable: bool,
    /// Make it, but leave it stopped.
    #[arg(long)]
    pub no_start: bool,
    /// Return when it runs, not when it is asked for.
    #[arg(long)]
    pub wait: bool,
}

/// How a namespace machine is asked whether it is well, in Docker's words. What is left out is as its image says (HEALTHCHECK).
#[derive(Debug, Args)]
#[command(next_help_heading = "Health check (namespace machines)")]
pub struct VmHealthArgs {
    /// A command for the machine's shell that succeeds where it is well, such as 'curl -f localhost'; `novactl vm list` then says
    /// healthy, unhealthy or starting.
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,
    /// Between an answer and the next question, such as 30s or 1m (the image's, or 30s).
    #[arg(long, value_name = "DURATION")]
    pub health_interval: Option<String>,
    /// How long an answer may take (the image's, or 30s).
    #[arg(long, value_name = "DURATION")]
    pub health_timeout: Option<String>,
    /// So many failures in a row, and it is unhealthy (the image's, or 3).
    #[arg(long, value_name = "COUNT")]
    pub health_retries: Option<u32>,
    /// How long after its start failures do not count, until the first success (the image's, or 0s).
    #[arg(long, value_name = "DURATION")]
    pub health_start_period: Option<String>,
    /// Do not ask it, whatever its image says.
    #[arg(long, conflicts_with_all = ["health_cmd", "health_interval", "health_timeout", "health_retries", "health_start_period"])]
    pub no_healthcheck: bool,
}

/// `512M`, `4G`, `1T`, in MiB.
pub(super) fn parse_size_mb(text: &str) -> Result<u64, String> {
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

/// Whole seconds, from a number of them or a length of time.
fn parse_seconds(text: &str) -> Result<u32, String> {
    let millis = text.parse::<u64>().ok().map_or_else(|| parse_duration(text), |s| s.checked_mul(1000));
    let seconds = millis.filter(|ms| ms % 1000 == 0).and_then(|ms| u32::try_from(ms / 1000).ok());
    seconds.ok_or_else(|| format!("{text:?} is no length of time in whole seconds: write 10s, 2m or 1h"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_in_whole_seconds() {
        for (text, seconds) in [("0", 0), ("7", 7), ("10s", 10), ("2m", 120), ("3000ms", 3)] {
            assert_eq!(parse_seconds(text), Ok(seconds));
        }
        for bad in ["", "s", "-1s", "1500ms", "10 s", "5000000000"] {
            assert!(parse_seconds(bad).unwrap_err().contains("10s"), "{bad}");
        }
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
