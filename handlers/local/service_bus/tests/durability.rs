use rusqlite::Connection;

use super::*;

#[tokio::test]
async fn a_restart_keeps_everything() {
    let topology = queue(&json!({ "duplicateDetectionWindow": "P1D", "lockDuration": "PT30S" }));
    let place = Place::new(&topology);
    for id in ["dead", "locked", "free"] {
        place.send("q", id).await;
    }
    let later = Message { scheduled_enqueue_time: Some(place.at(seconds(3600))), ..message("later") };
    place.bus.send("q", vec![later]).await.unwrap();
    let two = place.bus.receive("q", 2, NOW).await.unwrap();
    place.bus.dead_letter("q", two[0].lock_token, "r", "d").await.unwrap();
    let before = place.bus.counts().await.unwrap();

    let place = place.reopened(&topology);
    assert_eq!(place.bus.counts().await.unwrap(), before);
    assert_eq!(place.counts("q").await, (2, 1, 1));
    place.send("q", "free").await;
    let free = place.one("q").await;
    assert_eq!(
        (free.message.message_id.as_str(), free.sequence_number),
        ("free", 3),
        "ids are still remembered"
    );
    place.bus.complete("q", free.lock_token).await.unwrap();

    place.pass(seconds(30));
    let again = place.one("q").await;
    assert_eq!((again.message.message_id.as_str(), again.delivery_count), ("locked", 2));
    assert_eq!(place.ids("q/$deadletterqueue").await, ["dead"]);
    place.pass(seconds(3600));
    place.bus.complete("q", again.lock_token).await.expect_err("the lock has run out");
    assert_eq!(place.ids("q").await, ["locked", "later"]);
}

#[tokio::test]
async fn a_lock_survives_a_restart_too() {
    let topology = queue(&json!({}));
    let place = Place::new(&topology);
    place.send("q", "m").await;
    let lock = place.one("q").await.lock_token;
    let place = place.reopened(&topology);
    assert_eq!(place.ids("q").await, [""; 0]);
    place.bus.complete("q", lock).await.unwrap();
}

#[tokio::test]
async fn what_a_dead_receiver_held_can_be_given_back_at_once() {
    let topology = queue(&json!({}));
    let place = Place::new(&topology);
    place.send("q", "m").await;
    let lock = place.one("q").await.lock_token;
    let place = place.reopened(&topology);
    place.bus.release_all().await.unwrap();
    let again = place.one("q").await;
    assert_eq!((again.message.message_id.as_str(), again.delivery_count), ("m", 2));
    place.bus.complete("q", lock).await.expect_err("the lock was taken off");
    place.bus.complete("q", again.lock_token).await.unwrap();
}

#[tokio::test]
async fn what_is_declared_no_longer_goes_when_it_is_empty() {
    let all = json!({
        "queues": [{ "name": "q" }, { "name": "full" }, { "name": "empty" }],
        "topics": [{ "name": "t", "subscriptions": [
            { "name": "s", "rules": [{ "name": "$Default", "sqlFilter": "1 = 1" }] },
        ] }],
    });
    let place = Place::new(&all);
    place.send("full", "m").await;
    place.send("t", "n").await;
    let place = place.reopened(&queue(&json!({})));
    let entities: Vec<_> = place.bus.counts().await.unwrap().into_keys().collect();
    assert_eq!(entities, ["full", "q", "t/Subscriptions/s"]);
    for entity in ["empty", "t"] {
        let expected = format!("The messaging entity '{entity}' could not be found.");
        assert_eq!(refused(place.bus.send(entity, vec![message("m")]).await), expected);
    }
    assert_eq!(
        refused(place.bus.send("full", vec![message("m")]).await),
        "'full' takes no messages: send to a queue or a topic."
    );
    let lock = place.one("full").await.lock_token;
    place.bus.complete("full", lock).await.unwrap();

    let place = place.reopened(&all);
    assert_eq!(place.ids("t/Subscriptions/s").await, ["n"], "it is declared again, with what it held");
}

#[tokio::test]
async fn a_size_is_counted_where_a_subscription_now_belongs() {
    let topology = |subscribed: bool| {
        let subscription = json!({ "name": "s", "rules": [{ "name": "$Default", "sqlFilter": "1 = 1" }] });
        let subscriptions = if subscribed { vec![subscription] } else { Vec::new() };
        json!({ "queues": [], "topics": [{ "name": "t", "subscriptions": subscriptions }] })
    };
    let place = Place::new(&topology(true));
    place.send("t", "m").await;
    let place = place.reopened(&queue(&json!({}))).reopened(&topology(true));
    let lock = place.one("t/Subscriptions/s").await.lock_token;
    place.bus.complete("t/Subscriptions/s", lock).await.unwrap();
    let connection = Connection::open(file(&place.directory)).unwrap();
    let bytes: Vec<i64> = connection
        .prepare("SELECT bytes FROM entity")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(bytes, [0, 0]);
}

#[tokio::test]
async fn message_ids_are_forgotten_after_their_window() {
    let place = Place::new(&queue(&json!({ "duplicateDetectionWindow": "PT1M" })));
    let many = (0..900).map(|id| message(&id.to_string())).collect();
    place.bus.send("q", many).await.unwrap();
    let remembered = || {
        let connection = Connection::open(file(&place.directory)).unwrap();
        connection.query_row("SELECT count(*) FROM seen", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    place.sweep().await;
    assert_eq!(remembered(), 900);
    place.pass(seconds(60));
    place.sweep().await;
    assert_eq!(remembered(), 0);
}

#[tokio::test]
async fn many_expire_in_bounded_passes() {
    let place = Place::new(&queue(&json!({ "timeToLive": "PT1M", "deadLetteringOnExpiration": true })));
    place.bus.send("q", (0..900).map(|id| message(&id.to_string())).collect()).await.unwrap();
    place.pass(seconds(60));
    place.sweep().await;
    assert_eq!(place.counts("q").await, (0, 900, 0));

    place.bus.send("q", (0..900).map(|id| message(&id.to_string())).collect()).await.unwrap();
    place.send("q", "later").await;
    place.pass(seconds(30));
    place.send("q", "alive").await;
    place.pass(seconds(30));
    let received = place.bus.receive("q", 1, seconds(10)).await.unwrap();
    assert_eq!(received[0].message.message_id, "alive", "a receiver gets past all that has expired");
}

#[tokio::test]
async fn the_file_of_a_newer_version_is_refused() {
    let topology = queue(&json!({}));
    let Place { bus, clock, directory } = Place::new(&topology);
    drop(bus);
    let connection = Connection::open(file(&directory)).unwrap();
    connection.execute_batch("PRAGMA user_version = 99").unwrap();
    drop(connection);
    let refused = ServiceBus::open(&file(&directory), parse(&topology), clock).err().expect("it is refused");
    assert!(matches!(refused, OpenError::Newer { found: 99, .. }), "{refused}");
}
