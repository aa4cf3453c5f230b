//! Container apps: when a revision is made, what traffic may be, what replicas tell.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    ENVIRONMENT,
    bench::{Answer, Bench, GROUP},
};

pub const APP: &str = "/subscriptions/s1/resourceGroups/Rg/providers/Microsoft.App/containerApps/api";

pub fn template(image: &str, suffix: &str) -> Value {
    json!({ "revisionSuffix": suffix, "containers": [{ "name": "app", "image": image }], "scale": { "minReplicas": 1 } })
}

pub fn body(image: &str, suffix: &str) -> Value {
    json!({
        "location": "westeurope",
        "properties": {
            "managedEnvironmentId": ENVIRONMENT,
            "configuration": {
                "activeRevisionsMode": "Multiple",
                "secrets": [{ "name": "key", "value": "hush" }],
                "ingress": { "external": true, "targetPort": 8080 },
            },
            "template": template(image, suffix),
        },
    })
}

impl Bench {
    /// An environment, ready for apps.
    pub async fn environment(&self) {
        self.group().await;
        assert_eq!(self.put(ENVIRONMENT, json!({ "location": "westeurope" })).await.status, 201);
        self.pass(Duration::from_secs(2));
    }

    /// An app with one revision, ready.
    pub async fn app(&self, image: &str, suffix: &str) {
        self.environment().await;
        let created = self.put(APP, body(image, suffix)).await;
        assert_eq!(created.status, 201, "{}", created.body);
        self.pass(Duration::from_secs(2));
        self.running(&format!("api--{suffix}")).await;
    }

    pub async fn patch(&self, properties: Value) -> Answer {
        let answer = self
            .send(
                "PATCH",
                &format!("{APP}?api-version=2026-01-01"),
                Some(json!({ "properties": properties })),
            )
            .await;
        self.pass(Duration::from_secs(2));
        answer
    }

    pub async fn revision(&self, name: &str) -> Value {
        self.get(&format!("{APP}/revisions/{name}")).await.body["properties"].clone()
    }

    pub async fn running(&self, name: &str) {
        self.until(&format!("{name} to run"), async |bench: &Bench| {
            (bench.revision(name).await["runningState"] == json!("Running")).then_some(())
        })
        .await;
    }

    pub async fn post(&self, path: &str) -> Answer {
        self.send("POST", &format!("{APP}/{path}?api-version=2026-01-01"), None).await
    }
}

#[tokio::test]
async fn an_app_is_made_with_its_first_revision_and_tells_its_hosts() {
    let bench = Bench::new().await;
    bench.app("r/api:1", "one").await;
    let app = bench.get(APP).await.body;
    let domain =
        bench.get(ENVIRONMENT).await.body["properties"]["defaultDomain"].as_str().unwrap().to_owned();
    let properties = &app["properties"];
    assert_eq!(properties["provisioningState"], json!("Succeeded"));
    assert_eq!(properties["latestRevisionName"], json!("api--one"));
    assert_eq!(properties["configuration"]["ingress"]["fqdn"], json!(format!("api.{domain}:9443")));
    assert_eq!(
        properties["configuration"]["ingress"]["traffic"],
        json!([{ "latestRevision": true, "weight": 100 }])
    );
    assert_eq!(properties["configuration"]["secrets"], json!([{ "name": "key" }]));
    let ready = bench.until("the revision to be noted as ready", async |bench: &Bench| {
        bench.get(APP).await.body["properties"]["latestReadyRevisionName"].as_str().map(str::to_owned)
    });
    assert_eq!(ready.await, "api--one");

    let mut revision = bench.revision("api--one").await;
    let fields = revision.as_object_mut().unwrap();
    assert!(["createdTime", "lastActiveTime", "template"].iter().all(|name| fields.remove(*name).is_some()));
    assert_eq!(
        revision,
        json!({
            "fqdn": format!("api--one.{domain}:9443"), "active": true, "replicas": 1, "trafficWeight": 100,
            "healthState": "Healthy", "provisioningState": "Provisioned", "runningState": "Running",
        })
    );
    let replicas = bench.get(&format!("{APP}/revisions/api--one/replicas")).await;
    let container = &replicas.body["value"][0]["properties"]["containers"][0];
    assert_eq!(
        [
            &container["name"],
            &container["ready"],
            &container["started"],
            &container["restartCount"],
            &container["runningState"]
        ],
        [&json!("app"), &json!(true), &json!(true), &json!(0), &json!("Running")]
    );
    let name = &replicas.names()[0];
    assert_eq!(
        bench.get(&format!("{APP}/revisions/api--one/replicas/{name}")).await.body["name"],
        json!(name)
    );
}

#[tokio::test]
async fn a_new_template_makes_a_revision_and_a_new_configuration_does_not() {
    let bench = Bench::new().await;
    bench.app("r/api:1", "one").await;
    let traffic = json!([{ "revisionName": "api--one", "weight": 100 }]);
    let pinned = bench.patch(json!({ "configuration": { "ingress": { "traffic": traffic } } })).await;
    assert_eq!((pinned.status, pinned.header("location")), (200, None));
    let listed = |answer: Answer| answer.names();
    assert_eq!(listed(bench.get(&format!("{APP}/revisions")).await), ["api--one"]);

    let staged = bench.patch(json!({ "template": template("r/api:2", "two") })).await;
    assert_eq!(staged.status, 202);
    assert!(staged.header("location").unwrap().contains("/operationResults/"));
    assert_eq!(listed(bench.get(&format!("{APP}/revisions")).await), ["api--one", "api--two"]);
    bench.running("api--two").await;
    let weights = (
        bench.revision("api--one").await["trafficWeight"].clone(),
        bench.revision("api--two").await["trafficWeight"].clone(),
    );
    assert_eq!(weights, (json!(100), json!(0)));

    // The same again is done already; the same suffix for something else is refused.
    assert_eq!(bench.patch(json!({ "template": template("r/api:2", "two") })).await.status, 200);
    let other = bench.patch(json!({ "template": template("r/api:3", "two") })).await;
    assert_eq!((other.status, other.code()), (400, "ContainerAppInvalidRevisionSuffix"));
    assert_eq!(listed(bench.get(&format!("{APP}/revisions")).await), ["api--one", "api--two"]);

    // A patch that names no suffix gets one.
    let image = json!({ "containers": [{ "name": "app", "image": "r/api:3" }] });
    assert_eq!(bench.patch(json!({ "template": image })).await.status, 202);
    let names = listed(bench.get(&format!("{APP}/revisions")).await);
    assert!(names.len() == 3 && names[2].starts_with("api--r"), "{names:?}");
}

#[tokio::test]
async fn secrets_are_kept_by_a_patch_and_told_only_when_asked_for() {
    let bench = Bench::new().await;
    bench.app("r/api:1", "one").await;
    let secrets = json!([{ "name": "key" }, { "name": "more", "value": "still" }]);
    assert_eq!(bench.patch(json!({ "configuration": { "secrets": secrets } })).await.status, 200);
    assert_eq!(
        bench.post("listSecrets").await.body,
        json!({ "value": [{ "name": "key", "value": "hush" }, { "name": "more", "value": "still" }] })
    );
    let app = bench.get(APP).await.body.to_string();
    assert!(!app.contains("hush") && !app.contains("still"), "{app}");
}

#[tokio::test]
async fn weights_must_add_up_and_revisions_that_are_off_take_none() {
    let bench = Bench::new().await;
    bench.app("r/api:1", "one").await;
    bench.patch(json!({ "template": template("r/api:2", "two") })).await;
    let shift = async |weights: Value| {
        let answer = bench.patch(json!({ "configuration": { "ingress": { "traffic": weights } } })).await;
        (answer.status, answer.code().to_owned())
    };
    let refused = (400, "ContainerAppInvalidTrafficConfiguration".to_owned());
    let both = |one: u32, two: u32| json!([{ "revisionName": "api--one", "weight": one }, { "revisionName": "api--two", "weight": two }]);
    assert_eq!(shift(both(50, 40)).await, refused);
    assert_eq!(shift(json!([{ "revisionName": "api--three", "weight": 100 }])).await, refused);
    assert_eq!(shift(both(100, 0)).await, (200, String::new()));

    assert_eq!(bench.post("revisions/api--two/deactivate").await.status, 200);
    let off = bench.revision("api--two").await;
    assert_eq!(
        (&off["active"], &off["replicas"], &off["runningState"]),
        (&json!(false), &json!(0), &json!("Stopped"))
    );
    assert_eq!(shift(both(0, 100)).await, refused);
    assert_eq!(bench.post("revisions/api--two/activate").await.status, 200);
    bench.running("api--two").await;
    assert_eq!(shift(both(0, 100)).await, (200, String::new()));
    let missing = bench.post("revisions/api--none/activate").await;
    assert_eq!((missing.status, missing.code()), (404, "RevisionNotFound"));
}

#[tokio::test]
async fn in_single_mode_the_old_revision_ends_when_the_new_one_is_ready() {
    let bench = Bench::new().await;
    bench.environment().await;
    let mut single = body("r/api:1", "one");
    single["properties"]["configuration"]["activeRevisionsMode"] = json!("Single");
    bench.put(APP, single).await;
    bench.pass(Duration::from_secs(2));
    bench.running("api--one").await;
    bench.patch(json!({ "template": template("r/crash-loop:2", "bad") })).await;
    bench
        .until("the new one to have crashed", async |bench: &Bench| {
            (bench.revision("api--bad").await["runningState"] == json!("Failed")).then_some(())
        })
        .await;
    let old = bench.revision("api--one").await;
    assert_eq!((&old["active"], &old["trafficWeight"]), (&json!(true), &json!(100)));
    bench.patch(json!({ "template": template("r/api:3", "good") })).await;
    bench
        .until("the old one to end", async |bench: &Bench| {
            (bench.revision("api--one").await["active"] == json!(false)).then_some(())
        })
        .await;
    assert_eq!(bench.revision("api--good").await["trafficWeight"], json!(100));
}

#[tokio::test]
async fn a_crash_loop_shows_in_replica_and_revision() {
    let bench = Bench::new().await;
    bench.environment().await;
    bench.put(APP, body("r/crash-loop:1", "bad")).await;
    let revision = bench
        .until("the revision to fail", async |bench: &Bench| {
            let revision = bench.revision("api--bad").await;
            (revision["runningState"] == json!("Failed")).then_some(revision)
        })
        .await;
    assert_eq!(
        (&revision["provisioningState"], &revision["healthState"]),
        (&json!("Failed"), &json!("Unhealthy"))
    );
    let replicas = bench.get(&format!("{APP}/revisions/api--bad/replicas")).await;
    let container = &replicas.body["value"][0]["properties"]["containers"][0];
    assert!(container["restartCount"].as_u64().unwrap() >= 5, "{container}");
    assert!(
        container["runningStateDetails"].as_str().unwrap().starts_with("CrashLoopBackOff: "),
        "{container}"
    );
}

#[tokio::test]
async fn what_an_app_names_must_be_there() {
    let bench = Bench::new().await;
    bench.group().await;
    let missing = bench.put(APP, body("r/api:1", "one")).await;
    assert_eq!((missing.status, missing.code()), (400, "ManagedEnvironmentNotFound"));
    bench.put(ENVIRONMENT, json!({ "location": "westeurope" })).await;
    let early = bench.put(APP, body("r/api:1", "one")).await;
    assert_eq!((early.status, early.code()), (409, "ManagedEnvironmentNotReadyForAppCreation"));
    bench.pass(Duration::from_secs(2));
    let name = bench.put(&APP.replace("/api", "/Api_1"), body("r/api:1", "one")).await;
    assert_eq!((name.status, name.code()), (400, "ContainerAppInvalidName"));
    bench.put(APP, body("r/api:1", "one")).await;
    let used = bench.send("DELETE", &format!("{ENVIRONMENT}?api-version=2026-01-01"), None).await;
    assert_eq!((used.status, used.code()), (409, "ManagedEnvironmentNotEmpty"));
    let busy = bench.send("DELETE", &format!("{APP}?api-version=2026-01-01"), None).await;
    assert_eq!((busy.status, busy.code()), (409, "ContainerAppOperationInProgress"));
    bench.pass(Duration::from_secs(2));
    let deleted = bench.send("DELETE", &format!("{APP}?api-version=2026-01-01"), None).await;
    assert_eq!((deleted.status, deleted.header("location").is_some()), (202, true));
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.get(APP).await.status, 404);
    assert_eq!(
        bench.get(&format!("{GROUP}/providers/Microsoft.App/containerApps")).await.body,
        json!({ "value": [] })
    );
}

#[tokio::test]
async fn revisions_run_again_after_a_restart() {
    let bench = Bench::new().await;
    bench.app("r/api:1", "one").await;
    bench.patch(json!({ "template": template("r/api:2", "two") })).await;
    bench.post("revisions/api--one/deactivate").await;
    let bench = bench.restart().await;
    bench.running("api--two").await;
    assert_eq!(bench.revision("api--one").await["runningState"], json!("Stopped"));
}

#[tokio::test]
async fn a_stopped_app_runs_nothing_until_it_is_started() {
    let bench = Bench::new().await;
    bench.app("r/api:1", "one").await;
    assert_eq!(bench.post("stop").await.body["properties"]["runningStatus"], json!("Stopped"));
    assert_eq!(bench.revision("api--one").await["replicas"], json!(0));
    assert_eq!(bench.post("start").await.status, 200);
    bench.running("api--one").await;
}

#[tokio::test]
async fn the_oldest_inactive_revisions_are_forgotten() {
    let bench = Bench::new().await;
    bench.app("r/api:1", "one").await;
    bench.patch(json!({ "configuration": { "maxInactiveRevisions": 1 } })).await;
    for (suffix, before) in [("two", "one"), ("three", "two"), ("four", "three")] {
        bench.patch(json!({ "template": template(&format!("r/api:{suffix}"), suffix) })).await;
        bench.post(&format!("revisions/api--{before}/deactivate")).await;
    }
    bench.patch(json!({ "configuration": { "maxInactiveRevisions": 1 } })).await;
    assert_eq!(bench.get(&format!("{APP}/revisions")).await.names(), ["api--three", "api--four"]);
}

#[tokio::test]
async fn what_runs_keeps_its_secrets_until_it_is_started_anew() {
    let bench = Bench::new().await;
    bench.app("r/api:1", "one").await;
    let replica = async || bench.get(&format!("{APP}/revisions/api--one/replicas")).await.names();
    let before = replica().await;
    bench.patch(json!({ "configuration": { "secrets": [{ "name": "key", "value": "other" }] } })).await;
    assert_eq!(replica().await, before);
    bench.post("revisions/api--one/restart").await;
    bench.running("api--one").await;
    assert_ne!(replica().await, before);
}
