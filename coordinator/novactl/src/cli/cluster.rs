//! `novactl cluster …`

use clap::Subcommand;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum ClusterVerb {
    /// Show the coordinators.
    #[command(visible_alias = "status")]
    Show,
    /// Take a coordinator out. Refused if those that are left and answer could not decide anything.
    #[command(visible_alias = "remove")]
    Leave {
        /// Its node number or name.
        node: String,
    },
    /// Print a token with which a new coordinator comes in another's place, dead or alive, in one step.
    Replace {
        /// The node number or name of the one that goes.
        node: String,
    },
    /// Make another coordinator lead.
    Transfer {
        /// Its node number or name; the most advanced one if left out.
        node: Option<String>,
    },
    /// Keep the whole ledger in a file, with its checksum. The CA's key in it stays sealed: a restore needs the seal
    /// key too, which is a file of its own.
    Backup {
        /// Where to; `-` for standard output is not possible, because the file is checked before it gets its name.
        file: PathBuf,
    },
}
