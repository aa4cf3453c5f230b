//! What the demo sends: the commands of the stories, with ids that are the same every time, so that
//! what one run prints can be looked up in the next.

use std::{path::PathBuf, time::Duration};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::cli::{SendArgs, Wire};

pub const TENANT: &str = "connectsoft";
pub const PROJECT: &str = "proj-booking-saas";
/// No environment has this id: it derives from no name that the demo uses.
pub const NO_ENVIRONMENT: &str = "env-00000000";
/// The secret that the workloads read.
pub const SECRET: &str = "db-password";
/// What the scaling policy allows, and the requests at a time that it wants for each replica.
pub const REPLICAS_MAX: u32 = 3;
pub const REQUESTS_AT_A_TIME: u32 = 4;

/// A workload of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    Reservations,
    /// Answers after a while, as what has to ask others does.
    Billing,
}

impl Service {
    /// The repository of its image, which is the name of its app too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reservations => "reservations-api",
            Self::Billing => "billing-api",
        }
    }

    pub fn module(self) -> String {
        format!("module-{}", self.name())
    }

    /// The image of one of its versions.
    pub fn image(self, version: &str) -> String {
        format!("acr.azurecr.io/{}:{version}", self.name())
    }
}

pub fn provision() -> Value {
    json!({
        "name": "staging",
        "stage": "staging",
        "region": "westeurope",
        "isolationModel": "silo",
        "computeTargets": ["container-apps"],
    })
}

pub fn bind_tenant(environment_id: &str, tenant: &str) -> Value {
    json!({
        "environmentId": environment_id,
        "boundTenantId": tenant,
        "isolationModel": "silo",
        "quota": { "maxServices": 5, "maxReplicas": 60 },
    })
}

/// Settings of which workloads tell `RELEASE_NOTES_VERSION` to whoever asks.
pub fn settings(version: &str) -> Value {
    json!({ "GREETING": "hello", "RELEASE_NOTES_VERSION": version })
}

/// A version of the configuration, made from the `expected` one.
pub fn publish(environment_id: &str, expected: u64, settings: &Value) -> Value {
    json!({ "environmentId": environment_id, "expectedVersion": expected, "settings": settings })
}

pub fn bind_secret(environment_id: &str, service: Service, vault_uri: &str) -> Value {
    json!({
        "environmentId": environment_id,
        "moduleId": service.module(),
        "secretName": SECRET,
        "vaultUri": vault_uri,
        "source": "Generated",
        "rotationIntervalDays": 90,
    })
}

pub fn rotate(environment_id: &str, secret_binding_id: &str) -> Value {
    json!({ "environmentId": environment_id, "secretBindingId": secret_binding_id, "reason": "Manual" })
}

pub fn scale(environment_id: &str, service_id: &str) -> Value {
    json!({
        "environmentId": environment_id,
        "serviceId": service_id,
        "kind": "RequestRate",
        "minReplicas": 1,
        "maxReplicas": REPLICAS_MAX,
        "target": REQUESTS_AT_A_TIME,
    })
}

/// A Deploy with a gate that is through in seconds.
pub fn deploy(environment_id: &str, service: Service, version: &str) -> Value {
    json!({
        "environmentId": environment_id,
        "releaseRef": format!("{}-{version}", service.name()),
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
            "moduleId": service.module(),
            "componentType": "microservice",
            "image": service.image(version),
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

/// How a command is sent, by its place: all of one run belong to one intent, each is a workflow of its
/// own.
pub fn send_args(place: &str, command: &str) -> SendArgs {
    let id = |what: &str| Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("runtimectl demo {what}").as_bytes());
    let short = |prefix: &str, id: Uuid| format!("{prefix}{}", &id.simple().to_string()[..8]);
    SendArgs {
        command: command.to_owned(),
        file: PathBuf::from("demo"),
        project: Some(PROJECT.to_owned()),
        module: None,
        correlation_id: Some(short("corr-", id(&format!("workflow {place}")))),
        trace_id: Some(short("trace-", id("intent"))),
        event_id: Some(format!("evt-{}", id(&format!("command {place}")))),
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
        let id = "env-3a6e1f0c";
        for (command, payload) in [
            ("ProvisionEnvironment", provision()),
            ("BindTenant", bind_tenant(id, TENANT)),
            ("PublishConfiguration", publish(id, 0, &settings("1"))),
            ("BindSecret", bind_secret(id, Service::Reservations, "https://kv-1.vault.azure.net")),
            ("RotateSecret", rotate(id, "sb-3a6e1f0c")),
            ("ApplyScalingPolicy", scale(id, "svc-3a6e1f0c")),
            ("Deploy", deploy(id, Service::Billing, "1.4.1")),
            ("RollbackDeployment", rollback(id, "dep-3a6e1f0c")),
        ] {
            assert_eq!(payload_check::problems(command, &payload), Vec::<String>::new(), "{command}");
        }
    }

    #[test]
    fn each_command_has_ids_of_its_own_and_the_same_ones_every_time() {
        let ids = |place| {
            let args = send_args(place, "Deploy");
            (args.event_id.unwrap(), args.correlation_id.unwrap(), args.trace_id.unwrap())
        };
        assert_eq!(ids("release 1"), ids("release 1"));
        let ((event, workflow, intent), other) = (ids("release 1"), ids("release 2"));
        assert_ne!(event, other.0);
        assert_ne!(workflow, other.1);
        assert_eq!(intent, other.2);
        assert!(event.starts_with("evt-") && event.len() == 40 && workflow.len() == 13 && intent.len() == 14);
    }
}
