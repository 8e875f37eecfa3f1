//! NovaCron in a simulated world: the shipped core, ledger, reconcilers and agents' attempt logic, and openraft
//! itself, on one thread, over a simulated clock, network and disk. One seed is one history; the same seed is the
//! same history, bit for bit.
//!
//! * [`os`] is what the code takes for the operating system: clock and randomness;
//! * [`executor`] runs tasks and timers, and knows which simulated machine each belongs to;
//! * [`net`] carries bytes between machines, late, doubled or not at all;
//! * `novacron_store::Disk` forgets what was not synced when its machine crashes;
//! * [`cluster`] starts, crashes and restarts coordinators, [`host`] hosts and their agents; [`faults`] decides when;
//! * [`jobs`] is what they have to do;
//! * [`history`] is what clients saw, [`checks`] what must be true of it;
//! * [`run`] puts them together: a seed in, a verdict out; [`seeds`] does so with many;
//! * [`moves`] is a world of its own: virtual machines that move between two hosts, and what goes wrong with that.
//!
//! `make test` runs 200 seeds and 60 of [`moves`], `make soak SEEDS=n` 40 times n of each. A seed that fails prints what to
//! replay it with: `NOVACRON_SEED=17 cargo nextest run -p novacron-sim every_seed`; with `NOVACRON_TELL=info,openraft=off` it is
//! told line by line, as `--no-capture` shows.
//!
//! `make planted` (part of `make test`) builds our crates with the feature `planted` and lets the shipped code make
//! the mistakes of `novacron_common::planted`, one at a time: each must be caught within 50 seeds of its world (jobs; of
//! [`moves`] 30), which are clean without it. Of a mistake that is caught the seed, and what the checker says, are printed.

pub mod checks;
pub mod cluster;
pub mod executor;
pub mod faults;
pub mod history;
pub mod host;
pub mod identities;
pub mod jobs;
pub mod moves;
pub mod net;
pub mod os;
pub mod run;
pub mod seeds;
mod tell;
pub mod trace;
