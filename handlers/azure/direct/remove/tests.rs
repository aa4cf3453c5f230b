//! The order in which resources go, and what stays.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::{
    azure::direct::testing::{Course, MemoryArm, TestClock, resource},
    ports::infrastructure::Infrastructure,
};

/// Calls that removing may take here.
const LOOKS_MAX: usize = 200;

struct Bench {
    arm: Arc<MemoryArm>,
    clock: Arc<TestClock>,
    engine: Direct,
}

fn bench(keys: &[&str]) -> Bench {
    let (arm, clock) = (Arc::new(MemoryArm::default()), Arc::new(TestClock::default()));
    for key in keys {
        arm.set(key, json!({ "location": "x" }));
    }
    let engine = Direct::new(arm.clone(), clock.clone());
    Bench { arm, clock, engine }
}

/// A group, a network and a subnet in it, a vault, and a role at the vault.
fn desired() -> Vec<Resource> {
    let group = Resource {
        resource_type: GROUP.to_owned(),
        ..resource("group", &[], json!({ "tags": { OWNER_TAG: "us" } }))
    };
    vec![
        group,
        resource("network", &["group"], json!({})),
        resource("subnet", &["network"], json!({})),
        resource("vault", &["group"], json!({})),
        resource("role", &["vault"], json!({})),
    ]
}

const ALL: [&str; 5] = ["group", "network", "subnet", "vault", "role"];

impl Bench {
    async fn run(&self) -> Removal {
        let desired = desired();
        let mut removal = Removal::default();
        for _ in 0..LOOKS_MAX {
            match self.engine.remove(&desired, removal).await.unwrap() {
                Removing::Running { removal: next, again_in } => {
                    // What is kept between looks survives being stored.
                    removal = serde_json::from_value(serde_json::to_value(next).unwrap()).unwrap();
                    self.clock.pass(again_in);
                }
                Removing::Done { removal } => return removal,
            }
        }
        panic!("no end after {LOOKS_MAX} looks");
    }
}

fn kept(removal: &Removal) -> Vec<(&str, &str, bool)> {
    removal.kept.iter().map(|(key, kept)| (key.as_str(), kept.reason.as_str(), kept.must)).collect()
}

fn no(code: &str) -> Course {
    let (doing, detail) = ("deleting".to_owned(), "it says why".to_owned());
    Course::Refuses(Fault::Rejected { doing, code: code.to_owned(), detail })
}

#[tokio::test]
async fn each_goes_after_what_needs_it() {
    let bench = bench(&ALL);
    bench.arm.next("subnet", Course::Looks(3));
    let removal = bench.run().await;
    assert_eq!((removal.gone.len(), removal.kept.len()), (5, 0));
    let calls = bench.arm.deletes();
    let place = |key: &str| calls.iter().position(|call| *call == format!("DELETE {key}")).unwrap();
    assert!(place("subnet") < place("network") && place("role") < place("vault"), "{calls:?}");
    assert_eq!(place("group"), 4, "{calls:?}");
    assert!(ALL.iter().all(|key| bench.arm.body(key).is_none()));
}

#[tokio::test]
async fn nothing_there_is_gone_and_a_lost_answer_is_asked_again() {
    let bench = bench(&["group", "vault"]);
    bench.arm.next("vault", Course::LosesTheAnswer);
    let removal = bench.run().await;
    assert_eq!((removal.gone.len(), removal.kept.len()), (5, 0));
}

#[tokio::test]
async fn what_cannot_go_stays_with_what_it_needs_and_says_why() {
    let bench = bench(&ALL);
    bench.arm.next("role", no("ScopeLocked"));
    let removal = bench.run().await;
    assert_eq!(
        kept(&removal),
        [
            ("group", "`vault`, which needs it, stays", false),
            ("role", "Azure does not delete it: it says why (ScopeLocked)", false),
            ("vault", "`role`, which needs it, stays", false),
        ]
    );
    assert_eq!(removal.gone.iter().map(String::as_str).collect::<Vec<_>>(), ["network", "subnet"]);
}

#[tokio::test]
async fn what_something_still_holds_on_to_is_tried_again_for_a_while() {
    let bench = bench(&ALL);
    bench.arm.next("subnet", no("InUseSubnetCannotBeDeleted"));
    bench.arm.next("subnet", no("InUseSubnetCannotBeDeleted"));
    assert_eq!(bench.run().await.kept.len(), 0);
    let bench = self::bench(&ALL);
    for _ in 0..IN_USE_MAX {
        bench.arm.next("subnet", no("InUseSubnetCannotBeDeleted"));
    }
    assert_eq!(kept(&bench.run().await)[2].0, "subnet");
}

#[tokio::test]
async fn a_group_with_something_of_somebody_elses_stays() {
    let bench = bench(&ALL);
    let other = |id: &str, tags: Value| json!({ "id": id, "name": id.trim_start_matches('/'), "tags": tags });
    bench
        .arm
        .lists(vec![other("/app-of-ours", json!({ OWNER_TAG: "us" })), other("/disk-of-theirs", json!({}))]);
    let removal = bench.run().await;
    assert_eq!(
        kept(&removal),
        [("group", "it holds a resource of somebody else, `disk-of-theirs`, which would go with it", true)]
    );
    assert!(bench.arm.body("group").is_some());
}
