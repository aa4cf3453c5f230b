//! `infra/messaging.json` against the events page and the rules for queues.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use runtime_platform::{
    local::service_bus::{Filter, Holding, Message, ServiceBus, Topology},
    ports::clock::SystemClock,
};
use serde_json::{Value, json};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const COMMAND_QUEUES: [&str; 9] = [
    "provision-environment",
    "deploy",
    "rollback-deployment",
    "publish-configuration",
    "bind-secret",
    "rotate-secret",
    "bind-tenant",
    "apply-scaling-policy",
    "remediate-drift",
];
const INTERNAL_QUEUES: [&str; 5] =
    ["continue-operation", "sweep", "redeliveries", "decommission-environment", "bind-tenant-view"];

/// Topic, subscriber, whether it is ours, and the events that it asks for.
const SUBSCRIPTIONS: [(&str, &str, bool, &[&str]); 23] = [
    (
        "runtime.environment",
        "control-plane",
        false,
        &[
            "RuntimeEnvironmentProvisioned",
            "RuntimeTenantBound",
            "RuntimeCommandFailed",
            "RuntimeCommandCompleted",
        ],
    ),
    ("runtime.environment", "governance", false, &["RuntimeEnvironmentProvisioned", "RuntimeTenantBound"]),
    (
        "runtime.environment",
        "service-catalog-runtime-service",
        true,
        &["RuntimeEnvironmentProvisioned", "RuntimeTenantBound"],
    ),
    (
        "runtime.deployment",
        "control-plane",
        false,
        &[
            "RuntimeDeploymentCompleted",
            "RuntimeDeploymentRequested",
            "RuntimeDeploymentRolledBack",
            "RuntimeCommandFailed",
            "RuntimeCommandCompleted",
        ],
    ),
    ("runtime.deployment", "observability", false, &["RuntimeDeploymentCompleted"]),
    ("runtime.deployment", "knowledge-platform", false, &["RuntimeDeploymentCompleted"]),
    ("runtime.deployment", "runtime-inventory-worker", true, &["RuntimeDeploymentCompleted"]),
    ("runtime.deployment", "drift-detection-worker", true, &["RuntimeDeploymentCompleted"]),
    (
        "runtime.configuration",
        "control-plane",
        false,
        &["ConfigurationPublished", "RuntimeCommandFailed", "RuntimeCommandCompleted"],
    ),
    ("runtime.configuration", "observability", false, &["ConfigurationSynced"]),
    ("runtime.configuration", "deployment-service", true, &["ConfigurationSynced"]),
    (
        "runtime.secrets",
        "control-plane",
        false,
        &["SecretBound", "SecretRotated", "RuntimeCommandFailed", "RuntimeCommandCompleted"],
    ),
    ("runtime.secrets", "governance", false, &["SecretRotated"]),
    ("runtime.secrets", "deployment-service", true, &["SecretRotated"]),
    ("runtime.health", "observability", false, &["HealthCheckCompleted"]),
    ("runtime.health", "scaling-policy-worker", true, &["HealthCheckCompleted"]),
    ("runtime.health", "drift-detection-worker", true, &["HealthCheckCompleted"]),
    (
        "runtime.scaling",
        "control-plane",
        false,
        &["ScalingPolicyApplied", "RuntimeCommandFailed", "RuntimeCommandCompleted"],
    ),
    ("runtime.scaling", "observability", false, &["ScalingPolicyApplied"]),
    ("runtime.scaling", "runtime-inventory-worker", true, &["ScalingPolicyApplied"]),
    ("runtime.drift", "observability", false, &["RuntimeDriftDetected"]),
    ("runtime.drift", "governance", false, &["RuntimeDriftDetected"]),
    ("runtime.drift", "deployment-service", true, &["RuntimeDriftDetected"]),
];

fn topology() -> Topology {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("infra/messaging.json");
    Topology::read(&file).unwrap_or_else(|errors| {
        panic!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })
}

fn holding(time_to_live_days: Option<u32>, is_dead_lettering: bool, forwards: bool) -> Holding {
    Holding {
        lock_duration: Duration::from_secs(60),
        max_delivery_count: 100,
        time_to_live: time_to_live_days.map(|days| DAY * days),
        dead_lettering_on_expiration: is_dead_lettering,
        forward_dead_lettered_messages_to: forwards.then(|| "dead-letters".to_owned()),
    }
}

#[test]
fn queues_hold_their_messages_as_agreed() {
    let expected: BTreeMap<String, (Holding, Option<Duration>)> = COMMAND_QUEUES
        .map(|name| (name, holding(Some(14), true, true), Some(DAY)))
        .into_iter()
        .chain(INTERNAL_QUEUES.map(|name| (name, holding(None, false, true), Some(DAY))))
        .chain([("dead-letters", holding(Some(30), false, false), None)])
        .map(|(name, holding, window)| (name.to_owned(), (holding, window)))
        .collect();
    let declared = topology();
    let declared = declared
        .queues()
        .iter()
        .map(|queue| (queue.name.clone(), (queue.holding.clone(), queue.duplicate_detection_window)));
    assert_eq!(declared.collect::<BTreeMap<_, _>>(), expected);
}

#[test]
fn subscribers_ask_for_the_events_of_the_events_page() {
    let topology = topology();
    let mut declared = Vec::new();
    for topic in topology.topics() {
        assert_eq!(topic.duplicate_detection_window, Some(DAY), "{}", topic.name);
        for subscription in &topic.subscriptions {
            let is_ours = subscription.holding.dead_lettering_on_expiration;
            let expected =
                if is_ours { holding(Some(14), true, true) } else { holding(Some(7), false, false) };
            assert_eq!(subscription.holding, expected, "{}/{}", topic.name, subscription.name);
            let events: Vec<&str> = subscription.rules.iter().map(|rule| event_type(&rule.filter)).collect();
            let names: Vec<&str> = subscription.rules.iter().map(|rule| rule.name.as_str()).collect();
            assert_eq!(
                (names[0], &names[1..]),
                ("$Default", &events[1..]),
                "rules are named after their events"
            );
            declared.push((topic.name.clone(), subscription.name.clone(), is_ours, events.join(" ")));
        }
    }
    let expected = SUBSCRIPTIONS
        .map(|(topic, name, is_ours, events)| (topic.to_owned(), name.to_owned(), is_ours, events.join(" ")));
    assert_eq!(declared.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(expected));
}

fn event_type(filter: &Filter) -> &str {
    match filter {
        Filter::Correlation(filter) => filter.properties["cs-event-type"].as_str().expect("a text"),
        Filter::Sql(filter) => panic!("{} could be a correlation filter", filter.text()),
    }
}

#[tokio::test]
async fn workers_hear_of_transitions_only() {
    let directory = tempfile::tempdir().unwrap();
    let bus =
        ServiceBus::open(&directory.path().join("bus.sqlite"), topology(), Arc::new(SystemClock)).unwrap();
    let health = |change: &str| Message {
        message_id: change.to_owned(),
        properties: BTreeMap::from([
            ("cs-event-type".to_owned(), Value::from("HealthCheckCompleted")),
            ("cs-change".to_owned(), Value::from(change)),
        ]),
        ..Message::default()
    };
    bus.send("runtime.health", vec![health("transition"), health("heartbeat")]).await.unwrap();
    let counts = bus.counts().await.unwrap();
    let heard = counts
        .into_iter()
        .filter(|(_, counts)| *counts != (0, 0, 0))
        .map(|(path, (active, ..))| (path, active));
    let expected = [
        ("runtime.health/Subscriptions/drift-detection-worker".to_owned(), 1),
        ("runtime.health/Subscriptions/observability".to_owned(), 2),
        ("runtime.health/Subscriptions/scaling-policy-worker".to_owned(), 1),
    ];
    assert_eq!(heard.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_tenant_can_be_given_a_subscription() {
    let events = ["SecretRotated"];
    let topology = topology().with_tenant_subscription("runtime.secrets", "audit", "acme", &events).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let bus =
        ServiceBus::open(&directory.path().join("bus.sqlite"), topology, Arc::new(SystemClock)).unwrap();
    for tenant in ["acme", "other"] {
        let message = Message {
            message_id: tenant.to_owned(),
            properties: BTreeMap::from([
                ("cs-event-type".to_owned(), json!("SecretRotated")),
                ("cs-tenant-id".to_owned(), json!(tenant)),
            ]),
            ..Message::default()
        };
        bus.send("runtime.secrets", vec![message]).await.unwrap();
    }
    let received = bus.take("runtime.secrets/Subscriptions/audit-acme", 10, Duration::ZERO).await.unwrap();
    let ids: Vec<_> = received.iter().map(|received| received.message.message_id.as_str()).collect();
    assert_eq!(ids, ["acme"]);
}
