//! The graphs: layers of nodes, each behind a few of the layer before.

use serde_json::{Value, json};

/// Nodes that each node of a further layer is behind.
const BEFORE: usize = 3;

/// What every node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Nothing: it ends in the entry in which it begins.
    Noop,
    /// A wait of this many milliseconds: it begins in one entry and ends in a later one.
    Wait(u64),
    /// A wait of 20 to 100 milliseconds, which depends on the node's place.
    Waits,
    /// One line that an agent records, through the path of every attempt.
    Record,
}

impl Work {
    /// How long a node waits, milliseconds; 0 if it does not.
    pub const fn wait_ms(self, node: usize) -> u64 {
        match self {
            Self::Noop | Self::Record => 0,
            Self::Wait(ms) => ms,
            // 37 and 81 have no common divisor: all lengths occur, and neighbours differ.
            Self::Waits => 20 + (node as u64 * 37) % 81,
        }
    }

    fn node(self, node: usize) -> Value {
        let id = id(node);
        match self {
            Self::Noop => json!({"id": id, "type": "noop"}),
            Self::Record => json!({"id": id, "type": "record"}),
            Self::Wait(_) | Self::Waits => {
                let duration = format!("{}ms", self.wait_ms(node));
                json!({"id": id, "type": "wait", "config": {"duration": duration}})
            }
        }
    }
}

/// Layers of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// One behind the other.
    pub layers: usize,
    /// Nodes in each.
    pub width: usize,
    /// What they do.
    pub work: Work,
}

impl Shape {
    /// How many nodes there are.
    pub const fn nodes(&self) -> usize {
        self.layers * self.width
    }

    /// The body of the workflow, without its name.
    pub fn body(&self) -> Value {
        let nodes: Vec<Value> = (0..self.nodes()).map(|node| self.work.node(node)).collect();
        let edges = (0..self.nodes()).flat_map(|node| self.before(node).map(move |from| (from, node)));
        let edges: Vec<Value> = edges.map(|(from, to)| json!({"from": id(from), "to": id(to)})).collect();
        json!({"nodes": nodes, "edges": edges})
    }

    /// The nodes that a node is right behind: neighbours in the layer before.
    fn before(&self, node: usize) -> impl Iterator<Item = usize> + use<> {
        let (layer, place, width) = (node / self.width, node % self.width, self.width);
        let count = if layer == 0 { 0 } else { BEFORE.min(width) };
        (0..count).map(move |step| (layer - 1) * width + (place + step) % width)
    }

    /// The longest way through the graph, of the waits that were asked for, milliseconds: no engine can be faster.
    pub fn critical_ms(&self) -> u64 {
        let mut ends: Vec<u64> = Vec::with_capacity(self.nodes());
        for node in 0..self.nodes() {
            let begin = self.before(node).map(|before| ends[before]).max().unwrap_or(0);
            ends.push(begin + self.work.wait_ms(node));
        }
        ends.into_iter().max().unwrap_or(0)
    }
}

fn id(node: usize) -> String {
    format!("n{node}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_behind_the_first_layer_is_behind_three_others() {
        let shape = Shape { layers: 3, width: 4, work: Work::Wait(5) };
        assert_eq!(shape.before(3).count(), 0);
        assert_eq!(shape.before(7).collect::<Vec<_>>(), [3, 0, 1]);
        let body = shape.body();
        assert_eq!(body["nodes"].as_array().map(Vec::len), Some(12));
        assert_eq!(body["edges"].as_array().map(Vec::len), Some(24));
        assert_eq!(body["nodes"][0]["config"]["duration"], "5ms");
    }

    #[test]
    fn the_critical_path_is_the_longest_way() {
        assert_eq!(Shape { layers: 3, width: 4, work: Work::Wait(5) }.critical_ms(), 15);
        // One node a layer: the waits are 20 and 57, whichever way.
        assert_eq!(Shape { layers: 2, width: 1, work: Work::Waits }.critical_ms(), 77);
        // The second layer waits 94 behind both of the first, of which the longer waits 57.
        assert_eq!(Shape { layers: 2, width: 2, work: Work::Waits }.critical_ms(), 57 + 94);
    }
}
