//! Owns the dependency graph: edges with their defaults applied, levels, cycles, dependents. A node is an [`ObjectKey`].

use std::collections::BTreeMap;

use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use crate::meta::ObjectKey;
use crate::name::Name;
use crate::spec::edge::{Edge, Fallback, OnDown, Reload, Stage, Start};
use crate::spec::quantity::{Duration, Tolerate};

/// One dependency with every default applied (DESIGN 3.2).
#[derive(Clone, Debug, PartialEq)]
pub struct Dependency {
    /// The node depended on.
    pub on: ObjectKey,
    /// What gates the start.
    pub start: Start,
    /// How long `Try` waits, in milliseconds.
    pub start_timeout_ms: u64,
    /// What a loss does.
    pub on_down: OnDown,
    /// How long a loss is tolerated.
    pub tolerate: Tolerate,
    /// What a return does.
    pub on_up: Reload,
    /// What a new revision does.
    pub on_change: Reload,
    /// Where a rebuild begins.
    pub stage: Stage,
    /// How long the dependency must have been usable before a reload, in milliseconds.
    pub debounce_ms: u64,
    /// What to do where the engine cannot reload as asked.
    pub fallback: Option<Fallback>,
}

impl Dependency {
    /// Applies the defaults to an edge of a service in `namespace`; `None` when it names nothing.
    pub fn resolve(namespace: &Name, edge: &Edge) -> Option<Self> {
        let (kind, name) = match (&edge.service, &edge.kind, &edge.name) {
            (Some(service), None, None) => (crate::kinds::mini_service::KIND, service),
            (None, Some(kind), Some(name)) => (kind.as_str(), name),
            _ => return None,
        };
        let on_down = edge.on_down.unwrap_or(OnDown::Block);
        Some(Self {
            on: ObjectKey::new(kind, edge.namespace.as_ref().map_or_else(|| namespace.clone(), Name::from), name),
            start: edge.start.unwrap_or(match on_down {
                OnDown::Block | OnDown::Stop => Start::Wait,
                OnDown::Degrade => Start::Try,
                OnDown::Ignore => Start::Skip,
            }),
            start_timeout_ms: edge.start_timeout.map_or(60_000, Duration::as_millis),
            on_down,
            tolerate: edge.tolerate.unwrap_or(Tolerate::For(Duration::from_secs(if on_down == OnDown::Stop { 30 } else { 0 }))),
            on_up: edge.on_up.unwrap_or(Reload::Ignore),
            on_change: edge.on_change.unwrap_or(Reload::Ignore),
            stage: edge.stage.unwrap_or(Stage::Start),
            debounce_ms: edge.debounce.map_or(2_000, Duration::as_millis),
            fallback: edge.fallback,
        })
    }

    /// What a mini container has with each of its children: it comes after it, and sums up how it is instead of reacting to it.
    pub fn child(child: ObjectKey) -> Self {
        Self {
            on: child,
            start: Start::Wait,
            start_timeout_ms: 0,
            on_down: OnDown::Ignore,
            tolerate: Tolerate::For(Duration::from_secs(0)),
            on_up: Reload::Ignore,
            on_change: Reload::Ignore,
            stage: Stage::Start,
            debounce_ms: 0,
            fallback: None,
        }
    }

    /// Whether a cycle through this edge could never start or never heal; levels are counted over the same edges.
    pub fn is_counted(&self) -> bool {
        matches!(self.start, Start::Wait | Start::Try) || matches!(self.on_down, OnDown::Block | OnDown::Stop)
    }
}

/// The dependency graph of a whole set. Immutable; build it anew when an edge changes.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    dependencies: BTreeMap<ObjectKey, Vec<Dependency>>,
    dependents: BTreeMap<ObjectKey, Vec<ObjectKey>>,
    levels: BTreeMap<ObjectKey, u32>,
    cycles: Vec<Vec<ObjectKey>>,
}

impl Graph {
    /// Builds the graph. Edges to nodes that are not in `nodes` are kept in `dependencies` but count for nothing.
    pub fn build(nodes: impl IntoIterator<Item = (ObjectKey, Vec<Dependency>)>) -> Self {
        let dependencies: BTreeMap<ObjectKey, Vec<Dependency>> = nodes.into_iter().collect();
        let mut graph: DiGraph<&ObjectKey, ()> = DiGraph::with_capacity(dependencies.len(), dependencies.len());
        let index: BTreeMap<&ObjectKey, NodeIndex> = dependencies.keys().map(|key| (key, graph.add_node(key))).collect();
        let mut dependents: BTreeMap<ObjectKey, Vec<ObjectKey>> = BTreeMap::new();
        for (from, edges) in &dependencies {
            for edge in edges {
                let Some(to) = index.get(&edge.on) else { continue };
                let list = dependents.entry(edge.on.clone()).or_default();
                if list.last() != Some(from) {
                    list.push(from.clone());
                }
                if edge.is_counted() {
                    graph.add_edge(index[from], *to, ());
                }
            }
        }
        // Tarjan yields components in reverse topological order of the edges dependent -> dependency: dependencies come first.
        let mut levels: BTreeMap<ObjectKey, u32> = BTreeMap::new();
        let mut cycles = Vec::new();
        for component in tarjan_scc(&graph) {
            let mut members: Vec<NodeIndex> = component;
            members.sort_by_key(|n| graph[*n]);
            if members.len() > 1 || graph.contains_edge(members[0], members[0]) {
                cycles.push(shortest_cycle(&graph, &members));
            }
            let below = members
                .iter()
                .flat_map(|n| graph.edges(*n))
                .filter(|e| !members.contains(&e.target()))
                .map(|e| levels.get(graph[e.target()]).copied().unwrap_or(0) + 1)
                .max()
                .unwrap_or(0);
            for member in members {
                levels.insert(graph[member].clone(), below);
            }
        }
        cycles.sort();
        Self { dependents, levels, cycles, dependencies }
    }

    /// All nodes, sorted.
    pub fn nodes(&self) -> impl Iterator<Item = &ObjectKey> {
        self.dependencies.keys()
    }

    /// What `key` depends on, as declared.
    pub fn dependencies(&self, key: &ObjectKey) -> &[Dependency] {
        self.dependencies.get(key).map_or(&[], Vec::as_slice)
    }

    /// Who depends directly on `key`, sorted.
    pub fn dependents(&self, key: &ObjectKey) -> &[ObjectKey] {
        self.dependents.get(key).map_or(&[], Vec::as_slice)
    }

    /// The level of `key`: 0 needs nothing, else one more than the highest level it counts on.
    pub fn level(&self, key: &ObjectKey) -> u32 {
        self.levels.get(key).copied().unwrap_or(0)
    }

    /// One shortest path a component, beginning with its least node; the first node is not repeated at the end.
    pub fn cycles(&self) -> &[Vec<ObjectKey>] {
        &self.cycles
    }
}

fn shortest_cycle(graph: &DiGraph<&ObjectKey, ()>, members: &[NodeIndex]) -> Vec<ObjectKey> {
    let start = members[0];
    let mut previous: BTreeMap<NodeIndex, NodeIndex> = BTreeMap::new();
    let mut frontier = std::collections::VecDeque::from([start]);
    while let Some(at) = frontier.pop_front() {
        let mut next: Vec<NodeIndex> = graph.edges(at).map(|e| e.target()).filter(|n| members.contains(n)).collect();
        next.sort_by_key(|n| graph[*n]);
        for to in next {
            if to == start {
                let mut path = vec![graph[at].clone()];
                let mut step = at;
                while step != start {
                    step = previous[&step];
                    path.push(graph[step].clone());
                }
                path.reverse();
                return path;
            }
            if let std::collections::btree_map::Entry::Vacant(entry) = previous.entry(to) {
                entry.insert(at);
                frontier.push_back(to);
            }
        }
    }
    members.iter().map(|n| graph[*n].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("MiniService", "n", name)
    }

    fn graph(edges: &[(&str, &[(&str, OnDown)])]) -> Graph {
        Graph::build(edges.iter().map(|(from, to)| {
            let list = to
                .iter()
                .filter_map(|(on, down)| {
                    Dependency::resolve(&"n".into(), &Edge { service: Some((*on).to_owned()), on_down: Some(*down), ..Edge::default() })
                })
                .collect();
            (key(from), list)
        }))
    }

    #[test]
    fn levels_count_the_edges_that_gate() {
        use OnDown::*;
        let g = graph(&[("a", &[]), ("b", &[("a", Block)]), ("c", &[("b", Degrade), ("a", Block)]), ("d", &[("c", Ignore)])]);
        let levels: Vec<u32> = ["a", "b", "c", "d"].iter().map(|n| g.level(&key(n))).collect();
        assert_eq!(levels, [0, 1, 2, 0]);
        assert_eq!(g.dependents(&key("a")), [key("b"), key("c")]);
        assert!(g.cycles().is_empty());
    }

    #[test]
    fn a_cycle_is_given_as_its_shortest_path() {
        use OnDown::*;
        let g = graph(&[("a", &[("b", Block)]), ("b", &[("c", Block), ("a", Block)]), ("c", &[("a", Block)]), ("s", &[("s", Stop)])]);
        assert_eq!(g.cycles(), [vec![key("a"), key("b")], vec![key("s")]]);
        let g = graph(&[("a", &[("b", Block)]), ("b", &[("a", Ignore)])]);
        assert!(g.cycles().is_empty(), "an Ignore edge closes no cycle");
    }
}
