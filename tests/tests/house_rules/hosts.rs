//! Which addresses may stand in a committed file. Package sources come from the machine's own configuration, so a
//! script or a setting names no public host at all, and nothing names a registry or a mirror.

use crate::tree::TextFile;

/// First labels of hosts that hand out packages, images or indexes.
const REGISTRY_LABELS: &[&str] = &[
    "registry", "index", "crates", "static", "mirror", "mirrors", "deb", "ftp", "archive", "security",
    "snapshot", "packages", "pypi", "proxy", "hub", "docker", "ghcr", "quay", "cdn", "dl",
];
const PUBLIC_ENDINGS: &[&str] = &["org", "com", "io", "net", "dev"];
/// Names set aside for documents and tests (RFC 2606, RFC 6761).
const RESERVED_ENDINGS: &[&str] = &["example", "test", "invalid", "localhost", "local", "internal"];

/// The first host in `line` that may not stand in `file`.
pub fn first_public(file: &TextFile, line: &str) -> Option<String> {
    let registry = words(line).find(|word| is_registry(word));
    let public = || addressed_hosts(line).find(|host| is_script_or_setting(file) && is_public(host));
    registry.or_else(public).map(str::to_owned)
}

fn is_script_or_setting(file: &TextFile) -> bool {
    !file.is_rust() && ![".md", ".json", ".html"].iter().any(|ending| file.path.ends_with(ending))
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-'))
}

fn is_registry(word: &str) -> bool {
    let mut labels = word.split('.');
    let first = labels.next().unwrap_or_default();
    REGISTRY_LABELS.contains(&first) && labels.next_back().is_some_and(|last| PUBLIC_ENDINGS.contains(&last))
}

/// The host part of every `scheme://host/…` of a line.
fn addressed_hosts(line: &str) -> impl Iterator<Item = &str> {
    line.split("://").skip(1).filter_map(|rest| words(rest).next()).filter(|host| !host.is_empty())
}

fn is_public(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    let named = host.contains('.') && last.chars().all(|c| c.is_ascii_alphabetic());
    named && !RESERVED_ENDINGS.contains(&last) && !host.split('.').any(|label| label == "example")
}

#[test]
fn registries_are_seen_everywhere_and_other_hosts_in_scripts() {
    let tree = crate::tree::planted(&[("agent/src/a.rs", ""), ("packaging/a.sh", "")]);
    let (rust, script) = (&tree.files[0], &tree.files[1]);
    let registry = ["registry", "some-vendor", "io"].join(".");
    assert_eq!(first_public(rust, &format!("pull from {registry} now")), Some(registry));

    let manual = "see https://kernel.some-vendor.org/doc";
    assert_eq!(first_public(rust, manual), None);
    assert_eq!(first_public(script, manual), Some("kernel.some-vendor.org".to_owned()));
    for fine in
        ["http://10.0.0.1:80/", "https://images.example.org/a", "file:///usr/share/doc", "http://$host/x"]
    {
        assert_eq!(first_public(script, fine), None, "{fine}");
    }
}
