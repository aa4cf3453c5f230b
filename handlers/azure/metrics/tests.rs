//! The adapter against a server that answers as Azure Monitor and Service Bus would.

use serde_json::json;

use super::*;
use crate::{
    azure::testing::{Server, reply},
    ports::{
        clock::SystemClock,
        compute::{ComputeTarget, WorkloadRef},
    },
};

const AUDIENCE: &str = "https://management.azure.com";

fn measured(name: &str, target: &str, revision: &str) -> Measured {
    let target = ComputeTarget {
        workload_profile: None,
        target: target.into(),
        resource_group_id: "/subscriptions/s/resourceGroups/g".into(),
        host_id: String::new(),
        identity_id: String::new(),
        region: "westeurope".into(),
        tags: BTreeMap::new(),
    };
    Measured { workload: WorkloadRef { target, name: name.into() }, revision: revision.into() }
}

fn metric(name: &str, app: &str, revision: &str, data: Value) -> Value {
    json!({ "name": { "value": name }, "timeseries": [{
        "metadatavalues": [
            { "name": { "value": "microsoft.resourceid" }, "value": format!("/subscriptions/s/resourceGroups/G/providers/Microsoft.App/containerApps/{app}") },
            { "name": { "value": "revisionname" }, "value": revision },
        ],
        "data": data,
    }] })
}

#[tokio::test]
async fn many_apps_are_one_call_and_each_gets_what_its_own_revision_was_measured_at() {
    let server = Server::start(AUDIENCE, |seen| {
        if seen.path_and_query.contains("queues/orders") {
            return reply(200, &[], &json!({ "properties": { "messageCount": 9, "countDetails": { "activeMessageCount": 7 } } }));
        }
        if seen.path_and_query.contains("queues/") {
            return reply(404, &[], &json!({ "error": { "code": "NotFound", "message": "no" } }));
        }
        let minute = |minutes: i64| (Timestamp::now() - SignedDuration::from_mins(minutes)).to_string();
        reply(200, &[], &json!({ "value": [
            metric("Replicas", "api", "api--d2", json!([
                { "timeStamp": minute(3), "maximum": 1 }, { "timeStamp": minute(2), "maximum": 3 }, { "timeStamp": minute(1) },
            ])),
            metric("Replicas", "api", "api--d1", json!([{ "timeStamp": minute(1), "maximum": 9 }])),
            metric("CpuPercentage", "api", "api--d2", json!([{ "timeStamp": minute(1), "average": 81.5 }])),
            metric("Requests", "api", "api--d2", json!([
                { "timeStamp": minute(2), "total": 120 }, { "timeStamp": minute(0), "total": 3 },
            ])),
        ] }))
    })
    .await;
    let metrics = AzureMonitor::new(server.resource_manager(), Arc::new(SystemClock));
    let asked = [
        measured("api", "container-apps", "api--d2"),
        measured("web", "aks", "x"),
        measured("gone", "container-apps", "g"),
    ];
    let read = metrics.read(&asked).await.unwrap();
    assert_eq!(read[0].replicas.map(|(count, _)| count), Some(3));
    assert_eq!(
        (read[0].cpu_percent, read[0].memory_percent, read[0].requests),
        (Some(81.5), None, Some(120.0))
    );
    assert_eq!(read[1..], [Reading::default(), Reading::default()]);
    let lines = server.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let whole = "%20or%20Microsoft.ResourceId%20eq%20%27/subscriptions/s/resourceGroups/g/providers/Microsoft.App/containerApps/gone%27)%20and%20revisionName%20eq%20%27*%27&api-version=2023-10-01";
    assert!(lines[0].ends_with(whole), "{}", lines[0]);
    assert!(lines[0].starts_with(
        "GET /subscriptions/s/providers/Microsoft.Insights/metrics?region=westeurope&metricnamespace="
    ));
    let queue = |name: &str| {
        format!("/subscriptions/s/resourceGroups/g/providers/Microsoft.ServiceBus/namespaces/n/queues/{name}")
    };
    assert_eq!(metrics.queue_depth(&queue("orders")).await.unwrap(), Some(7));
    assert_eq!(metrics.queue_depth(&queue("nobody")).await.unwrap(), None);
}

#[tokio::test]
async fn a_long_list_is_asked_for_in_parts() {
    let server = Server::start(AUDIENCE, |_| reply(200, &[], &json!({ "value": [] }))).await;
    let metrics = AzureMonitor::new(server.resource_manager(), Arc::new(SystemClock));
    let apps: Vec<_> = (0..45).map(|number| measured(&format!("a{number}"), "container-apps", "r")).collect();
    assert_eq!(metrics.read(&apps).await.unwrap().len(), 45);
    assert_eq!(server.lines().len(), 3);
}
