//! The first process of a machine that can be saved: what [`init`](super::super::init) does once the command runs, as a program
//! of its own.
//!
//! A saved process is restored with the files that it has mapped, from the places where the machine has them. Init begins as a
//! copy of the supervisor, whose program and libraries are the host's, and nowhere in the machine. So it becomes this program, a
//! few hundred bytes that need nothing but the kernel, which the supervisor puts into the machine:
//!
//! ```text
//! reaper PID     passes signals on to PID (0: there is no command), collects what is orphaned; when PID has ended, says
//!                'e' and its wait status (i32) to descriptor 3, and ends
//! ```

use crate::hypervisor::namespace::step::{Doing, StepError, checked};
use nix::unistd::{Pid, execve};
use std::{
    convert::Infallible,
    ffi::CString,
    fmt::Write as _,
    os::fd::{AsRawFd, OwnedFd},
};

/// The folder that holds it alone, as the machine sees it.
pub const FOLDER: &str = "/dev/novacron";

/// Its name there.
pub const NAME: &str = "init";

/// Where it says the last word.
const WORD_FD: i32 = 3;

/// Where a program without a position begins, as linkers have it.
const BASE: u64 = 0x40_0000;

const HEADER_BYTES: u64 = 64;
const SEGMENT_BYTES: u64 = 56;
const SEGMENTS: u64 = 2;

/// Whether there is one for this architecture.
pub const EXISTS: bool = cfg!(target_arch = "x86_64");

// System calls by their numbers on x86-64. The registers rbx (the command) and r12 (what it is to be woken by) are kept by
// system calls; [rsp] is the set of signals, [rsp+8] the word.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata.novacron_reaper, \"a\", @progbits",
    ".globl novacron_reaper_begin",
    ".globl novacron_reaper_end",
    "novacron_reaper_begin:",
    // The command's number, from the second word.
    "mov rdi, [rsp + 16]",
    "xor ebx, ebx",
    "10: movzx eax, byte ptr [rdi]",
    "test al, al",
    "jz 11f",
    "sub eax, 48",
    "imul ebx, ebx, 10",
    "add ebx, eax",
    "inc rdi",
    "jmp 10b",
    // prctl(PR_SET_DUMPABLE, 0): nobody in the machine looks into it, or opens its descriptors.
    "11: mov eax, 157",
    "mov edi, 4",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "syscall",
    "sub rsp, 32",
    "and rsp, -16",
    "mov rax, {signals}",
    "mov [rsp], rax",
    // rt_sigtimedwait(set, NULL, NULL, 8)
    "12: mov eax, 128",
    "mov rdi, rsp",
    "xor esi, esi",
    "xor edx, edx",
    "mov r10d, 8",
    "syscall",
    "test eax, eax",
    "js 14f",
    "cmp eax, 17",
    "je 14f",
    "test ebx, ebx",
    "jz 13f",
    // kill(command, signal)
    "mov esi, eax",
    "mov edi, ebx",
    "mov eax, 62",
    "syscall",
    "jmp 12b",
    // Alone: it ends on SIGTERM.
    "13: cmp eax, 15",
    "jne 12b",
    "mov dword ptr [rsp + 9], 0",
    "jmp 15f",
    // wait4(-1, &status, WNOHANG, NULL), until there is nobody
    "14: mov eax, 61",
    "mov rdi, -1",
    "lea rsi, [rsp + 9]",
    "mov edx, 1",
    "xor r10d, r10d",
    "syscall",
    "test eax, eax",
    "jle 12b",
    "cmp eax, ebx",
    "jne 14b",
    // write(3, word, 5), exit_group(0)
    "15: mov byte ptr [rsp + 8], 101",
    "mov eax, 1",
    "mov edi, {word}",
    "lea rsi, [rsp + 8]",
    "mov edx, 5",
    "syscall",
    "mov eax, 231",
    "xor edi, edi",
    "syscall",
    "ud2",
    "novacron_reaper_end:",
    ".popsection",
    signals = const SIGNALS,
    word = const WORD_FD,
);

/// As `init` has them: HUP, INT, QUIT, USR1, USR2, ALRM, TERM, CONT, WINCH, and CHLD.
#[cfg(target_arch = "x86_64")]
const SIGNALS: u64 =
    bit(1) | bit(2) | bit(3) | bit(10) | bit(12) | bit(14) | bit(15) | bit(18) | bit(28) | bit(17);

#[cfg(target_arch = "x86_64")]
const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

#[cfg(target_arch = "x86_64")]
fn code() -> &'static [u8] {
    unsafe extern "C" {
        static novacron_reaper_begin: u8;
        static novacron_reaper_end: u8;
    }
    let (begin, end) = (&raw const novacron_reaper_begin, &raw const novacron_reaper_end);
    // SAFETY: both are labels of the section above, in this order, and what lies between them is never written to.
    unsafe { std::slice::from_raw_parts(begin, end.offset_from_unsigned(begin)) }
}

#[cfg(not(target_arch = "x86_64"))]
fn code() -> &'static [u8] {
    &[]
}

/// The program as a file (`elf(5)`): one segment that is read and run, and a stack that is not run.
pub fn program() -> Vec<u8> {
    let begin = HEADER_BYTES + SEGMENTS * SEGMENT_BYTES;
    let length = begin + code().len() as u64;
    let mut file = Vec::new();
    // The magic bytes, 64 bits, little endian, version 1; an executable (2) for x86-64 (62), version 1.
    file.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [BASE + begin, HEADER_BYTES, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for half in [HEADER_BYTES as u16, SEGMENT_BYTES as u16, SEGMENTS as u16, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    segment(&mut file, 1, 5, [0, BASE, BASE, length, length, 0x1000]);
    segment(&mut file, 0x6474_e551, 6, [0, 0, 0, 0, 0, 16]);
    file.extend(code());
    file
}

fn segment(file: &mut Vec<u8>, kind: u32, flags: u32, words: [u64; 6]) {
    file.extend(kind.to_le_bytes());
    file.extend(flags.to_le_bytes());
    words.iter().for_each(|word| file.extend(word.to_le_bytes()));
}

/// Becomes it, for this command. It says its last word to `word`. The caller holds back the signals.
///
/// # Errors
/// [`StepError`] if the kernel refuses; it does not return otherwise.
pub fn become_it(command: Option<Pid>, word: &OwnedFd) -> Result<Infallible, StepError> {
    let doing = "become the machine's first process";
    let mut number = String::new();
    write!(number, "{}", command.map_or(0, Pid::as_raw)).doing(doing)?;
    let words = [NAME, &number].map(CString::new);
    let words: Vec<CString> = words.into_iter().collect::<Result<_, _>>().doing(doing)?;
    let path = CString::new(format!("{FOLDER}/{NAME}")).doing(doing)?;
    // SAFETY: dup2 takes numbers; 3 is the channel to the supervisor, whose owner is not used again, or free.
    checked(unsafe { libc::dup2(word.as_raw_fd(), WORD_FD) }.into()).doing(doing)?;
    execve::<CString, CString>(&path, &words, &[]).doing(doing)
}

/// What it says at last: the command's wait status.
pub fn last_word(bytes: &[u8]) -> Option<i32> {
    let (b'e', status) = bytes.split_first()? else { return None };
    status.try_into().ok().map(i32::from_le_bytes)
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use std::{
        fs,
        io::Read,
        os::{
            fd::FromRawFd,
            unix::{fs::PermissionsExt, process::CommandExt},
        },
        process::{Child, Command},
    };
    use tempfile::TempDir;

    /// Of a shell that begins a command, and becomes the program for it.
    fn run(command: &str) -> (Child, fs::File, TempDir) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(NAME);
        fs::write(&path, program()).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let (hear, tell) = nix::unistd::pipe().unwrap();
        let script = format!("{command}\nexec {} $!", path.display());
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script);
        let raw = tell.as_raw_fd();
        // SAFETY: between fork and exec only system calls are made.
        unsafe {
            shell.pre_exec(move || {
                let set: nix::sys::signal::SigSet =
                    [nix::sys::signal::Signal::SIGCHLD, nix::sys::signal::Signal::SIGTERM]
                        .into_iter()
                        .collect();
                set.thread_block()?;
                checked(libc::dup2(raw, WORD_FD).into()).map(drop).map_err(Into::into)
            });
        }
        let child = shell.spawn().unwrap();
        drop(tell);
        // SAFETY: the pipe's descriptor is owned by nobody else from here on.
        let hear = unsafe { fs::File::from_raw_fd(std::os::fd::IntoRawFd::into_raw_fd(hear)) };
        (child, hear, folder)
    }

    fn word(mut hear: fs::File) -> Option<i32> {
        let mut said = Vec::new();
        hear.read_to_end(&mut said).unwrap();
        last_word(&said)
    }

    #[test]
    fn it_says_how_the_command_ended_and_ends_itself() {
        for (command, status) in [("(exit 7) 3>&- &", 7 << 8), ("sh -c 'kill -9 $$' 3>&- &", 9)] {
            let (mut child, hear, _folder) = run(command);
            assert_eq!(word(hear), Some(status), "{command}");
            assert!(child.wait().unwrap().success());
        }
    }

    #[test]
    fn only_a_whole_last_word_is_one() {
        assert_eq!(last_word(&[b'e', 0, 7, 0, 0]), Some(7 << 8));
        for bad in [&[][..], b"e", b"f1234", b"e12345"] {
            assert_eq!(last_word(bad), None);
        }
    }
}
