//! A call over HTTP.

use super::{TEXT_MAX, URL_MAX, pairs, sum};
use crate::{
    api::job::unique,
    spec::{Faults, HttpMethod, HttpTarget, STDIN_MAX, StatusRange},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// One status code, or a range such as `"200-299"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum StatusBody {
    /// One.
    Code(u16),
    /// From and to, both included.
    Range(String),
}

/// A call over HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpBody {
    /// How (default `GET`).
    #[serde(default)]
    pub method: HttpMethod,
    /// Whom: `http://…` or `https://…`.
    pub url: String,
    /// Headers.
    #[serde(default, deserialize_with = "unique::map")]
    pub headers: BTreeMap<String, String>,
    /// What is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The answers that count as success (default 200 to 299).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<StatusBody>,
}

impl StatusBody {
    fn range(&self) -> Option<StatusRange> {
        let (first, last) = match self {
            Self::Code(code) => (*code, *code),
            Self::Range(text) => {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                (first.trim().parse().ok()?, last.trim().parse().ok()?)
            }
        };
        ((100..=599).contains(&first) && first <= last && last <= 599).then_some(StatusRange { first, last })
    }
}

impl HttpBody {
    pub(super) fn check(&self, at: &str, faults: &mut Faults) -> HttpTarget {
        let rest = self.url.strip_prefix("http://").or_else(|| self.url.strip_prefix("https://"));
        let bad_host = |rest: &str| rest.split(['/', '?', '#']).next().is_none_or(str::is_empty);
        if rest.is_none_or(bad_host) || self.url.len() > URL_MAX || self.url.contains(is_outside_url) {
            faults.add(
                format!("{at}.url"),
                format!(
                    "must be http://host… or https://host… of at most {URL_MAX} bytes, without spaces or control \
                     characters"
                ),
            );
        }
        for (name, value) in &self.headers {
            if !is_token(name) || value.contains(['\r', '\n', '\0']) {
                let shown: String = name.chars().take(80).collect();
                faults.add(format!("{at}.headers.{shown}"), "is no header of HTTP (RFC 9110, section 5)");
            }
        }
        let headers = pairs(&self.headers);
        if sum(&headers) > TEXT_MAX / 2 {
            faults.add(format!("{at}.headers"), format!("have more than {} bytes", TEXT_MAX / 2));
        }
        if self.body.as_ref().is_some_and(|b| b.len() > STDIN_MAX) {
            faults.add(format!("{at}.body"), format!("has more than {STDIN_MAX} bytes"));
        }
        HttpTarget {
            method: self.method,
            url: self.url.clone(),
            headers,
            body: self.body.clone(),
            expect: self.expected(at, faults),
        }
    }

    fn expected(&self, at: &str, faults: &mut Faults) -> Vec<StatusRange> {
        const RANGES_MAX: usize = 32;
        if self.expect.is_empty() {
            return vec![StatusRange::SUCCESS];
        }
        let ranges: Option<Vec<_>> = self.expect.iter().map(StatusBody::range).collect();
        ranges.filter(|ranges| ranges.len() <= RANGES_MAX).unwrap_or_else(|| {
            faults.add(
                format!("{at}.expect"),
                format!(
                    "must be at most {RANGES_MAX} of: a status of 100 to 599, or a range such as \"200-299\""
                ),
            );
            Vec::new()
        })
    }
}

fn is_outside_url(c: char) -> bool {
    c.is_whitespace() || c.is_control()
}

/// RFC 9110, section 5.6.2.
fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

impl From<&HttpTarget> for HttpBody {
    fn from(h: &HttpTarget) -> Self {
        let range = |r: &StatusRange| match r.first == r.last {
            true => StatusBody::Code(r.first),
            false => StatusBody::Range(format!("{}-{}", r.first, r.last)),
        };
        Self {
            method: h.method,
            url: h.url.clone(),
            headers: h.headers.iter().cloned().collect(),
            body: h.body.clone(),
            expect: h.expect.iter().map(range).collect(),
        }
    }
}
