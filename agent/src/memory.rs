//! The memory that the allocator keeps for later.

/// Has glibc make one arena for each processor, in place of eight (mallopt(3), `M_ARENA_MAX`): what is kept in each for long
/// lies between what was freed, and cannot be given back. Of an agent that held 45 MiB, 60 MiB and then 70 were resident
/// after fifty and a hundred moves. To be called before any thread exists.
pub fn few_arenas() {
    #[cfg(target_env = "gnu")]
    {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // SAFETY: mallopt(3) takes no pointer; it changes how arenas are made from now on.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, i32::try_from(processors).unwrap_or(i32::MAX)) };
    }
}

/// Gives back to the system what no one holds any more. A move's buffers come from many threads, and glibc keeps an arena for
/// each: without this an agent that moves machines again and again keeps the most that each arena ever took.
pub fn give_back() {
    // SAFETY: malloc_trim(3) takes no pointer and may be called at any time, from any thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
