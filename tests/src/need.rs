//! What a test needs of the machine. A test that cannot run says so by name; in CI that is a failure.
//!
//! ```no_run
//! fn moves_a_guest() -> anyhow::Result<()> {
//!     novacron_tests::require!(root, libvirt, qemu);
//!     Ok(())
//! }
//! ```

use novacron_agent::hypervisor::namespace::checkpoint::criu::Criu;
use std::path::Path;

/// Something that a machine may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Effective user 0: namespaces, bridges, taps.
    Root,
    /// `libvirtd` and `virsh`.
    Libvirt,
    /// `qemu-system-x86_64` and `qemu-img`.
    Qemu,
    /// `apt-get` and `dpkg`, for the guest's kernel.
    Apt,
    /// `debootstrap` and `mkfs.ext4`, for a cloud image.
    Debootstrap,
    /// `ssh` and `ssh-keygen`.
    Ssh,
    /// `tcpdump`.
    Tcpdump,
    /// `iptables`, for links that lose packets one way.
    Iptables,
    /// The `libvirt-qemu` user that Debian's packages create.
    LibvirtQemuUser,
    /// A `criu` that the agent finds.
    Criu,
    /// A `/dev/kvm` that can be opened; what it can run is another question.
    Kvm,
}

impl Need {
    /// Why the machine does not meet this need; `None` if it does.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Root => (!nix::unistd::geteuid().is_root()).then(|| "needs root".to_owned()),
            Self::Libvirt => missing_program(&["libvirtd", "virsh"]),
            Self::Qemu => missing_program(&["qemu-system-x86_64", "qemu-img"]),
            Self::Apt => missing_program(&["apt-get", "dpkg"]),
            Self::Debootstrap => missing_program(&["debootstrap", "mkfs.ext4"]),
            Self::Ssh => missing_program(&["ssh", "ssh-keygen"]),
            Self::Tcpdump => missing_program(&["tcpdump"]),
            Self::Iptables => missing_program(&["iptables"]),
            Self::Criu => Criu::find().err().map(|error| format!("needs criu: {error}")),
            Self::Kvm => missing_kvm(),
            Self::LibvirtQemuUser => {
                let user = nix::unistd::User::from_name("libvirt-qemu").ok().flatten();
                user.is_none().then(|| "needs the user libvirt-qemu".to_owned())
            }
        }
    }
}

fn missing_kvm() -> Option<String> {
    let opened = std::fs::File::options().read(true).write(true).open("/dev/kvm");
    opened.err().map(|error| format!("needs /dev/kvm: {error}"))
}

fn missing_program(names: &[&str]) -> Option<String> {
    const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let absent =
        names.iter().find(|name| !FOLDERS.iter().any(|folder| Path::new(folder).join(name).is_file()));
    absent.map(|name| format!("needs {name}"))
}

/// The first unmet need of several.
#[must_use]
pub fn first_missing(needs: &[Need]) -> Option<String> {
    needs.iter().find_map(|need| need.missing())
}

/// What a skipped test returns.
pub trait Skipped {
    /// A value that is not a failure.
    fn skipped() -> Self;
}

impl Skipped for () {
    fn skipped() -> Self {}
}

impl<E> Skipped for Result<(), E> {
    fn skipped() -> Self {
        Ok(())
    }
}

/// Reports that `test` does not run here.
///
/// # Panics
/// In CI (`CI=true`), where a skip is a failure.
pub fn skip<T: Skipped>(test: &str, why: &str) -> T {
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    println!("SKIPPED {test}: {why}");
    assert!(!in_ci, "SKIPPED {test}: {why}; in CI a skip is a failure");
    T::skipped()
}

/// The path of a test function from the type name of something defined in it.
#[must_use]
pub fn function_of(type_name: &str) -> &str {
    let name = type_name.strip_suffix("::here").unwrap_or(type_name);
    name.strip_suffix("::{{closure}}").unwrap_or(name)
}

/// Ends the test with `SKIPPED <test>: <why>` unless the machine has all that is listed:
/// `root`, `libvirt`, `qemu`, `apt`, `debootstrap`, `ssh`, `tcpdump`, `iptables`, `libvirt_qemu_user`, `criu`, `kvm`.
#[macro_export]
macro_rules! require {
    ($($need:ident),+ $(,)?) => {
        if let Some(why) = $crate::need::first_missing(&[$($crate::require!(@ $need)),+]) {
            fn here() {}
            let test = $crate::need::function_of(std::any::type_name_of_val(&here));
            return $crate::need::skip(test, &why);
        }
    };
    (@ root) => { $crate::need::Need::Root };
    (@ libvirt) => { $crate::need::Need::Libvirt };
    (@ qemu) => { $crate::need::Need::Qemu };
    (@ apt) => { $crate::need::Need::Apt };
    (@ debootstrap) => { $crate::need::Need::Debootstrap };
    (@ ssh) => { $crate::need::Need::Ssh };
    (@ tcpdump) => { $crate::need::Need::Tcpdump };
    (@ iptables) => { $crate::need::Need::Iptables };
    (@ criu) => { $crate::need::Need::Criu };
    (@ kvm) => { $crate::need::Need::Kvm };
    (@ libvirt_qemu_user) => { $crate::need::Need::LibvirtQemuUser };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_no_machine_has_is_named() {
        assert_eq!(missing_program(&["sh", "no-such-program"]), Some("needs no-such-program".to_owned()));
        assert_eq!(missing_program(&["sh"]), None);
    }

    #[test]
    fn the_test_is_named_by_its_path() {
        fn here() {}
        let name = function_of(std::any::type_name_of_val(&here));
        assert!(name.ends_with("need::tests::the_test_is_named_by_its_path"), "{name}");
    }
}
