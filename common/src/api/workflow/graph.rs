//! Edges and references, checked against the nodes that there are.

use super::{EdgeBody, config::templates};
use crate::spec::{
    Faults,
    workflow::{
        Ancestors, Edge, Graph, Items, MapSpec, NodeId, NodeKind, NodeSpec, OnFailure, Reference, Source,
        Template, WorkflowSpec, show_cycle,
    },
};
use std::collections::{BTreeMap, BTreeSet};

/// The nodes by their ids.
pub type Numbers = BTreeMap<NodeId, u32>;

/// The edges, without those that cannot be.
pub fn edges(bodies: &[EdgeBody], nodes: &[NodeSpec], numbers: &Numbers, faults: &mut Faults) -> Vec<Edge> {
    if bodies.len() > WorkflowSpec::EDGES_MAX {
        let reason =
            format!("there are {}: a workflow has at most {}", bodies.len(), WorkflowSpec::EDGES_MAX);
        faults.add("edges", reason);
        return Vec::new();
    }
    let mut pairs = BTreeSet::new();
    let mut edges = Vec::with_capacity(bodies.len());
    for (n, body) in bodies.iter().enumerate() {
        let Some(edge) = edge(n, body, nodes, numbers, faults) else { continue };
        if pairs.insert((edge.from, edge.to)) {
            edges.push(edge);
        } else {
            faults
                .add(format!("edges[{n}]"), format!("leads from {} to {} a second time", body.from, body.to));
        }
    }
    edges
}

fn edge(
    n: usize,
    body: &EdgeBody,
    nodes: &[NodeSpec],
    numbers: &Numbers,
    faults: &mut Faults,
) -> Option<Edge> {
    let mut end = |field: &str, id: &str| {
        let found = id.parse().ok().and_then(|id: NodeId| numbers.get(&id).copied());
        if found.is_none() {
            let shown: String = id.chars().take(80).collect();
            faults.add(format!("edges[{n}].{field}"), format!("there is no node {shown:?}"));
        }
        found
    };
    let (from, to) = (end("from", &body.from), end("to", &body.to));
    let (from, to) = from.zip(to)?;
    let chooses = nodes.get(from as usize).is_some_and(|node| matches!(node.kind, NodeKind::Condition(_)));
    if body.when == Some(false) && !chooses {
        faults.add(format!("edges[{n}].when"), "is for edges behind a condition only");
    }
    Some(Edge { from, to, when: body.when.unwrap_or(true) })
}

/// Checks what needs the whole graph: cycles, compensations, and that references speak of what has ended by then.
pub fn check(spec: &WorkflowSpec, numbers: &Numbers, faults: &mut Faults) {
    let graph = spec.graph();
    let undoing = compensations(spec, &graph, faults);
    match graph.order() {
        Err(cycle) => {
            let ids: Vec<NodeId> = spec.nodes.iter().map(|node| node.id.clone()).collect();
            faults.add("edges", format!("form a cycle: {}", show_cycle(&cycle, &ids)));
        }
        Ok(order) => {
            let scope = Scope { numbers, undoing, ancestors: graph.ancestors(&order) };
            for (n, node) in (0u32..).zip(&spec.nodes) {
                scope.check(n, node, faults);
            }
        }
    }
}

/// The nodes that undo others. They run on failure only, so no edge may lead to or from them.
fn compensations(spec: &WorkflowSpec, graph: &Graph, faults: &mut Faults) -> BTreeSet<u32> {
    let mut undoing = BTreeSet::new();
    for (n, node) in spec.nodes.iter().enumerate() {
        let OnFailure::Compensate(other) = node.on_failure else { continue };
        let at = format!("nodes[{n}].compensation");
        if other as usize == n {
            faults.add(&at, "a node cannot undo itself");
        }
        if !graph.before(other).is_empty() || !graph.after(other).is_empty() {
            faults.add(&at, "is run on failure only: no edge may lead to or from it");
        }
        undoing.insert(other);
    }
    for n in &undoing {
        if spec.nodes.get(*n as usize).is_some_and(|node| matches!(node.on_failure, OnFailure::Compensate(_)))
        {
            faults.add(format!("nodes[{n}].on_failure"), "a node that undoes another is not undone itself");
        }
    }
    undoing
}

struct Scope<'a> {
    numbers: &'a Numbers,
    undoing: BTreeSet<u32>,
    ancestors: Ancestors,
}

impl Scope<'_> {
    fn check(&self, n: u32, node: &NodeSpec, faults: &mut Faults) {
        let at = format!("nodes[{n}].config");
        let (templates, has_item) = templates(&node.kind);
        for text in templates {
            let Some(template) = faults.take(&at, Template::parse(&text)) else { continue };
            template.references().for_each(|r| self.reference(n, r, has_item, faults));
        }
        match &node.kind {
            NodeKind::Condition(condition) => {
                condition.references().into_iter().for_each(|r| self.reference(n, r, false, faults));
            }
            NodeKind::Map(MapSpec { items: Items::From(text), .. }) => {
                if let Some(reference) = faults.take(&format!("{at}.items"), Reference::parse(text)) {
                    self.reference(n, &reference, false, faults);
                }
            }
            _ => {}
        }
    }

    fn reference(&self, n: u32, reference: &Reference, has_item: bool, faults: &mut Faults) {
        let at = format!("nodes[{n}].config");
        if matches!(reference.source, Source::Item | Source::ItemIndex) && !has_item {
            faults.add(&at, format!("{reference}: only a map's each has an item"));
        }
        let Some(id) = reference.node() else { return };
        match self.numbers.get(id) {
            None => faults.add(&at, format!("{reference}: there is no node {id}")),
            // What undoes runs when something failed: what has ended by then is known only then.
            Some(_) if self.undoing.contains(&n) => {}
            Some(other) if self.ancestors.precede(n, *other) => {}
            Some(_) => {
                let reason =
                    format!("{reference}: {id} need not have ended before this node: lead an edge from it");
                faults.add(&at, reason);
            }
        }
    }
}
