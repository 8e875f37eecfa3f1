//! A graph as text: a line a node, indented by how many come before it, with what it comes right after.

use novacron_common::api::EdgeBody;
use std::collections::BTreeMap;

/// Deepest indentation: longer chains would leave the screen.
const DEPTH_MAX: usize = 24;
/// Most predecessors that are named on a line.
const NAMED_MAX: usize = 4;

/// The nodes (id, and what is said of it), those without predecessors first.
pub fn text(nodes: &[(String, String)], edges: &[EdgeBody]) -> String {
    let place: BTreeMap<&str, usize> =
        nodes.iter().enumerate().map(|(n, (id, _))| (id.as_str(), n)).collect();
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for edge in edges {
        if let (Some(from), Some(to)) = (place.get(edge.from.as_str()), place.get(edge.to.as_str())) {
            before[*to].push(*from);
        }
    }
    let depths = depths(&before);
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_by_key(|n| (depths[*n], *n));
    let width = order.iter().map(|n| nodes[*n].0.len() + 2 * depths[*n].min(DEPTH_MAX)).max().unwrap_or(0);
    let line = |n: &usize| {
        let id = format!("{}{}", "  ".repeat(depths[*n].min(DEPTH_MAX)), nodes[*n].0);
        format!("{id:width$}  {}{}", nodes[*n].1, after(&before[*n], nodes))
    };
    order.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn after(before: &[usize], nodes: &[(String, String)]) -> String {
    if before.is_empty() {
        return String::new();
    }
    let named: Vec<&str> = before.iter().take(NAMED_MAX).map(|n| nodes[*n].0.as_str()).collect();
    let more = before.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("  ← {}{more}", named.join(", "))
}

/// How many nodes come before each, along the longest way. The server's graphs have no cycles; the bound on the
/// rounds keeps a wrong one from turning this round for ever.
fn depths(before: &[Vec<usize>]) -> Vec<usize> {
    let mut depths = vec![0; before.len()];
    for _ in 0..before.len() {
        let mut changed = false;
        for (n, earlier) in before.iter().enumerate() {
            let depth = earlier.iter().map(|e| depths[*e] + 1).max().unwrap_or(0);
            changed |= depth > depths[n];
            depths[n] = depth.max(depths[n]).min(before.len());
        }
        if !changed {
            break;
        }
    }
    depths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diamond_reads_from_top_to_bottom() {
        let nodes = ["end", "a", "left", "right"].map(|id| (id.to_owned(), "ok".to_owned()));
        let edge = |from: &str, to: &str| EdgeBody { from: from.into(), to: to.into(), when: None };
        let edges = [edge("a", "left"), edge("a", "right"), edge("left", "end"), edge("right", "end")];
        let shown = text(&nodes, &edges);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(
            lines,
            ["a        ok", "  left   ok  ← a", "  right  ok  ← a", "    end  ok  ← left, right"]
        );
        let round = [edge("a", "left"), edge("left", "a")];
        assert_eq!(text(&nodes, &round).lines().count(), 4);
    }
}
