//! Commands in real namespaces, and what they try in order to get out. Needs root; nothing else.

mod call;
mod crash;
mod image;
mod lease;
mod life;
mod limits;
mod machine;
mod rooted;
mod walls;
mod world;
