//! Rules over single lines: how a rule is stated, and how it is searched for.

use crate::hosts;
use crate::tree::{Fault, Line, TextFile, Tree};

/// What a rule looks for.
pub enum Finds {
    /// Code that contains one of these, not as the tail of a longer name or path.
    Words(&'static [&'static str]),
    /// Code that contains one of these, wherever.
    Pieces(&'static [&'static str]),
    /// Code or comment that contains one of these, not inside a longer word.
    WordsAnywhere(&'static [&'static str]),
    /// Code or comment in which an absolute path begins with one of these.
    AbsolutePaths(&'static [&'static str]),
    /// Addresses of package registries and mirrors; in scripts and settings any public host.
    PublicHosts,
}

/// A rule over lines, with a planted fault and a line that must pass, each with the path it would stand at.
pub struct LineRule {
    pub finds: Finds,
    /// Whether the rule holds at this line of this file.
    pub holds_at: fn(&TextFile, &Line<'_>) -> bool,
    pub instead: &'static str,
    pub planted: (&'static str, &'static str),
    pub passes: (&'static str, &'static str),
}

pub fn faults(tree: &Tree, rules: &[LineRule]) -> Vec<Fault> {
    let files = tree.files.iter().filter(|file| !names_the_rules(file));
    files.flat_map(|file| rules.iter().flat_map(move |rule| faults_in(file, rule))).collect()
}

/// The rules themselves must spell what they forbid; the lock file is cargo's.
fn names_the_rules(file: &TextFile) -> bool {
    file.path.starts_with("tests/tests/house_rules/")
        || file.path.ends_with("Cargo.lock")
        || file.path == "LICENSE"
}

fn faults_in<'a>(file: &'a TextFile, rule: &'a LineRule) -> impl Iterator<Item = Fault> + 'a {
    let lines = file.lines().filter(|line| (rule.holds_at)(file, line));
    lines.filter_map(|line| {
        let found = rule.finds.first_in(file, &line)?;
        let what = format!("`{found}` in `{}`", line.whole.trim());
        Some(Fault { path: file.path.clone(), line: line.number, what, instead: rule.instead.to_owned() })
    })
}

impl Finds {
    fn first_in(&self, file: &TextFile, line: &Line<'_>) -> Option<String> {
        let first = |needles: &[&str], text: &str, stands_alone: fn(&str, &str) -> bool| {
            let hits = |needle: &&&str| {
                let mut places = text.match_indices(**needle);
                places.any(|(at, _)| stands_alone(&text[..at], &text[at + needle.len()..]))
            };
            needles.iter().find(hits).map(|needle| (*needle).to_owned())
        };
        match self {
            Self::Words(needles) => first(needles, line.code, |before, _| !continues_a_path(before)),
            Self::Pieces(needles) => first(needles, line.code, |_, _| true),
            Self::WordsAnywhere(needles) => first(needles, line.whole, |before, after| {
                !continues_a_word(before) && !after.starts_with(|c: char| c.is_alphanumeric() || c == '_')
            }),
            Self::AbsolutePaths(needles) => first(needles, line.whole, |before, _| begins_a_path(before)),
            Self::PublicHosts => hosts::first_public(file, line.whole),
        }
    }
}

fn continues_a_word(before: &str) -> bool {
    before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

fn continues_a_path(before: &str) -> bool {
    continues_a_word(before)
        || before.trim_end_matches("::").len() < before.len()
            && continues_a_word(before.trim_end_matches("::"))
}

fn begins_a_path(before: &str) -> bool {
    before.is_empty() || before.ends_with(|c: char| c.is_whitespace() || "\"'`=(:<,[".contains(c))
}

#[test]
fn every_rule_sees_its_planted_line_and_passes_the_other() {
    for rule in crate::rules::ALL {
        let (path, line) = rule.planted;
        let tree = crate::tree::planted(&[(path, line)]);
        let found = faults(&tree, std::slice::from_ref(rule));
        assert_eq!(found.len(), 1, "not seen at {path}: {line}");
        assert!(found[0].to_string().contains(rule.instead), "the message names the remedy: {}", found[0]);

        let (path, line) = rule.passes;
        let tree = crate::tree::planted(&[(path, line)]);
        assert_eq!(faults(&tree, std::slice::from_ref(rule)), [], "refused at {path}: {line}");
    }
}

#[test]
fn longer_names_and_paths_are_not_taken_for_the_short_one() {
    assert!(continues_a_path("use crate::lib") && continues_a_path("hypervisor::"));
    assert!(!continues_a_path("use ") && !continues_a_path("Box<") && !continues_a_path("::"));
    assert!(begins_a_path("cd ") && begins_a_path("\"") && !begins_a_path("target"));
}
