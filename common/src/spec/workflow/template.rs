//! Texts with values in them: `{{ nodes.a.output.path }}`. What comes out is an argument, a variable or a header as it
//! stands; no shell ever reads it.

use super::reference::{Reference, Values};
use serde_json::Value;

/// A text with places for values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Reference),
}

/// A template that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    /// `{{` without its `}}`.
    #[error("has {{{{ without its }}}}: a literal {{{{ is written {{{{ \"{{{{\" }}}}")]
    Open,
    /// Between the braces stands no reference.
    #[error(transparent)]
    Reference(#[from] super::reference::BadReference),
}

pub(super) const OPEN: &str = "{{";
const CLOSE: &str = "}}";
/// A literal `{{`.
const LITERAL: &str = "{{ \"{{\" }}";

impl Template {
    /// Whether the text has any places for values, so that it has to be rendered.
    pub fn is_one(text: &str) -> bool {
        text.contains(OPEN)
    }

    /// Reads a template.
    ///
    /// # Errors
    /// [`BadTemplate`] says what cannot be read.
    pub fn parse(text: &str) -> Result<Self, BadTemplate> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(OPEN) {
            parts.push(Part::Text(rest[..at].to_owned()));
            rest = &rest[at..];
            if let Some(behind) = rest.strip_prefix(LITERAL) {
                parts.push(Part::Text(OPEN.to_owned()));
                rest = behind;
                continue;
            }
            let (inside, behind) = rest[OPEN.len()..].split_once(CLOSE).ok_or(BadTemplate::Open)?;
            parts.push(Part::Value(Reference::parse(inside.trim())?));
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self { parts })
    }

    /// What it refers to.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.parts.iter().filter_map(|part| match part {
            Part::Value(reference) => Some(reference),
            Part::Text(_) => None,
        })
    }

    /// The text with its values: a string as it is, anything else as compact JSON.
    ///
    /// # Errors
    /// The reference that has no value, or that the text gets longer than `max` bytes.
    pub fn render(&self, values: &dyn Values, max: usize) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Value(reference) => match &*reference.resolve(values)? {
                    Value::String(part) => text.push_str(part),
                    other => text.push_str(&other.to_string()),
                },
            }
            if text.len() > max {
                return Err(format!("with its values it is longer than {max} bytes"));
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::reference::Source, *};
    use serde_json::json;
    use std::borrow::Cow;

    struct Input(Value);
    impl Values for Input {
        fn value(&self, _: &Source) -> Result<Cow<'_, Value>, String> {
            Ok(Cow::Borrowed(&self.0))
        }
    }

    fn render(text: &str) -> Result<String, String> {
        let input = Input(json!({"name": "a; rm -rf /", "n": [1, {"x": true}]}));
        Template::parse(text).unwrap().render(&input, 100)
    }

    #[test]
    fn strings_stay_as_they_are_and_the_rest_is_json() {
        assert_eq!(render("<{{ run.input.name }}>").unwrap(), "<a; rm -rf />");
        assert_eq!(render("{{run.input.n}}-{{ run.input.n.0 }}").unwrap(), "[1,{\"x\":true}]-1");
        assert_eq!(render("a {{ \"{{\" }} b }} c").unwrap(), "a {{ b }} c");
    }

    #[test]
    fn faults_are_told_when_it_is_read_and_when_it_is_filled() {
        assert_eq!(Template::parse("{{ run.input"), Err(BadTemplate::Open));
        assert!(matches!(Template::parse("{{ $(id) }}"), Err(BadTemplate::Reference(_))));
        assert!(render("{{ run.input.missing }}").unwrap_err().contains("missing"));
        assert!(render(&"{{ run.input.name }}".repeat(20)).unwrap_err().contains("longer"));
    }
}
