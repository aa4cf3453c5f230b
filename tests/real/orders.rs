//! Commands as the suites send them.

use runtime_platform::events::queue_name;
use serde_json::{Value, json};
use uuid::Uuid;

pub const TENANT: &str = "connectsoft";
/// No environment has this id: it derives from no name.
pub const NO_ENVIRONMENT: &str = "env-00000000";

/// A command, and what it is known by.
#[derive(Clone, Debug)]
pub struct Order {
    pub kind: String,
    pub queue: String,
    pub event_id: String,
    pub correlation_id: String,
    pub envelope: Value,
}

impl Order {
    pub fn new(kind: &str, payload: Value) -> Self {
        let event_id = format!("evt-{}", Uuid::new_v4());
        let correlation_id = format!("corr-{}", Uuid::new_v4().simple());
        let envelope = json!({
            "eventId": event_id,
            "eventType": kind,
            "tenantId": TENANT,
            "projectId": "proj-booking-saas",
            "moduleId": payload["workloads"][0]["moduleId"],
            "traceId": "trace-real",
            "correlationId": correlation_id,
            "causationId": null,
            "occurredAt": "2026-03-02T10:15:30Z",
            "payload": payload,
        });
        Self { kind: kind.to_owned(), queue: queue_name(kind), event_id, correlation_id, envelope }
    }

    /// The same command with a member of the envelope changed; null takes it away.
    pub fn with(mut self, member: &str, value: Value) -> Self {
        let envelope = self.envelope.as_object_mut().unwrap();
        if value.is_null() {
            envelope.remove(member);
        } else {
            envelope.insert(member.to_owned(), value);
        }
        self
    }
}

pub fn provision(name: &str) -> Order {
    Order::new(
        "ProvisionEnvironment",
        json!({ "name": name, "stage": "staging", "region": "westeurope", "computeTargets": ["container-apps"] }),
    )
}

/// A Deploy's payload, with a gate that is through in a second.
pub fn deploy_payload(environment: &str, module: &str, image: &str) -> Value {
    json!({
        "environmentId": environment,
        "strategy": "BlueGreen",
        "healthGate": {
            "path": "/health",
            "readinessDeadlineSeconds": 30,
            "initialDelaySeconds": 0,
            "intervalSeconds": 0.2,
            "timeoutSeconds": 2,
            "bakeSeconds": 0,
            "count": 10,
            "failureLimit": 1,
            "consecutiveSuccess": 2,
        },
        "workloads": [{
            "moduleId": module,
            "componentType": "microservice",
            "image": image,
            "target": "container-apps",
            "port": 8080,
        }],
    })
}

pub fn deploy(environment: &str, module: &str, image: &str) -> Order {
    Order::new("Deploy", deploy_payload(environment, module, image))
}
