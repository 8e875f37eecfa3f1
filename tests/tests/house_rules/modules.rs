//! No dead files: every Rust file is a crate's root or is declared by `mod` from one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cargo_metadata::MetadataCommand;

use crate::tree::{Fault, Tree, root};

/// Paths of the crate roots of the workspace, relative to it.
pub fn roots_of_the_workspace() -> Vec<String> {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata reads the workspace");
    let targets = metadata.packages.iter().flat_map(|package| &package.targets);
    let inside = targets.map(|target| target.src_path.strip_prefix(&metadata.workspace_root));
    inside.map(|path| path.expect("our crates lie in the workspace").to_string()).collect()
}

pub fn faults(tree: &Tree, roots: &[String]) -> Vec<Fault> {
    let files: BTreeMap<&str, &str> =
        tree.rust().map(|file| (file.path.as_str(), file.text.as_str())).collect();
    let fuzz_targets = files.keys().filter(|path| path.starts_with("common/fuzz/fuzz_targets/"));
    let roots: BTreeSet<String> =
        roots.iter().cloned().chain(fuzz_targets.map(|path| (*path).to_owned())).collect();
    let live = reachable(&files, &roots);
    let dead = files.keys().filter(|path| !live.contains(**path));
    dead.map(|path| Fault {
        path: (*path).to_owned(),
        line: 0,
        what: "no crate declares this file".to_owned(),
        instead: "a `mod` line in its parent, or delete it".to_owned(),
    })
    .collect()
}

fn reachable(files: &BTreeMap<&str, &str>, roots: &BTreeSet<String>) -> BTreeSet<String> {
    let mut live: BTreeSet<String> = BTreeSet::new();
    let mut open: Vec<String> = roots.iter().cloned().collect();
    while let Some(path) = open.pop() {
        let Some(text) = files.get(path.as_str()) else {
            continue;
        };
        let owner = Owner { path: &path, is_root: roots.contains(&path) };
        open.extend(declared(text).into_iter().flat_map(|module| owner.candidates(&module)));
        live.insert(path);
    }
    live
}

/// Where the modules lie that a file declares behind `#[cfg(test)]`.
pub fn declared_for_tests(path: &str, text: &str) -> Vec<String> {
    let is_root = ["lib.rs", "main.rs"].iter().any(|root| Path::new(path).ends_with(root));
    let owner = Owner { path, is_root };
    let hidden = declared(text).into_iter().filter(|module| module.for_tests);
    hidden.flat_map(|module| owner.candidates(&module)).collect()
}

/// A `mod name;` line, with what the attributes above it say.
struct Declared {
    name: String,
    path: Option<String>,
    for_tests: bool,
}

fn declared(text: &str) -> Vec<Declared> {
    let mut found = Vec::new();
    let (mut path, mut for_tests) = (None, false);
    for line in text.lines().map(str::trim) {
        if let Some(name) = module_name(line) {
            found.push(Declared { name: name.to_owned(), path: path.take(), for_tests });
        }
        if let Some(rest) = line.strip_prefix("#[path = \"") {
            path = rest.split('"').next().map(str::to_owned);
        }
        // An attribute holds for the next item only; other attributes may stand between.
        for_tests = line == "#[cfg(test)]" || for_tests && line.starts_with("#[");
    }
    found
}

/// The name in `mod name;`, `pub mod name;`, `pub(crate) mod name;`, also after an attribute on the same line.
fn module_name(line: &str) -> Option<&str> {
    let line = line.split("//").next()?.trim();
    let name = line.strip_suffix(';')?.rsplit_once("mod ")?;
    let before = name.0.trim();
    let declares =
        before.is_empty() || before.starts_with("pub") || before.ends_with(']') || before.ends_with("pub");
    let plain = name.1.chars().all(|c| c.is_alphanumeric() || c == '_');
    (declares && plain).then_some(name.1)
}

/// The file that declares modules.
struct Owner<'a> {
    path: &'a str,
    is_root: bool,
}

impl Owner<'_> {
    /// Where the compiler would look; at most one of them exists.
    fn candidates(&self, module: &Declared) -> Vec<String> {
        let path = Path::new(self.path);
        let folder = path.parent().unwrap_or(Path::new("")).to_string_lossy().into_owned();
        if let Some(named) = &module.path {
            return vec![normal(&format!("{folder}/{named}"))];
        }
        let keeps_folder = self.is_root || path.ends_with("mod.rs");
        let below = if keeps_folder { folder } else { self.path.trim_end_matches(".rs").to_owned() };
        vec![format!("{below}/{}.rs", module.name), format!("{below}/{}/mod.rs", module.name)]
    }
}

/// Resolves `..` in a relative path.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        match part {
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn undeclared_files_are_seen_and_declared_ones_are_not() {
    let tree = crate::tree::planted(&[
        (
            "agent/src/lib.rs",
            "//! Why.\npub mod vm;\n#[path = \"../shared/odd.rs\"]\nmod odd;\nmod inline {}\n",
        ),
        ("agent/src/vm/mod.rs", "//! Why.\npub(crate) mod ledger;\n"),
        ("agent/src/vm/ledger.rs", "//! Why.\nmod key; // comment\n"),
        ("agent/src/vm/ledger/key.rs", "//! Why.\n"),
        ("agent/shared/odd.rs", "//! Why.\n"),
        ("agent/src/vm/forgotten.rs", "//! Why. // mod forgotten;\n"),
        ("common/fuzz/fuzz_targets/wire.rs", "//! Why.\n"),
    ]);
    let found: Vec<String> =
        faults(&tree, &["agent/src/lib.rs".to_owned()]).into_iter().map(|f| f.path).collect();
    assert_eq!(found, ["agent/src/vm/forgotten.rs"]);
}
