//! Says when it came to run, on the clock that a machine shares with its host, for benches that measure how long that took.
//! With an argument it stays until it is ended.

fn main() {
    // SAFETY: zeros are a valid timespec, and clock_gettime only writes to it.
    let mut now: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a timespec that outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    println!("FIRST {}", now.tv_sec * 1_000_000_000 + now.tv_nsec);
    while std::env::args().len() > 1 {
        // SAFETY: takes nothing; returns after a signal that did not end this.
        unsafe { libc::pause() };
    }
}
