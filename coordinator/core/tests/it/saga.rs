//! The migration saga against every interleaving of a small world: both agents, a copy that may end in any of
//! libvirt's ways, lost and late calls, a leader that forgets, a target host that crashes, an impatient user; and with
//! post-copy, a guest that goes over before its memory has, and halves that lose each other.

mod node;

use node::{Event, Node, Violation};
use std::collections::{BTreeSet, VecDeque};

/// Worlds from which the saga is known to end without further faults, and the ends that were seen.
#[derive(Default)]
struct Ends {
    known: BTreeSet<Vec<u8>>,
    seen: BTreeSet<String>,
}

impl Ends {
    /// Runs on without faults until the end, or a world that is known to get there.
    fn settle(&mut self, mut node: Node) -> Result<(), Violation> {
        const ROUNDS_MAX: usize = 40;
        let mut path = Vec::new();
        while !node.record().is_final() {
            let key = node.key();
            if self.known.contains(&key) {
                break;
            }
            path.push(key);
            if path.len() > ROUNDS_MAX {
                let text = format!("does not end: {:?} {}", node.record(), node.places());
                return Err(Violation(text));
            }
            node.fair_round()?;
        }
        if node.record().is_final() {
            self.seen.insert(format!("{:?}", node.record().state));
        }
        self.known.extend(path);
        Ok(())
    }
}

struct Explored {
    nodes: usize,
    ends: BTreeSet<String>,
}

fn explore(start: Node) -> Result<Explored, (Violation, Vec<Event>)> {
    let mut known = BTreeSet::from([start.key()]);
    let mut ends = Ends::default();
    let mut queue = VecDeque::from([(start, Vec::new())]);
    while let Some((node, path)) = queue.pop_front() {
        ends.settle(node.clone()).map_err(|violation| (violation, path.clone()))?;
        for event in node.events() {
            let mut after = node.clone();
            let mut path = path.clone();
            path.push(event);
            after.step(event).map_err(|violation| (violation, path.clone()))?;
            if known.insert(after.key()) {
                queue.push_back((after, path));
            }
        }
    }
    Ok(Explored { nodes: known.len(), ends: ends.seen })
}

#[test]
fn every_interleaving_ends_with_one_guest_fully_there_or_fully_back() {
    let explored = explore(Node::new(2, true, false)).unwrap_or_else(|(violation, path)| {
        panic!("{}\nafter {path:#?}", violation.0);
    });
    println!("{} different worlds, ends {:?}", explored.nodes, explored.ends);
    assert!(explored.nodes > 10_000, "only {} worlds: the exploration lost its reach", explored.nodes);
    let all = ["Cancelled", "Completed", "Failed"].map(String::from);
    assert_eq!(explored.ends, BTreeSet::from(all));
}

#[test]
fn the_exploration_catches_agents_that_forget_a_cancel() {
    let (violation, path) =
        explore(Node::new(2, false, false)).err().expect("a late start should have been caught");
    assert!(violation.0.contains("only copy"), "{violation:?} after {path:?}");
}

#[test]
fn with_post_copy_no_guest_runs_twice_and_each_is_there_back_or_known_to_be_lost() {
    let explored = explore(Node::new(2, true, true)).unwrap_or_else(|(violation, path)| {
        panic!("{}\nafter {path:#?}", violation.0);
    });
    println!("{} different worlds, ends {:?}", explored.nodes, explored.ends);
    assert!(explored.nodes > 20_000, "only {} worlds: the exploration lost its reach", explored.nodes);
    let all = ["Cancelled", "Completed", "Failed", "Lost"].map(String::from);
    assert_eq!(explored.ends, BTreeSet::from(all));
}
