//! Which system calls an isolated command has: those of a list ([`calls`]), and of a few only some arguments. Whatever
//! else there is does not exist for it, under any ABI: calls under x32 numbers are in no list, and one by i386's way ends
//! the process (`SIGSYS`).

mod calls;

use super::step::{Doing, StepError, checked};
use nix::errno::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;

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

/// Socket families inside. The others reach past a network namespace, or deep into the kernel.
const SOCKET_FAMILIES: &[libc::c_int] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// What `personality(2)` may be asked for, as in Docker's profile: Linux' own, its 32-bit variant, either with an old
/// release number, and which it is.
const PERSONALITIES: &[u64] = &[0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Compiled filters, in the order of their installation.
pub struct Filters(Vec<BpfProgram>);

impl Filters {
    /// Compiles them for this architecture. Before any fork, so that a mistake is an error and not a dead child.
    pub fn compile() -> Result<Self, StepError> {
        Self::try_compile().doing("compile the seccomp filters")
    }

    fn try_compile() -> Result<Self, seccompiler::BackendError> {
        let lists = [calls::ALLOWED, calls::ALLOWED_YOUNG, calls::ALLOWED_HERE, &[calls::IO_PGETEVENTS]];
        let known = filter(whole(&lists), errno(Errno::ENOSYS), SeccompAction::Allow)?;
        // Where both refuse, the answer of the one that was installed last is given (seccomp(2)).
        let refused = filter(refused()?, SeccompAction::Allow, errno(Errno::EPERM))?;
        Ok(Self(vec![known, refused]))
    }

    /// Installs them for the calling thread and all that come from it, for good.
    pub fn install(&self) -> Result<(), StepError> {
        self.0
            .iter()
            .try_for_each(|program| seccompiler::apply_filter(program).doing("install a seccomp filter"))?;
        if is_filtered()? {
            Ok(())
        } else {
            Err(StepError::new("install the seccomp filters", Errno::ENOSYS))
        }
    }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// These calls, whatever their arguments.
fn whole(lists: &[&[libc::c_long]]) -> Rules {
    lists.iter().copied().flatten().map(|call| (*call, Vec::new())).collect()
}

fn refused() -> Result<Rules, seccompiler::BackendError> {
    let mut rules = whole(&[calls::REFUSED, calls::REFUSED_HERE]);
    let flags = NEW_NAMESPACE.iter().map(|flag| bits_of_u64(*flag));
    let flags = flags.map(|bit| rule([(0, SeccompCmpOp::MaskedEq(bit), bit)]));
    rules.insert(libc::SYS_clone, flags.collect::<Result<_, _>>()?);
    let families = SOCKET_FAMILIES.iter().map(|family| (0, SeccompCmpOp::Ne, bits_of_u64(*family)));
    rules.insert(libc::SYS_socket, vec![rule(families)?]);
    let personalities = PERSONALITIES.iter().map(|persona| (0, SeccompCmpOp::Ne, *persona));
    rules.insert(libc::SYS_personality, vec![rule(personalities)?]);
    // Typing into somebody else's terminal (CVE-2017-5226).
    rules.insert(libc::SYS_ioctl, vec![rule([(1, SeccompCmpOp::Eq, libc::TIOCSTI)])?]);
    Ok(rules)
}

fn bits_of_u64(number: libc::c_int) -> u64 {
    u64::from(number.cast_unsigned())
}

/// Holds if all of these hold: argument, comparison, value.
fn rule(
    conditions: impl IntoIterator<Item = (u8, SeccompCmpOp, u64)>,
) -> Result<SeccompRule, seccompiler::BackendError> {
    let conditions = conditions.into_iter().map(|(argument, compare, value)| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, compare, value)
    });
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}

fn errno(errno: Errno) -> SeccompAction {
    SeccompAction::Errno((errno as i32).cast_unsigned())
}

fn filter(
    rules: Rules,
    otherwise: SeccompAction,
    on_match: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    SeccompFilter::new(rules, otherwise, on_match, std::env::consts::ARCH.try_into()?)?.try_into()
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
            // SAFETY: there is no such call.
            assert_eq!(checked(unsafe { libc::syscall(9999) }), Err(Errno::ENOSYS));
            let socket = |family: libc::c_int| {
                // SAFETY: a new descriptor, which this test process may leak.
                checked(unsafe { libc::syscall(libc::SYS_socket, family, libc::SOCK_DGRAM, 0) })
            };
            assert!(socket(libc::AF_UNIX).is_ok() && socket(libc::AF_NETLINK).is_ok());
            assert_eq!(socket(libc::AF_VSOCK), Err(Errno::EPERM));
            // SAFETY: asks which one it is, and for one that nobody may have; neither touches memory.
            let persona = |wanted: u64| checked(unsafe { libc::syscall(libc::SYS_personality, wanted) });
            assert!(persona(0xffff_ffff).is_ok());
            assert_eq!(persona(0x0004_0000), Err(Errno::EPERM));
            // SAFETY: getpid touches no memory.
            assert!(unsafe { libc::syscall(libc::SYS_getpid) } > 0);
        })
        .join()
        .unwrap();
    }
}
