//! Operations that depend on one another in a circle.
//!
//! Called by: `check`. Calls: nothing.
//! Invariant: linear in operations and edges (Tarjan's strongly connected components, without recursion). Edges are few by construction: what
//! ended before another began goes through one node per ending.
//!
//! ```text
//! ww   the writer of a value, to the writer of the next one in its partition
//! wr   the writer of a value, to each operation that read it
//! ```

use std::collections::BTreeMap;

use super::facts::Facts;
use super::operation::Outcome;
use super::{Anomaly, Name};

type Edges = Vec<(usize, usize)>;

pub(super) fn check(facts: &Facts<'_>, found: &mut Vec<Anomaly>) {
    let nodes = facts.history.len();
    let reads = write_read(facts);
    report(Name::G0, nodes, &[&write_write(facts)], found);
    if !report(Name::G1c, nodes, &[&reads], found) {
        let processes = process_order(facts);
        if !report(Name::G1cProcess, nodes, &[&reads, &processes], found) {
            report(Name::G1cRealtime, nodes * 2, &[&reads, &real_time(facts)], found);
        }
    }
}

/// Reports each circle that an edge of the first set lies in; true when there is one.
fn report(name: Name, nodes: usize, edges: &[&Edges], found: &mut Vec<Anomaly>) -> bool {
    let all: Edges = edges.iter().flat_map(|edges| edges.iter().copied()).collect();
    let component = components(nodes, &all);
    let mut circles: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
    for (from, to) in edges[0].iter().filter(|(from, to)| component[*from] == component[*to]) {
        circles.entry(component[*from]).or_default().push((*from, *to));
    }
    for circle in circles.values() {
        let operation = circle.first().map(|edge| edge.0);
        let what = format!("operations depend on one another: {circle:?}");
        found.push(Anomaly {
            name,
            key: None,
            operation,
            value: None,
            offset: None,
            what,
            subscribed: false,
        });
    }
    !circles.is_empty()
}

fn write_write(facts: &Facts<'_>) -> Edges {
    let mut edges = Edges::new();
    for partition in facts.partitions.values() {
        let values: Vec<_> = partition.log.values().filter_map(|values| values.first()).collect();
        for pair in values.windows(2) {
            let writers = (partition.writer.get(pair[0]), partition.writer.get(pair[1]));
            if let (Some(from), Some(to)) = writers
                && from != to
            {
                edges.push((*from, *to));
            }
        }
    }
    edges
}

fn write_read(facts: &Facts<'_>) -> Edges {
    let mut edges = Edges::new();
    for partition in facts.partitions.values() {
        for (value, readers) in &partition.readers {
            let writer = partition.writer.get(value);
            let others = readers.iter().filter(|reader| Some(*reader) != writer);
            edges.extend(writer.into_iter().flat_map(|writer| {
                let edge = |reader: &usize| (*writer, *reader);
                others.clone().map(edge).collect::<Vec<_>>()
            }));
        }
    }
    edges
}

fn process_order(facts: &Facts<'_>) -> Edges {
    let mut last: BTreeMap<u64, usize> = BTreeMap::new();
    let mut edges = Edges::new();
    for (number, operation) in facts.history.iter().enumerate() {
        if operation.outcome != Outcome::Fail
            && let Some(before) = last.insert(operation.process, number)
        {
            edges.push((before, number));
        }
    }
    edges
}

/// Through a chain of endings: operation, to its ending, to the next ending; the last ending before an operation began, to the operation.
fn real_time(facts: &Facts<'_>) -> Edges {
    let count = facts.history.len();
    let known = |number: &usize| facts.history[*number].outcome == Outcome::Ok;
    let mut endings: Vec<usize> = (0..count).filter(known).collect();
    endings.sort_by_key(|number| facts.history[*number].ended_us);
    let mut edges: Edges = endings.iter().map(|number| (*number, count + number)).collect();
    edges.extend(endings.windows(2).map(|pair| (count + pair[0], count + pair[1])));
    for (number, operation) in facts.history.iter().enumerate() {
        let before = |ending: &usize| facts.history[*ending].ended_us < operation.began_us;
        let past = endings.partition_point(before);
        if let Some(ending) = past.checked_sub(1) {
            edges.push((count + endings[ending], number));
        }
    }
    edges
}

/// The strongly connected component of each node.
fn components(nodes: usize, edges: &Edges) -> Vec<usize> {
    let mut next: Vec<Vec<usize>> = vec![Vec::new(); nodes];
    for (from, to) in edges {
        next[*from].push(*to);
    }
    let mut search = Search {
        order: vec![usize::MAX; nodes],
        low: vec![0; nodes],
        component: vec![usize::MAX; nodes],
        stack: Vec::new(),
        count: 0,
    };
    for node in 0..nodes {
        if search.order[node] == usize::MAX {
            search.visit(node, &next);
        }
    }
    search.component
}

struct Search {
    order: Vec<usize>,
    low: Vec<usize>,
    component: Vec<usize>,
    stack: Vec<usize>,
    count: usize,
}

impl Search {
    fn visit(&mut self, root: usize, next: &[Vec<usize>]) {
        let mut path = vec![(root, 0)];
        self.enter(root);
        while let Some((node, at)) = path.last_mut() {
            let node = *node;
            if let Some(to) = next[node].get(*at) {
                *at += 1;
                if self.order[*to] == usize::MAX {
                    self.enter(*to);
                    path.push((*to, 0));
                } else if self.component[*to] == usize::MAX {
                    self.low[node] = self.low[node].min(self.order[*to]);
                }
                continue;
            }
            path.pop();
            if let Some((above, _)) = path.last() {
                self.low[*above] = self.low[*above].min(self.low[node]);
            }
            if self.low[node] == self.order[node] {
                while let Some(member) = self.stack.pop() {
                    self.component[member] = node;
                    if member == node {
                        break;
                    }
                }
            }
        }
    }

    fn enter(&mut self, node: usize) {
        self.order[node] = self.count;
        self.low[node] = self.count;
        self.count += 1;
        self.stack.push(node);
    }
}
