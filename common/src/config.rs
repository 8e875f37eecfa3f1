//! Reading a TOML configuration so that a mistake names its remedy: unknown keys are refused with the nearest
//! known one, and `NOVACRON_SECTION__KEY=value` in the environment overrides `section.key`.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{message}{hint}")]
    Refused {
        /// The parser's words, with the line.
        message: String,
        /// The nearest known key, if one is near.
        hint: String,
    },
    /// An environment variable whose value is neither TOML nor text.
    #[error("environment variable {variable} cannot be used: {reason}")]
    Environment {
        /// The variable.
        variable: String,
        /// Why.
        reason: String,
    },
}

/// The prefix of environment variables that override a file.
pub const ENV_PREFIX: &str = "NOVACRON_";

/// Parses `text`, with the variables of `env` on top.
///
/// # Errors
/// [`ConfigError`] names the key or variable at fault.
pub fn parse<T: DeserializeOwned>(
    text: &str,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<T, ConfigError> {
    let mut table: Table = text.parse().map_err(|e: toml::de::Error| refused(&e))?;
    for (variable, value) in env {
        if let Some(path) = variable.strip_prefix(ENV_PREFIX).filter(|p| p.contains("__")) {
            override_key(&mut table, path, &value)
                .map_err(|reason| ConfigError::Environment { variable: variable.clone(), reason })?;
        }
    }
    T::deserialize(Value::Table(table)).map_err(|e| refused(&e))
}

fn override_key(table: &mut Table, path: &str, value: &str) -> Result<(), String> {
    let lower = path.to_ascii_lowercase();
    let (section, key) = lower.split_once("__").unwrap_or(("", &lower));
    let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    let inner = section.as_table_mut().ok_or("its section is not a table")?;
    inner.insert(key.to_owned(), scalar(value));
    Ok(())
}

/// A TOML value where the text is one (numbers, booleans, arrays), else the text itself.
fn scalar(text: &str) -> Value {
    format!("v = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

fn refused(error: &toml::de::Error) -> ConfigError {
    let message = error.to_string().trim_end().to_owned();
    let hint = unknown_field_hint(&message).map_or_else(String::new, |n| format!(": did you mean `{n}`?"));
    ConfigError::Refused { message, hint }
}

/// serde's message is "unknown field `x`, expected one of `a`, `b`".
fn unknown_field_hint(message: &str) -> Option<String> {
    let rest = message.split_once("unknown field `")?.1;
    let mut quoted = rest.split('`');
    let unknown = quoted.next()?;
    let known = quoted.skip(1).step_by(2);
    nearest(unknown, known).map(str::to_owned)
}

/// The candidate most like `text`, if one is near enough to be a slip of the hand.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(text, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        server: Server,
    }
    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Server {
        listen: String,
        workers: u32,
    }

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        let text = "[server]\nlisten = 'x'\nworkrs = 2\n";
        let error = parse::<File>(text, []).unwrap_err().to_string();
        assert!(error.contains("did you mean `workers`?"), "{error}");
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let text = "[server]\nlisten = 'x'\nworkers = 2\n";
        let env = env(&[
            ("NOVACRON_SERVER__WORKERS", "9"),
            ("NOVACRON_SERVER__LISTEN", "[::]:80"),
            ("PATH", "/bin"),
        ]);
        let file: File = parse(text, env).unwrap();
        assert_eq!((file.server.workers, file.server.listen.as_str()), (9, "[::]:80"));
    }
}
