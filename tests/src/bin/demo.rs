//! `make demo`: shows the main job end to end and says in plain words whether it held. `KEEP=1` leaves the cluster up.

use std::process::ExitCode;
use std::time::Instant;

use novacron_tests::demo::{self, Settings};

fn main() -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("demo: needs root: it makes network, mount and PID namespaces and starts libvirtd in them");
        return ExitCode::from(2);
    }
    let began = Instant::now();
    let say = |text: &str| println!("[{:5.1} s] {text}", began.elapsed().as_secs_f64());
    let keep = std::env::var("KEEP").is_ok_and(|value| value == "1");
    match demo::run(Settings { keep }, &say) {
        Ok(outcome) => conclude(&outcome, began),
        Err(fault) => {
            eprintln!("demo: FAILED: {fault:#}");
            ExitCode::FAILURE
        }
    }
}

fn conclude(outcome: &demo::Outcome, began: Instant) -> ExitCode {
    println!("\n{}", outcome.words);
    println!(
        "{}: report.json, report.txt, serial logs of both hosts, fires, packet counts",
        outcome.folder.display()
    );
    println!("{:.0} s in all", began.elapsed().as_secs_f64());
    if let Some(kept) = &outcome.kept {
        println!("\nThe cluster is left up in {}:", kept.folder.display());
        kept.hints.iter().for_each(|hint| println!("  {hint}"));
    }
    if outcome.findings.hold() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
