//! The shape of a workflow: who comes before whom. Everything in here costs what nodes and edges there are.

use super::NodeId;
use serde::{Deserialize, Serialize};

/// `to` comes after `from`. Nodes are named by their place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// The earlier node.
    pub from: u32,
    /// The later node.
    pub to: u32,
    /// Behind a condition: the edge counts if the condition came out so. Always `true` behind other nodes.
    pub when: bool,
}

/// Who follows whom, both ways round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    after: Vec<Vec<u32>>,
    before: Vec<Vec<u32>>,
}

/// Most nodes of a cycle that are named; the rest are counted.
const CYCLE_NAMED_MAX: usize = 20;

impl Graph {
    /// The graph of these edges; those that lead to nodes that are not there are left out.
    pub fn new(nodes: usize, edges: &[Edge]) -> Self {
        let mut graph = Self { after: vec![Vec::new(); nodes], before: vec![Vec::new(); nodes] };
        for edge in edges.iter().filter(|e| (e.from as usize) < nodes && (e.to as usize) < nodes) {
            graph.after[edge.from as usize].push(edge.to);
            graph.before[edge.to as usize].push(edge.from);
        }
        graph
    }

    /// The nodes right behind this one.
    pub fn after(&self, node: u32) -> &[u32] {
        self.after.get(node as usize).map_or(&[], Vec::as_slice)
    }

    /// The nodes right before this one.
    pub fn before(&self, node: u32) -> &[u32] {
        self.before.get(node as usize).map_or(&[], Vec::as_slice)
    }

    /// Every node behind those before it (Kahn's algorithm).
    ///
    /// # Errors
    /// The nodes of a cycle, in its order, where there is one.
    pub fn order(&self) -> Result<Vec<u32>, Vec<u32>> {
        let mut open: Vec<usize> = self.before.iter().map(Vec::len).collect();
        let mut order: Vec<u32> =
            (0u32..).zip(&open).filter(|(_, open)| **open == 0).map(|(n, _)| n).collect();
        let mut next = 0;
        while let Some(node) = order.get(next).copied() {
            next += 1;
            for later in self.after(node) {
                open[*later as usize] -= 1;
                if open[*later as usize] == 0 {
                    order.push(*later);
                }
            }
        }
        if order.len() == open.len() { Ok(order) } else { Err(self.cycle(&open)) }
    }

    /// A cycle among the nodes that still have open predecessors: each has such a predecessor, so that going back
    /// from one to another has to come round.
    fn cycle(&self, open: &[usize]) -> Vec<u32> {
        let mut seen = vec![None; open.len()];
        let mut path: Vec<u32> = Vec::new();
        let mut node = (0u32..).zip(open).find(|(_, open)| **open > 0).map_or(0, |(n, _)| n);
        loop {
            if let Some(place) = seen[node as usize] {
                let mut cycle = path.split_off(place);
                cycle.reverse();
                return cycle;
            }
            seen[node as usize] = Some(path.len());
            path.push(node);
            match self.before(node).iter().find(|n| open[**n as usize] > 0) {
                Some(earlier) => node = *earlier,
                None => return path,
            }
        }
    }

    /// For each node, everything before it.
    pub fn ancestors(&self, order: &[u32]) -> Ancestors {
        let words = self.after.len().div_ceil(64);
        let mut bits = vec![0u64; words * self.after.len()];
        for node in order {
            for earlier in self.before(*node) {
                let (from, to) = (*earlier as usize * words, *node as usize * words);
                for word in 0..words {
                    bits[to + word] |= bits[from + word];
                }
                bits[to + *earlier as usize / 64] |= 1 << (*earlier % 64);
            }
        }
        Ancestors { bits, words }
    }
}

/// A bit for each pair of nodes: 3 MB for the largest workflow.
#[derive(Debug)]
pub struct Ancestors {
    bits: Vec<u64>,
    words: usize,
}

impl Ancestors {
    /// Whether `earlier` has always ended when `node` begins.
    pub fn precede(&self, node: u32, earlier: u32) -> bool {
        let word = self.bits.get(node as usize * self.words + earlier as usize / 64);
        word.is_some_and(|word| word >> (earlier % 64) & 1 == 1)
    }
}

/// A cycle as a person reads it: `a → b → a`.
pub fn show_cycle(cycle: &[u32], ids: &[NodeId]) -> String {
    let named = cycle.iter().take(CYCLE_NAMED_MAX).filter_map(|n| ids.get(*n as usize));
    let mut text = named.map(NodeId::as_str).collect::<Vec<_>>().join(" → ");
    if cycle.len() > CYCLE_NAMED_MAX {
        text.push_str(&format!(" → … {} more …", cycle.len() - CYCLE_NAMED_MAX));
    }
    if let Some(first) = cycle.first().and_then(|n| ids.get(*n as usize)) {
        text.push_str(&format!(" → {first}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(nodes: usize, edges: &[(u32, u32)]) -> Graph {
        let edges: Vec<Edge> =
            edges.iter().map(|(from, to)| Edge { from: *from, to: *to, when: true }).collect();
        Graph::new(nodes, &edges)
    }

    #[test]
    fn an_order_puts_everyone_behind_those_before() {
        let diamond = graph(4, &[(3, 1), (3, 2), (1, 0), (2, 0)]);
        assert_eq!(diamond.order().unwrap(), [3, 1, 2, 0]);
        let ancestors = diamond.ancestors(&diamond.order().unwrap());
        assert!(ancestors.precede(0, 3) && ancestors.precede(0, 1) && ancestors.precede(1, 3));
        assert!(!ancestors.precede(1, 2) && !ancestors.precede(3, 0) && !ancestors.precede(0, 0));
    }

    #[test]
    fn a_cycle_is_named_in_its_order() {
        let ids: Vec<NodeId> = ["a", "b", "c", "d"].iter().map(|id| id.parse().unwrap()).collect();
        let cycle = graph(4, &[(0, 1), (1, 2), (2, 3), (3, 1)]).order().unwrap_err();
        let shown = show_cycle(&cycle, &ids);
        assert!(["b → c → d → b", "c → d → b → c", "d → b → c → d"].contains(&shown.as_str()), "{shown}");
        let alone = graph(1, &[(0, 0)]).order().unwrap_err();
        assert_eq!(show_cycle(&alone, &ids), "a → a");
    }
}
