//! Commands in real namespaces, and what they try in order to get out. Needs root; nothing else.

mod call;
mod checkpoint;
mod crash;
mod crowd;
mod escape;
mod exec;
mod files;
mod firewall;
mod health;
mod hold;
mod image;
mod lease;
mod life;
mod limits;
mod machine;
mod network;
mod place;
mod rooted;
mod signals;
mod statistics;
mod steps;
mod upper;
mod volume_escapes;
mod volumes;
mod walls;
mod world;
