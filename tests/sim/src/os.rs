//! The operating system's clock and randomness, as a simulated thread sees them.
//!
//! The shipped code reads `SystemTime::now`, `Instant::now` and, through the standard library's hash maps and
//! tokio, `getrandom`. Both end in two functions of the C library. This crate defines them too, and the linker
//! prefers a program's own definition to the library's: on a thread that simulates they answer for the world, on
//! every other thread they make the system call that the library would have made. So nothing in the shipped code
//! needs to know, and nothing that it will read later can be forgotten.

use novacron_common::splitmix::SplitMix64;
use std::cell::{Cell, RefCell};

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;
/// What the wall clock shows when a world begins: 2026-11-21T00:00:00Z, a Saturday.
pub const BEGIN_UNIX_SECONDS: u64 = 1_795_219_200;
/// What the monotonic clock shows then: long after boot, so that subtracting a while is no underflow.
const BEGIN_MONOTONIC_SECONDS: u64 = 1_000_000;

thread_local! {
    static CLOCK: Cell<Option<Clock>> = const { Cell::new(None) };
    static CHANCE: RefCell<Option<SplitMix64>> = const { RefCell::new(None) };
}

#[derive(Debug, Clone, Copy)]
struct Clock {
    monotonic: u64,
    wall: u64,
}

/// Until this is dropped the thread's clock and randomness are simulated.
#[derive(Debug)]
#[must_use]
pub struct Simulated(());

/// Begins to simulate on this thread, which must be a new one: the standard library and tokio keep, for the life of
/// a thread, what they have drawn before.
pub fn simulate(seed: u64) -> Simulated {
    CHANCE.with(|chance| *chance.borrow_mut() = Some(SplitMix64::new(seed)));
    set_clock(0, 0);
    Simulated(())
}

impl Drop for Simulated {
    fn drop(&mut self) {
        CLOCK.with(|clock| clock.set(None));
        CHANCE.with(|chance| *chance.borrow_mut() = None);
    }
}

/// It is `elapsed` nanoseconds after the world's beginning, and the wall clock of the machine whose code runs is
/// `skew` nanoseconds ahead.
pub fn set_clock(elapsed: u64, skew: i64) {
    let monotonic = BEGIN_MONOTONIC_SECONDS * SECOND + elapsed;
    let wall = (BEGIN_UNIX_SECONDS * SECOND + elapsed).saturating_add_signed(skew);
    CLOCK.with(|clock| clock.set(Some(Clock { monotonic, wall })));
}

fn reading(clock: libc::clockid_t) -> Option<u64> {
    let now = CLOCK.with(Cell::get)?;
    match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => Some(now.wall),
        libc::CLOCK_MONOTONIC
        | libc::CLOCK_MONOTONIC_COARSE
        | libc::CLOCK_MONOTONIC_RAW
        | libc::CLOCK_BOOTTIME => Some(now.monotonic),
        _ => None,
    }
}

/// clock_gettime(2).
///
/// # Safety
/// As the C library's: `out` points to a timespec.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, out: *mut libc::timespec) -> libc::c_int {
    let Some(nanoseconds) = reading(clock) else {
        // SAFETY: the system call itself, with the caller's arguments.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, out) } as libc::c_int;
    };
    let time = libc::timespec {
        tv_sec: (nanoseconds / SECOND) as libc::time_t,
        tv_nsec: (nanoseconds % SECOND) as libc::c_long,
    };
    // SAFETY: the caller's promise.
    unsafe { out.write(time) };
    0
}

/// getrandom(2).
///
/// # Safety
/// As the C library's: `buffer` points to `length` bytes that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(
    buffer: *mut libc::c_void,
    length: libc::size_t,
    flags: libc::c_uint,
) -> libc::ssize_t {
    let filled = CHANCE.with(|chance| {
        let mut chance = chance.borrow_mut();
        let rng = chance.as_mut()?;
        for at in 0..length {
            // SAFETY: `at` is within the caller's buffer.
            unsafe { buffer.cast::<u8>().add(at).write(rng.bits() as u8) };
        }
        Some(length as libc::ssize_t)
    });
    // SAFETY: the system call itself, with the caller's arguments.
    filled.unwrap_or_else(
        || unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) } as libc::ssize_t
    )
}
