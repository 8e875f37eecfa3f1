//! The HTTP API against a real single-node coordinator on loopback, with TLS, a token, and fake agents that speak
//! the real protocol. Nothing here needs root or libvirt.

mod access;
mod bad_input;
mod cluster;
mod consistency;
mod document;
mod events;
mod fake_agent;
mod hosts;
mod job_policies;
mod jobs;
mod life;
mod machines;
mod migrations;
mod networks;
mod plans;
mod replicas;
mod requests;
mod volumes;
mod workflows;
