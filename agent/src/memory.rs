//! The memory that the allocator keeps for later.

/// Gives back to the system what no one holds any more. A move's buffers come from many threads, and glibc keeps an arena for
/// each: without this an agent that moves machines again and again keeps the most that each arena ever took.
pub fn give_back() {
    // SAFETY: malloc_trim(3) takes no pointer and may be called at any time, from any thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
