//! The system calls that an isolated command is refused (`EPERM`), over and above what its missing capabilities
//! refuse: each has been the way into a kernel, or sees past a namespace.

use super::step::{Doing, StepError, checked};
use nix::errno::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    sock_filter,
};
use std::collections::BTreeMap;

const REFUSED: &[libc::c_long] = &[
    // Mounts, roots and file handles: the walls themselves.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // Namespaces.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    // Keys are not namespaced.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Large and young parts of the kernel.
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // The machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Flags of `clone` that make a namespace.
const NEW_NAMESPACE: &[libc::c_int] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Socket families that a network namespace does not hold back, or that reach deep into the kernel.
const REFUSED_FAMILIES: &[libc::c_int] = &[libc::AF_VSOCK, libc::AF_ALG, libc::AF_PACKET];

/// Compiled filters, in the order of their installation.
pub struct Filters(Vec<BpfProgram>);

impl Filters {
    /// Compiles them for this architecture. Before any fork, so that a mistake is an error and not a dead child.
    pub fn compile() -> Result<Self, StepError> {
        Self::try_compile().map_err(|cause| StepError::new("compile the seccomp filters", cause))
    }

    fn try_compile() -> Result<Self, seccompiler::BackendError> {
        let eperm = filter(refused_rules()?, Errno::EPERM)?;
        // The flags of clone3 lie in memory, where no filter can look: it does not exist, and libc uses clone.
        let clone3 = filter(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), Errno::ENOSYS)?;
        Ok(Self([other_abi(), Some(clone3), Some(eperm)].into_iter().flatten().collect()))
    }

    /// Installs them for the calling thread and all that come from it, for good.
    pub fn install(&self) -> Result<(), StepError> {
        self.0.iter().try_for_each(|program| {
            seccompiler::apply_filter(program)
                .map_err(|cause| StepError::new("install a seccomp filter", cause))
        })?;
        if is_filtered()? {
            Ok(())
        } else {
            Err(StepError::new("install the seccomp filters", Errno::ENOSYS))
        }
    }
}

fn refused_rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let flags = NEW_NAMESPACE
        .iter()
        .map(|flag| bits_of_u64(*flag))
        .map(|bit| argument(0, SeccompCmpOp::MaskedEq(bit), bit));
    rules.insert(libc::SYS_clone, flags.collect::<Result<_, _>>()?);
    let families = REFUSED_FAMILIES.iter().map(|family| argument(0, SeccompCmpOp::Eq, bits_of_u64(*family)));
    rules.insert(libc::SYS_socket, families.collect::<Result<_, _>>()?);
    // Typing into somebody else's terminal (CVE-2017-5226).
    rules.insert(libc::SYS_ioctl, vec![argument(1, SeccompCmpOp::Eq, libc::TIOCSTI)?]);
    Ok(rules)
}

fn bits_of_u64(number: libc::c_int) -> u64 {
    u64::from(number.cast_unsigned())
}

fn argument(index: u8, compare: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(index, SeccompCmpArgLen::Dword, compare, value)?])
}

fn filter(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    errno: Errno,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let refuse = SeccompAction::Errno((errno as i32).cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, std::env::consts::ARCH.try_into()?)?.try_into()
}

/// On x86-64 the same calls exist a second time under the x32 ABI, with bit 30 set in their number; a deny-list
/// that compares numbers would let them all pass (seccomp(2), "Caveats").
#[cfg(target_arch = "x86_64")]
fn other_abi() -> Option<BpfProgram> {
    const X32_BIT: u32 = 0x4000_0000;
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS, of seccomp_data.nr at offset 0
    const JUMP_IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let enosys = libc::SECCOMP_RET_ERRNO | (Errno::ENOSYS as i32).cast_unsigned();
    Some(vec![
        sock_filter { code: LOAD, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: X32_BIT },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: enosys },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ])
}

#[cfg(not(target_arch = "x86_64"))]
fn other_abi() -> Option<BpfProgram> {
    None
}

/// Whether filters bind the calling thread (`prctl(2)`, `PR_GET_SECCOMP`).
fn is_filtered() -> Result<bool, StepError> {
    // SAFETY: PR_GET_SECCOMP takes no argument and touches no memory.
    let mode = unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) };
    checked(mode.into()).doing("read the seccomp mode").map(|mode| mode == 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_bind_and_refuse_by_errno() {
        std::thread::spawn(|| {
            assert!(!is_filtered().unwrap());
            Filters::compile().unwrap().install().unwrap();
            assert!(is_filtered().unwrap());
            let unshared = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS);
            assert_eq!(unshared, Err(Errno::EPERM));
            // SAFETY: the call is refused before it looks at its arguments.
            let clone3 = unsafe { libc::syscall(libc::SYS_clone3, 0, 0) };
            assert_eq!(checked(clone3), Err(Errno::ENOSYS));
            #[cfg(target_arch = "x86_64")]
            {
                // SAFETY: getpid under the x32 ABI touches no memory.
                let x32 = unsafe { libc::syscall(0x4000_0000 + libc::SYS_getpid) };
                assert_eq!(checked(x32), Err(Errno::ENOSYS));
            }
            // SAFETY: getpid touches no memory.
            assert!(unsafe { libc::syscall(libc::SYS_getpid) } > 0);
        })
        .join()
        .unwrap();
    }
}
