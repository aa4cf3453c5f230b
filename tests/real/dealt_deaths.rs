//! Deaths dealt by the other side: Resource Manager's stand-in kills the handler at its first, second,
//! ... call of one Deploy. However far it had come, the Deploy ends as if nothing had happened.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    orders::{self, deploy},
    up::Place,
};

/// How long a Deploy may take to its end, one death included.
const END: Duration = Duration::from_secs(60);
/// Calls at which a death is dealt, at most; a Deploy makes fewer.
const CALLS_MAX: u32 = 40;

pub fn run() -> Result<(), String> {
    crate::block_on(async {
        let place = Place::new();
        let mut up = place.up(&[]);
        let client = up.ready().await;
        let environment = client.carry_out(&orders::provision("deaths"), END).await;
        let environment = environment["environmentId"].as_str().unwrap().to_owned();
        let first = client.carry_out(&deploy(&environment, "module-victim", "r/victim:0"), END).await;
        assert_eq!(first["outcome"]["eventType"], "RuntimeDeploymentCompleted", "{first}");

        let (mut handler, mut deaths, mut slowest) = (None, 0, Duration::ZERO);
        for call in 1..=CALLS_MAX {
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
            let order = deploy(&environment, "module-victim", &format!("r/victim:{call}"));
            let ended = client.carry_out(&order, END).await;
            let outcome = &ended["outcome"];
            assert_eq!(outcome["eventType"], "RuntimeDeploymentCompleted", "killed {when} call {call}: {ended}");
            assert_eq!(outcome["payload"]["previousImage"], format!("r/victim:{}", call - 1), "{ended}");
            if !client.faults().await.is_empty() {
                // It was through before that many calls.
                client.clear_faults().await;
                break;
            }
            handler = Some(pid);
            deaths += 1;
            slowest = slowest.max(began.elapsed());
        }
        assert!((3..CALLS_MAX).contains(&deaths), "{deaths} deaths were dealt");
        let completed = client.events().await;
        let completed = completed.iter().filter(|event| event["envelope"]["eventType"] == "RuntimeDeploymentCompleted").count();
        assert_eq!(completed, deaths as usize + 2, "each Deploy completed once");
        assert!(up.interrupt().await.success());
        println!("  {deaths} deaths, one at each call of a Deploy; the slowest took {:.1} s", slowest.as_secs_f64());
    })
}
