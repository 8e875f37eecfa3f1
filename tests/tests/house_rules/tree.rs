//! What the rules look at: the text files that are tracked or would be, and how a fault in one is reported.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::modules;

/// A broken rule at a place, and what to do instead.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    pub path: String,
    /// Counted from 1; 0 means the file as a whole.
    pub line: usize,
    pub what: String,
    pub instead: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}; instead: {}", self.path, self.line, self.what, self.instead)
    }
}

/// One text file; the path is relative to the workspace.
pub struct TextFile {
    pub path: String,
    pub text: String,
    /// All of it is test code: under a `tests` folder, or declared behind `#[cfg(test)]`.
    pub for_tests: bool,
}

/// A line as the rules see it.
pub struct Line<'a> {
    /// Counted from 1.
    pub number: usize,
    pub whole: &'a str,
    /// Without its comment; empty where the line is a comment.
    pub code: &'a str,
    /// Inside `#[cfg(test)] mod …`, or in a file of tests.
    pub in_tests: bool,
}

impl TextFile {
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let tests_begin = if self.for_tests { 0 } else { self.first_line_of_tests() };
        let rust = self.is_rust();
        self.text.lines().enumerate().map(move |(index, whole)| Line {
            number: index + 1,
            whole,
            code: if rust { without_comment(whole) } else { whole },
            in_tests: index >= tests_begin,
        })
    }

    /// Unit tests close a file, so everything from the attribute on is test code.
    fn first_line_of_tests(&self) -> usize {
        let lines: Vec<&str> = self.text.lines().map(str::trim).collect();
        let begin = lines.windows(2).position(|pair| {
            pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
        });
        begin.unwrap_or(usize::MAX)
    }
}

/// Cuts a line at `//` where that is outside a string (an even number of quotes before it).
fn without_comment(line: &str) -> &str {
    let outside_text = |at: &usize| line[..*at].matches('"').count().is_multiple_of(2);
    line.match_indices("//").map(|(at, _)| at).find(outside_text).map_or(line, |at| &line[..at])
}

/// All files under the rules.
pub struct Tree {
    pub files: Vec<TextFile>,
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Tree {
    /// Tracked files and new ones that git does not ignore; what is not UTF-8 is no text.
    pub fn of_the_workspace() -> Self {
        let listed = Command::new("git")
            .current_dir(root())
            .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
            .output()
            .expect("git lists the files of this checkout");
        assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
        let paths = String::from_utf8(listed.stdout).expect("paths are UTF-8");
        let files: Vec<(String, String)> = paths.split_terminator('\0').filter_map(read).collect();
        assert!(files.len() > 20, "only {} files found: the rules would hold over nothing", files.len());
        Self::of(files)
    }

    fn of(files: Vec<(String, String)>) -> Self {
        let rust = files.iter().filter(|(path, _)| path.ends_with(".rs"));
        let behind_cfg: BTreeSet<String> =
            rust.flat_map(|(path, text)| modules::declared_for_tests(path, text)).collect();
        let in_folder = |path: &str| path.starts_with("tests/") || path.contains("/tests/");
        let files = files.into_iter().map(|(path, text)| {
            let for_tests = in_folder(&path) || behind_cfg.contains(&path);
            TextFile { path, text, for_tests }
        });
        Self { files: files.collect() }
    }

    pub fn rust(&self) -> impl Iterator<Item = &TextFile> {
        self.files.iter().filter(|file| file.is_rust())
    }

    pub fn ending(&self, extension: &'static str) -> impl Iterator<Item = &TextFile> {
        self.files.iter().filter(move |file| file.path.ends_with(extension))
    }
}

/// A tracked file that was deleted in the work tree is no file.
fn read(path: &str) -> Option<(String, String)> {
    let text = String::from_utf8(fs::read(root().join(path)).ok()?).ok()?;
    Some((path.to_owned(), text))
}

/// A tree of planted files, for the tests of the rules.
pub fn planted(files: &[(&str, &str)]) -> Tree {
    Tree::of(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
}

#[test]
fn comments_are_cut_and_addresses_in_strings_are_not() {
    assert_eq!(without_comment("let a = 1; // why"), "let a = 1; ");
    assert_eq!(without_comment(r#"let a = "http://host"; // why"#), r#"let a = "http://host"; "#);
    assert_eq!(without_comment("/// text"), "");
}

#[test]
fn unit_tests_are_told_from_the_product() {
    let tree = planted(&[(
        "agent/src/a.rs",
        "//! Why.\n#[cfg(test)]\nmod fixture;\nfn a() {}\n#[cfg(test)]\nmod tests {\n}\n",
    )]);
    let in_tests: Vec<bool> = tree.files[0].lines().map(|line| line.in_tests).collect();
    assert_eq!(in_tests, [false, false, false, false, true, true, true]);
}

#[test]
fn a_file_behind_cfg_test_is_test_code() {
    let tree = planted(&[
        ("agent/src/a/mod.rs", "//! Why.\n#[cfg(test)]\nmod fixture;\nmod work;\n"),
        ("agent/src/a/fixture.rs", "//! Why.\n"),
        ("agent/src/a/work.rs", "//! Why.\n"),
    ]);
    let for_tests: Vec<bool> = tree.files.iter().map(|file| file.for_tests).collect();
    assert_eq!(for_tests, [false, true, false]);
}
