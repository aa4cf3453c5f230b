//! The autoscaler: replicas come and go by what goes through the ingress, by what replicas use, and by
//! what waits in a queue; and replicas that are killed behind everybody's back.

use std::time::Duration;

use runtime_platform::local::azure::ImageCatalogue;
use serde_json::{Value, json};

use super::{
    apps::{APP, body, template},
    bench::Bench,
    ingress::{catalogue, programs},
};

fn scaled(image: &str, scale: Value) -> Value {
    let mut body = body(image, "one");
    body["properties"]["template"]["scale"] = scale;
    body
}

impl Bench {
    /// An app with one revision of that scale, ready.
    async fn scaled(images: ImageCatalogue, body: Value) -> Self {
        let bench = Self::with(images).await;
        bench.environment().await;
        let created = bench.put(APP, body).await;
        assert_eq!(created.status, 201, "{}", created.body);
        bench.running("api--one").await;
        bench
    }

    async fn replicas(&self) -> u64 {
        self.revision("api--one").await["replicas"].as_u64().unwrap()
    }

    /// Waits until the revision has so many replicas, and its list says the same.
    async fn until_replicas(&self, wanted: u64) {
        self.until(&format!("{wanted} replicas"), async |bench: &Bench| {
            (bench.replicas().await == wanted).then_some(())
        })
        .await;
        let listed = self.get(&format!("{APP}/revisions/api--one/replicas")).await.names().len() as u64;
        assert_eq!(listed, wanted);
    }
}

#[tokio::test]
async fn requests_at_a_time_bring_replicas_and_quiet_takes_them_away() {
    let images = catalogue(&json!([
        { "match": "t/slow:*", "behaviour": { "kind": "latency", "milliseconds": 700 } },
    ]));
    let rule = json!({ "name": "http", "http": { "metadata": { "concurrentRequests": "2" } } });
    let scale = json!({ "minReplicas": 1, "maxReplicas": 3, "rules": [rule] });
    let bench = Bench::scaled(images, scaled("t/slow:1", scale.clone())).await;
    // What was written is what is shown.
    let shown = bench.revision("api--one").await["template"]["scale"].clone();
    assert_eq!((&shown["rules"], &shown["maxReplicas"]), (&scale["rules"], &json!(3)));

    let host = bench.host("api").await;
    let ask = async || {
        for _ in 0..8 {
            assert_eq!(bench.ask(&host, "/").await.0, 200);
        }
    };
    // Ten at a time are five replicas' worth, of which three are allowed.
    let load = futures::future::join_all((0..10).map(|_| ask()));
    let ((), _) = tokio::join!(bench.until_replicas(3), load);
    let asked = bench.ask(&host, "/").await.1["replica"].clone();
    assert!(asked.as_str().unwrap().starts_with("api--one-"), "{asked}");
    // One that goes answers what it was asked before it does.
    while bench.replicas().await > 1 {
        let statuses = futures::future::join_all([bench.ask(&host, "/"), bench.ask(&host, "/")]).await;
        assert!(statuses.iter().all(|(status, _)| *status == 200), "{statuses:?}");
    }
    bench.until_replicas(1).await;
}

#[tokio::test]
async fn messages_that_wait_bring_replicas() {
    let mut body = scaled("r/api:1", json!({ "minReplicas": 1, "maxReplicas": 5 }));
    let identity =
        "/subscriptions/s1/resourceGroups/Rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id";
    body["identity"] = json!({ "type": "UserAssigned", "userAssignedIdentities": { identity: {} } });
    body["properties"]["template"]["scale"]["rules"] = json!([{ "name": "queue", "custom": {
        "type": "azure-servicebus", "identity": identity,
        "metadata": { "queueName": "deploy", "namespace": "sb", "messageCount": "5" } } }]);
    let bench = Bench::scaled(ImageCatalogue::built_in(), body).await;
    bench.enqueue("deploy", 18).await;
    bench.until_replicas(4).await;

    let queue = "/subscriptions/s1/resourceGroups/Rg/providers/Microsoft.ServiceBus/namespaces/sb/queues";
    let shown = bench.get(&format!("{queue}/Deploy")).await.body;
    let counts = &shown["properties"]["countDetails"];
    assert_eq!((&shown["name"], &counts["activeMessageCount"]), (&json!("deploy"), &json!(18)));
    let none = bench.get(&format!("{queue}/none")).await;
    assert_eq!((none.status, none.code()), (404, "MessagingGatewayNotFoundStatusCode"));
}

#[tokio::test]
async fn a_program_that_uses_its_processor_gets_company() {
    let images = catalogue(&json!([
        { "match": "t/busy:*", "command": ["sh", "-c", "python3 -m http.server --bind 127.0.0.1 $PORT & while :; do :; done"] },
    ]));
    let rule = json!({ "name": "cpu", "custom": { "type": "cpu", "metadata": { "type": "Utilization", "value": "20" } } });
    let mut body = scaled("t/busy:1", json!({ "minReplicas": 1, "maxReplicas": 2, "rules": [rule] }));
    body["properties"]["template"]["containers"][0]["resources"] = json!({ "cpu": 0.25, "memory": "0.5Gi" });
    let bench = Bench::scaled(images, body).await;
    bench.until_replicas(2).await;
    bench.azure().stop().await;
}

#[tokio::test]
async fn a_rule_that_cannot_be_acted_on_is_refused() {
    let bench = Bench::new().await;
    bench.environment().await;
    let rule = json!({ "name": "kafka", "custom": { "type": "kafka", "metadata": {} } });
    let refused = bench.put(APP, scaled("r/api:1", json!({ "rules": [rule] }))).await;
    assert_eq!((refused.status, refused.code()), (400, "InvalidParameterValueInContainerTemplate"));
    assert!(refused.body.to_string().contains("template.scale.rules[0].custom.type"), "{}", refused.body);
    assert_eq!(bench.get(APP).await.status, 404);
}

#[tokio::test]
async fn a_new_scale_is_a_new_revision() {
    let bench = Bench::new().await;
    bench.app("r/api:1", "one").await;
    let mut wider = template("r/api:1", "two");
    wider["scale"] = json!({ "minReplicas": 2, "maxReplicas": 2 });
    assert_eq!(bench.patch(json!({ "template": wider })).await.status, 202);
    bench.running("api--two").await;
    assert_eq!(bench.revision("api--two").await["replicas"], json!(2));
}

/// The one replica of the app's revision: its id, and how often it was started again.
async fn only_replica(bench: &Bench, revision: &str) -> (String, u64) {
    let listed = bench.get(&format!("{APP}/revisions/{revision}/replicas")).await.body;
    let replica = &listed["value"][0];
    let restarts = replica["properties"]["containers"][0]["restartCount"].as_u64().unwrap();
    (replica["id"].as_str().unwrap().to_owned(), restarts)
}

#[tokio::test]
async fn a_replica_that_is_killed_is_seen_to_be_and_comes_again() {
    let bench = Bench::with(programs()).await;
    bench.own_program().await;
    let (id, restarts) = only_replica(&bench, "api--own").await;
    assert_eq!(restarts, 0);
    let kill = json!({ "id": id, "downSeconds": 1 });
    assert_eq!(bench.send_as(None, "POST", "/local/kill-replica", &[], Some(kill.clone())).await.status, 401);
    assert_eq!(bench.send("POST", "/local/kill-replica", Some(kill)).await.status, 204);
    let detail = bench.until("the revision to be degraded", async |bench: &Bench| {
        bench.revision("api--own").await["runningStateDetails"].as_str().map(str::to_owned)
    });
    assert!(detail.await.contains("killed from outside"));
    assert_eq!(bench.ask(&bench.host("api").await, "/").await.0, 503);
    bench
        .until("the replica to be ready again", async |bench: &Bench| {
            (bench.ask(&bench.host("api").await, "/").await.0 == 200).then_some(())
        })
        .await;
    assert_eq!(only_replica(&bench, "api--own").await, (id, 1));
    let unknown = json!({ "id": format!("{APP}/revisions/api--own/replicas/none") });
    assert_eq!(bench.send("POST", "/local/kill-replica", Some(unknown)).await.code(), "ReplicaNotFound");
}

#[tokio::test]
async fn whoever_has_a_token_changes_an_image_or_deletes_an_app_and_a_read_tells() {
    let bench = Bench::new().await;
    bench.app("r/api:1", "one").await;
    let image = json!({ "containers": [{ "name": "app", "image": "r/other:9" }] });
    assert_eq!(bench.patch(json!({ "template": image })).await.status, 202);
    let app = bench.get(APP).await.body;
    assert_eq!(app["properties"]["template"]["containers"][0]["image"], json!("r/other:9"));
    assert_ne!(app["properties"]["latestRevisionName"], json!("api--one"));
    assert_eq!(bench.send("DELETE", &format!("{APP}?api-version=2026-01-01"), None).await.status, 202);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.get(APP).await.code(), "ResourceNotFound");
    assert_eq!(bench.ask(&bench.host("api").await, "/").await.0, 404);
}
