use serde_json::json;

use super::*;

fn errors(value: &Value) -> Vec<(String, String)> {
    let errors = Topology::parse("messaging.json", &value.to_string()).expect_err("it has errors");
    errors.into_iter().map(|error| (error.path, error.problem)).collect()
}

fn rule(event_type: &str) -> Value {
    json!({ "name": "$Default", "correlationFilter": { "properties": { "cs-event-type": event_type } } })
}

#[test]
fn what_is_left_out_has_azures_defaults() {
    let text = json!({
        "queues": [{ "name": "deploy" }, { "name": "letters", "timeToLive": "P30D" }],
        "topics": [{
            "name": "runtime.secrets",
            "duplicateDetectionWindow": "P1D",
            "subscriptions": [{
                "name": "governance",
                "lockDuration": "PT30S",
                "maxDeliveryCount": 100,
                "deadLetteringOnExpiration": true,
                "forwardDeadLetteredMessagesTo": "Letters",
                "rules": [rule("SecretRotated")],
            }],
        }],
    });
    let gigabyte = 1024 * 1024 * 1024;
    let queue = |name: &str, time_to_live| Queue {
        name: name.to_owned(),
        holding: Holding { time_to_live, ..Holding::default() },
        duplicate_detection_window: None,
        size_bytes_max: gigabyte,
    };
    let properties = BTreeMap::from([("cs-event-type".to_owned(), json!("SecretRotated"))]);
    let expected = Topology {
        file: "m.json".to_owned(),
        queues: vec![queue("deploy", None), queue("letters", Some(Duration::from_secs(30 * 86_400)))],
        topics: vec![Topic {
            name: "runtime.secrets".to_owned(),
            duplicate_detection_window: Some(Duration::from_secs(86_400)),
            size_bytes_max: gigabyte,
            subscriptions: vec![Subscription {
                name: "governance".to_owned(),
                holding: Holding {
                    lock_duration: Duration::from_secs(30),
                    max_delivery_count: 100,
                    time_to_live: None,
                    dead_lettering_on_expiration: true,
                    forward_dead_lettered_messages_to: Some("Letters".to_owned()),
                },
                rules: vec![Rule {
                    name: "$Default".to_owned(),
                    filter: Filter::Correlation(CorrelationFilter {
                        properties,
                        ..CorrelationFilter::default()
                    }),
                }],
            }],
        }],
        per_tenant: None,
    };
    assert_eq!(Topology::parse("m.json", &text.to_string()), Ok(expected));
}

#[test]
fn every_error_is_reported_with_its_place() {
    let found = errors(&json!({
        "queues": [
            { "name": "deploy", "lockDuration": "1 minute", "maxDeliveryCount": 0, "colour": "red" },
            { "name": "Deploy", "lockDuration": "PT6M", "timeToLive": 5 },
            { "name": "-x", "duplicateDetectionWindow": "P8D", "maxSizeMegabytes": 7 },
            { "lockDuration": "P1M" },
            { "name": "self", "forwardDeadLetteredMessagesTo": "self", "deadLetteringOnExpiration": "yes" },
            "rollback",
        ],
        "topics": [{
            "name": "t",
            "subscriptions": [
                { "name": "s", "forwardDeadLetteredMessagesTo": "nowhere", "rules": [
                    { "name": "$Default", "sqlFilter": "cs-event-type = 'x'" },
                    { "name": "b", "correlationFilter": {} },
                    { "name": "B", "correlationFilter": { "properties": { "a": null } } },
                    { "name": "c" },
                    { "name": "d", "sqlFilter": "1 = 1", "correlationFilter": { "label": "x" } },
                ] },
                { "name": "S", "rules": [{ "name": "only", "sqlFilter": "1 = 1" }] },
                { "name": "u" },
            ],
        }],
        "perTenantTemplate": { "name": "{subscriber}", "properties": { "cs-event-type": "{eventType}" } },
        "exchanges": [],
    }));
    let expected = [
        ("exchanges", "is not known: there are queues, topics, perTenantTemplate"),
        (
            "queues[0].colour",
            "is not known: there are name, duplicateDetectionWindow, maxSizeMegabytes, lockDuration, maxDeliveryCount, timeToLive, deadLetteringOnExpiration, forwardDeadLetteredMessagesTo",
        ),
        ("queues[0].lockDuration", "`1 minute` is no duration: write e.g. `PT1M`, `PT30S` or `P14D`"),
        ("queues[0].maxDeliveryCount", "must be a whole number from 1 to 2000, found 0"),
        ("queues[1].lockDuration", "`PT6M` is out of range: at least 1 seconds and at most 300 seconds"),
        ("queues[1].timeToLive", "must be a text, found a number"),
        (
            "queues[1].name",
            "`Deploy` is already the name at queues[0].name: names are the same whatever their case",
        ),
        (
            "queues[2].duplicateDetectionWindow",
            "`P8D` is out of range: at least 20 seconds and at most 604800 seconds",
        ),
        ("queues[2].maxSizeMegabytes", "must be one of [1024, 2048, 3072, 4096, 5120], found 7"),
        (
            "queues[2].name",
            "`-x` is no name: write letters, digits, `.`, `-` and `_`, with a letter or digit at both ends",
        ),
        ("queues[3].lockDuration", "`P1M` is no duration: write e.g. `PT1M`, `PT30S` or `P14D`"),
        ("queues[3].name", "is missing"),
        ("queues[4].deadLetteringOnExpiration", "must be true or false, found a text"),
        ("queues[5]", "must be an object, found a text"),
        (
            "topics[0].subscriptions[0].rules[0].sqlFilter",
            "at column 1: `cs-event-type` subtracts one property from another: write [cs-event-type] for the property of that name, or put spaces around the minus to subtract",
        ),
        (
            "topics[0].subscriptions[0].rules[1].correlationFilter",
            "is empty: name what must be equal, or write `\"sqlFilter\": \"1 = 1\"` to let everything through",
        ),
        (
            "topics[0].subscriptions[0].rules[2].correlationFilter.properties.a",
            "must be a text, a number or a boolean, found null",
        ),
        (
            "topics[0].subscriptions[0].rules[2].name",
            "`B` is already the name at topics[0].subscriptions[0].rules[1].name: names are the same whatever their case",
        ),
        ("topics[0].subscriptions[0].rules[3]", "a rule has either a `correlationFilter` or a `sqlFilter`"),
        ("topics[0].subscriptions[0].rules[4]", "a rule has either a `correlationFilter` or a `sqlFilter`"),
        (
            "topics[0].subscriptions[1].rules",
            "no rule is named `$Default`: give one of them that name, or Azure's own rule of that name lets everything through",
        ),
        (
            "topics[0].subscriptions[1].name",
            "`S` is already the name at topics[0].subscriptions[0].name: names are the same whatever their case",
        ),
        ("topics[0].subscriptions[2].rules", "is missing"),
        (
            "topics[0].subscriptions[2].rules",
            "no rule is named `$Default`: give one of them that name, or Azure's own rule of that name lets everything through",
        ),
        ("perTenantTemplate.name", "must contain `{tenantId}`, or two subscriptions would have one name"),
        (
            "perTenantTemplate.properties.cs-tenant-id",
            "must be `{tenantId}`, or a tenant would be sent what is not for it",
        ),
        ("queues[4].forwardDeadLetteredMessagesTo", "`self` cannot forward its dead letters to itself"),
        (
            "topics[0].subscriptions[0].forwardDeadLetteredMessagesTo",
            "there is no queue or topic `nowhere`: declare it, or name one that is declared",
        ),
    ];
    let expected: Vec<_> =
        expected.iter().map(|(path, problem)| ((*path).to_owned(), (*problem).to_owned())).collect();
    assert_eq!(found, expected);
}

#[test]
fn what_is_no_json_is_said_with_its_line() {
    let errors = Topology::parse("messaging.json", "{\n  \"queues\": [,]\n}").expect_err("no JSON");
    assert_eq!(
        errors[0].to_string(),
        "messaging.json: (document): is not JSON: expected value at line 2 column 14"
    );
    let errors = Topology::read(Path::new("/nowhere/messaging.json")).expect_err("no file");
    assert_eq!((errors[0].path.as_str(), errors.len()), ("(file)", 1));
}

#[test]
fn a_tenant_gets_a_subscription_of_its_own_events_only() {
    let topology = || {
        let text = json!({
            "queues": [],
            "topics": [{ "name": "runtime.secrets", "subscriptions": [] }],
            "perTenantTemplate": {
                "name": "{subscriber}-{tenantId}",
                "timeToLive": "P7D",
                "properties": { "cs-tenant-id": "{tenantId}", "cs-event-type": "{eventType}" },
            },
        });
        Topology::parse("m.json", &text.to_string()).expect("it is right")
    };
    let types = ["SecretRotated", "SecretBound"];
    let made = topology()
        .with_tenant_subscription("Runtime.Secrets", "audit", "acme", &types)
        .expect("it can be made");
    let rule = |name: &str, event_type: &str| Rule {
        name: name.to_owned(),
        filter: Filter::Correlation(CorrelationFilter {
            properties: BTreeMap::from([
                ("cs-tenant-id".to_owned(), json!("acme")),
                ("cs-event-type".to_owned(), json!(event_type)),
            ]),
            ..CorrelationFilter::default()
        }),
    };
    let expected = Subscription {
        name: "audit-acme".to_owned(),
        holding: Holding { time_to_live: Some(Duration::from_secs(7 * 86_400)), ..Holding::default() },
        rules: vec![rule("$Default", "SecretRotated"), rule("SecretBound", "SecretBound")],
    };
    assert_eq!(made.topics[0].subscriptions, [expected]);

    let refused = |result: Result<Topology, TopologyError>| result.expect_err("refused").problem;
    assert_eq!(
        refused(made.with_tenant_subscription("runtime.secrets", "audit", "acme", &types)),
        "`runtime.secrets` already has a subscription `audit-acme`"
    );
    assert_eq!(
        refused(topology().with_tenant_subscription("runtime.x", "audit", "acme", &types)),
        "there is no topic `runtime.x`"
    );
    assert_eq!(
        refused(topology().with_tenant_subscription("runtime.secrets", "audit", &"a".repeat(60), &types)),
        format!("`audit-{}` is too long: 50 characters are allowed", "a".repeat(60))
    );
    assert_eq!(
        refused(topology().with_tenant_subscription("runtime.secrets", "audit", "acme", &[])),
        "a tenant's subscription needs at least one event type"
    );
}
