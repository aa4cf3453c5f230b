//! The canonical envelope and the payload of every event, byte for byte.

use std::{collections::BTreeSet, fmt::Debug, path::Path};

use expect_test::expect_file;
use jiff::Timestamp;
use runtime_platform::{
    envelope::Envelope,
    events::*,
    ids::{DeploymentId, EnvironmentId, ServiceId},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn environment() -> EnvironmentId {
    "env-7d1f0c42".parse().unwrap()
}

fn deployment(id: &str) -> DeploymentId {
    id.parse().unwrap()
}

fn service() -> ServiceId {
    "svc-0b9e6a51".parse().unwrap()
}

/// The command that everything in the examples is caused by.
pub fn command() -> Envelope<Value> {
    Envelope {
        event_id: "evt-5a1b6a1e-8f0c-4d55-9d0a-2f6b7a1c9e11".parse().unwrap(),
        event_type: "Deploy".into(),
        tenant_id: "connectsoft".parse().unwrap(),
        project_id: Some("proj-booking-saas".parse().unwrap()),
        module_id: Some("module-reservations-api".parse().unwrap()),
        trace_id: "trace-5c2f9d1e".parse().unwrap(),
        correlation_id: "corr-81b4ce07".parse().unwrap(),
        causation_id: None,
        occurred_at: at("2026-03-02T10:15:30Z"),
        payload: json!({"environmentId": "env-7d1f0c42"}),
    }
}

/// One event of each kind, in the order of `EVENTS`.
pub fn examples() -> Vec<Event> {
    let mut events = of_environments();
    events.extend(of_deployments());
    events.extend(of_configuration_and_secrets());
    events.extend(of_health_scaling_and_drift());
    events.extend(answers());
    events
}

fn of_environments() -> Vec<Event> {
    vec![
        RuntimeEnvironmentProvisioned {
            environment_id: environment(),
            name: "booking-prod".into(),
            stage: "prod".into(),
            region: "westeurope".into(),
            isolation_model: "silo".into(),
            pulumi_stack_ref: None,
            compute_targets: vec!["container-apps".into(), "aks".into()],
            provisioned_at: at("2026-03-02T10:15:31.9Z"),
        }
        .into(),
        RuntimeTenantBound {
            tenant_binding_id: "tb-41d7aa90".into(),
            environment_id: environment(),
            isolation_model: "pool".into(),
            quota: Some(TenantQuota {
                max_replicas: Some(20),
                max_services: Some(5),
                cpu_millis: Some(8000),
                memory_mib: None,
            }),
            change: BindingChange::Created,
        }
        .into(),
        RuntimeEnvironmentDecommissioned {
            environment_id: environment(),
            decommissioned_at: at("2026-03-02T10:15:31Z"),
        }
        .into(),
        RuntimeInventoryUpdated {
            environment_id: environment(),
            service_id: service(),
            change: InventoryChange::Changed,
            status: RuntimeStatus::Running,
            image: "acr.azurecr.io/reservations-api:1.4.2".into(),
            version: Some("1.4.2".into()),
            replicas: 3,
        }
        .into(),
    ]
}

fn of_deployments() -> Vec<Event> {
    let (target, image) = ("container-apps".to_owned(), "acr.azurecr.io/reservations-api:1.4.2".to_owned());
    let previous_image = Some("acr.azurecr.io/reservations-api:1.4.1".to_owned());
    vec![
        RuntimeDeploymentRequested {
            deployment_id: deployment("dep-3a6e1f0c"),
            environment_id: environment(),
            target: target.clone(),
            image: image.clone(),
            previous_image: None,
            strategy: Strategy::BlueGreen,
            release_ref: Some("release-2026.9".into()),
        }
        .into(),
        RuntimeDeploymentCompleted {
            deployment_id: deployment("dep-3a6e1f0c"),
            environment_id: environment(),
            target: target.clone(),
            image: image.clone(),
            previous_image: previous_image.clone(),
            health_gate: HealthGateResult::Passed,
            strategy: Strategy::RollingHealthGated,
        }
        .into(),
        RuntimeDeploymentRolledBack {
            deployment_id: deployment("dep-3a6e1f0c"),
            environment_id: environment(),
            target,
            image,
            restored_deployment_id: Some(deployment("dep-77e0b2d4")),
            restored_image: previous_image,
            reason: RolledBackReason::GateFailed,
            health_gate: HealthGateResult::Failed,
        }
        .into(),
    ]
}

fn of_configuration_and_secrets() -> Vec<Event> {
    vec![
        ConfigurationPublished {
            configuration_id: "cfg-2c8d41f7".into(),
            environment_id: environment(),
            version: 7,
            content_hash: "sha256:9f86d081".into(),
            service_ids: vec![service()],
        }
        .into(),
        ConfigurationSynced {
            configuration_id: "cfg-2c8d41f7".into(),
            environment_id: environment(),
            version: 7,
            service_id: service(),
            content_hash: "sha256:9f86d081".into(),
        }
        .into(),
        SecretBound {
            secret_binding_id: "sb-6e13fd08".into(),
            environment_id: environment(),
            service_id: service(),
            secret_name: "reservations-db".into(),
            version: "5f1d8c220b774f0e".into(),
        }
        .into(),
        SecretRotated {
            secret_binding_id: "sb-6e13fd08".into(),
            environment_id: environment(),
            secret_name: "reservations-db".into(),
            previous_version: Some("5f1d8c220b774f0e".into()),
            new_version: "8a536c9f8e1b2d44".into(),
            rotated_at: at("2026-03-02T10:15:31Z"),
            reason: RotationReason::NearExpiry,
        }
        .into(),
    ]
}

fn of_health_scaling_and_drift() -> Vec<Event> {
    vec![
        HealthCheckCompleted {
            health_check_id: "hc-1b0c5d3e".into(),
            service_id: service(),
            environment_id: environment(),
            deployment_id: Some(deployment("dep-3a6e1f0c")),
            status: HealthStatus::Degraded,
            previous_status: None,
            checks: vec![CheckSummary {
                kind: CheckKind::Readiness,
                name: "/health".into(),
                status: HealthStatus::Degraded,
            }],
            window_start: at("2026-03-02T10:15:00Z"),
        }
        .into(),
        ScalingPolicyApplied {
            scaling_policy_id: "sp-90aa12bc".into(),
            service_id: service(),
            environment_id: environment(),
            from_replicas: 2,
            to_replicas: 4,
            direction: ScalingDirection::Up,
            reason: "CPU at 83 percent, 60 is the target.".into(),
        }
        .into(),
        RuntimeDriftDetected {
            finding_id: "drift-c4e2f019".into(),
            environment_id: environment(),
            service_id: None,
            kind: DriftKind::ResourceMissing,
            severity: DriftSeverity::High,
            desired: json!({"type": "Microsoft.KeyVault/vaults", "name": "kv-booking"}),
            actual: Value::Null,
            finding_hash: "sha256:2c26b46b".into(),
            auto_remediable: true,
        }
        .into(),
        RuntimeDriftResolved {
            finding_id: "drift-c4e2f019".into(),
            environment_id: environment(),
            service_id: None,
            kind: DriftKind::ResourceMissing,
            finding_hash: "sha256:2c26b46b".into(),
            resolution: DriftResolution::Remediated,
            resolved_at: at("2026-03-02T10:15:31Z"),
        }
        .into(),
    ]
}

fn answers() -> Vec<Event> {
    vec![
        RuntimeCommandFailed {
            command_id: "evt-5a1b6a1e-8f0c-4d55-9d0a-2f6b7a1c9e11".into(),
            command_type: "Deploy".into(),
            outcome: CommandOutcome::Rejected,
            reason_code: ReasonCode::EnvironmentNotFound,
            detail: "There is no environment `env-7d1f0c42`: provision it first.".into(),
            retryable: false,
        }
        .into(),
        RuntimeCommandCompleted {
            command_id: "evt-5a1b6a1e-8f0c-4d55-9d0a-2f6b7a1c9e11".into(),
            command_type: "ApplyScalingPolicy".into(),
            outcome: CompletionOutcome::NoChange,
            detail: "The policy is in force already.".into(),
        }
        .into(),
    ]
}

/// An event as the command above brings it about.
pub fn published(event: &Event) -> Envelope<Value> {
    let cause = command();
    let handled = runtime_platform::ids::Cause {
        tenant: &cause.tenant_id,
        environment: "env-7d1f0c42",
        function: "Example",
        event_id: cause.event_id.as_str(),
    };
    cause.brings_about(handled.event(event.event_type(), 0), event, at("2026-03-02T10:15:31.999Z"))
}

#[test]
fn every_event_is_published_as_its_golden_shows() {
    let events = examples();
    let named: Vec<_> = events.iter().map(Event::event_type).collect();
    assert_eq!(named, EVENTS, "one example of each event, in the order of EVENTS");
    for event in &events {
        let golden = format!("../golden/envelopes/{}.json", event.event_type());
        expect_file![golden].assert_eq(&format!("{}\n", published(event).canonical()));
    }
}

#[test]
fn every_golden_belongs_to_an_event() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/envelopes");
    let found: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, EVENTS.iter().map(|event| format!("{event}.json")).collect());
}

#[test]
fn the_goldens_hold_the_ten_fields_in_order() {
    const FIELDS: [&str; 10] = [
        "eventId",
        "eventType",
        "tenantId",
        "projectId",
        "moduleId",
        "traceId",
        "correlationId",
        "causationId",
        "occurredAt",
        "payload",
    ];
    for event in examples() {
        let Value::Object(read) = serde_json::from_str(&published(&event).canonical()).unwrap() else {
            panic!("an envelope is an object")
        };
        assert_eq!(read.keys().collect::<Vec<_>>(), FIELDS);
    }
}

#[test]
fn the_order_in_which_fields_arrive_does_not_matter() {
    let shuffled = r#"{"payload":{"b":1,"a":2},"occurredAt":"2026-03-02T11:15:30.75+01:00","colour":"red",
        "correlationId":"corr-1","traceId":"trace-1","tenantId":"acme","eventType":"Deploy","eventId":"evt-1"}"#;
    let envelope: Envelope<Value> = serde_json::from_str(shuffled).unwrap();
    assert_eq!(
        envelope.canonical(),
        concat!(
            r#"{"eventId":"evt-1","eventType":"Deploy","tenantId":"acme","projectId":null,"moduleId":null,"#,
            r#""traceId":"trace-1","correlationId":"corr-1","causationId":null,"#,
            r#""occurredAt":"2026-03-02T10:15:30Z","payload":{"b":1,"a":2}}"#
        )
    );
}

#[test]
fn an_event_carries_on_what_its_cause_carried() {
    let (cause, event) = (command(), published(&examples()[5]));
    assert_eq!(
        event,
        Envelope {
            event_id: event.event_id.clone(),
            event_type: "RuntimeDeploymentCompleted".into(),
            causation_id: Some(cause.event_id.to_string()),
            occurred_at: event.occurred_at,
            payload: examples()[5].payload(),
            ..cause
        }
    );
}

#[test]
fn five_events_are_promoted_and_all_have_the_first_schema() {
    let events = examples();
    let promoted: Vec<_> = events.iter().filter(|event| event.promoted()).map(Event::event_type).collect();
    assert_eq!(
        promoted,
        [
            "RuntimeEnvironmentProvisioned",
            "RuntimeDeploymentCompleted",
            "SecretRotated",
            "HealthCheckCompleted",
            "RuntimeDriftDetected"
        ]
    );
    assert!(events.iter().all(|event| event.schema_version() == "1"));
}

#[test]
fn every_event_has_the_topic_of_its_context() {
    let told: Vec<_> = examples().iter().map(|event| (event.event_type(), event.topic().name())).collect();
    assert_eq!(
        told,
        [
            ("RuntimeEnvironmentProvisioned", "runtime.environment"),
            ("RuntimeTenantBound", "runtime.environment"),
            ("RuntimeEnvironmentDecommissioned", "runtime.environment"),
            ("RuntimeInventoryUpdated", "runtime.environment"),
            ("RuntimeDeploymentRequested", "runtime.deployment"),
            ("RuntimeDeploymentCompleted", "runtime.deployment"),
            ("RuntimeDeploymentRolledBack", "runtime.deployment"),
            ("ConfigurationPublished", "runtime.configuration"),
            ("ConfigurationSynced", "runtime.configuration"),
            ("SecretBound", "runtime.secrets"),
            ("SecretRotated", "runtime.secrets"),
            ("HealthCheckCompleted", "runtime.health"),
            ("ScalingPolicyApplied", "runtime.scaling"),
            ("RuntimeDriftDetected", "runtime.drift"),
            ("RuntimeDriftResolved", "runtime.drift"),
            ("RuntimeCommandFailed", "runtime.deployment"),
            ("RuntimeCommandCompleted", "runtime.scaling"),
        ]
    );
}

#[test]
fn a_consumer_reads_a_payload_back_as_it_was() {
    fn again<P: Serialize + DeserializeOwned + Debug>(payload: &P) {
        let written = serde_json::to_value(payload).unwrap();
        let read: P = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), written);
        // Additions must not break who came earlier.
        let mut newer = written.clone();
        newer["aFieldOfTomorrow"] = json!(1);
        let read: P = serde_json::from_value(newer).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), written);
    }
    for event in examples() {
        match &event {
            Event::RuntimeEnvironmentProvisioned(payload) => again(payload),
            Event::RuntimeTenantBound(payload) => again(payload),
            Event::RuntimeEnvironmentDecommissioned(payload) => again(payload),
            Event::RuntimeInventoryUpdated(payload) => again(payload),
            Event::RuntimeDeploymentRequested(payload) => again(payload),
            Event::RuntimeDeploymentCompleted(payload) => again(payload),
            Event::RuntimeDeploymentRolledBack(payload) => again(payload),
            Event::ConfigurationPublished(payload) => again(payload),
            Event::ConfigurationSynced(payload) => again(payload),
            Event::SecretBound(payload) => again(payload),
            Event::SecretRotated(payload) => again(payload),
            Event::HealthCheckCompleted(payload) => again(payload),
            Event::ScalingPolicyApplied(payload) => again(payload),
            Event::RuntimeDriftDetected(payload) => again(payload),
            Event::RuntimeDriftResolved(payload) => again(payload),
            Event::RuntimeCommandFailed(payload) => again(payload),
            Event::RuntimeCommandCompleted(payload) => again(payload),
        }
    }
}
