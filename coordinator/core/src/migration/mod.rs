//! Moving a machine: the saga that ends fully there or fully back (design decision 4).

pub mod observe;
pub mod saga;

pub use observe::{answers, call};
