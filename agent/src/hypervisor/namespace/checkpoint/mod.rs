//! Saving the processes of a machine, and having them run again (CRIU).

pub mod scan;
