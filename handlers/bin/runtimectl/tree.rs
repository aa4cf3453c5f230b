//! Messages as a tree: each below the one that caused it.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::output::text;

/// A message: an event of the feed, or one that is only known as the cause of others.
#[derive(Debug, PartialEq)]
pub struct Node {
    pub id: String,
    /// The feed's item; none for a command.
    pub item: Option<Value>,
    children: Vec<usize>,
    parent: Option<usize>,
}

/// The messages of one workflow.
#[derive(Debug, Default, PartialEq)]
pub struct Tree {
    nodes: Vec<Node>,
    places: HashMap<String, usize>,
}

impl Tree {
    /// Grows the tree of events, and of `others`: messages that are known by id alone.
    pub fn of(items: Vec<Value>, others: &[String]) -> Self {
        let mut tree = Self::default();
        for item in items {
            let id = text(&item["envelope"], "eventId");
            let at = tree.place(&id);
            tree.nodes[at].item = Some(item);
        }
        for id in others {
            tree.place(id);
        }
        for at in 0..tree.nodes.len() {
            let Some(cause) =
                tree.nodes[at].item.as_ref().and_then(|item| item["envelope"]["causationId"].as_str())
            else {
                continue;
            };
            let cause = cause.to_owned();
            let parent = tree.place(&cause);
            // Nothing causes itself, however it is written.
            if tree.path_up(parent).contains(&at) {
                continue;
            }
            tree.nodes[at].parent = Some(parent);
            tree.nodes[parent].children.push(at);
        }
        tree
    }

    fn place(&mut self, id: &str) -> usize {
        if let Some(at) = self.places.get(id) {
            return *at;
        }
        self.places.insert(id.to_owned(), self.nodes.len());
        self.nodes.push(Node { id: id.to_owned(), item: None, children: Vec::new(), parent: None });
        self.nodes.len() - 1
    }

    /// A node and all that it descends from, itself first.
    fn path_up(&self, from: usize) -> Vec<usize> {
        std::iter::successors(Some(from), |at| self.nodes[*at].parent).collect()
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The beginnings of what the `focus` belongs to; all beginnings where it belongs to none.
    pub fn roots(&self, focus: &HashSet<String>) -> Vec<usize> {
        let all = (0..self.nodes.len()).filter(|at| self.nodes[*at].parent.is_none());
        let wanted = focus
            .iter()
            .filter_map(|id| self.places.get(id))
            .filter_map(|at| self.path_up(*at).last().copied())
            .collect::<HashSet<_>>();
        all.filter(|at| wanted.is_empty() || wanted.contains(at)).collect()
    }

    /// Everything below `root`, itself first, each with the branches drawn before it.
    pub fn below(&self, root: usize) -> Vec<(String, &Node)> {
        let mut drawn = Vec::new();
        let mut waiting = vec![(root, String::new(), String::new())];
        while let Some((at, branch, indent)) = waiting.pop() {
            let node = &self.nodes[at];
            drawn.push((branch, node));
            for (place, child) in node.children.iter().enumerate().rev() {
                let last = place + 1 == node.children.len();
                let (branch, further) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
                waiting.push((*child, format!("{indent}{branch}"), format!("{indent}{further}")));
            }
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(id: &str, cause: Option<&str>) -> Value {
        json!({"envelope": {"eventId": id, "causationId": cause}})
    }

    fn drawn(tree: &Tree, focus: &[&str]) -> Vec<String> {
        let focus = focus.iter().map(|id| (*id).to_owned()).collect();
        let lines = tree.roots(&focus).into_iter().flat_map(|root| tree.below(root));
        lines.map(|(branch, node)| format!("{branch}{}", node.id)).collect()
    }

    #[test]
    fn each_message_stands_below_its_cause() {
        let items = vec![
            event("b", Some("command")),
            event("d", Some("b")),
            event("c", Some("command")),
            event("e", Some("d")),
            event("other", Some("elsewhere")),
        ];
        let tree = Tree::of(items, &["lonely".into()]);
        assert_eq!(drawn(&tree, &["e"]), ["command", "├─ b", "│  └─ d", "│     └─ e", "└─ c"]);
        assert_eq!(drawn(&tree, &["lonely"]), ["lonely"]);
        assert_eq!(drawn(&tree, &[]).len(), 8);
    }

    #[test]
    fn a_circle_of_causes_is_cut() {
        let tree = Tree::of(vec![event("a", Some("b")), event("b", Some("a")), event("c", Some("c"))], &[]);
        assert_eq!(drawn(&tree, &[]), ["b", "└─ a", "c"]);
    }
}
