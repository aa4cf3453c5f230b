//! What the demo sends: the commands of the story, with ids that are the same every time, so that what
//! one run prints can be looked up in the next.

use std::{path::PathBuf, time::Duration};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::cli::{SendArgs, Wire};

pub const TENANT: &str = "connectsoft";
pub const PROJECT: &str = "proj-booking-saas";
pub const MODULE: &str = "module-reservations-api";
/// No environment has this id: it derives from no name that the demo uses.
pub const NO_ENVIRONMENT: &str = "env-00000000";

/// The image of a version of the demo's one service.
pub fn image(version: &str) -> String {
    format!("acr.azurecr.io/reservations-api:{version}")
}

pub fn provision() -> Value {
    json!({ "name": "staging", "stage": "staging", "region": "westeurope", "computeTargets": ["container-apps"] })
}

/// A Deploy with a gate that is through in seconds.
pub fn deploy(environment_id: &str, version: &str) -> Value {
    json!({
        "environmentId": environment_id,
        "releaseRef": format!("reservations-{version}"),
        "healthGate": {
            "path": "/health",
            "readinessDeadlineSeconds": 30,
            "initialDelaySeconds": 0,
            "intervalSeconds": 1,
            "timeoutSeconds": 2,
            "bakeSeconds": 1,
            "count": 20,
            "failureLimit": 1,
            "consecutiveSuccess": 3,
        },
        "workloads": [{
            "moduleId": MODULE,
            "componentType": "microservice",
            "image": image(version),
            "target": "container-apps",
            "port": 8080,
        }],
    })
}

pub fn rollback(environment_id: &str, deployment_id: &str) -> Value {
    json!({
        "environmentId": environment_id,
        "deploymentId": deployment_id,
        "reason": "customers see wrong prices",
    })
}

/// How the command of a step is sent: all of one run belong to one intent, each is a workflow of its own.
pub fn send_args(step: u32, command: &str) -> SendArgs {
    let id = |what: &str| Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("runtimectl demo {what}").as_bytes());
    let short = |prefix: &str, id: Uuid| format!("{prefix}{}", &id.simple().to_string()[..8]);
    SendArgs {
        command: command.to_owned(),
        file: PathBuf::from("demo"),
        project: Some(PROJECT.to_owned()),
        module: None,
        correlation_id: Some(short("corr-", id(&format!("workflow {step}")))),
        trace_id: Some(short("trace-", id("intent"))),
        event_id: Some(format!("evt-{}", id(&format!("command {step}")))),
        queue: None,
        wait: false,
        timeout: Duration::ZERO,
        wire: Wire::Raw,
        unchecked: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload_check;

    #[test]
    fn every_payload_is_one_that_a_person_could_send() {
        for (command, payload) in [
            ("ProvisionEnvironment", provision()),
            ("Deploy", deploy("env-3a6e1f0c", "1.4.1")),
            ("RollbackDeployment", rollback("env-3a6e1f0c", "dep-3a6e1f0c")),
        ] {
            assert_eq!(payload_check::problems(command, &payload), Vec::<String>::new(), "{command}");
        }
    }

    #[test]
    fn each_step_has_ids_of_its_own_and_the_same_ones_every_time() {
        let ids = |step| {
            let args = send_args(step, "Deploy");
            (args.event_id.unwrap(), args.correlation_id.unwrap(), args.trace_id.unwrap())
        };
        assert_eq!(ids(1), ids(1));
        let ((event, workflow, intent), other) = (ids(1), ids(2));
        assert_ne!(event, other.0);
        assert_ne!(workflow, other.1);
        assert_eq!(intent, other.2);
        assert!(event.starts_with("evt-") && event.len() == 40 && workflow.len() == 13 && intent.len() == 14);
    }
}
