//! Documents name what exists: relative links, and paths in backticks that begin at one of our folders.

use std::collections::BTreeSet;
use std::path::Path;

use crate::tree::{Fault, Tree};

pub fn faults(tree: &Tree) -> Vec<Fault> {
    let known = Known::of(tree);
    let documents = tree.ending(".md");
    documents
        .flat_map(|file| {
            let named = file
                .lines()
                .flat_map(|line| named_paths(line.whole, &file.path, &known).map(move |p| (line.number, p)));
            named.filter(|(_, path)| !known.exists(path)).map(|(line, path)| Fault {
                path: file.path.clone(),
                line,
                what: format!("`{path}` does not exist"),
                instead: "the path as it is now".to_owned(),
            })
        })
        .collect()
}

/// Every path of the tree, folders included.
struct Known<'a>(BTreeSet<&'a str>);

impl<'a> Known<'a> {
    fn of(tree: &'a Tree) -> Self {
        let paths = tree.files.iter().map(|file| Path::new(&file.path));
        let all = paths.flat_map(Path::ancestors).filter_map(Path::to_str).filter(|path| !path.is_empty());
        Self(all.collect())
    }

    fn exists(&self, path: &str) -> bool {
        self.0.contains(path.trim_end_matches('/'))
    }

    fn has_folder(&self, name: &str) -> bool {
        self.0.iter().any(|path| path.strip_prefix(name).is_some_and(|rest| rest.starts_with('/')))
    }
}

/// Paths that a line of a document names, relative to the workspace.
fn named_paths<'a>(line: &'a str, document: &str, known: &'a Known<'_>) -> impl Iterator<Item = String> + 'a {
    let folder = Path::new(document).parent().unwrap_or(Path::new("")).to_string_lossy().into_owned();
    let links = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let links = links.filter(|target| {
        !target.contains("://") && !target.starts_with(['#', '<']) && !target.starts_with("mailto:")
    });
    let links = links.map(move |target| joined(&folder, target.split('#').next().unwrap_or_default()));
    let quoted = line.split('`').skip(1).step_by(2).filter(|text| begins_at_a_folder(text, known));
    links.filter(|path| !path.is_empty()).chain(quoted.map(str::to_owned))
}

fn begins_at_a_folder(text: &str, known: &Known<'_>) -> bool {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    plain
        && text
            .split_once('/')
            .is_some_and(|(first, rest)| !first.is_empty() && !rest.is_empty() && known.has_folder(first))
}

fn joined(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(target.split('/')).filter(|part| !matches!(*part, "" | ".")) {
        match part {
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn links_into_nothing_are_seen() {
    let tree = crate::tree::planted(&[
        (
            "README.md",
            "[a](common/PROTOCOL.md#top) [b](gone.md) `agent/src` `agent/gone` `vm show` [c](https://host.test/x)",
        ),
        ("common/PROTOCOL.md", "[up](../README.md) [no](../common/none.md)"),
        ("agent/src/lib.rs", "//! Why."),
    ]);
    let found: Vec<String> = faults(&tree).into_iter().map(|fault| fault.what).collect();
    assert_eq!(
        found,
        ["`gone.md` does not exist", "`agent/gone` does not exist", "`common/none.md` does not exist"]
    );
}
