//! Who gets what: every event, for two tenants, through the broker that `infra/messaging.json` declares.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::Path,
    sync::Arc,
    time::Duration,
};

use expect_test::expect;
use proptest::prelude::*;
use runtime_platform::{
    envelope::Envelope,
    events::{COMMANDS, Event, RuntimeCommandCompleted, RuntimeCommandFailed, Topic},
    ids::derive,
    ledger::Change,
    local::service_bus::{Message, ServiceBus, Topology},
    masstransit::{self, WireFormat},
    ports::clock::SystemClock,
};
use serde_json::Value;

use super::envelope::{examples, published};

const TENANTS: [&str; 2] = ["connectsoft", "acme"];
/// More than anything here sends to one subscription.
const MESSAGES_MAX: usize = 256;

fn declared() -> Topology {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("infra/messaging.json");
    Topology::read(&file).expect("the file is good")
}

/// A broker and the directory that it lives in.
fn open(topology: Topology) -> (ServiceBus, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bus.sqlite");
    (ServiceBus::open(&file, topology, Arc::new(SystemClock)).unwrap(), directory)
}

/// Everything that the platform may publish: each event, the two answers once for each command, and a
/// health check both ways. The name is what the table calls it.
fn everything() -> Vec<(String, Event, Option<Change>)> {
    let mut all = Vec::new();
    for event in examples() {
        let name = event.event_type().to_owned();
        match &event {
            Event::RuntimeCommandFailed(answer) => all.extend(COMMANDS.map(|command| {
                let answer = RuntimeCommandFailed { command_type: command.to_owned(), ..answer.clone() };
                (format!("{name} of {command}"), answer.into(), None)
            })),
            Event::RuntimeCommandCompleted(answer) => all.extend(COMMANDS.map(|command| {
                let answer = RuntimeCommandCompleted { command_type: command.to_owned(), ..answer.clone() };
                (format!("{name} of {command}"), answer.into(), None)
            })),
            Event::HealthCheckCompleted(_) => {
                all.extend(
                    [Change::Transition, Change::Heartbeat]
                        .map(|change| (format!("{name} ({})", change.as_str()), event.clone(), Some(change))),
                );
            }
            _ => all.push((name, event, None)),
        }
    }
    all
}

/// An event as the outbox sends it for a tenant. `name` makes its message id.
fn message(tenant: &str, name: &str, event: &Event, change: Option<Change>) -> Message {
    let envelope: Envelope<Value> = Envelope { tenant_id: tenant.parse().unwrap(), ..published(event) };
    let sent = masstransit::publish(
        &envelope,
        event.schema_version(),
        WireFormat::MassTransit,
        Some(1),
        None,
        event.topic().name(),
        "sb.localhost",
    );
    let mut properties: BTreeMap<String, Value> =
        sent.properties.into_iter().map(|(name, value)| (name, Value::from(value))).collect();
    properties.extend(change.map(|change| ("cs-change".to_owned(), Value::from(change.as_str()))));
    Message {
        message_id: derive(&["subscriptions", tenant, name]).to_string(),
        content_type: Some(sent.content_type.to_owned()),
        subject: Some(name.to_owned()),
        properties,
        body: sent.body,
        ..Message::default()
    }
}

/// What waits at a subscription: name of the event, and how many of each tenant.
async fn got(bus: &ServiceBus, path: &str) -> BTreeMap<String, [usize; 2]> {
    let mut got: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    for received in bus.take(path, MESSAGES_MAX, Duration::ZERO).await.unwrap() {
        let tenant = received.message.properties["cs-tenant-id"].as_str().unwrap();
        let place = TENANTS.iter().position(|known| *known == tenant).expect("one of the two");
        got.entry(received.message.subject.expect("its name")).or_default()[place] += 1;
    }
    got
}

#[tokio::test]
async fn every_subscription_gets_what_it_asks_for_of_every_tenant_and_nothing_else() {
    let topology = declared();
    let (bus, _directory) = open(topology.clone());
    let all = everything();
    for tenant in TENANTS {
        for (name, event, change) in &all {
            bus.send(event.topic().name(), vec![message(tenant, name, event, *change)]).await.unwrap();
        }
    }
    let mut told = String::new();
    let mut subscriptions = 0;
    for topic in Topic::ALL {
        let sent: BTreeSet<&str> = all
            .iter()
            .filter(|(_, event, _)| event.topic() == topic)
            .map(|(name, ..)| name.as_str())
            .collect();
        writeln!(told, "{}", topic.name()).unwrap();
        let declared = topology.topics().iter().find(|declared| declared.name == topic.name()).unwrap();
        for subscription in &declared.subscriptions {
            subscriptions += 1;
            let got = got(&bus, &format!("{}/Subscriptions/{}", topic.name(), subscription.name)).await;
            writeln!(told, "  {}", subscription.name).unwrap();
            for name in &sent {
                let [first, second] = got.get(*name).copied().unwrap_or_default();
                writeln!(told, "    {first}+{second} {name}").unwrap();
            }
            assert!(got.keys().all(|name| sent.contains(name.as_str())), "{got:?}");
        }
    }
    assert_eq!(subscriptions, 23, "the subscriptions of the events page");
    assert_eq!(topology.topics().len(), Topic::ALL.len(), "no topic is beside those of the contexts");
    expect![[r#"
        runtime.environment
          control-plane
            1+1 RuntimeCommandCompleted of BindTenant
            1+1 RuntimeCommandCompleted of ProvisionEnvironment
            1+1 RuntimeCommandFailed of BindTenant
            1+1 RuntimeCommandFailed of ProvisionEnvironment
            0+0 RuntimeEnvironmentDecommissioned
            1+1 RuntimeEnvironmentProvisioned
            0+0 RuntimeInventoryUpdated
            1+1 RuntimeTenantBound
          governance
            0+0 RuntimeCommandCompleted of BindTenant
            0+0 RuntimeCommandCompleted of ProvisionEnvironment
            0+0 RuntimeCommandFailed of BindTenant
            0+0 RuntimeCommandFailed of ProvisionEnvironment
            0+0 RuntimeEnvironmentDecommissioned
            1+1 RuntimeEnvironmentProvisioned
            0+0 RuntimeInventoryUpdated
            1+1 RuntimeTenantBound
          service-catalog-runtime-service
            0+0 RuntimeCommandCompleted of BindTenant
            0+0 RuntimeCommandCompleted of ProvisionEnvironment
            0+0 RuntimeCommandFailed of BindTenant
            0+0 RuntimeCommandFailed of ProvisionEnvironment
            0+0 RuntimeEnvironmentDecommissioned
            1+1 RuntimeEnvironmentProvisioned
            0+0 RuntimeInventoryUpdated
            1+1 RuntimeTenantBound
        runtime.deployment
          control-plane
            1+1 RuntimeCommandCompleted of Deploy
            1+1 RuntimeCommandCompleted of RemediateDrift
            1+1 RuntimeCommandCompleted of RollbackDeployment
            1+1 RuntimeCommandFailed of Deploy
            1+1 RuntimeCommandFailed of RemediateDrift
            1+1 RuntimeCommandFailed of RollbackDeployment
            1+1 RuntimeDeploymentCompleted
            1+1 RuntimeDeploymentRequested
            1+1 RuntimeDeploymentRolledBack
          observability
            0+0 RuntimeCommandCompleted of Deploy
            0+0 RuntimeCommandCompleted of RemediateDrift
            0+0 RuntimeCommandCompleted of RollbackDeployment
            0+0 RuntimeCommandFailed of Deploy
            0+0 RuntimeCommandFailed of RemediateDrift
            0+0 RuntimeCommandFailed of RollbackDeployment
            1+1 RuntimeDeploymentCompleted
            0+0 RuntimeDeploymentRequested
            0+0 RuntimeDeploymentRolledBack
          knowledge-platform
            0+0 RuntimeCommandCompleted of Deploy
            0+0 RuntimeCommandCompleted of RemediateDrift
            0+0 RuntimeCommandCompleted of RollbackDeployment
            0+0 RuntimeCommandFailed of Deploy
            0+0 RuntimeCommandFailed of RemediateDrift
            0+0 RuntimeCommandFailed of RollbackDeployment
            1+1 RuntimeDeploymentCompleted
            0+0 RuntimeDeploymentRequested
            0+0 RuntimeDeploymentRolledBack
          runtime-inventory-worker
            0+0 RuntimeCommandCompleted of Deploy
            0+0 RuntimeCommandCompleted of RemediateDrift
            0+0 RuntimeCommandCompleted of RollbackDeployment
            0+0 RuntimeCommandFailed of Deploy
            0+0 RuntimeCommandFailed of RemediateDrift
            0+0 RuntimeCommandFailed of RollbackDeployment
            1+1 RuntimeDeploymentCompleted
            0+0 RuntimeDeploymentRequested
            0+0 RuntimeDeploymentRolledBack
          drift-detection-worker
            0+0 RuntimeCommandCompleted of Deploy
            0+0 RuntimeCommandCompleted of RemediateDrift
            0+0 RuntimeCommandCompleted of RollbackDeployment
            0+0 RuntimeCommandFailed of Deploy
            0+0 RuntimeCommandFailed of RemediateDrift
            0+0 RuntimeCommandFailed of RollbackDeployment
            1+1 RuntimeDeploymentCompleted
            0+0 RuntimeDeploymentRequested
            0+0 RuntimeDeploymentRolledBack
        runtime.configuration
          control-plane
            1+1 ConfigurationPublished
            0+0 ConfigurationSynced
            1+1 RuntimeCommandCompleted of PublishConfiguration
            1+1 RuntimeCommandFailed of PublishConfiguration
          observability
            0+0 ConfigurationPublished
            1+1 ConfigurationSynced
            0+0 RuntimeCommandCompleted of PublishConfiguration
            0+0 RuntimeCommandFailed of PublishConfiguration
          deployment-service
            0+0 ConfigurationPublished
            1+1 ConfigurationSynced
            0+0 RuntimeCommandCompleted of PublishConfiguration
            0+0 RuntimeCommandFailed of PublishConfiguration
        runtime.secrets
          control-plane
            1+1 RuntimeCommandCompleted of BindSecret
            1+1 RuntimeCommandCompleted of RotateSecret
            1+1 RuntimeCommandFailed of BindSecret
            1+1 RuntimeCommandFailed of RotateSecret
            1+1 SecretBound
            1+1 SecretRotated
          governance
            0+0 RuntimeCommandCompleted of BindSecret
            0+0 RuntimeCommandCompleted of RotateSecret
            0+0 RuntimeCommandFailed of BindSecret
            0+0 RuntimeCommandFailed of RotateSecret
            0+0 SecretBound
            1+1 SecretRotated
          deployment-service
            0+0 RuntimeCommandCompleted of BindSecret
            0+0 RuntimeCommandCompleted of RotateSecret
            0+0 RuntimeCommandFailed of BindSecret
            0+0 RuntimeCommandFailed of RotateSecret
            0+0 SecretBound
            1+1 SecretRotated
        runtime.health
          observability
            1+1 HealthCheckCompleted (heartbeat)
            1+1 HealthCheckCompleted (transition)
          scaling-policy-worker
            0+0 HealthCheckCompleted (heartbeat)
            1+1 HealthCheckCompleted (transition)
          drift-detection-worker
            0+0 HealthCheckCompleted (heartbeat)
            1+1 HealthCheckCompleted (transition)
        runtime.scaling
          control-plane
            1+1 RuntimeCommandCompleted of ApplyScalingPolicy
            1+1 RuntimeCommandFailed of ApplyScalingPolicy
            1+1 ScalingPolicyApplied
          observability
            0+0 RuntimeCommandCompleted of ApplyScalingPolicy
            0+0 RuntimeCommandFailed of ApplyScalingPolicy
            1+1 ScalingPolicyApplied
          runtime-inventory-worker
            0+0 RuntimeCommandCompleted of ApplyScalingPolicy
            0+0 RuntimeCommandFailed of ApplyScalingPolicy
            1+1 ScalingPolicyApplied
        runtime.drift
          observability
            1+1 RuntimeDriftDetected
            0+0 RuntimeDriftResolved
          governance
            1+1 RuntimeDriftDetected
            0+0 RuntimeDriftResolved
          deployment-service
            1+1 RuntimeDriftDetected
            0+0 RuntimeDriftResolved
    "#]]
    .assert_eq(&told);
}

/// The subscriptions of a subscriber on every topic for each tenant, for these events.
fn per_tenant(asked: &BTreeSet<usize>) -> Topology {
    let all = everything();
    let mut topology = declared();
    for topic in Topic::ALL {
        let types: BTreeSet<&str> = asked
            .iter()
            .filter_map(|place| all.get(*place))
            .filter(|(_, event, _)| event.topic() == topic)
            .map(|(_, event, _)| event.event_type())
            .collect();
        let types: Vec<&str> = types.into_iter().collect();
        if types.is_empty() {
            continue;
        }
        for tenant in TENANTS {
            topology = topology.with_tenant_subscription(topic.name(), "audit", tenant, &types).unwrap();
        }
    }
    topology
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Delivered where, and only where, the rule and the tenant match.
    #[test]
    fn a_tenants_subscription_gets_its_own_events_and_no_others(
        asked in prop::collection::btree_set(0..everything().len(), 1..8),
        sent in prop::collection::vec((0..everything().len(), 0..TENANTS.len()), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let all = everything();
        let topology = per_tenant(&asked);
        let asked_types: BTreeSet<(Topic, &str)> =
            asked.iter().map(|place| (all[*place].1.topic(), all[*place].1.event_type())).collect();
        // A message that is sent twice counts once, as a topic's duplicate detection has it.
        let sent: BTreeSet<(usize, usize)> = sent.into_iter().collect();
        runtime.block_on(async {
            let (bus, _directory) = open(topology);
            for (place, tenant) in &sent {
                let (name, event, change) = &all[*place];
                let message = message(TENANTS[*tenant], name, event, *change);
                bus.send(event.topic().name(), vec![message]).await.unwrap();
            }
            let topics: BTreeSet<Topic> = asked_types.iter().map(|(topic, _)| *topic).collect();
            for topic in &topics {
                for (place, tenant) in TENANTS.iter().enumerate() {
                    let got = got(&bus, &format!("{}/Subscriptions/audit-{tenant}", topic.name())).await;
                    let expected: BTreeMap<String, [usize; 2]> = sent
                        .iter()
                        .filter(|(_, whose)| *whose == place)
                        .map(|(what, _)| &all[*what])
                        .filter(|(_, event, _)| {
                            event.topic() == *topic && asked_types.contains(&(*topic, event.event_type()))
                        })
                        .map(|(name, ..)| (name.clone(), if place == 0 { [1, 0] } else { [0, 1] }))
                        .collect();
                    assert_eq!(got, expected, "{tenant} on {}", topic.name());
                }
            }
        });
    }
}
