//! A corpus of stored documents: one for every kind of state and every form that it ever had. Today's
//! code reads them all, and keeps what it does not know when it writes them back.
//!
//! A file is made once, by `UPDATE_EXPECT=1`, when a kind or form is new; it is never changed after
//! that: somebody's store is full of such documents.

use std::{collections::BTreeSet, env, fs, path::PathBuf, sync::Arc};

use runtime_platform::{
    admin::dead_letters::DeadLetter,
    holds::{Hold, HoldScope},
    ids::EnvironmentId,
    ledger::{Commit, InboxEntry, Ledger, OutboxEvent, OutboxMessage, State},
    operations::Operation,
    ports::store::{Document, Key, Partition, Store, Write},
    services::{
        deployment_service::{GateRecord, RuntimeDeployment, Slot},
        runtime_configuration_service::{ConfigurationVersion, RuntimeConfiguration, WorkloadConfiguration},
        runtime_drift_detection_service::{DriftIndex, RuntimeDriftFinding, Suppression},
        runtime_environment_service::{
            RuntimeEnvironment,
            state::{Decommission, Plan},
        },
        runtime_health_service::HealthCheckResult,
        runtime_scaling_service::ScalingPolicy,
        secret_binding_service::{SecretBinding, SecretRotation},
        service_catalog_runtime_service::{CatalogueEntry, PastService, RuntimeService},
        tenant_runtime_isolation_service::RuntimeTenantBinding,
    },
    sweeps::{self, SweepReport},
};
use serde_json::{Value, json};

use crate::scenario::holds::hold;
use crate::support::{
    builders::{
        PROJECT, TENANT, bind, bind_secret, deploy, environment, provision, publish_configuration, rotate,
        scale,
    },
    faulty::When,
    fixed_clock::FixedClock,
    memory_store::MemoryStore,
    test_platform::TestPlatform,
};

fn file(kind: &str, v: u32) -> PathBuf {
    PathBuf::from(format!("{}/tests/golden/documents/{kind}-v{v}.json", env!("CARGO_MANIFEST_DIR")))
}

/// One document of each kind, as today's code writes it.
async fn todays() -> Vec<Document> {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1")).await;
    platform.run(&bind("bind-1", "acme", "shared")).await;
    platform.run(&deploy("deploy-1", "1.4.1")).await;
    platform.run(&bind_secret("bind-1", "db-password")).await;
    platform.run(&rotate("rotate-1", "db-password", "Manual")).await;
    platform.run(&publish_configuration("publish-1", json!({ "LOG_LEVEL": "debug" }))).await;
    platform.run(&scale("scale-1", "Cpu", (1, 4), json!({ "target": 60 }))).await;
    platform.run(&provision("provision-2").with("/name", json!("other"))).await;
    let other = EnvironmentId::derived(&TENANT.parse().unwrap(), &PROJECT.parse().unwrap(), "other", 0);
    platform.post("Decommission", Some(other.as_str()), json!({ "reason": "never used" }), None).await;
    platform.run_until_quiet().await;
    hold(&platform, HoldScope::Environment, 5).await;
    sweeps::start(&platform.platform, sweeps::Kind::Health).await.unwrap();
    platform.run_until_quiet().await;
    platform.compute.add_beside("reservations-api", "stranger");
    platform.fire("DriftSweep").await;
    platform.run_until_quiet().await;
    let left_alone = json!({
        "environmentId": environment(),
        "match": { "path": "/env/*" },
        "reason": "a test of the north region",
        "expiresAt": "2026-03-03T10:15:00Z",
    });
    platform.post("SuppressDrift", None, left_alone, None).await;
    let malformed =
        crate::support::builders::Order { body: Some(b"{".to_vec()), ..deploy("deploy-2", "1.4.2") };
    platform.run(&malformed).await;
    // A process that dies right after a commit leaves messages in the outbox.
    platform.trouble.die_at_commit(platform.trouble.commits() + 1, When::After);
    platform.send(&deploy("deploy-3", "1.4.3"));
    platform.happen().await;
    let documents = platform.documents();
    platform.run_until_quiet().await;
    documents.into_iter().map(|stored| stored.document).collect()
}

async fn survives<S: State>() {
    let (kind, v) = (S::KIND, S::V);
    for old in 1..=v {
        let path = file(kind, old);
        if !path.exists() && env::var_os("UPDATE_EXPECT").is_some() && old == v {
            let document = todays()
                .await
                .into_iter()
                .find(|document| document.kind == kind)
                .expect("every kind is written");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text = serde_json::to_string_pretty(
                &json!({ "id": document.id, "v": document.v, "body": document.body }),
            );
            fs::write(&path, text.unwrap() + "\n").unwrap();
        }
        let Ok(text) = fs::read_to_string(&path) else {
            panic!(
                "{} is missing; UPDATE_EXPECT=1 cargo test writes it for a new kind or form",
                path.display()
            );
        };
        let golden: Value = serde_json::from_str(&text).unwrap();
        rewrites::<S>(&golden, old).await;
    }
}

/// Reads the document with a member that nobody knows, and writes it back.
async fn rewrites<S: State>(golden: &Value, v: u32) {
    let clock = FixedClock::default();
    let store = MemoryStore::new(clock);
    let ledger = Ledger::new(Arc::new(store.clone()));
    let partition = Partition::platform("corpus");
    let id = golden["id"].as_str().unwrap();
    let mut body = golden["body"].clone();
    body["ofANewerVersion"] = json!({ "kept": true });
    let document = Document {
        id: id.into(),
        kind: S::KIND.into(),
        v,
        at: "2026-03-02T10:15:00Z".parse().unwrap(),
        due: None,
        ttl_seconds: None,
        body: body.clone(),
    };
    store.commit(&partition, vec![Write::Create(document)]).await.unwrap();
    let (state, loaded) = ledger.load::<S>(&partition, id).await.unwrap().take();
    let mut commit = Commit::new(partition.clone(), "2026-03-02T10:16:00Z".parse().unwrap());
    commit.put(&loaded, &state.expect("it is there")).unwrap();
    ledger.commit(commit).await.unwrap();
    let written = store.read(&Key { partition, id: id.into() }).await.unwrap().unwrap().document;
    assert_eq!(written.v, S::V);
    assert_eq!(
        written.body["ofANewerVersion"],
        json!({ "kept": true }),
        "{} forgets what it does not know",
        S::KIND
    );
    if v == S::V {
        for (name, value) in body.as_object().unwrap() {
            assert_eq!(written.body[name], *value, "{}.{name} is not written as it was read", S::KIND);
        }
    }
}

macro_rules! corpus {
    ($($state:ident),*) => {
        #[tokio::test]
        async fn every_form_that_was_ever_stored_is_read_and_what_is_unknown_is_kept() {
            $(survives::<$state>().await;)*
        }

        #[tokio::test]
        async fn every_kind_that_is_written_is_in_the_corpus() {
            let known: BTreeSet<_> = [$($state::KIND),*].into_iter().collect();
            let written = todays().await;
            let written: BTreeSet<_> = written.iter().map(|document| document.kind.as_str()).collect();
            assert_eq!(written, known);
        }
    };
}

corpus!(
    RuntimeEnvironment,
    Plan,
    Decommission,
    Operation,
    RuntimeDeployment,
    Slot,
    RuntimeTenantBinding,
    GateRecord,
    InboxEntry,
    OutboxEvent,
    OutboxMessage,
    DeadLetter,
    RuntimeConfiguration,
    ConfigurationVersion,
    WorkloadConfiguration,
    SecretBinding,
    SecretRotation,
    ScalingPolicy,
    Hold,
    SweepReport,
    HealthCheckResult,
    RuntimeService,
    PastService,
    CatalogueEntry,
    RuntimeDriftFinding,
    DriftIndex,
    Suppression
);
