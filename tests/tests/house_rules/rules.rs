//! The line rules of this house. A new one is a row here, with a line that it must find and one that it must pass.

use crate::lines::{Finds, LineRule};
use crate::tree::TextFile;

const UNFINISHED: &[&str] = &["TODO", "FIXME", "todo!", "unimplemented!", "#[ignore", "allow(dead_code"];
const PRINTING: &[&str] = &["println!", "eprintln!", "print!", "eprint!", "dbg!"];
const CLOCKS: &[&str] = &["SystemTime::now", "Instant::now", "Utc::now", "Local::now"];
const CHANCE: &[&str] = &["rand::", "getrandom::", "Uuid::new_v4", "Uuid::now_v7"];
const UNBOUNDED: &[&str] = &["unbounded_channel", "UnboundedSender", "UnboundedReceiver", "unbounded()"];
const XML: &[&str] = &[
    "format!(\"<",
    "push_str(\"<",
    "\"<domain",
    "\"<disk",
    "\"<interface",
    "\"<devices",
    "\"<name>",
    "\"<source",
];

pub const ALL: &[LineRule] = &[
    LineRule {
        finds: Finds::Pieces(UNBOUNDED),
        holds_at: |file, _| file.is_rust(),
        instead: "channel(LIMIT), with a policy for when it is full",
        planted: ("agent/src/a.rs", "let (tx, rx) = mpsc::unbounded_channel();"),
        passes: ("agent/src/a.rs", "let (tx, rx) = mpsc::channel(EVENTS_MAX);"),
    },
    LineRule {
        finds: Finds::Pieces(CLOCKS),
        holds_at: |file, line| is_core(file) && !line.in_tests,
        instead: "the time that arrives in the command",
        planted: ("coordinator/core/src/a.rs", "let now = SystemTime::now();"),
        passes: ("coordinator/src/a.rs", "let now = SystemTime::now();"),
    },
    LineRule {
        finds: Finds::Words(CHANCE),
        holds_at: |file, line| is_core(file) && !line.in_tests,
        instead: "the seed or id that arrives in the command",
        planted: ("coordinator/core/src/a.rs", "let id = Uuid::now_v7();"),
        passes: ("coordinator/core/src/a.rs", "let id = command.id; // not Uuid::now_v7()"),
    },
    LineRule {
        finds: Finds::Words(&["virt::", "virt_sys::"]),
        holds_at: |file, _| is_product(file) && !within(file, &["agent/src/hypervisor/libvirt"]),
        instead: "the port in agent/src/hypervisor; libvirt's types stop at agent/src/hypervisor/libvirt",
        planted: ("agent/src/vm/a.rs", "use virt::domain::Domain;"),
        passes: ("agent/src/vm/a.rs", "use crate::hypervisor::libvirt::Libvirt;"),
    },
    LineRule {
        finds: Finds::Words(&["quinn::"]),
        holds_at: |file, _| {
            is_product(file) && !within(file, &["common/transport/", "agent/src/migrate/link"])
        },
        instead: "novacron_transport; QUIC's types stop there and at agent/src/migrate/link",
        planted: ("coordinator/src/agents/a.rs", "fn serve(connection: quinn::Connection) {}"),
        passes: ("agent/src/migrate/link/quic.rs", "use quinn::SendStream;"),
    },
    LineRule {
        finds: Finds::Words(&["openraft::"]),
        holds_at: |file, _| {
            is_product(file) && !within(file, &["coordinator/src/raft", "coordinator/tests/"])
        },
        instead: "the functions of coordinator/src/raft; openraft's types stop there",
        planted: ("coordinator/src/http/a.rs", "use openraft::Raft;"),
        passes: ("coordinator/src/raft/mod.rs", "use openraft::Raft;"),
    },
    LineRule {
        finds: Finds::Words(&["sled::"]),
        holds_at: |file, _| is_product(file) && !within(file, &["common/store/"]),
        instead: "novacron_store: its flush is durable, sled's own is not",
        planted: ("agent/src/vm/ledger.rs", "let db = sled::open(path)?;"),
        passes: ("common/store/src/db.rs", "let db = sled::open(path)?;"),
    },
    LineRule {
        finds: Finds::Words(&["bincode::"]),
        holds_at: |file, _| is_product(file) && !within(file, &["common/src/wire/"]),
        instead: "novacron_common::wire::codec: one configuration, with a size limit",
        planted: ("agent/src/vm/ledger.rs", "let record = bincode::deserialize(&bytes)?;"),
        passes: ("common/src/wire/codec.rs", "bincode::DefaultOptions::new().with_limit(LIMIT)"),
    },
    LineRule {
        finds: Finds::WordsAnywhere(UNFINISHED),
        holds_at: |file, _| !file.path.ends_with(".md"),
        instead: "finish it, or leave it out and say so in the report",
        planted: ("agent/src/a.rs", "// TODO: later"),
        passes: ("agent/src/a.rs", "// A todo list of the guest's."),
    },
    LineRule {
        finds: Finds::Words(PRINTING),
        holds_at: |file, line| is_library(file) && !line.in_tests,
        instead: "tracing, or return it and print it in main.rs or cli",
        planted: ("agent/src/control/a.rs", "println!(\"joined\");"),
        passes: ("agent/src/main.rs", "println!(\"joined\");"),
    },
    LineRule {
        finds: Finds::Pieces(XML),
        holds_at: |file, line| is_product(file) && !line.in_tests,
        instead: "quick-xml's writer, which escapes what a user wrote",
        planted: ("agent/src/hypervisor/libvirt/xml.rs", "let xml = format!(\"<name>{name}</name>\");"),
        passes: (
            "agent/src/hypervisor/libvirt/xml.rs",
            "writer.create_element(\"name\").write_text_content(name)?;",
        ),
    },
    LineRule {
        finds: Finds::AbsolutePaths(&["/tmp/", "/work/", "/root/.cargo"]),
        // What a namespace machine sees as /tmp is its own.
        holds_at: |file, _| !within(file, &["tests/tests/namespace_real/"]),
        instead: "a temporary directory of the test, CARGO_TARGET_TMPDIR, or a path from the configuration",
        planted: ("agent/src/a.rs", "let socket = \"/tmp/agent.sock\";"),
        passes: ("agent/src/a.rs", "let upper = root.join(\"overlay/work/dir\");"),
    },
    LineRule {
        finds: Finds::PublicHosts,
        holds_at: |_, _| true,
        instead: "the machine's own configuration (packaging/deps.sh derives package sources from it)",
        planted: ("packaging/a.sh", "apt-add https://packages.some-vendor.net/linux"),
        passes: ("packaging/a.sh", "curl --fail http://127.0.0.1:8090/health"),
    },
];

fn within(file: &TextFile, folders: &[&str]) -> bool {
    folders.iter().any(|folder| file.path.starts_with(folder))
}

fn is_core(file: &TextFile) -> bool {
    file.is_rust() && within(file, &["coordinator/core/"])
}

/// Code of the shipped crates, their tests included.
fn is_product(file: &TextFile) -> bool {
    file.is_rust() && within(file, &["agent/", "coordinator/", "common/"]) && !within(file, &["common/fuzz/"])
}

/// Code that runs inside a service, where standard output is nobody's.
fn is_library(file: &TextFile) -> bool {
    let speaks_to_a_user = ["/main.rs", "/cli.rs", "/cli/", "/bin/", "coordinator/novactl/"];
    is_product(file) && !speaks_to_a_user.iter().any(|part| file.path.contains(part))
}
