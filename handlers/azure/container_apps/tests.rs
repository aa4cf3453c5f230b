//! The adapter against a server that answers as Container Apps would.

use serde_json::json;

use super::*;
use crate::{
    azure::testing::{Seen, Server, reply},
    ports::compute::{ConfigurationEntry, Revision, RevisionState, SecretEntry, Settings, Template},
};

const AUDIENCE: &str = "https://management.azure.com";
const GROUP: &str = "/subscriptions/s/resourceGroups/g";
const APP: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.App/containerApps/reservations-api";

fn workload() -> WorkloadRef {
    WorkloadRef {
        target: ComputeTarget {
            target: "container-apps".into(),
            resource_group_id: GROUP.into(),
            host_id: format!("{GROUP}/providers/Microsoft.App/managedEnvironments/e"),
            identity_id: format!("{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i"),
            region: "westeurope".into(),
            tags: BTreeMap::from([("cs-tenant".to_owned(), "connectsoft".to_owned())]),
            workload_profile: None,
        },
        name: "reservations-api".into(),
    }
}

fn spec(suffix: &str, image: &str) -> RevisionSpec {
    RevisionSpec {
        suffix: suffix.into(),
        deployment_id: format!("dep-{}", &suffix[1..]),
        image: image.into(),
        port: 8080,
        env: BTreeMap::from([("MODE".to_owned(), "prod".to_owned())]),
        cpu: 0.5,
        memory: "1Gi".into(),
        min_replicas: 1,
        max_replicas: 3,
        configuration: None,
        secrets: Vec::new(),
        corrective: false,
        scale_rules: Vec::new(),
    }
}

fn own_container(suffix: &str, image: &str) -> Value {
    json!({
        "name": "reservations-api",
        "image": image,
        "env": [{ "name": "MODE", "value": "prod" }, { "name": "CS_DEPLOYMENT_ID", "value": format!("dep-{}", &suffix[1..]) }],
        "resources": { "cpu": 0.5, "memory": "1Gi" },
    })
}

/// The app as Azure would answer it after its first deployment `d1`, with what others added.
fn app(traffic: Value) -> Value {
    let mut own = own_container("d1", "acr.azurecr.io/reservations-api:1.4.1");
    own["resources"]["ephemeralStorage"] = json!("2Gi");
    own["probes"] = json!([{ "type": "Liveness" }]);
    own["env"].as_array_mut().unwrap().push(json!({ "name": "DB", "secretRef": "db" }));
    json!({
        "id": APP,
        "properties": {
            "provisioningState": "Succeeded",
            "latestRevisionName": "reservations-api--d1",
            "latestReadyRevisionName": "reservations-api--d1",
            "configuration": {
                "activeRevisionsMode": "Multiple",
                "secrets": [{ "name": "db" }],
                "registries": [{ "server": "acr.azurecr.io", "identity": "system" }],
                "ingress": { "fqdn": "reservations-api.example.org", "external": true, "targetPort": 8080, "traffic": traffic },
            },
            "template": {
                "revisionSuffix": "d1",
                "containers": [{ "name": "sidecar", "image": "proxy:1" }, own],
                "scale": { "minReplicas": 1, "maxReplicas": 3, "rules": [{ "name": "http" }] },
            },
        },
    })
}

fn by_name(revision: &str, weight: u32) -> Value {
    json!({ "revisionName": revision, "weight": weight, "latestRevision": false })
}

fn revision(suffix: &str, created: &str) -> Value {
    json!({
        "name": format!("reservations-api--{suffix}"),
        "properties": {
            "createdTime": created,
            "fqdn": format!("reservations-api--{suffix}.example.org"),
            "active": true,
            "replicas": 2,
            "provisioningState": "Provisioned",
            "runningState": "Running",
            "healthState": "Healthy",
            "template": { "containers": [{ "name": "sidecar", "image": "proxy:1" }, own_container(suffix, "acr.azurecr.io/reservations-api:1")] },
        },
    })
}

/// A server with this app and these revisions that takes every change as done.
async fn server(app: Value, revisions: Vec<Value>) -> Server {
    Server::start(AUDIENCE, move |seen: &Seen| {
        let path = seen.path_and_query.split('?').next().unwrap();
        let nothing = json!({ "error": { "code": "ResourceNotFound", "message": "There is no such app." } });
        match (seen.method.as_str(), path.strip_prefix(APP)) {
            ("GET", Some("")) if app.is_null() => reply(404, &[], &nothing),
            ("GET", Some("")) => reply(200, &[], &app),
            ("GET", Some("/revisions")) => reply(200, &[], &json!({ "value": revisions })),
            ("GET", Some(path)) if path.ends_with("/replicas") => {
                let containers = |ready: bool| json!([{ "ready": true, "restartCount": 0 }, { "ready": ready, "restartCount": 2 }]);
                let replica = |ready: bool| json!({ "name": "r", "properties": { "containers": containers(ready) } });
                reply(200, &[], &json!({ "value": [replica(true), replica(false)] }))
            }
            ("PUT", Some("")) => {
                let operation = ("azure-asyncoperation", "/operations/1".to_owned());
                reply(201, &[operation, ("retry-after", "1".to_owned())], &json!({ "properties": { "provisioningState": "InProgress" } }))
            }
            ("PATCH", Some("")) => reply(202, &[("location", "/results/1".to_owned())], &Value::Null),
            ("POST", Some(_)) => reply(200, &[], &Value::Null),
            ("GET", None) if path == "/results/1" => reply(200, &[], &Value::Null),
            _ => reply(500, &[], &Value::Null),
        }
    })
    .await
}

fn apps(server: &Server) -> ContainerApps {
    ContainerApps::new(server.resource_manager())
}

fn changes(server: &Server) -> Vec<Seen> {
    server.seen().into_iter().filter(|seen| seen.method != "GET").collect()
}

fn code(fault: &Fault) -> &str {
    match fault {
        Fault::Rejected { code, .. } => code,
        Fault::Transient { .. } => "transient",
        Fault::Conflict { .. } => "conflict",
        Fault::Unreadable { .. } => "unreadable",
    }
}

#[tokio::test]
async fn the_first_revision_is_a_new_app_and_takes_all_traffic_by_name() {
    let server = server(Value::Null, vec![]).await;
    let image = "acr.azurecr.io/reservations-api:1.4.1";
    let step = apps(&server).stage(&workload(), &spec("d1", image)).await.unwrap();
    assert!(matches!(step, Step::Pending { again_in, .. } if again_in == Duration::from_secs(1)));
    let sent = changes(&server);
    assert_eq!(sent[0].line(), format!("PUT {APP}?api-version=2026-01-01"));
    let target = workload().target;
    assert_eq!(
        sent[0].json(),
        json!({
            "location": "westeurope",
            "tags": { "cs-tenant": "connectsoft" },
            "identity": { "type": "UserAssigned", "userAssignedIdentities": { target.identity_id.clone(): {} } },
            "properties": {
                "environmentId": target.host_id,
                "configuration": {
                    "activeRevisionsMode": "Multiple",
                    "ingress": {
                        "external": true,
                        "targetPort": 8080,
                        "transport": "auto",
                        "allowInsecure": false,
                        "traffic": [by_name("reservations-api--d1", 100)],
                    },
                    "registries": [{ "server": "acr.azurecr.io", "identity": target.identity_id }],
                },
                "template": {
                    "revisionSuffix": "d1",
                    "containers": [own_container("d1", image)],
                    "scale": { "minReplicas": 1, "maxReplicas": 3, "rules": [] },
                },
            },
        })
    );
}

#[tokio::test]
async fn a_second_revision_gets_no_traffic_and_changes_nobody_elses_part() {
    let server = server(
        app(json!([{ "latestRevision": true, "weight": 100 }])),
        vec![revision("d1", "2026-11-01T00:00:00Z")],
    )
    .await;
    let apps = apps(&server);
    let image = "acr.azurecr.io/reservations-api:1.4.2";
    let Step::Pending { token, .. } = apps.stage(&workload(), &spec("d2", image)).await.unwrap() else {
        panic!()
    };
    let mut own = own_container("d2", image);
    own["probes"] = json!([{ "type": "Liveness" }]);
    own["env"] = json!([
        { "name": "MODE", "value": "prod" },
        { "name": "DB", "secretRef": "db" },
        { "name": "CS_DEPLOYMENT_ID", "value": "dep-2" },
    ]);
    let sent = changes(&server);
    assert_eq!(sent.len(), 1);
    assert_eq!(
        sent[0].json(),
        json!({
            "tags": { "cs-tenant": "connectsoft" },
            "properties": {
                "configuration": {
                    "activeRevisionsMode": "Multiple",
                    "ingress": { "traffic": [by_name("reservations-api--d1", 100)] },
                },
                "template": {
                    "revisionSuffix": "d2",
                    "containers": [{ "name": "sidecar", "image": "proxy:1" }, own],
                    "scale": { "minReplicas": 1, "maxReplicas": 3, "rules": [] },
                },
            },
        })
    );
    let token: Value = serde_json::from_str(&token.to_string()).unwrap();
    assert_eq!(apps.resume(&token).await.unwrap(), Step::Done);
}

#[tokio::test]
async fn a_revision_gets_its_configuration_and_refers_to_its_secrets() {
    let app = app(json!([by_name("reservations-api--d1", 100)]));
    let server = server(app, vec![revision("d1", "2026-11-01T00:00:00Z")]).await;
    let secret = |variable: &str| SecretEntry {
        variable: variable.into(),
        key_vault_url: "https://kv-1.vault.azure.net/secrets/api/7".into(),
        identity_id: "/identities/i".into(),
    };
    let settings = [("LOG_LEVEL", "debug"), ("MODE", "test"), ("TOKEN", "none")];
    let configured = RevisionSpec {
        configuration: Some(ConfigurationEntry {
            version: 7,
            content_hash: "sha256:1".into(),
            settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        }),
        secrets: vec![secret("TOKEN"), secret("MODE")],
        ..spec("d2", "acr.azurecr.io/reservations-api:1.4.2")
    };
    apps(&server).stage(&workload(), &configured).await.unwrap();
    let sent = changes(&server)[0].json();
    let name = secrets::name(&secret("TOKEN"));
    assert_eq!(
        sent["properties"]["template"]["containers"][1]["env"],
        json!([
            { "name": "CS_CONFIGURATION_VERSION", "value": "7" },
            { "name": "LOG_LEVEL", "value": "debug" },
            { "name": "MODE", "value": "prod" },
            { "name": "TOKEN", "secretRef": name },
            { "name": "DB", "secretRef": "db" },
            { "name": "CS_DEPLOYMENT_ID", "value": "dep-2" },
        ])
    );
    assert_eq!(
        sent["properties"]["configuration"]["secrets"],
        json!([
            { "name": "db" },
            { "name": name, "keyVaultUrl": "https://kv-1.vault.azure.net/secrets/api/7", "identity": "/identities/i" },
        ])
    );
}

#[tokio::test]
async fn staging_twice_stages_once_and_a_foreign_revision_is_refused() {
    let there = vec![revision("d1", "2026-11-01T00:00:00Z"), revision("d2", "2026-11-02T00:00:00Z")];
    let server = server(app(json!([by_name("reservations-api--d1", 100)])), there).await;
    let apps = apps(&server);
    assert_eq!(apps.stage(&workload(), &spec("d2", "x:2")).await.unwrap(), Step::Done);
    let foreign = RevisionSpec { deployment_id: "dep-other".into(), ..spec("d2", "x:2") };
    let fault = apps.stage(&workload(), &foreign).await.unwrap_err();
    assert_eq!(
        fault.to_string(),
        "staging revision `d2` of `reservations-api`: a revision `reservations-api--d2` exists and belongs to deployment `dep-2`; it is not taken over (ForeignRevision)"
    );
    assert_eq!(changes(&server).len(), 0);
}

#[tokio::test]
async fn a_port_that_would_take_the_serving_revision_down_is_refused() {
    let server = server(
        app(json!([by_name("reservations-api--d1", 100)])),
        vec![revision("d1", "2026-11-01T00:00:00Z")],
    )
    .await;
    let moved = RevisionSpec { port: 9090, ..spec("d2", "x:2") };
    assert_eq!(code(&apps(&server).stage(&workload(), &moved).await.unwrap_err()), "PortDiffers");
    assert_eq!(changes(&server).len(), 0);
}

#[tokio::test]
async fn an_app_of_which_nobody_serves_gives_all_to_the_new_revision() {
    let server = server(app(json!([by_name("reservations-api--gone", 100)])), vec![]).await;
    let moved = RevisionSpec { port: 9090, ..spec("d2", "x:2") };
    apps(&server).stage(&workload(), &moved).await.unwrap();
    assert_eq!(
        changes(&server)[0].json().pointer("/properties/configuration/ingress"),
        Some(&json!({
            "external": true, "targetPort": 9090, "transport": "auto", "allowInsecure": false,
            "traffic": [by_name("reservations-api--d2", 100)],
        }))
    );
}

#[tokio::test]
async fn an_app_at_work_is_waited_for_and_not_changed() {
    let mut busy = app(json!([by_name("reservations-api--d1", 100)]));
    busy["properties"]["provisioningState"] = json!("InProgress");
    let server = server(busy, vec![]).await;
    let apps = apps(&server);
    let Step::Pending { token, .. } = apps.stage(&workload(), &spec("d1", "x:1")).await.unwrap() else {
        panic!()
    };
    assert_eq!(token["kind"], "provisioningState");
    assert!(matches!(apps.resume(&token).await.unwrap(), Step::Pending { .. }));
    let fault = apps.stage(&workload(), &spec("d2", "x:2")).await.unwrap_err();
    assert!(matches!(fault, Fault::Transient { retry_after: Some(BUSY_PAUSE), .. }));
    assert_eq!(changes(&server).len(), 0);
}

#[tokio::test]
async fn traffic_is_read_shifted_and_left_alone_once_it_is_so() {
    let labelled = json!({ "revisionName": "reservations-api--d0", "weight": 0, "label": "old" });
    let now = json!([by_name("reservations-api--d1", 100), labelled]);
    let server = server(app(now), vec![]).await;
    let apps = apps(&server);
    let weights = |a, b| {
        BTreeMap::from([("reservations-api--d1".to_owned(), a), ("reservations-api--d2".to_owned(), b)])
    };
    assert_eq!(apps.shift(&workload(), &weights(100, 0)).await.unwrap(), Step::Done);
    assert_eq!(changes(&server).len(), 0);
    let Step::Pending { token, .. } = apps.shift(&workload(), &weights(90, 10)).await.unwrap() else {
        panic!()
    };
    let label = json!({ "revisionName": "reservations-api--d0", "weight": 0, "latestRevision": false, "label": "old" });
    assert_eq!(
        changes(&server)[0].json(),
        json!({ "properties": { "configuration": { "ingress": { "traffic": [
            by_name("reservations-api--d1", 90), by_name("reservations-api--d2", 10), label,
        ] } } } })
    );
    assert_eq!(apps.resume(&token).await.unwrap(), Step::Done);
    assert_eq!(code(&apps.shift(&workload(), &weights(90, 20)).await.unwrap_err()), "InvalidWeights");
    assert_eq!(code(&apps.shift(&workload(), &BTreeMap::new()).await.unwrap_err()), "InvalidWeights");
}

#[tokio::test]
async fn an_app_is_told_with_its_revisions_and_the_newest_ones_replicas() {
    let there = vec![revision("d1", "2026-11-01T00:00:00Z"), revision("d2", "2026-11-02T00:00:00+00:00")];
    let server =
        server(app(json!([by_name("reservations-api--d1", 90), by_name("reservations-api--d2", 10)])), there)
            .await;
    let observed = apps(&server).observe(&workload()).await.unwrap().unwrap();
    let told = |suffix: &str, traffic, ready_replicas, restarts| Revision {
        name: format!("reservations-api--{suffix}"),
        deployment_id: Some(format!("dep-{}", &suffix[1..])),
        image: "acr.azurecr.io/reservations-api:1".into(),
        active: true,
        state: RevisionState::Running,
        traffic,
        replicas: 2,
        ready_replicas,
        restarts,
        host: Some(format!("reservations-api--{suffix}.example.org")),
        detail: None,
        template: Template {
            env: BTreeMap::from([("MODE".to_owned(), "prod".to_owned())]),
            cpu: 0.5,
            memory: "1Gi".into(),
            ..Template::default()
        },
    };
    assert_eq!(
        observed,
        Observed {
            host: Some("reservations-api.example.org".into()),
            revisions: [told("d1", 90, 2, 0), told("d2", 10, 1, 4)]
                .into_iter()
                .map(|revision| (revision.name.clone(), revision))
                .collect(),
            settings: Settings { external: true, port: Some(8080), ..Settings::default() },
            complete: true,
        }
    );
    assert_eq!(server.lines().iter().filter(|line| line.contains("/replicas?")).count(), 1);
    assert!(
        server
            .lines()
            .iter()
            .all(|line| line.ends_with("?api-version=2026-01-01") && !line.contains("listSecrets"))
    );
}

#[tokio::test]
async fn no_app_is_none_and_cannot_be_shifted() {
    let server = server(Value::Null, vec![]).await;
    let apps = apps(&server);
    assert_eq!(apps.observe(&workload()).await.unwrap(), None);
    let weights = BTreeMap::from([("reservations-api--d1".to_owned(), 100)]);
    assert_eq!(code(&apps.shift(&workload(), &weights).await.unwrap_err()), "AppNotFound");
}

#[tokio::test]
async fn what_serves_is_not_deactivated() {
    let server = server(app(json!([by_name("reservations-api--d1", 100)])), vec![]).await;
    let apps = apps(&server);
    assert_eq!(
        code(&apps.deactivate(&workload(), "reservations-api--d1").await.unwrap_err()),
        "RevisionServes"
    );
    apps.deactivate(&workload(), "reservations-api--d0").await.unwrap();
    apps.activate(&workload(), "reservations-api--d0").await.unwrap();
    let sent = changes(&server).iter().map(Seen::line).collect::<Vec<_>>();
    let line = |action| format!("POST {APP}/revisions/reservations-api--d0/{action}?api-version=2026-01-01");
    assert_eq!(sent, [line("deactivate"), line("activate")]);
}

#[tokio::test]
async fn an_app_is_deleted_with_its_revisions_and_one_that_is_gone_is_done() {
    let at = "deleting takes its time";
    let script = vec![
        (202, vec![("location", "/subscriptions/s/operations/1".to_owned())], Value::Null),
        (202, vec![("location", "/subscriptions/s/operations/1".to_owned())], Value::Null),
        (200, vec![], Value::Null),
        (404, vec![], json!({ "error": { "code": "ResourceNotFound", "message": "It is gone." } })),
    ];
    let server = Server::scripted(AUDIENCE, script).await;
    let apps = ContainerApps::new(server.resource_manager());
    let Step::Pending { token, .. } = apps.remove(&workload()).await.unwrap() else { panic!("{at}") };
    let Step::Pending { token, .. } = apps.resume(&token).await.unwrap() else { panic!("{at}") };
    assert_eq!(apps.resume(&token).await.unwrap(), Step::Done);
    assert_eq!(apps.remove(&workload()).await.unwrap(), Step::Done);
    assert_eq!(server.lines()[0], format!("DELETE {APP}?api-version={API_VERSION}"));
}

#[tokio::test]
async fn another_targets_workload_and_a_foreign_token_are_refused() {
    let server = server(Value::Null, vec![]).await;
    let apps = apps(&server);
    let mut elsewhere = workload();
    elsewhere.target.target = "aks".into();
    assert_eq!(code(&apps.observe(&elsewhere).await.unwrap_err()), "WrongTarget");
    assert_eq!(code(&apps.resume(&json!({ "kind": "other" })).await.unwrap_err()), "unreadable");
    assert_eq!(server.lines(), [""; 0]);
}
