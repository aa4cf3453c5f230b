//! Deaths dealt by the other side: Resource Manager's stand-in kills the handler at its first, second,
//! ... call of one Deploy. However far it had come, the Deploy ends as if nothing had happened.
//!
//! What takes time is waiting for the dead one's lease to end; so several platforms do it side by side,
//! each for calls of its own.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    orders::{self, deploy},
    up::Place,
};

/// How long a Deploy may take to its end, one death included.
const END: Duration = Duration::from_secs(60);
/// Platforms side by side.
const LANES: u32 = 3;
/// Calls at which a death is dealt, at most; a Deploy makes fewer.
const CALLS_MAX: u32 = 40;

pub fn run() -> Result<(), String> {
    crate::block_on(async {
        let lanes = futures::future::join_all((1..=LANES).map(lane)).await;
        let deaths: u32 = lanes.iter().map(|(deaths, _)| deaths).sum();
        let slowest = lanes.iter().map(|(_, slowest)| *slowest).max().unwrap_or_default();
        assert!((2 * LANES..CALLS_MAX).contains(&deaths), "{deaths} deaths were dealt");
        println!(
            "  {deaths} deaths, one at each call of a Deploy; the slowest took {:.1} s",
            slowest.as_secs_f64()
        );
    })
}

/// Deals a death at every third call, from the `first` on, and answers how many and how long the
/// slowest Deploy took.
async fn lane(first: u32) -> (u32, Duration) {
    let place = Place::new();
    let mut up = place.up(&[]);
    let client = up.ready().await;
    let environment = client.carry_out(&orders::provision("deaths"), END).await;
    let environment = environment["environmentId"].as_str().unwrap().to_owned();
    let order = |version: u32| deploy(&environment, "module-victim", &format!("r/victim:{version}"));
    let begun = client.carry_out(&order(0), END).await;
    assert_eq!(begun["outcome"]["eventType"], "RuntimeDeploymentCompleted", "{begun}");

    let (mut handler, mut deaths, mut slowest, mut before) = (None, 0, Duration::ZERO, 0);
    for call in (first..=CALLS_MAX).step_by(LANES as usize) {
        let pid = place.handler_other_than(handler).await;
        let when = if call % 2 == 0 { "after" } else { "before" };
        client
            .add_fault(json!({
                "match": { "pathContains": "/containerApps/victim" },
                "times": 1, "skip": call - 1, "when": when,
                "fault": { "kind": "kill", "pid": pid },
            }))
            .await;
        let began = Instant::now();
        let ended = client.carry_out(&order(call), END).await;
        let outcome = &ended["outcome"];
        assert_eq!(outcome["eventType"], "RuntimeDeploymentCompleted", "killed {when} call {call}: {ended}");
        assert_eq!(outcome["payload"]["previousImage"], format!("r/victim:{before}"), "{ended}");
        before = call;
        if !client.faults().await.is_empty() {
            // It was through before that many calls.
            client.clear_faults().await;
            break;
        }
        handler = Some(pid);
        deaths += 1;
        slowest = slowest.max(began.elapsed());
    }
    let events = client.events().await;
    let completed =
        events.iter().filter(|event| event["envelope"]["eventType"] == "RuntimeDeploymentCompleted");
    assert_eq!(completed.count(), deaths as usize + 2, "each Deploy completed once");
    assert!(up.interrupt().await.success());
    (deaths, slowest)
}
