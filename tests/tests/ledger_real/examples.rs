//! The examples of the coordinator's pages run as they are printed.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use novacron_tests::bins;
use novacron_tests::ledger::trio::{Trio, TrioOptions};
use novacron_tests::require;

const CLUSTER: &str = include_str!("../../../coordinator/CLUSTER.md");
const JOBS: &str = include_str!("../../../coordinator/JOBS.md");
const SCHEDULES: &str = include_str!("../../../coordinator/SCHEDULES.md");
const WORKFLOWS: &str = include_str!("../../../coordinator/WORKFLOWS.md");
const LIMIT: Duration = Duration::from_secs(240);

/// A person looks, and tries again what was too early (a run that has not come to its approval yet); so does this.
const PATIENTLY: &str = "patiently() { for _ in $(seq 200); do eval \"$1\" && return; sleep 0.2; done; \
                         echo \"it never worked: $1\"; exit 1; }\n";

/// The blocks of a page in one language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fences = page.split("```").skip(1).step_by(2);
    fences.filter_map(|block| Some(block.strip_prefix(language)?.strip_prefix('\n')?.to_owned())).collect()
}

fn the_block(page: &str, language: &str) -> Result<String> {
    let mut found = blocks(page, language);
    ensure!(found.len() == 1, "{} blocks in {language}", found.len());
    Ok(found.remove(0))
}

/// One command after the other; a backslash at a line's end goes on with it.
fn commands(block: &str) -> Vec<String> {
    let joined = block.replace("\\\n", " ");
    joined
        .lines()
        .map(|line| line.trim_start_matches("$ ").to_owned())
        .filter(|line| !line.is_empty())
        .collect()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn patiently(block: &str) -> String {
    commands(block).iter().map(|command| format!("patiently {}\n", quoted(command))).collect()
}

fn file(name: &str, text: &str) -> String {
    format!("printf %s {} > {name}\n", quoted(text))
}

/// What is typed and saved, page by page.
fn script() -> Result<String> {
    let workflow =
        file("nightly.json", &the_block(WORKFLOWS, "json")?) + &patiently(&the_block(WORKFLOWS, "sh")?);
    let job = file("job.json", &the_block(JOBS, "json")?) + "novactl job create -f job.json\n";
    let schedule = patiently(&the_block(SCHEDULES, "console")?)
        + "novactl job delete nightly\n"
        + &file("schedule.json", &the_block(SCHEDULES, "json")?)
        + "novactl job create -f schedule.json\n";
    Ok(PATIENTLY.to_owned() + &patiently(&the_block(JOBS, "sh")?) + &job + &schedule + &workflow)
}

/// Runs a script with the shell of an administrator who stands in an empty folder.
fn run(trio: &Trio, script: &str) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let programs = bins::path("novactl")?.parent().context("the folder of the programs")?.to_owned();
    std::fs::create_dir(folder.path().join("target"))?;
    std::os::unix::fs::symlink(&programs, folder.path().join("target/debug"))?;
    let path = format!("{}:{}", programs.display(), std::env::var("PATH")?);
    let mut bash = Command::new("bash");
    bash.args(["-c", &format!("set -eu; cd {}\n{script}", quoted(&folder.path().display().to_string()))]);
    bash.env("PATH", path).env("NO_COLOR", "1").envs(trio.reach.novactl_env(0)?);
    let shell = trio.reach.lab.outside().spawn_command(bash)?;
    let status = shell.wait_for(LIMIT).with_context(|| format!("it does not end: {}", shell.printed()))?;
    ensure!(status.success(), "{status}: {}", shell.printed());
    Ok(shell.printed())
}

#[test]
fn the_examples_of_the_pages_run_as_printed() -> Result<()> {
    require!(root, iptables);
    let mut options = TrioOptions::new("examples");
    (options.coordinators, options.agents) = (1, 1);
    let trio = Trio::start(&options)?;
    let said = run(&trio, &script()?)?;
    for (what, word) in [
        ("what the fire printed", "attempt 1 of fire-"),
        ("the job's end", "count is gone"),
        ("the workflow's critical path", "critical path"),
        ("how the run ended", "succeeded"),
    ] {
        ensure!(said.contains(word), "{what} is not shown:\n{said}");
    }
    let said = run(&trio, &the_block(CLUSTER, "sh")?)?;
    ensure!(said.contains("c4"), "the successor is not shown:\n{said}");
    Ok(())
}

#[test]
fn blocks_and_commands_are_found_as_printed() {
    let page = "a\n```sh\none \\\n  two\n\nthree  # why\n```\nb\n```json\n{}\n```\n```sh\nfour 'x'\n```\n";
    assert_eq!(blocks(page, "json"), ["{}\n"]);
    let all = blocks(page, "sh");
    assert_eq!(all.len(), 2);
    assert_eq!(commands(&all[0]), ["one    two", "three  # why"]);
    assert_eq!(patiently(&all[1]), "patiently 'four '\\''x'\\'''\n");
}
