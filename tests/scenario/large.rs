//! Many environments, long histories: what an answer costs does not depend on what there is.

use std::sync::Arc;

use runtime_platform::{
    ledger::{EVENT, Ledger},
    ports::store::{Document, Partition, Store, Write},
    services::runtime_environment_service::RuntimeEnvironment,
    sweeps::{self, Kind},
};

use super::story::serving;
use crate::support::{
    builders::{TENANT, deploy},
    counting::{CountingStore, Counts},
    large::Large,
    test_platform::TestPlatform,
};

/// Environments of the smaller and of the larger data directory.
const SIZES: [usize; 2] = [12, 48];
/// The most documents that one answer may rest on: a page of ten, and a few beside.
const DOCUMENTS_MAX: usize = 30;

#[tokio::test]
async fn a_get_costs_the_same_whatever_there_is() {
    let mut costs: Vec<Vec<(String, u16, Counts)>> = Vec::new();
    for environments in SIZES {
        let directory = tempfile::tempdir().unwrap();
        let large = Large::fill(directory.path(), environments).await;
        assert!(large.documents > environments * large.template.count(EVENT));
        let mut asked = Vec::new();
        for ask in large.asks().await {
            large.store.take();
            let answer = large.get(&ask, 1).await;
            asked.push((ask.name, answer.status, large.store.take()));
        }
        assert_eq!(large.test.broker.waiting(), Vec::<String>::new(), "who only asks sends nothing");
        costs.push(asked);
    }
    assert!(costs[0].len() > 40, "only {} things were asked", costs[0].len());
    let found = costs[0].iter().filter(|(name, status, _)| name.ends_with("by id") && *status == 200).count();
    assert!(found > 8, "only {found} things were found by their ids");
    for ((name, status, small), (_, there, large)) in costs[0].iter().zip(&costs[1]) {
        assert_eq!(
            (small, status),
            (large, there),
            "{name}: {} and {} environments differ",
            SIZES[0],
            SIZES[1]
        );
        assert!(small.reads + small.listed <= DOCUMENTS_MAX, "{name} reads much: {small:?}");
        assert_eq!(small.gone_through, Vec::<String>::new(), "{name} asks by a member that is not indexed");
        assert!(*status < 500, "{name} was answered {status}");
    }
}

#[tokio::test]
async fn a_timer_pages_through_a_thousand_environments() {
    let test = TestPlatform::new();
    let template = serving().await;
    let environment = template.documents().into_iter().find(|stored| stored.document.kind == "environment");
    let environment = environment.unwrap().document;
    for number in 0..1000 {
        let id = format!("env-{number:08x}");
        let mut body = environment.body.clone();
        body["environmentId"] = id.clone().into();
        let partition = Partition::environment(&TENANT.parse().unwrap(), &id);
        let document = Document { id, body, ..environment.clone() };
        test.store.commit(&partition, vec![Write::Create(document)]).await.unwrap();
    }
    let mut test = test;
    test.tidy = false;
    let store = CountingStore::new(Arc::new(test.store.clone()));
    test.platform.ledger = Ledger::new(Arc::new(store.clone()));
    assert_eq!(test.states::<RuntimeEnvironment>().len(), 1000);
    for kind in Kind::ALL {
        sweeps::start(&test.platform, kind).await.unwrap();
        let counts = store.take();
        assert!(counts.pages <= 12 && counts.largest_page <= 100, "{kind:?}: {counts:?}");
        assert_eq!((counts.listed, counts.reads, counts.commits), (1000, 0, 1), "{kind:?}");
    }
    assert_eq!(test.broker.waiting().len(), 1000 * Kind::ALL.len());
    // The same window again is the same messages.
    sweeps::start(&test.platform, Kind::Drift).await.unwrap();
    assert_eq!(test.broker.waiting().len(), 1000 * Kind::ALL.len());
}

#[tokio::test]
async fn a_deploy_costs_the_same_whatever_was_deployed_before() {
    let mut platform = serving().await;
    let store = CountingStore::new(Arc::new(platform.store.clone()));
    platform.platform.ledger = Ledger::new(Arc::new(store.clone()));
    let mut costs = Vec::new();
    for number in 0..40 {
        store.take();
        platform.run(&deploy(&format!("deploy-{number}"), &format!("2.{number}"))).await;
        platform.fire("HealthSweep").await;
        platform.run_until_quiet().await;
        costs.push(store.take());
    }
    // Now and then a heartbeat or a count of replicas is among them.
    let most = |costs: &[Counts]| costs.iter().map(|counts| counts.reads + counts.listed).max().unwrap();
    let (early, late) = (most(&costs[5..20]), most(&costs[25..]));
    assert!(late <= early + 2, "early deploys read {early} documents, late ones {late}: {:?}", costs[39]);
    assert!(costs.iter().all(|counts| counts.gone_through.is_empty()), "{:?}", costs[39].gone_through);
}
