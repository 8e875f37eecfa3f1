//! Cursor pagination: stable under inserts and deletes, and the same cost on the last page as on the first.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Every list is asked for alike; some have filters of their own. (A query cannot hold another: what it is read with
/// knows no nesting.)
macro_rules! queries {
    ($(
        $(#[$doc:meta])* $query:ident {
            limit: $limit_doc:tt,
            status: $status_doc:tt,
            $($(#[$field_doc:meta])* $field:ident: $kind:ty,)*
        }
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
        #[serde(deny_unknown_fields)]
        #[into_params(parameter_in = Query)]
        pub struct $query {
            #[doc = $limit_doc]
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub limit: Option<u32>,
            /// `next_cursor` of the page before.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub cursor: Option<String>,
            #[doc = $status_doc]
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub status: Option<String>,
            $($(#[$field_doc])* pub $field: $kind,)*
        }
    )*};
}

queries! {
    /// Query of every list.
    PageQuery {
        limit: "At most this many, 1 to 1000 (default 100).",
        status: "Only those in this state.",
    }
    /// Query of the list of jobs.
    JobQuery {
        limit: "At most this many, 1 to 1000 (default 100). A filtered page may be shorter and still have a next one.",
        status: "Only those that are `active`, `paused`, `finished` or `deleting`.",
        /// Only those with this label, as `key=value`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        label: Option<String>,
    }
}

impl PageQuery {
    /// Size of a page where none is asked for.
    pub const LIMIT_DEFAULT: u32 = 100;
    /// Largest page.
    pub const LIMIT_MAX: u32 = 1000;
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// In the order of their ids, which is that of their creation.
    pub items: Vec<T>,
    /// Give it as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
