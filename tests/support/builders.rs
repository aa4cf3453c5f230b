//! Commands as their senders write them: the smallest good one, to be changed by a test.

use std::collections::BTreeMap;

use runtime_platform::{
    events::queue_name,
    ids::{self, EnvironmentId, ServiceId},
    ports::{bus::Outgoing, store::Partition, vault::SecretRef},
    services::secret_binding_service::SecretBinding,
};
use serde_json::{Value, json};
use uuid::Uuid;

pub const TENANT: &str = "connectsoft";
pub const PROJECT: &str = "proj-booking-saas";
pub const MODULE: &str = "module-reservations-api";
/// Registry and repository of the image that is deployed.
pub const IMAGE: &str = "acr.azurecr.io/reservations-api";

/// A command on its way to its queue.
#[derive(Clone, Debug)]
pub struct Order {
    pub event_id: String,
    pub event_type: String,
    pub queue: String,
    pub tenant: String,
    pub project: Option<String>,
    pub payload: Value,
    pub properties: BTreeMap<String, String>,
    /// What the sender's transport calls the message; the same one is dropped by the broker.
    pub message_id: String,
    /// When the sender gives up, in a MassTransit envelope.
    pub expiration_time: Option<String>,
    /// In place of the envelope.
    pub body: Option<Vec<u8>>,
}

impl Order {
    pub fn new(event_id: &str, event_type: &str, payload: Value) -> Self {
        Self {
            event_id: event_id.into(),
            event_type: event_type.into(),
            queue: queue_name(event_type),
            tenant: TENANT.into(),
            project: Some(PROJECT.into()),
            payload,
            properties: BTreeMap::new(),
            message_id: Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{event_type} {event_id}").as_bytes())
                .to_string(),
            expiration_time: None,
            body: None,
        }
    }

    /// The same command in another message, as a sender that is not sure sends it.
    pub fn again(&self) -> Self {
        Self { message_id: format!("{}-again", self.message_id), ..self.clone() }
    }

    /// The same command with a member of its payload set, by pointer.
    pub fn with(mut self, pointer: &str, value: Value) -> Self {
        *self.payload.pointer_mut(pointer).expect("the member is there") = value;
        self
    }

    pub fn of(self, tenant: &str) -> Self {
        Self { tenant: tenant.into(), ..self }
    }

    /// The canonical envelope.
    pub fn envelope(&self) -> Value {
        json!({
            "eventId": self.event_id,
            "eventType": self.event_type,
            "tenantId": self.tenant,
            "projectId": self.project,
            "moduleId": null,
            "traceId": "trace-1",
            "correlationId": format!("corr-{}", self.event_id),
            "causationId": null,
            "occurredAt": "2026-03-02T10:14:59Z",
            "payload": self.payload,
        })
    }

    /// The message as the broker takes it.
    pub fn message(&self) -> Outgoing {
        let wrapped = self.expiration_time.as_ref().map(|until| {
            json!({
                "messageId": self.message_id,
                "messageType": ["urn:message:cs:event-envelope:v1"],
                "message": self.envelope(),
                "expirationTime": until,
            })
        });
        let content_type =
            if wrapped.is_some() { "application/vnd.masstransit+json" } else { "application/json" };
        let body = wrapped.unwrap_or_else(|| self.envelope()).to_string().into_bytes();
        Outgoing {
            entity: self.queue.clone(),
            message_id: self.message_id.clone(),
            content_type: content_type.into(),
            body: self.body.clone().unwrap_or(body),
            properties: self.properties.clone(),
            session_id: None,
            correlation_id: None,
            subject: None,
            scheduled_at: None,
            time_to_live: None,
        }
    }
}

/// The environment that [`provision`] makes.
pub fn environment() -> EnvironmentId {
    EnvironmentId::derived(&TENANT.parse().unwrap(), &PROJECT.parse().unwrap(), "test", 0)
}

pub fn provision(event_id: &str) -> Order {
    let payload = json!({
        "name": "test",
        "stage": "test",
        "region": "westeurope",
        "isolationModel": "shared",
        "computeTargets": ["container-apps"],
    });
    Order::new(event_id, "ProvisionEnvironment", payload)
}

/// Binds a tenant to the environment that [`provision`] makes, without a quota.
pub fn bind(event_id: &str, tenant: &str, model: &str) -> Order {
    let payload = json!({
        "environmentId": environment(),
        "boundTenantId": tenant,
        "isolationModel": model,
        "quota": null,
    });
    Order::new(event_id, "BindTenant", payload)
}

/// A Deploy of a version of [`IMAGE`], with a gate of two samples.
pub fn deploy(event_id: &str, version: &str) -> Order {
    let payload = json!({
        "environmentId": environment(),
        "releaseRef": format!("rel-{version}"),
        "strategy": "RollingHealthGated",
        "healthGate": {
            "path": "/health",
            "initialDelaySeconds": 1,
            "intervalSeconds": 2,
            "bakeSeconds": 2,
            "consecutiveSuccess": 2,
            "count": 5,
            "readinessDeadlineSeconds": 60,
        },
        "workloads": [{
            "moduleId": MODULE,
            "componentType": "microservice",
            "image": format!("{IMAGE}:{version}"),
            "target": "container-apps",
        }],
    });
    Order::new(event_id, "Deploy", payload)
}

/// Rolls the workload's newest deployment back.
pub fn rollback(event_id: &str) -> Order {
    let payload = json!({ "environmentId": environment(), "moduleId": MODULE, "reason": "too slow" });
    Order::new(event_id, "RollbackDeployment", payload)
}

/// Rolls one deployment back.
pub fn rollback_of(event_id: &str, deployment_id: &str) -> Order {
    let payload =
        json!({ "environmentId": environment(), "deploymentId": deployment_id, "reason": "too slow" });
    Order::new(event_id, "RollbackDeployment", payload)
}

/// Puts a finding right; `mode` is `Auto` or `Manual`.
pub fn remediate(event_id: &str, finding: &str, mode: &str) -> Order {
    let payload = json!({ "environmentId": environment(), "findingId": finding, "mode": mode });
    Order::new(event_id, "RemediateDrift", payload)
}

/// The settings of the environment, all of them.
pub fn publish_configuration(event_id: &str, settings: Value) -> Order {
    let payload = json!({ "environmentId": environment(), "settings": settings });
    Order::new(event_id, "PublishConfiguration", payload)
}

/// The address of the environment's own vault.
pub fn vault() -> String {
    let environment = environment();
    let name = ["azure-vault", "00000000-0000-0000-0000-00000000c105", TENANT, environment.as_str()];
    format!("https://kv-{}.vault.azure.net", &ids::derive(&name).simple().to_string()[..20])
}

/// Binds the workload to a secret that the platform generates where there is none.
pub fn bind_secret(event_id: &str, secret_name: &str) -> Order {
    let payload = json!({
        "environmentId": environment(),
        "moduleId": MODULE,
        "secretName": secret_name,
        "vaultUri": vault(),
        "source": "Generated",
        "rotationIntervalDays": 90,
    });
    Order::new(event_id, "BindSecret", payload)
}

/// The module of a second workload.
pub const OTHER_MODULE: &str = "module-billing-api";

/// A Deploy of the second workload.
pub fn deploy_other(event_id: &str, version: &str) -> Order {
    deploy(event_id, version)
        .with("/workloads/0/moduleId", json!(OTHER_MODULE))
        .with("/workloads/0/image", json!(format!("acr.azurecr.io/billing-api:{version}")))
}

/// Binds the second workload.
pub fn bind_secret_other(event_id: &str, secret_name: &str) -> Order {
    bind_secret(event_id, secret_name).with("/moduleId", json!(OTHER_MODULE))
}

/// A secret in the environment's own vault.
pub fn secret(name: &str) -> SecretRef {
    SecretRef { vault_uri: vault(), name: name.into() }
}

/// The id of a module's binding.
pub fn binding(module: &str, secret_name: &str) -> String {
    let partition = Partition::environment(&TENANT.parse().unwrap(), environment().as_str());
    SecretBinding::id(&partition, &module.parse().unwrap(), &secret(secret_name))
}

/// Rotates the secret of the workload's binding.
pub fn rotate(event_id: &str, secret_name: &str, reason: &str) -> Order {
    let payload = json!({
        "environmentId": environment(),
        "secretBindingId": binding(MODULE, secret_name),
        "reason": reason,
        "version": null,
    });
    Order::new(event_id, "RotateSecret", payload)
}

/// The service of the workload that [`deploy`] deploys, as a tenant has it.
pub fn service(tenant: &str) -> ServiceId {
    ServiceId::derived(&tenant.parse().unwrap(), &environment(), &MODULE.parse().unwrap())
}

/// Scales the workload by a kind between two bounds; `more` are members beside them.
pub fn scale(event_id: &str, kind: &str, (min, max): (u32, u32), more: Value) -> Order {
    let mut payload = json!({
        "environmentId": environment(),
        "serviceId": service(TENANT),
        "kind": kind,
        "minReplicas": min,
        "maxReplicas": max,
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        payload[name] = value.clone();
    }
    Order::new(event_id, "ApplyScalingPolicy", payload)
}
