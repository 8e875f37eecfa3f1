//! The house rules as a test: what no linter checks, with the remedy in each message. Every rule is itself tested on a
//! planted fault, so that a rule that stopped seeing is noticed.

mod docs;
mod files;
mod hosts;
mod lines;
mod modules;
mod rules;
mod tree;

use tree::{Fault, Tree};

fn none_of(faults: Vec<Fault>) {
    let report: Vec<String> = faults.iter().map(Fault::to_string).collect();
    assert!(report.is_empty(), "{} broken house rules:\n{}", report.len(), report.join("\n"));
}

#[test]
fn lines_hold_nothing_that_has_a_better_form() {
    none_of(lines::faults(&Tree::of_the_workspace(), rules::ALL));
}

#[test]
fn files_say_why_they_exist_and_stay_short() {
    none_of(files::faults(&Tree::of_the_workspace()));
}

#[test]
fn every_rust_file_is_part_of_a_crate() {
    none_of(modules::faults(&Tree::of_the_workspace(), &modules::roots_of_the_workspace()));
}

#[test]
fn documents_name_paths_that_exist() {
    none_of(docs::faults(&Tree::of_the_workspace()));
}
