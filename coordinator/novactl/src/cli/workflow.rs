//! `novactl workflow …`

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum WorkflowVerb {
    /// Make a workflow from a JSON file.
    Create(WorkflowFile),
    /// Change one to what a JSON file says; what the file leaves out stays.
    Update {
        /// The workflow's name or id.
        workflow: String,
        #[command(flatten)]
        file: WorkflowFile,
    },
    /// List workflows.
    #[command(visible_alias = "ls")]
    List,
    /// Show one: its nodes, and what each comes after.
    Show(WorkflowName),
    /// Let it run.
    Enable(WorkflowName),
    /// Keep it from running.
    Disable(WorkflowName),
    /// Remove it, with its record of runs.
    #[command(visible_alias = "rm")]
    Delete(WorkflowName),
    /// Run it now.
    #[command(visible_alias = "execute")]
    Run {
        /// The workflow's name or id.
        workflow: String,
        /// What `run.input` stands for: JSON.
        #[arg(long)]
        input: Option<String>,
        /// Return when it has ended, not when it has begun.
        #[arg(long)]
        wait: bool,
    },
    /// Its runs, the newest first.
    Runs(WorkflowName),
    /// A run with the states and timings of its nodes.
    Status {
        #[command(flatten)]
        run: RunName,
        /// Follow it to its end.
        #[arg(long)]
        wait: bool,
    },
    /// Cancel a run.
    Cancel(RunName),
    /// Run a part of an ended run again; the rest keeps its outputs.
    Retry {
        #[command(flatten)]
        run: RunName,
        /// From this node on [default: what did not succeed].
        #[arg(long)]
        from: Option<String>,
    },
    /// Approve a node that asks for it.
    Approve(NodeName),
    /// Reject a node that asks for approval.
    Reject(NodeName),
    /// A node of a run, with its output.
    Node {
        /// The workflow's name or id.
        workflow: String,
        /// The run's id.
        run: String,
        /// The node's id.
        node: String,
    },
    /// What a node's command or job printed.
    Logs(NodeLogsArgs),
}

#[derive(Debug, Args)]
pub struct NodeLogsArgs {
    /// The workflow's name or id.
    pub workflow: String,
    /// The run's id.
    pub run: String,
    /// The node's id.
    pub node: String,
    /// Of a map: which item, from 0.
    #[arg(long)]
    pub item: Option<u32>,
    /// Which try, from 1; the last if absent.
    #[arg(long)]
    pub attempt: Option<u32>,
    /// Go on until the attempt has ended.
    #[arg(long, short)]
    pub follow: bool,
}

#[derive(Debug, Args)]
pub struct WorkflowFile {
    /// The file, or `-` for standard input.
    #[arg(short, long)]
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct WorkflowName {
    /// The workflow's name or id.
    pub workflow: String,
}

#[derive(Debug, Args)]
pub struct RunName {
    /// The workflow's name or id.
    pub workflow: String,
    /// The run's id [default: the newest].
    pub run: Option<String>,
}

#[derive(Debug, Args)]
pub struct NodeName {
    /// The workflow's name or id.
    pub workflow: String,
    /// The run's id.
    pub run: String,
    /// The node's id.
    pub node: String,
    /// Why.
    #[arg(long)]
    pub comment: Option<String>,
}
