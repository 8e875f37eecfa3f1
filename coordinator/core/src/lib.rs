//! NovaCron's ledger: a deterministic state machine, and the pure decisions around it.
//!
//! Nothing in here reads a clock, rolls dice or does I/O: [`state::State`] is a function of the commands that were
//! applied, so that every coordinator holds the same. The shell (raft, HTTP, reconcilers) proposes
//! [`command::Command`]s, asks pure functions what to do next, and shows [`views`].
//!
//! | to | use |
//! |---|---|
//! | change something | [`state::State::apply`] |
//! | persist, tell others | [`state::State::take_changes`], [`views::changed`] |
//! | know what is due | [`schedule::due`], [`attempts::plan`] |
//! | choose a host | [`placement::plan`] |
//! | know what to send to an agent | [`vms::wanted`], [`attempts::start`], [`migration::saga::next`] |
//! | know what a run does next | [`workflow::due`], [`workflow::due_ticks`] |
//! | know what a move will take | [`forecast::of`] |
//! | filter what an agent reports | [`vms::news`], [`hosts::news`] |
//! | answer HTTP | [`views`], [`lists`] |

pub mod applied;
mod apply;
pub mod attempts;
pub mod command;
pub mod fire_index;
pub mod forecast;
mod hash;
pub mod hosts;
pub mod index;
mod key;
pub mod lists;
pub mod migration;
pub mod placement;
pub mod record;
mod row;
pub mod schedule;
pub mod state;
pub mod table;
pub mod verbs;
pub mod views;
pub mod vms;
pub mod workflow;

pub use applied::{Applied, Refusal};
pub use apply::{
    ANSWER_MAX, REQUESTS_BYTES_MAX, REQUESTS_MAX, REQUESTS_REMEMBERED, check_move_source, check_move_strategy,
};
pub use command::{Command, CommandBody};
pub use key::OnlyRow;
pub use state::State;
pub use table::{Change, DecodeError, TableId};
