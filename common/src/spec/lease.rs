//! What becomes of an attempt whose host the coordinators have lost from sight.

use serde::{Deserialize, Serialize};

/// What happens to an attempt whose lease has run out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnLeaseLost {
    /// It runs on. Its fire is `unknown`, and nothing replaces it until its host is seen again or declared fenced.
    #[default]
    Keep,
    /// Its own supervisor kills it, so that another attempt may start when it is certain to be gone.
    Kill,
}
