//! Which host leads where, whose turn it is, and what came through: all that the ingress knows.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard},
};

use serde::Serialize;

use super::container_apps::Plan;

/// What a host stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The key of the app.
    pub app: String,
    pub revision: String,
}

/// What came through one host to one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    pub requests: u64,
    /// By status code of the answer.
    pub statuses: BTreeMap<u16, u64>,
}

/// By host, by revision.
pub type Counts = BTreeMap<String, BTreeMap<String, Count>>;

enum Host {
    App(String),
    Revision(Route),
}

impl Host {
    fn app(&self) -> &str {
        match self {
            Self::App(app) => app,
            Self::Revision(route) => &route.app,
        }
    }
}

#[derive(Default)]
struct Table {
    hosts: HashMap<String, Host>,
    turns: HashMap<String, Turns>,
    counts: Counts,
}

/// The routing table of the ingress.
#[derive(Default)]
pub(super) struct Routes(Mutex<Table>);

impl Routes {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().expect("nobody panics while holding the routes")
    }

    /// Leads the hosts of an app where its plan says, and nowhere else.
    pub(super) fn set(&self, app: &str, plan: &Plan) {
        let mut table = self.table();
        table.hosts.retain(|_, host| host.app() != app);
        if let Some(host) = &plan.host {
            table.hosts.insert(host.clone(), Host::App(app.to_owned()));
        }
        for revision in &plan.revisions {
            if let Some(host) = &revision.host {
                let route = Route { app: app.to_owned(), revision: revision.spec.revision.clone() };
                table.hosts.insert(host.clone(), Host::Revision(route));
            }
        }
        let turns = table.turns.entry(app.to_owned()).or_default();
        turns.weigh(&plan.weights);
    }

    /// Forgets the hosts and counts of the apps at or below a key.
    pub(super) fn forget(&self, key: &str) {
        let below = format!("{key}/");
        let gone = |app: &str| app == key || app.starts_with(&below);
        let mut table = self.table();
        let Table { hosts, turns, counts } = &mut *table;
        hosts.retain(|host, route| {
            let goes = gone(route.app());
            if goes {
                counts.remove(host);
            }
            !goes
        });
        turns.retain(|app, _| !gone(app));
    }

    /// Whose turn it is at a host; none where there is no such host, or nobody to lead to.
    pub(super) fn next(&self, host: &str) -> Option<Route> {
        let mut table = self.table();
        match table.hosts.get(host)? {
            Host::Revision(route) => Some(route.clone()),
            Host::App(app) => {
                let app = app.clone();
                let revision = table.turns.get_mut(&app)?.next()?;
                Some(Route { app, revision })
            }
        }
    }

    /// Counts an answer that went out through a host.
    pub(super) fn count(&self, host: &str, revision: &str, status: u16) {
        let mut table = self.table();
        if !table.hosts.contains_key(host) {
            return;
        }
        let count = table.counts.entry(host.to_owned()).or_default().entry(revision.to_owned()).or_default();
        count.requests += 1;
        *count.statuses.entry(status).or_default() += 1;
    }

    /// What came through, by host; of one host, or of all.
    pub(super) fn counts(&self, host: Option<&str>) -> Counts {
        let table = self.table();
        let wanted = table.counts.iter().filter(|(name, _)| host.is_none_or(|host| host == name.as_str()));
        wanted.map(|(name, counts)| (name.clone(), counts.clone())).collect()
    }
}

/// Smooth weighted turns: of any 100 requests in a row each revision gets its percent, and no
/// revision gets its share in one lump.
#[derive(Debug, Default, PartialEq, Eq)]
struct Turns(Vec<Turn>);

#[derive(Debug, PartialEq, Eq)]
struct Turn {
    revision: String,
    weight: i64,
    credit: i64,
}

impl Turns {
    /// Takes new weights; where they are the old ones, the order of turns goes on.
    fn weigh(&mut self, weights: &[(String, u32)]) {
        let wanted = weights.iter().filter(|(_, weight)| *weight > 0);
        let wanted =
            wanted.map(|(revision, weight)| (revision.as_str(), i64::from(*weight))).collect::<Vec<_>>();
        if !self.0.iter().map(|turn| (turn.revision.as_str(), turn.weight)).eq(wanted.iter().copied()) {
            let turn =
                |&(revision, weight): &(&str, i64)| Turn { revision: revision.to_owned(), weight, credit: 0 };
            self.0 = wanted.iter().map(turn).collect();
        }
    }

    fn next(&mut self) -> Option<String> {
        let total = self.0.iter().map(|turn| turn.weight).sum::<i64>();
        for turn in &mut self.0 {
            turn.credit += turn.weight;
        }
        // Of equals the first, so that the order is always the same.
        let next = self.0.iter_mut().rev().max_by_key(|turn| turn.credit)?;
        next.credit -= total;
        Some(next.revision.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(weights: &[(&str, u32)]) -> Turns {
        let mut turns = Turns::default();
        turns.weigh(&weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect::<Vec<_>>());
        turns
    }

    #[test]
    fn of_100_requests_each_revision_gets_its_percent() {
        let mut turns = turns(&[("old", 90), ("new", 10), ("none", 0)]);
        let mut counts = BTreeMap::new();
        for _ in 0..100 {
            *counts.entry(turns.next().unwrap()).or_insert(0) += 1;
        }
        assert_eq!(counts, BTreeMap::from([("new".to_owned(), 10), ("old".to_owned(), 90)]));
    }

    #[test]
    fn shares_are_spread_and_begin_with_the_first_of_equals() {
        let mut turns = turns(&[("a", 50), ("b", 50)]);
        let order = (0..4).map(|_| turns.next().unwrap()).collect::<Vec<_>>();
        assert_eq!(order, ["a", "b", "a", "b"]);
    }

    #[test]
    fn nobody_with_a_weight_is_nobody_to_lead_to() {
        assert_eq!(turns(&[("a", 0)]).next(), None);
    }
}
