//! Conditions: comparisons of outputs, joined by `&&`, `||` and `!`. A language without loops, calls or state: its
//! evaluation costs what its text is long.
//!
//! ```text
//! any     = all ("||" all)*
//! all     = one ("&&" one)*
//! one     = "!" one | "(" any ")" | "exists" reference | term [("==" | "!=" | "<" | "<=" | ">" | ">=") term]
//! term    = number | "text" | true | false | null | reference
//! ```

use super::reference::{BadReference, Reference, Values};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;
use std::{cmp::Ordering, fmt, str::FromStr};

/// A condition, kept as its text.
#[derive(Debug, Clone)]
pub struct Condition {
    text: String,
    tree: Tree,
}

#[derive(Debug, Clone)]
enum Tree {
    Any(Vec<Tree>),
    All(Vec<Tree>),
    Not(Box<Tree>),
    Exists(Reference),
    Holds(Term),
    Compare(Term, Comparison, Term),
}

#[derive(Debug, Clone)]
enum Term {
    Literal(Value),
    Reference(Reference),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::Unequal),
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

/// A text that is no condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCondition {
    /// Longer than anybody can read.
    #[error("has {0} bytes: a condition has at most {max}", max = Condition::LENGTH_MAX)]
    TooLong(usize),
    /// Brackets or `!` in brackets in brackets.
    #[error("is nested deeper than {DEPTH_MAX}")]
    TooDeep,
    /// Something else was expected.
    #[error(
        "expected {expected} at {at:?}: write it like nodes.a.output.count > 3 && run.input.env == \"prod\""
    )]
    Expected {
        /// What.
        expected: &'static str,
        /// What stands there (cut to 40 characters).
        at: String,
    },
    /// A name that refers to nothing.
    #[error(transparent)]
    Reference(#[from] BadReference),
}

/// Deepest nesting, so that a text of brackets cannot exhaust the stack.
const DEPTH_MAX: usize = 32;

impl Condition {
    /// Longest text.
    pub const LENGTH_MAX: usize = 2048;

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What it refers to.
    pub fn references(&self) -> Vec<&Reference> {
        let mut found = Vec::new();
        self.tree.references(&mut found);
        found
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// A reference without a value, or two values that have no order.
    pub fn holds(&self, values: &dyn Values) -> Result<bool, String> {
        self.tree.holds(values)
    }
}

impl Tree {
    fn references<'t>(&'t self, found: &mut Vec<&'t Reference>) {
        match self {
            Self::Any(parts) | Self::All(parts) => parts.iter().for_each(|part| part.references(found)),
            Self::Not(part) => part.references(found),
            Self::Exists(reference) => found.push(reference),
            Self::Holds(term) => found.extend(term.reference()),
            Self::Compare(left, _, right) => {
                found.extend(left.reference().into_iter().chain(right.reference()))
            }
        }
    }

    fn holds(&self, values: &dyn Values) -> Result<bool, String> {
        match self {
            Self::Any(parts) => {
                for part in parts {
                    if part.holds(values)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::All(parts) => {
                for part in parts {
                    if !part.holds(values)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Not(part) => Ok(!part.holds(values)?),
            Self::Exists(reference) => Ok(reference.resolve(values).is_ok_and(|value| !value.is_null())),
            Self::Holds(term) => match term.value(values)? {
                Value::Bool(holds) => Ok(holds),
                other => Err(format!("{other} is neither true nor false")),
            },
            Self::Compare(left, how, right) => compare(&left.value(values)?, *how, &right.value(values)?),
        }
    }
}

impl Term {
    fn reference(&self) -> Option<&Reference> {
        match self {
            Self::Reference(reference) => Some(reference),
            Self::Literal(_) => None,
        }
    }

    fn value(&self, values: &dyn Values) -> Result<Value, String> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::Reference(reference) => reference.resolve(values).map(std::borrow::Cow::into_owned),
        }
    }
}

fn compare(left: &Value, how: Comparison, right: &Value) -> Result<bool, String> {
    let order = order(left, right);
    let needs = |wanted: fn(Ordering) -> bool| {
        order.map(wanted).ok_or_else(|| format!("{left} and {right} have no order"))
    };
    match how {
        Comparison::Equal => Ok(order.map_or(left == right, Ordering::is_eq)),
        Comparison::Unequal => Ok(order.map_or(left != right, Ordering::is_ne)),
        Comparison::Less => needs(Ordering::is_lt),
        Comparison::AtMost => needs(Ordering::is_le),
        Comparison::Greater => needs(Ordering::is_gt),
        Comparison::AtLeast => needs(Ordering::is_ge),
    }
}

/// Numbers by size (whole ones exactly), texts by their bytes.
fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

struct Reader<'t> {
    rest: &'t str,
    depth: usize,
}

impl<'t> Reader<'t> {
    fn take(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expected(&self, expected: &'static str) -> BadCondition {
        BadCondition::Expected { expected, at: self.rest.chars().take(40).collect() }
    }

    fn any(&mut self) -> Result<Tree, BadCondition> {
        let mut parts = vec![self.all()?];
        while self.take("||") {
            parts.push(self.all()?);
        }
        Ok(Tree::Any(parts))
    }

    fn all(&mut self) -> Result<Tree, BadCondition> {
        let mut parts = vec![self.one()?];
        while self.take("&&") {
            parts.push(self.one()?);
        }
        Ok(Tree::All(parts))
    }

    fn one(&mut self) -> Result<Tree, BadCondition> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(BadCondition::TooDeep);
        }
        let tree = self.one_inside();
        self.depth -= 1;
        tree
    }

    fn one_inside(&mut self) -> Result<Tree, BadCondition> {
        if self.take("!") {
            return Ok(Tree::Not(Box::new(self.one()?)));
        }
        if self.take("(") {
            let tree = self.any()?;
            return if self.take(")") { Ok(tree) } else { Err(self.expected("a closing bracket")) };
        }
        if self.take("exists ") {
            let word = self.word();
            return Ok(Tree::Exists(Reference::parse(word)?));
        }
        let left = self.term()?;
        match COMPARISONS.iter().find(|(token, _)| self.take(token)) {
            Some((_, how)) => Ok(Tree::Compare(left, *how, self.term()?)),
            None => Ok(Tree::Holds(left)),
        }
    }

    fn term(&mut self) -> Result<Term, BadCondition> {
        self.rest = self.rest.trim_start();
        if self.rest.starts_with('"') {
            let mut values = serde_json::Deserializer::from_str(self.rest).into_iter::<String>();
            let text = values.next().and_then(Result::ok).ok_or_else(|| self.expected("a text in quotes"))?;
            self.rest = &self.rest[values.byte_offset()..];
            return Ok(Term::Literal(Value::String(text)));
        }
        let before = self.rest;
        let word = self.word();
        if word.is_empty() {
            self.rest = before;
            return Err(self.expected("a value or a reference"));
        }
        match serde_json::from_str::<Value>(word) {
            Ok(value) if !value.is_array() && !value.is_object() => Ok(Term::Literal(value)),
            _ => Ok(Term::Reference(Reference::parse(word)?)),
        }
    }

    fn word(&mut self) -> &'t str {
        self.rest = self.rest.trim_start();
        let ends = |c: char| c.is_whitespace() || "()!=<>&|\"".contains(c);
        let (word, rest) = self.rest.split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }
}

impl FromStr for Condition {
    type Err = BadCondition;
    fn from_str(text: &str) -> Result<Self, BadCondition> {
        if text.len() > Self::LENGTH_MAX {
            return Err(BadCondition::TooLong(text.len()));
        }
        let mut reader = Reader { rest: text, depth: 0 };
        let tree = reader.any()?;
        if reader.rest.trim().is_empty() {
            Ok(Self { text: text.to_owned(), tree })
        } else {
            Err(reader.expected("&&, || or the end"))
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
impl Eq for Condition {}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::reference::Source, *};
    use serde_json::json;
    use std::borrow::Cow;

    struct Input(Value);
    impl Values for Input {
        fn value(&self, source: &Source) -> Result<Cow<'_, Value>, String> {
            match source {
                Source::Input => Ok(Cow::Borrowed(&self.0)),
                _ => Err("has no output".into()),
            }
        }
    }

    fn holds(text: &str) -> Result<bool, String> {
        let input = Input(json!({"n": 3, "f": 2.5, "env": "prod", "ok": true, "none": null}));
        text.parse::<Condition>().map_err(|e| e.to_string())?.holds(&input)
    }

    #[test]
    fn comparisons_mean_what_they_say() {
        for yes in [
            "run.input.n == 3",
            "run.input.n >= 2.5 && run.input.f < 3",
            "run.input.env == \"prod\" && !(run.input.n > 5)",
            "run.input.env != 7",
            "false || run.input.ok",
            "exists run.input.n && !exists run.input.missing && !exists run.input.none",
            "run.input.none == null",
            "\"a && b\" < \"b\"",
        ] {
            assert_eq!(holds(yes), Ok(true), "{yes}");
        }
        assert_eq!(holds("run.input.n < 3"), Ok(false));
        assert_eq!(holds("false && run.input.missing"), Ok(false));
    }

    #[test]
    fn what_has_no_meaning_is_an_error() {
        for bad in ["run.input.missing == 1", "run.input.env > 3", "run.input.n", "nodes.a.output == 1"] {
            assert!(holds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for bad in ["", "1 ==", "(true", "true)", "a == 1", "true true", "run.input.n = 3", "\"open", "== 1"]
        {
            assert!(bad.parse::<Condition>().is_err(), "{bad}");
        }
        assert_eq!("(".repeat(100).parse::<Condition>().unwrap_err(), BadCondition::TooDeep);
        assert_eq!("!".repeat(1000).parse::<Condition>().unwrap_err(), BadCondition::TooDeep);
        assert!(matches!(" ".repeat(9999).parse::<Condition>(), Err(BadCondition::TooLong(9999))));
    }
}
