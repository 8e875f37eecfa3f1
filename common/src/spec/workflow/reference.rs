//! What a template or a condition may speak of: outputs and states of other nodes, the run's input, a map's item.
//!
//! `nodes.extract.output.rows.0.id`, or behind the output a JSON pointer (RFC 6901): `nodes.extract.output/rows/0/id`.

use super::NodeId;
use serde_json::Value;
use std::{borrow::Cow, fmt};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// What a node left behind.
    Output(NodeId),
    /// How a node ended: `"succeeded"`, `"failed"` or `"skipped"`.
    Status(NodeId),
    /// What the run was started with.
    Input,
    /// The run's id.
    RunId,
    /// The tick that the run stands for, or when it was asked for: RFC 3339, UTC.
    ScheduledAt,
    /// The workflow's name.
    WorkflowName,
    /// The item that a map's try is for.
    Item,
    /// Its place in the list; the first is 0.
    ItemIndex,
}

/// A value, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Of what.
    pub source: Source,
    /// Field by field; a number is a place in a list.
    pub path: Vec<String>,
}

/// A text that refers to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} refers to nothing: write nodes.ID.output, nodes.ID.output.field, nodes.ID.status, run.input.field, run.id, \
     run.scheduled_at, workflow.name, or inside a map item, item.field or item_index"
)]
pub struct BadReference(pub String);

/// Where values are looked up while a run goes on.
pub trait Values {
    /// The whole value of a source.
    ///
    /// # Errors
    /// Why there is none.
    fn value(&self, source: &Source) -> Result<Cow<'_, Value>, String>;
}

/// Deepest path that is followed.
const PATH_MAX: usize = 32;

impl Reference {
    /// Reads a reference.
    ///
    /// # Errors
    /// [`BadReference`] says what may be written.
    pub fn parse(text: &str) -> Result<Self, BadReference> {
        let bad = || BadReference(text.chars().take(80).collect());
        let (head, pointer) = match text.split_once('/') {
            Some((head, pointer)) => (head, Some(pointer)),
            None => (text, None),
        };
        let mut dotted = head.split('.');
        let source = source(&mut dotted).ok_or_else(bad)?;
        let mut path: Vec<String> = dotted.map(str::to_owned).collect();
        if let Some(pointer) = pointer {
            path.extend(pointer.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")));
        }
        let scalar = matches!(
            source,
            Source::Status(_)
                | Source::RunId
                | Source::ScheduledAt
                | Source::WorkflowName
                | Source::ItemIndex
        );
        let readable = path.len() <= PATH_MAX && path.iter().all(|part| !part.is_empty());
        if (scalar && !path.is_empty()) || !readable {
            return Err(bad());
        }
        Ok(Self { source, path })
    }

    /// The value.
    ///
    /// # Errors
    /// What is missing.
    pub fn resolve<'v>(&self, values: &'v dyn Values) -> Result<Cow<'v, Value>, String> {
        let whole = values.value(&self.source).map_err(|why| format!("{self}: {why}"))?;
        match whole {
            Cow::Borrowed(value) => self.walk(value).map(Cow::Borrowed),
            Cow::Owned(value) if self.path.is_empty() => Ok(Cow::Owned(value)),
            Cow::Owned(value) => self.walk(&value).cloned().map(Cow::Owned),
        }
    }

    fn walk<'v>(&self, mut value: &'v Value) -> Result<&'v Value, String> {
        for part in &self.path {
            let found = match value {
                Value::Object(fields) => fields.get(part),
                Value::Array(items) => part.parse::<usize>().ok().and_then(|n| items.get(n)),
                _ => None,
            };
            value = found.ok_or_else(|| format!("{self}: there is no {part:?} in it"))?;
        }
        Ok(value)
    }

    /// The node that it speaks of.
    pub fn node(&self) -> Option<&NodeId> {
        match &self.source {
            Source::Output(node) | Source::Status(node) => Some(node),
            _ => None,
        }
    }
}

fn source<'t>(parts: &mut impl Iterator<Item = &'t str>) -> Option<Source> {
    match parts.next()?.trim() {
        "nodes" => {
            let node: NodeId = parts.next()?.parse().ok()?;
            match parts.next()? {
                "output" => Some(Source::Output(node)),
                "status" => Some(Source::Status(node)),
                _ => None,
            }
        }
        "run" => match parts.next()? {
            "input" => Some(Source::Input),
            "id" => Some(Source::RunId),
            "scheduled_at" => Some(Source::ScheduledAt),
            _ => None,
        },
        "workflow" => (parts.next()? == "name").then_some(Source::WorkflowName),
        "item" => Some(Source::Item),
        "item_index" => Some(Source::ItemIndex),
        _ => None,
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Output(node) => write!(f, "nodes.{node}.output")?,
            Source::Status(node) => write!(f, "nodes.{node}.status")?,
            Source::Input => f.write_str("run.input")?,
            Source::RunId => f.write_str("run.id")?,
            Source::ScheduledAt => f.write_str("run.scheduled_at")?,
            Source::WorkflowName => f.write_str("workflow.name")?,
            Source::Item => f.write_str("item")?,
            Source::ItemIndex => f.write_str("item_index")?,
        }
        self.path.iter().try_for_each(|part| write!(f, ".{part}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Fixed(Value);
    impl Values for Fixed {
        fn value(&self, source: &Source) -> Result<Cow<'_, Value>, String> {
            match source {
                Source::Output(_) => Ok(Cow::Borrowed(&self.0)),
                _ => Err("not here".into()),
            }
        }
    }

    #[test]
    fn dots_and_pointers_find_the_same() {
        let values = Fixed(json!({"rows": [{"id": 7}], "a/b": 1}));
        for text in ["nodes.n1.output.rows.0.id", "nodes.n1.output/rows/0/id"] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(*reference.resolve(&values).unwrap(), json!(7));
        }
        assert_eq!(*Reference::parse("nodes.n1.output/a~1b").unwrap().resolve(&values).unwrap(), json!(1));
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = Reference::parse("nodes.n1.output.rows.9").unwrap();
        assert!(missing.resolve(&Fixed(json!({"rows": []}))).unwrap_err().contains("\"9\""));
        assert!(Reference::parse("run.input").unwrap().resolve(&Fixed(json!(1))).is_err());
    }

    #[test]
    fn nonsense_refers_to_nothing() {
        for bad in [
            "",
            "nodes",
            "nodes.a",
            "nodes.a.exit",
            "run.secret",
            "env.PATH",
            "run.id.x",
            "nodes.a.output..x",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }
}
