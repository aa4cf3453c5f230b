use super::*;

fn topology() -> Value {
    let asks = |name: &str, event: &str| json!({ "name": name, "correlationFilter": { "properties": { "cs-event-type": event } } });
    json!({
        "queues": [],
        "topics": [
            { "name": "t", "duplicateDetectionWindow": "PT1M", "subscriptions": [
                { "name": "both", "rules": [asks("$Default", "A"), asks("B", "B"), { "name": "also", "sqlFilter": "[cs-event-type] LIKE '_'" }] },
                { "name": "only-b", "timeToLive": "PT10S", "rules": [asks("$Default", "B")] },
            ] },
            { "name": "unheard", "subscriptions": [] },
        ],
    })
}

fn event(id: &str, kind: &str) -> Message {
    Message { properties: BTreeMap::from([("cs-event-type".to_owned(), json!(kind))]), ..message(id) }
}

const BOTH: &str = "t/Subscriptions/both";
const ONLY_B: &str = "T/subscriptions/ONLY-B";

#[tokio::test]
async fn every_subscription_that_asks_gets_one_copy() {
    let place = Place::new(&topology());
    let events = vec![event("1", "A"), event("2", "B"), event("3", "unasked for")];
    place.bus.send("t", events).await.unwrap();
    assert_eq!(place.ids(BOTH).await, ["1", "2"]);
    let copy = place.one(ONLY_B).await;
    assert_eq!(copy.message, event("2", "B"));
    place.bus.complete(ONLY_B, copy.lock_token).await.unwrap();
    assert_eq!(
        place.bus.counts().await.unwrap(),
        BTreeMap::from([
            ("t/Subscriptions/both".to_owned(), (2, 0, 0)),
            ("t/Subscriptions/only-b".to_owned(), (0, 0, 0))
        ])
    );
}

#[tokio::test]
async fn what_nobody_asks_for_vanishes() {
    let place = Place::new(&topology());
    place.bus.send("unheard", vec![event("1", "A")]).await.unwrap();
    place.bus.send("t", vec![event("1", "nothing")]).await.unwrap();
    assert!(place.bus.counts().await.unwrap().values().all(|counts| *counts == (0, 0, 0)));
}

#[tokio::test]
async fn a_topic_detects_duplicates_for_all_its_subscriptions() {
    let place = Place::new(&topology());
    place.bus.send("t", vec![event("1", "B")]).await.unwrap();
    place.bus.send("t", vec![event("1", "B")]).await.unwrap();
    assert_eq!((place.ids(BOTH).await.len(), place.ids(ONLY_B).await.len()), (1, 1));
}

#[tokio::test]
async fn a_full_topic_refuses_and_expiry_makes_room() {
    let mut topology = parse(&topology());
    topology.topics[0].size_bytes_max = 400;
    let place = Place::with(topology);
    let sized = |id: &str| Message { body: vec![b'x'; 100], ..event(id, "B") };
    place.bus.send("t", vec![sized("1")]).await.unwrap();
    assert_eq!(refused(place.bus.send("t", vec![sized("2")]).await), "The entity 't' is full.");
    assert_eq!(
        (place.counts("t/Subscriptions/both").await, place.counts("t/Subscriptions/only-b").await),
        ((1, 0, 0), (1, 0, 0))
    );
    let lock = place.one(BOTH).await.lock_token;
    place.bus.complete(BOTH, lock).await.unwrap();
    place.pass(seconds(10));
    place.sweep().await;
    place.bus.send("t", vec![sized("2")]).await.unwrap();
    assert_eq!(place.ids(BOTH).await, ["2"]);
}

#[tokio::test]
async fn subscriptions_have_dead_letters_of_their_own() {
    let place = Place::new(&topology());
    place.bus.send("t", vec![event("1", "B")]).await.unwrap();
    let lock = place.one(BOTH).await.lock_token;
    place.bus.dead_letter(BOTH, lock, "r", "d").await.unwrap();
    assert_eq!(place.ids("t/subscriptions/both/$deadletterqueue").await, ["1"]);
    assert_eq!(place.ids("t/subscriptions/only-b/$deadletterqueue").await, [""; 0]);
}
