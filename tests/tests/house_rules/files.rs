//! Rules over whole files: a Rust file opens with why it exists and stays readable, and the README is one page.

use crate::tree::{Fault, TextFile, Tree};

const RUST_LINES_MAX: usize = 500;
const README_LINES_MAX: usize = 150;

pub fn faults(tree: &Tree) -> Vec<Fault> {
    let rust = tree.rust().flat_map(|file| [without_a_reason(file), too_long(file, RUST_LINES_MAX, SPLIT)]);
    let readme = tree.files.iter().filter(|file| file.path == "README.md");
    let readme =
        readme.map(|file| too_long(file, README_LINES_MAX, "a page of its own in the folder it is about"));
    rust.chain(readme).flatten().collect()
}

const SPLIT: &str = "a module a concern (about 250 lines is what we aim for)";

fn without_a_reason(file: &TextFile) -> Option<Fault> {
    (!file.text.starts_with("//!"))
        .then(|| whole(file, "no `//!` on line 1", "one or two lines on why the file exists"))
}

fn too_long(file: &TextFile, max: usize, instead: &str) -> Option<Fault> {
    let lines = file.text.lines().count();
    (lines > max).then(|| whole(file, &format!("{lines} lines, the most is {max}"), instead))
}

fn whole(file: &TextFile, what: &str, instead: &str) -> Fault {
    Fault { path: file.path.clone(), line: 0, what: what.to_owned(), instead: instead.to_owned() }
}

#[test]
fn silent_and_overlong_files_are_seen() {
    let long = "//! Why.\n".repeat(RUST_LINES_MAX + 1);
    let readme = "text\n".repeat(README_LINES_MAX + 1);
    let tree = crate::tree::planted(&[
        ("agent/src/fine.rs", "//! Why.\nfn a() {}\n"),
        ("agent/src/silent.rs", "fn a() {}\n"),
        ("agent/src/long.rs", &long),
        ("README.md", &readme),
        ("common/README.md", &readme),
    ]);
    let found: Vec<String> = faults(&tree).into_iter().map(|fault| fault.path).collect();
    assert_eq!(found, ["agent/src/silent.rs", "agent/src/long.rs", "README.md"]);
}
