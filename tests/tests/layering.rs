//! Holds the dependency direction of the workspace, over `cargo metadata`: which of our crates may use which, what the
//! pure ones must never reach, that each package of the card does real work, and what may not be in the tree at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{CargoOpt, DependencyKind, Metadata, MetadataCommand, Package, PackageId};

/// Each of our crates and the crates of ours it may depend on. A new crate needs a row here.
const MAY_USE: &[(&str, &[&str])] = &[
    ("novacron-common", &[]),
    ("novacron-runtime", &[]),
    ("novacron-store", &[]),
    ("novacron-tree", &[]),
    ("novacron-transport", &["novacron-common", "novacron-runtime"]),
    ("novacron-core", &["novacron-common"]),
    ("novacron-codec", &[]),
    (
        "novacron-agent",
        &[
            "novacron-codec",
            "novacron-common",
            "novacron-runtime",
            "novacron-store",
            "novacron-transport",
            "novacron-tree",
        ],
    ),
    (
        "novacron-coordinator",
        &["novacron-common", "novacron-core", "novacron-runtime", "novacron-store", "novacron-transport"],
    ),
    ("novactl", &["novacron-common", "novacron-tree"]),
    ("novacron-guest", &[]),
    ("novacron-tests", ANY_OF_OURS),
    ("novacron-sim", ANY_OF_OURS),
    ("novacron-benches", ANY_OF_OURS),
];

const ANY_OF_OURS: &[&str] = &[
    "novacron-common",
    "novacron-runtime",
    "novacron-store",
    "novacron-transport",
    "novacron-tree",
    "novacron-core",
    "novacron-codec",
    "novacron-agent",
    "novacron-coordinator",
    "novacron-guest",
    "novacron-tests",
];

/// What a crate must not reach, even through others: the compiler-checked wall that each of them is for.
const NEVER_REACHES: &[(&str, &[&str])] = &[
    ("novacron-common", &["tokio", "quinn", "sled"]),
    ("novacron-codec", &["tokio", "quinn", "sled", "rand"]),
    ("novacron-core", &["tokio", "openraft", "axum", "rand", "quinn", "sled"]),
];

/// The packages of the card, each doing real work in a product crate.
const CARD: &[&str] = &[
    "tokio",
    "virt",
    "nix",
    "cgroups-rs",
    "openraft",
    "quinn",
    "rustls",
    "serde",
    "bincode",
    "sled",
    "prometheus",
    "tracing",
];

/// The crates that are shipped: what only tests use does not count as work in the product.
const PRODUCT: &[&str] = &[
    "novacron-common",
    "novacron-runtime",
    "novacron-store",
    "novacron-transport",
    "novacron-core",
    "novacron-codec",
    "novacron-agent",
    "novacron-coordinator",
    "novactl",
];

const NOT_IN_THE_TREE: &[&str] = &["ring", "openssl-sys", "native-tls"];
const ONE_VERSION_ONLY: &[&str] = &["rustls", "tokio", "hyper", "quinn"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The workspace as it is built here: this platform, the locked versions.
fn workspace() -> Metadata {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .features(CargoOpt::SomeFeatures(Vec::new()))
        .other_options(["--locked".to_owned(), "--filter-platform".to_owned(), platform])
        .exec()
        .expect("cargo metadata reads the workspace")
}

fn members(workspace: &Metadata) -> BTreeMap<&str, &Package> {
    workspace.workspace_packages().into_iter().map(|package| (package.name.as_str(), package)).collect()
}

#[test]
fn every_crate_of_ours_has_a_row() {
    let workspace = workspace();
    let found: BTreeSet<&str> = members(&workspace).into_keys().collect();
    let listed: BTreeSet<&str> = MAY_USE.iter().map(|(name, _)| *name).collect();
    assert_eq!(found, listed, "tests/tests/layering.rs: give each crate a row in MAY_USE");
}

#[test]
fn our_crates_use_each_other_in_one_direction() {
    let workspace = workspace();
    let ours = members(&workspace);
    let mut faults = Vec::new();
    for (name, allowed) in MAY_USE {
        let used = ours[name].dependencies.iter().map(|dependency| dependency.name.as_str());
        let wrong = used.filter(|used| ours.contains_key(used) && !allowed.contains(used));
        faults.extend(wrong.map(|used| format!("{name} depends on {used}; it may use {allowed:?}")));
    }
    assert!(faults.is_empty(), "agent and coordinator meet only in common:\n{}", faults.join("\n"));
}

#[test]
fn pure_crates_reach_no_runtime_and_no_store() {
    let workspace = workspace();
    let ours = members(&workspace);
    let mut faults = Vec::new();
    for (name, forbidden) in NEVER_REACHES {
        let reached = reachable(&workspace, &ours[name].id);
        let wrong = forbidden.iter().filter(|package| reached.contains(**package));
        faults.extend(
            wrong.map(|package| format!("{name} reaches {package}: `cargo tree -p {name} -i {package}`")),
        );
    }
    assert!(faults.is_empty(), "time, I/O and randomness come in from outside:\n{}", faults.join("\n"));
}

/// Names of all packages that `from` links, itself excluded; build-time and test-time dependencies do not count.
fn reachable<'a>(workspace: &'a Metadata, from: &PackageId) -> BTreeSet<&'a str> {
    let graph = workspace.resolve.as_ref().expect("cargo metadata resolves dependencies");
    let nodes: BTreeMap<&PackageId, _> = graph.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut seen: BTreeSet<&PackageId> = BTreeSet::new();
    let mut open = vec![from];
    while let Some(id) = open.pop() {
        let linked = nodes[id]
            .deps
            .iter()
            .filter(|dependency| dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
        open.extend(linked.map(|dependency| &dependency.pkg).filter(|id| seen.insert(id)));
    }
    seen.into_iter().map(|id| workspace[id].name.as_str()).collect()
}

#[test]
fn each_package_of_the_card_works_in_the_product() {
    let workspace = workspace();
    let ours = members(&workspace);
    let idle: Vec<_> =
        CARD.iter().filter(|package| !PRODUCT.iter().any(|name| uses(ours[name], package))).collect();
    assert!(idle.is_empty(), "neither declared nor named in the source of a product crate: {idle:?}");
}

/// Whether a crate both declares `package` and names it in its code.
fn uses(user: &Package, package: &str) -> bool {
    let declared = user
        .dependencies
        .iter()
        .any(|dependency| dependency.kind == DependencyKind::Normal && dependency.name == package);
    let folder = user.manifest_path.parent().expect("a manifest lies in a folder").join("src");
    declared
        && rust_files(folder.as_std_path()).iter().any(|file| names_crate(file, &package.replace('-', "_")))
}

/// Whether a line of code (not of comment) says `use CRATE` or `CRATE::`.
fn names_crate(file: &Path, package: &str) -> bool {
    let text = fs::read_to_string(file).expect("a source file is readable text");
    let path = format!("{package}::");
    text.lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
        line.match_indices(&path)
            .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_:".contains(c)))
    })
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("listing {}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("a folder entry is readable").path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => rust_files(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

#[test]
fn one_cryptography_and_one_of_each_network_library() {
    let versions = built_versions();
    let banned = NOT_IN_THE_TREE.iter().filter(|name| versions.contains_key(**name));
    let banned = banned
        .map(|name| format!("{name} is built: aws-lc-rs and rustls do its work (`cargo tree -i {name}`)"));
    let doubled =
        ONE_VERSION_ONLY.iter().filter(|name| versions.get(**name).is_none_or(|found| found.len() != 1));
    let doubled = doubled.map(|name| {
        format!("{name} in versions {:?}: align who asks (`cargo tree -d`)", versions.get(*name))
    });
    let faults: Vec<String> = banned.chain(doubled).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// `novacron_common::planted::MARK`, which only a build with the mistakes has: its own test looks for it there.
const PLANTED: &str = "novacron: planted mistakes are compiled in";

#[test]
fn no_program_has_the_simulations_planted_mistakes() {
    let tree = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "--locked", "--workspace", "--edges", "features", "--prefix", "none"])
        .output()
        .expect("cargo tree runs");
    let features = String::from_utf8(tree.stdout).expect("package names are UTF-8");
    assert!(
        features.contains("novacron-common feature \"default\""),
        "cargo tree shows our crates' features"
    );
    assert!(!features.contains("\"planted\""), "something turns the feature `planted` on");
    for program in ["novacron-agent", "novacron-coordinator", "novactl"] {
        let path = novacron_tests::bins::path(program).expect("the programs are built");
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()));
        let found = bytes.windows(PLANTED.len()).any(|window| window == PLANTED.as_bytes());
        assert!(!found, "{program} has planted mistakes");
    }
}

/// What is compiled for this platform. Not from `cargo metadata`, which lists packages of features that are off.
fn built_versions() -> BTreeMap<String, BTreeSet<String>> {
    let tree = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "--locked", "--workspace", "--prefix", "none", "--format", "{p}"])
        .output()
        .expect("cargo tree runs");
    assert!(tree.status.success(), "cargo tree: {}", String::from_utf8_lossy(&tree.stderr));
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in String::from_utf8(tree.stdout).expect("package names are UTF-8").lines() {
        if let Some((name, rest)) = line.split_once(' ') {
            let version = rest.split(' ').next().unwrap_or_default();
            versions.entry(name.to_owned()).or_default().insert(version.to_owned());
        }
    }
    versions
}

#[test]
fn the_walls_are_seen_where_they_are_broken() {
    let workspace = workspace();
    let ours = members(&workspace);
    let coordinator = reachable(&workspace, &ours["novacron-coordinator"].id);
    for package in ["tokio", "openraft", "axum", "quinn", "sled"] {
        assert!(
            coordinator.contains(package),
            "the coordinator reaches {package}, and this test must see it"
        );
    }
    assert!(!uses(ours["novacron-common"], "tokio"), "common neither declares nor names tokio");
}
