//! The core's suites, all on its public face: commands in, rows and answers out.

mod forecast;
mod gangs;
mod golden;
mod lists;
mod moves;
mod networks;
mod outages;
mod placement;
mod policies;
mod refusals;
mod requests;
mod saga;
mod schedule;
mod sequences;
mod stories;
mod ticks;
mod verbs;
mod workflows;
mod world;
