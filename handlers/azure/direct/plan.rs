//! What would change: reads every resource and writes nothing.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

use super::{
    Arm, READS_AT_ONCE_MAX,
    compare::{differences, fingerprint},
    order::Ordered,
    references::resolved,
};
use crate::{
    outcome::Fault,
    ports::infrastructure::{Change, Difference, PlannedChange, Resource},
};

/// One change for each resource, in the order in which they would be written.
pub(super) async fn plan(arm: &dyn Arm, desired: &[Resource]) -> Result<Vec<PlannedChange>, Fault> {
    let ordered = Ordered::new("planning the infrastructure", desired)?;
    let reads = ordered.resources.iter().map(|resource| async move {
        let actual = arm.get(&resource.id, &resource.api_version).await?;
        Ok::<_, Fault>((resource.key.as_str(), actual))
    });
    // What is ordered by the stream is only how many are read at once; each goes to its key.
    let reads: Vec<_> = reads.collect();
    let actual: BTreeMap<&str, Option<Value>> =
        stream::iter(reads).buffer_unordered(READS_AT_ONCE_MAX).try_collect().await?;
    let there = |key: &str| actual.get(key).and_then(Option::as_ref);
    Ok(ordered.resources.iter().map(|resource| planned(resource, there(&resource.key), &there)).collect())
}

fn planned<'a>(
    resource: &Resource,
    actual: Option<&Value>,
    there: &impl Fn(&str) -> Option<&'a Value>,
) -> PlannedChange {
    let change = match actual {
        None => Change::Create,
        Some(actual) => {
            let differences = differences(&resolved(&resource.body, there), actual);
            match differences.iter().find(|difference| is_immutable(resource, difference)) {
                Some(difference) => Change::Refused { reason: refusal(resource, difference) },
                None if differences.is_empty() => Change::NoChange,
                None => Change::Update { differences },
            }
        }
    };
    PlannedChange {
        key: resource.key.clone(),
        resource_type: resource.resource_type.clone(),
        id: resource.id.clone(),
        change,
        saw: actual.map(|actual| fingerprint(&resource.body, actual)),
    }
}

/// Whether the difference is at, under or around a path that cannot change in place.
pub(super) fn is_immutable(resource: &Resource, difference: &Difference) -> bool {
    let within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    resource.immutable.iter().any(|path| within(&difference.path, path) || within(path, &difference.path))
}

fn refusal(resource: &Resource, difference: &Difference) -> String {
    format!(
        "`{}` has `{}` at `{}` and should have `{}`, which Azure cannot change in place. It is never replaced, \
         since that would lose what it holds: either ask for what is there, or move `{}` away by hand and \
         provision again",
        resource.key, difference.actual, difference.path, difference.desired, resource.id
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::azure::direct::testing::{MemoryArm, resource};

    fn list() -> Vec<Resource> {
        vec![
            resource(
                "role",
                &["group"],
                json!({ "properties": { "principalId": "${identity.properties.principalId}" } }),
            ),
            resource("group", &[], json!({ "location": "westeurope", "tags": { "a": "1" } })),
            resource("identity", &["group"], json!({ "location": "westeurope" })),
        ]
    }

    async fn changes(arm: &MemoryArm, list: &[Resource]) -> Vec<(String, Change)> {
        let plan = plan(arm, list).await.unwrap();
        assert_eq!(arm.writes(), Vec::<String>::new());
        plan.into_iter().map(|planned| (planned.key, planned.change)).collect()
    }

    #[tokio::test]
    async fn where_nothing_is_everything_is_created_in_order_of_dependency() {
        let arm = MemoryArm::default();
        let plan = plan(&arm, &list()).await.unwrap();
        let told: Vec<_> =
            plan.iter().map(|planned| (planned.key.as_str(), &planned.change, &planned.saw)).collect();
        let create = Change::Create;
        assert_eq!(told, [("group", &create, &None), ("identity", &create, &None), ("role", &create, &None)]);
    }

    #[tokio::test]
    async fn only_what_differs_is_updated() {
        let arm = MemoryArm::default();
        arm.set("group", json!({ "location": "West Europe", "tags": { "a": "2" } }));
        arm.set("identity", json!({ "location": "westeurope", "properties": { "principalId": "p" } }));
        arm.set("role", json!({ "properties": { "principalId": "P2" } }));
        let update = |path: &str, desired: Value, actual: Value| Change::Update {
            differences: vec![Difference { path: path.into(), desired, actual }],
        };
        assert_eq!(
            changes(&arm, &list()).await,
            [
                ("group".into(), update("/tags/a", json!("1"), json!("2"))),
                ("identity".into(), Change::NoChange),
                ("role".into(), update("/properties/principalId", json!("p"), json!("P2"))),
            ]
        );
    }

    #[tokio::test]
    async fn a_reference_to_what_is_not_there_yet_equals_what_is() {
        let arm = MemoryArm::default();
        arm.set("role", json!({ "properties": { "principalId": "p" } }));
        let changes = changes(&arm, &list()).await;
        assert_eq!(changes[2], ("role".into(), Change::NoChange));
    }

    #[tokio::test]
    async fn what_would_have_to_be_replaced_is_refused_with_a_sentence() {
        let arm = MemoryArm::default();
        arm.set("group", json!({ "location": "northeurope", "tags": { "a": "1" } }));
        let changes = changes(&arm, &list()).await;
        let Change::Refused { reason } = &changes[0].1 else { panic!("{changes:?}") };
        assert!(reason.contains("`group` has `\"northeurope\"` at `/location`"), "{reason}");
    }

    #[test]
    fn a_path_is_immutable_with_all_that_is_in_it_and_around_it() {
        let resource = Resource { immutable: vec!["/a/b".into()], ..resource("x", &[], json!({})) };
        for (path, immutable) in
            [("/a/b", true), ("/a/b/c", true), ("/a", true), ("/a/bc", false), ("/c", false)]
        {
            let difference = Difference { path: path.into(), desired: json!(1), actual: json!(2) };
            assert_eq!(is_immutable(&resource, &difference), immutable, "{path}");
        }
    }
}
