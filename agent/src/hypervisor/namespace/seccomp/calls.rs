//! Which system calls exist inside. Pure lists.
//!
//! [`ALLOWED`] is what decides: the calls that Docker's default profile allows a container without further
//! capabilities, less a few. A call that is in no list, a newer one among them, does not exist (`ENOSYS`), which is what
//! programs are prepared for. [`REFUSED`] only gives those that people know the honest answer (`EPERM`).

/// Written without commas, so that a line can hold a family.
macro_rules! calls {
    ($($name:ident)*) => { &[$(libc::$name),*] };
}

/// Calls of all architectures.
pub const ALLOWED: &[libc::c_long] = calls! {
    // Processes and threads. Of clone, only what makes no namespace; clone3 keeps its flags where no filter can look.
    SYS_clone SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_wait4 SYS_waitid SYS_kill SYS_tkill SYS_tgkill
    SYS_getpid SYS_getppid SYS_gettid SYS_getpgid SYS_setpgid SYS_getsid SYS_setsid SYS_set_tid_address
    SYS_set_robust_list SYS_get_robust_list SYS_rseq SYS_membarrier SYS_prctl SYS_personality SYS_seccomp
    SYS_pidfd_open SYS_pidfd_send_signal SYS_process_mrelease SYS_restart_syscall SYS_umask SYS_uname SYS_sysinfo
    SYS_getcpu SYS_getrandom SYS_getrusage SYS_times SYS_prlimit64 SYS_getrlimit SYS_setrlimit
    SYS_getpriority SYS_setpriority SYS_ioprio_get SYS_ioprio_set
    SYS_sched_yield SYS_sched_getaffinity SYS_sched_setaffinity SYS_sched_getparam SYS_sched_setparam
    SYS_sched_getscheduler SYS_sched_setscheduler SYS_sched_getattr SYS_sched_setattr
    SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_sched_rr_get_interval
    // Who they are. What a call may change is for the capabilities to say.
    SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_getresuid SYS_getresgid SYS_getgroups
    SYS_setuid SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid SYS_setresgid SYS_setfsuid SYS_setfsgid
    SYS_setgroups SYS_capget SYS_capset SYS_landlock_create_ruleset SYS_landlock_add_rule SYS_landlock_restrict_self
    // Signals.
    SYS_rt_sigaction SYS_rt_sigpending SYS_rt_sigprocmask SYS_rt_sigqueueinfo SYS_rt_sigreturn SYS_rt_sigsuspend
    SYS_rt_sigtimedwait SYS_rt_tgsigqueueinfo SYS_sigaltstack SYS_signalfd4
    // Memory.
    SYS_brk SYS_mmap SYS_munmap SYS_mremap SYS_mprotect SYS_madvise SYS_mincore SYS_msync SYS_mlock SYS_mlock2
    SYS_mlockall SYS_munlock SYS_munlockall SYS_remap_file_pages SYS_memfd_create SYS_memfd_secret
    SYS_pkey_alloc SYS_pkey_free SYS_pkey_mprotect SYS_mseal
    // Time.
    SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_nanosleep SYS_gettimeofday SYS_getitimer SYS_setitimer
    SYS_timer_create SYS_timer_delete SYS_timer_getoverrun SYS_timer_gettime SYS_timer_settime
    SYS_timerfd_create SYS_timerfd_gettime SYS_timerfd_settime
    // Files.
    SYS_openat SYS_openat2 SYS_close SYS_close_range SYS_read SYS_write SYS_readv SYS_writev SYS_pread64 SYS_pwrite64
    SYS_preadv SYS_pwritev SYS_preadv2 SYS_pwritev2 SYS_lseek SYS_dup SYS_dup3 SYS_fcntl SYS_ioctl SYS_flock
    SYS_fsync SYS_fdatasync SYS_sync SYS_syncfs SYS_readahead SYS_fallocate SYS_ftruncate SYS_truncate
    SYS_copy_file_range SYS_sendfile SYS_splice SYS_tee SYS_vmsplice SYS_pipe2 SYS_eventfd2
    SYS_newfstatat SYS_fstat SYS_statx SYS_statfs SYS_fstatfs SYS_faccessat SYS_faccessat2 SYS_readlinkat
    SYS_getdents64 SYS_getcwd SYS_chdir SYS_fchdir SYS_mkdirat SYS_mknodat SYS_linkat SYS_symlinkat SYS_unlinkat
    SYS_renameat2 SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_utimensat
    SYS_getxattr SYS_lgetxattr SYS_fgetxattr SYS_setxattr SYS_lsetxattr SYS_fsetxattr
    SYS_listxattr SYS_llistxattr SYS_flistxattr SYS_removexattr SYS_lremovexattr SYS_fremovexattr
    SYS_inotify_init1 SYS_inotify_add_watch SYS_inotify_rm_watch SYS_fanotify_mark
    // Waiting for many. io_uring is refused: it is large, young, and its work passes no filter.
    SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_ppoll SYS_pselect6
    SYS_futex SYS_futex_waitv SYS_io_setup SYS_io_submit SYS_io_getevents SYS_io_cancel SYS_io_destroy
    // Sockets, of the families in `socket_families`.
    SYS_socket SYS_socketpair SYS_bind SYS_listen SYS_accept SYS_accept4 SYS_connect SYS_shutdown SYS_getsockname
    SYS_getpeername SYS_getsockopt SYS_setsockopt SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_sendmmsg
    SYS_recvmmsg
    // System V and POSIX queues; each machine has an IPC namespace of its own.
    SYS_shmget SYS_shmat SYS_shmctl SYS_shmdt SYS_semget SYS_semop SYS_semctl SYS_semtimedop
    SYS_msgget SYS_msgsnd SYS_msgrcv SYS_msgctl
    SYS_mq_open SYS_mq_unlink SYS_mq_timedsend SYS_mq_timedreceive SYS_mq_notify SYS_mq_getsetattr
};

/// Calls that the `libc` crate does not name yet. Since Linux 5.1 a new call has one number on all architectures.
pub const ALLOWED_YOUNG: &[libc::c_long] = &[
    451, // cachestat
    452, // fchmodat2
    453, // map_shadow_stack
    454, // futex_wake
    455, // futex_wait
    456, // futex_requeue
    463, // setxattrat
    464, // getxattrat
    465, // listxattrat
    466, // removexattrat
];

/// What only x86-64 still has beside the calls above.
#[cfg(target_arch = "x86_64")]
pub const ALLOWED_HERE: &[libc::c_long] = calls! {
    SYS_fork SYS_vfork SYS_getpgrp SYS_arch_prctl SYS_get_thread_area SYS_set_thread_area SYS_pause SYS_alarm SYS_time
    SYS_open SYS_creat SYS_access SYS_stat SYS_lstat SYS_readlink SYS_getdents SYS_mkdir SYS_rmdir SYS_mknod SYS_link
    SYS_symlink SYS_unlink SYS_rename SYS_renameat SYS_chmod SYS_chown SYS_lchown SYS_utime SYS_utimes SYS_futimesat
    SYS_dup2 SYS_pipe SYS_eventfd SYS_signalfd SYS_inotify_init SYS_epoll_create SYS_epoll_wait SYS_poll SYS_select
    SYS_fadvise64 SYS_sync_file_range
};

/// io_pgetevents, which the `libc` crate does not name.
#[cfg(target_arch = "x86_64")]
pub const IO_PGETEVENTS: libc::c_long = 333;

/// What only this architecture has beside the calls above. fadvise64, renameat and sync_file_range go without names.
#[cfg(target_arch = "aarch64")]
pub const ALLOWED_HERE: &[libc::c_long] = &[38, 84, 223];

/// io_pgetevents, which the `libc` crate does not name.
#[cfg(target_arch = "aarch64")]
pub const IO_PGETEVENTS: libc::c_long = 292;

/// Calls that are known to have been ways into a kernel, or that see past a namespace.
pub const REFUSED: &[libc::c_long] = calls! {
    // Mounts, roots and file handles: the walls themselves.
    SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick SYS_move_mount
    SYS_open_tree SYS_mount_setattr SYS_name_to_handle_at SYS_open_by_handle_at SYS_fanotify_init SYS_quotactl
    SYS_quotactl_fd SYS_swapon SYS_swapoff
    // Namespaces.
    SYS_unshare SYS_setns SYS_sethostname SYS_setdomainname
    // Other processes.
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_process_madvise SYS_pidfd_getfd SYS_kcmp
    SYS_move_pages SYS_migrate_pages SYS_mbind SYS_set_mempolicy SYS_get_mempolicy
    // Keys are not namespaced.
    SYS_add_key SYS_request_key SYS_keyctl
    // Large and young parts of the kernel.
    SYS_bpf SYS_userfaultfd SYS_perf_event_open SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register
    // The machine.
    SYS_init_module SYS_finit_module SYS_delete_module SYS_kexec_load SYS_reboot SYS_acct SYS_syslog SYS_vhangup
    SYS_settimeofday SYS_clock_settime SYS_clock_adjtime SYS_adjtimex
};

/// Such calls of x86-64 alone.
#[cfg(target_arch = "x86_64")]
pub const REFUSED_HERE: &[libc::c_long] =
    calls! { SYS_kexec_file_load SYS_ioperm SYS_iopl SYS_uselib SYS_ustat SYS_modify_ldt };

/// Such calls of this architecture alone.
#[cfg(target_arch = "aarch64")]
pub const REFUSED_HERE: &[libc::c_long] = &[];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// A call in both lists would be refused, as the stricter answer wins.
    #[test]
    fn no_call_is_listed_twice() {
        let lists = [ALLOWED, ALLOWED_YOUNG, ALLOWED_HERE, &[IO_PGETEVENTS], REFUSED, REFUSED_HERE];
        let calls: Vec<_> = lists.into_iter().flatten().copied().collect();
        let once: BTreeSet<_> = calls.iter().copied().collect();
        assert_eq!(calls.len(), once.len());
        assert!(!once.contains(&libc::SYS_clone3));
    }
}
