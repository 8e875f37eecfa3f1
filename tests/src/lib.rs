//! The test lab: real hosts in namespaces of one machine, a guest that proves its own continuity, and the judge of that proof.
//!
//! Suites under `tests/` and the demo use it. Everything here needs root except [`serial`], [`need`], [`bins`], [`bare_guest`], [`matrix`] [`talk`] and the judges in [`ledger`].

pub mod bare_guest;
pub mod bins;
pub mod cloud_image;
pub mod cluster;
pub mod demo;
pub mod guest_image;
pub mod lab;
pub mod ledger;
pub mod matrix;
pub mod need;
pub mod root_archive;
pub mod serial;
pub mod steps;
pub mod talk;
