//! The ledger's promises, checked on real processes: three coordinators and three agents without libvirt, the faults that
//! are done to them, what was seen meanwhile, and the judges of that. The judges are pure and have tests of their own.

pub mod api;
pub mod audit;
pub mod chance;
pub mod faults;
pub mod harvest;
pub mod history;
pub mod linear;
pub mod registers;
pub mod schedule;
pub mod trio;
