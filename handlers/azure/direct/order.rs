//! In which order a list of resources can be written, and whether the list makes sense at all.

use std::collections::{BTreeMap, BTreeSet};

use super::{RESOURCES_MAX, references::references, rejected};
use crate::{
    outcome::Fault,
    ports::infrastructure::{PlannedChange, Resource},
};

/// A list of resources whose dependencies are all there and make no circle.
pub(super) struct Ordered<'a> {
    /// In order of dependency, and of the list where there is none.
    pub resources: Vec<&'a Resource>,
    /// By key, what must be there first: what the resource says, and what it refers to.
    needs: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> Ordered<'a> {
    /// # Errors
    /// [`Fault::Rejected`] where the list is too long, a key is there twice or missing, or resources
    /// wait for each other.
    pub fn new(doing: &str, desired: &'a [Resource]) -> Result<Self, Fault> {
        if desired.len() > RESOURCES_MAX {
            let detail =
                format!("there are {} resources, the most in one list are {RESOURCES_MAX}", desired.len());
            return Err(rejected(doing, detail));
        }
        let needs = needs(doing, desired)?;
        let mut resources: Vec<&Resource> = Vec::with_capacity(desired.len());
        let mut placed = BTreeSet::new();
        while resources.len() < desired.len() {
            let next = desired.iter().find(|resource| {
                !placed.contains(resource.key.as_str()) && needs[resource.key.as_str()].is_subset(&placed)
            });
            let Some(next) = next else {
                let stuck = desired.iter().map(|resource| resource.key.as_str());
                let stuck: Vec<_> = stuck.filter(|key| !placed.contains(key)).collect();
                let detail = format!("resources wait for each other: `{}`", stuck.join("`, `"));
                return Err(rejected(doing, detail));
            };
            placed.insert(next.key.as_str());
            resources.push(next);
        }
        Ok(Self { resources, needs })
    }

    /// What must be there before `key`.
    pub fn needs(&self, key: &str) -> impl Iterator<Item = &'a str> {
        self.needs.get(key).into_iter().flatten().copied()
    }

    /// Whether `key` is a resource that `is` holds for, or needs one, at whatever distance.
    pub fn reaches(&self, key: &str, is: &impl Fn(&Resource) -> bool) -> bool {
        let mut open = vec![key];
        let mut seen = BTreeSet::new();
        while let Some(key) = open.pop() {
            if self.resources.iter().any(|resource| resource.key == key && is(resource)) {
                return true;
            }
            if seen.insert(key) {
                open.extend(self.needs(key));
            }
        }
        false
    }

    /// The planned changes by key.
    ///
    /// # Errors
    /// [`Fault::Rejected`] where the plan is not of this list.
    pub fn changes<'p>(
        &self,
        doing: &str,
        plan: &'p [PlannedChange],
    ) -> Result<BTreeMap<&'p str, &'p PlannedChange>, Fault> {
        let changes: BTreeMap<_, _> = plan.iter().map(|change| (change.key.as_str(), change)).collect();
        for resource in &self.resources {
            let fits = changes.get(resource.key.as_str()).is_some_and(|change| change.id == resource.id);
            if !fits {
                let detail =
                    format!("the plan says nothing of `{}` at `{}`; plan again", resource.key, resource.id);
                return Err(rejected(doing, detail));
            }
        }
        Ok(changes)
    }
}

fn needs<'a>(doing: &str, desired: &'a [Resource]) -> Result<BTreeMap<&'a str, BTreeSet<&'a str>>, Fault> {
    let mut needs = BTreeMap::new();
    for resource in desired {
        let mut of_one: BTreeSet<&str> = resource.depends_on.iter().map(String::as_str).collect();
        of_one.extend(references(&resource.body).iter().map(|reference| reference.key));
        if needs.insert(resource.key.as_str(), of_one).is_some() {
            return Err(rejected(doing, format!("there are two resources `{}`", resource.key)));
        }
    }
    for (key, of_one) in &needs {
        if let Some(missing) = of_one.iter().find(|need| !needs.contains_key(*need)) {
            return Err(rejected(doing, format!("`{key}` needs `{missing}`, which is not in the list")));
        }
    }
    Ok(needs)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::azure::direct::testing::resource;

    fn keys(desired: &[Resource]) -> Result<Vec<String>, String> {
        let ordered = Ordered::new("planning", desired).map_err(|fault| fault.to_string())?;
        Ok(ordered.resources.iter().map(|resource| resource.key.clone()).collect())
    }

    #[test]
    fn a_resource_comes_after_what_it_names_and_what_it_refers_to() {
        let list = [
            resource("c", &["b"], json!({})),
            resource("a", &[], json!({ "properties": { "x": "${d.id}" } })),
            resource("b", &[], json!({})),
            resource("d", &[], json!({})),
        ];
        assert_eq!(keys(&list).unwrap(), ["b", "c", "d", "a"]);
        let ordered = Ordered::new("planning", &list).unwrap();
        assert!(ordered.reaches("c", &|resource| resource.key == "b"));
        assert!(!ordered.reaches("b", &|resource| resource.key == "c"));
    }

    #[test]
    fn a_list_that_makes_no_sense_is_refused_with_the_reason() {
        let missing = [resource("a", &["z"], json!({}))];
        assert!(keys(&missing).unwrap_err().contains("`a` needs `z`, which is not in the list"));
        let circle = [resource("a", &["b"], json!({})), resource("b", &[], json!({ "x": "${a.id}" }))];
        assert!(keys(&circle).unwrap_err().contains("resources wait for each other: `a`, `b`"));
        let twice = [resource("a", &[], json!({})), resource("a", &[], json!({}))];
        assert!(keys(&twice).unwrap_err().contains("there are two resources `a`"));
        let many: Vec<_> = (0..=RESOURCES_MAX).map(|n| resource(&n.to_string(), &[], json!({}))).collect();
        assert!(keys(&many).unwrap_err().contains("there are 201 resources"));
    }
}
