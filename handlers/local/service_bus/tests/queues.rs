use super::*;

#[tokio::test]
async fn a_message_arrives_as_it_was_sent() {
    let place = Place::new(&queue(&json!({ "lockDuration": "PT30S", "timeToLive": "P1D" })));
    let sent = Message {
        message_id: "m-1".into(),
        content_type: Some("application/json".into()),
        correlation_id: Some("c".into()),
        session_id: Some("s".into()),
        subject: Some("deploy".into()),
        to: Some("to".into()),
        reply_to: Some("reply".into()),
        reply_to_session_id: Some("rs".into()),
        partition_key: Some("s".into()),
        time_to_live: Some(seconds(60)),
        scheduled_enqueue_time: Some(place.at(NOW)),
        properties: BTreeMap::from([
            ("text".to_owned(), json!("é")),
            ("number".to_owned(), json!(-1.5)),
            ("truth".to_owned(), json!(true)),
        ]),
        body: vec![0, 255, 7],
    };
    place.bus.send("Q", vec![sent.clone()]).await.unwrap();
    let received = place.one("/q/").await;
    let expected = Received {
        message: sent,
        sequence_number: 1,
        delivery_count: 1,
        enqueued_at: place.at(NOW),
        expires_at: Some(place.at(seconds(60))),
        lock_token: received.lock_token,
        locked_until: place.at(seconds(30)),
        dead_letter_source: None,
    };
    assert_eq!(received, expected);
    assert!(!received.lock_token.is_nil());
}

#[tokio::test]
async fn a_message_without_an_id_gets_one() {
    let place = Place::new(&queue(&json!({})));
    place.bus.send("q", vec![Message::default()]).await.unwrap();
    assert_eq!(place.one("q").await.message.message_id.len(), 32);
}

#[tokio::test]
async fn what_is_locked_is_hidden_until_its_lock_runs_out() {
    let place = Place::new(&queue(&json!({ "lockDuration": "PT30S" })));
    place.send("q", "m").await;
    let first = place.one("q").await;
    place.pass(seconds(29));
    assert_eq!(place.ids("q").await, [""; 0]);
    place.pass(seconds(1));
    let second = place.one("q").await;
    assert_eq!((second.delivery_count, second.sequence_number), (2, first.sequence_number));
    assert_eq!(refused(place.bus.complete("q", first.lock_token).await), LOCK_LOST);
    place.bus.complete("q", second.lock_token).await.unwrap();
    assert_eq!(place.counts("q").await, (0, 0, 0));
}

#[tokio::test]
async fn a_lock_settles_once_in_its_own_entity_and_in_time() {
    let place = Place::new(&json!({ "queues": [{ "name": "q" }, { "name": "other" }], "topics": [] }));
    place.send("q", "m").await;
    let lock = place.one("q").await.lock_token;
    assert_eq!(refused(place.bus.complete("other", lock).await), LOCK_LOST);
    assert_eq!(refused(place.bus.complete("q/$DeadLetterQueue", lock).await), LOCK_LOST);
    assert_eq!(refused(place.bus.complete("q", Uuid::nil()).await), LOCK_LOST);
    place.bus.complete("q", lock).await.unwrap();
    assert_eq!(refused(place.bus.complete("q", lock).await), LOCK_LOST);

    place.send("q", "late").await;
    let lock = place.one("q").await.lock_token;
    place.pass(seconds(60));
    assert_eq!(refused(place.bus.complete("q", lock).await), LOCK_LOST);
    assert_eq!(refused(place.bus.abandon("q", lock).await), LOCK_LOST);
    assert_eq!(refused(place.bus.renew("q", lock).await), LOCK_LOST);
    assert_eq!(refused(place.bus.dead_letter("q", lock, "r", "d").await), LOCK_LOST);
}

#[tokio::test]
async fn a_renewed_lock_holds_on() {
    let place = Place::new(&queue(&json!({ "lockDuration": "PT30S" })));
    place.send("q", "m").await;
    let lock = place.one("q").await.lock_token;
    place.pass(seconds(20));
    assert_eq!(place.bus.renew("q", lock).await.unwrap(), place.at(seconds(30)));
    place.pass(seconds(29));
    assert_eq!(place.ids("q").await, [""; 0]);
    place.bus.complete("q", lock).await.unwrap();
}

#[tokio::test]
async fn what_is_given_back_comes_first_again_and_counts_only_if_abandoned() {
    let place = Place::new(&queue(&json!({})));
    place.send("q", "a").await;
    place.send("q", "b").await;
    let first = place.bus.receive("q", 1, NOW).await.unwrap().remove(0);
    place.bus.abandon("q", first.lock_token).await.unwrap();
    let again = place.bus.receive("q", 1, NOW).await.unwrap().remove(0);
    assert_eq!((again.message.message_id.as_str(), again.delivery_count), ("a", 2));
    place.bus.release("q", again.lock_token).await.unwrap();
    let both = place.receive("q").await;
    let both: Vec<_> = both.iter().map(|m| (m.message.message_id.as_str(), m.delivery_count)).collect();
    assert_eq!(both, [("a", 2), ("b", 1)]);
}

#[tokio::test]
async fn what_is_taken_is_gone() {
    let place = Place::new(&queue(&json!({})));
    place.send("q", "a").await;
    place.send("q", "b").await;
    let taken = place.bus.take("q", 1, NOW).await.unwrap();
    assert_eq!(
        (taken.len(), taken[0].message.message_id.as_str(), taken[0].lock_token),
        (1, "a", Uuid::nil())
    );
    assert_eq!(place.counts("q").await, (1, 0, 0));
}

#[tokio::test]
async fn a_scheduled_message_is_enqueued_when_it_is_due() {
    let place = Place::new(&queue(&json!({ "timeToLive": "PT1M" })));
    let scheduled = Message { scheduled_enqueue_time: Some(place.at(seconds(90))), ..message("later") };
    place.bus.send("q", vec![scheduled]).await.unwrap();
    assert_eq!(place.counts("q").await, (0, 0, 1));
    place.pass(seconds(89));
    place.sweep().await;
    assert_eq!(place.ids("q").await, [""; 0]);
    place.send("q", "earlier").await;
    place.pass(seconds(1));
    let both = place.receive("q").await;
    let both: Vec<_> = both.iter().map(|m| (m.message.message_id.as_str(), m.enqueued_at)).collect();
    assert_eq!(both, [("earlier", place.at(NOW) - seconds(1)), ("later", place.at(NOW))]);
}

#[tokio::test]
async fn a_repeated_message_id_is_dropped_within_the_window() {
    let place = Place::new(&queue(&json!({ "duplicateDetectionWindow": "PT1M" })));
    place.send("q", "m").await;
    place.send("q", "m").await;
    place.bus.send("q", vec![message("n"), message("n")]).await.unwrap();
    assert_eq!(place.ids("q").await, ["m", "n"]);
    place.pass(seconds(59));
    place.send("q", "m").await;
    assert_eq!(place.counts("q").await, (2, 0, 0), "the duplicate does not lengthen the window");
    place.pass(seconds(1));
    place.send("q", "m").await;
    assert_eq!(place.counts("q").await, (3, 0, 0));
}

#[tokio::test]
async fn without_a_window_nothing_is_a_duplicate() {
    let place = Place::new(&queue(&json!({})));
    place.send("q", "m").await;
    place.send("q", "m").await;
    assert_eq!(place.ids("q").await, ["m", "m"]);
}

#[tokio::test]
async fn a_send_that_is_refused_leaves_nothing() {
    let place = Place::new(&queue(&json!({ "duplicateDetectionWindow": "PT1M" })));
    let id = "x".repeat(129);
    let with = |name: &str, value: Value| Message {
        properties: BTreeMap::from([(name.to_owned(), value)]),
        ..message("bad")
    };
    let table = [
        (message(&id), "MessageId is longer than 128 characters: shorten it."),
        (
            Message { session_id: Some(id.clone()), ..message("bad") },
            "SessionId is longer than 128 characters: shorten it.",
        ),
        (
            Message { session_id: Some("s".into()), partition_key: Some("p".into()), ..message("bad") },
            "PartitionKey and SessionId differ: make them equal, or leave one out.",
        ),
        (
            with("p", Value::Null),
            "The property 'p' is no text, number or boolean: make it one, or leave it out.",
        ),
        (
            with("p", json!(["x"])),
            "The property 'p' is no text, number or boolean: make it one, or leave it out.",
        ),
    ];
    for (bad, problem) in table {
        assert_eq!(refused(place.bus.send("q", vec![message("good"), bad]).await), problem);
    }
    assert_eq!(place.counts("q").await, (0, 0, 0));
    place.send("q", "good").await;
    assert_eq!(place.ids("q").await, ["good"]);
}

#[tokio::test]
async fn the_limit_of_a_message_counts_its_properties() {
    let place = Place::new(&queue(&json!({})));
    let head = serde_json::to_string(&message("m")).unwrap().len();
    let sized = |body: usize| Message { body: vec![b'x'; body], ..message("m") };
    place.bus.send("q", vec![sized(MESSAGE_BYTES_MAX - head)]).await.unwrap();
    assert_eq!(
        refused(place.bus.send("q", vec![sized(MESSAGE_BYTES_MAX - head + 1)]).await),
        "The message is 262145 bytes, 262144 are allowed."
    );
    let halves = || vec![sized(MESSAGE_BYTES_MAX / 2), sized(MESSAGE_BYTES_MAX / 2)];
    assert!(matches!(place.bus.send("q", halves()).await, Err(BusRefusal::TooLarge { .. })));
    let many = vec![Message::default(); MESSAGES_PER_SEND_MAX + 1];
    assert_eq!(refused(place.bus.send("q", many).await), "One send takes 1000 messages, these are 1001.");
    let heavy = Message { subject: Some("x".repeat(70_000)), ..message("m") };
    assert!(matches!(
        place.bus.send("q", vec![heavy]).await,
        Err(BusRefusal::TooLarge { limit: 65_536, .. })
    ));
    assert_eq!(place.counts("q").await, (1, 0, 0));
}

#[tokio::test]
async fn a_full_queue_refuses_until_there_is_room() {
    let mut topology = parse(&queue(&json!({})));
    topology.queues[0].size_bytes_max = 100;
    let place = Place::with(topology);
    let sized = |id: &str| Message { body: vec![b'x'; 50], ..message(id) };
    place.bus.send("q", vec![sized("a")]).await.unwrap();
    assert_eq!(refused(place.bus.send("q", vec![sized("b")]).await), "The entity 'q' is full.");
    let lock = place.one("q").await.lock_token;
    place.bus.complete("q", lock).await.unwrap();
    place.bus.send("q", vec![sized("b")]).await.unwrap();
    assert_eq!(place.ids("q").await, ["b"]);
}

#[tokio::test]
async fn who_asks_for_what_is_not_there_is_told() {
    let topology = json!({ "queues": [{ "name": "q" }], "topics": [{ "name": "t", "subscriptions": [
        { "name": "s", "rules": [{ "name": "$Default", "sqlFilter": "1 = 1" }] },
    ] }] });
    let place = Place::new(&topology);
    let nowhere = "The messaging entity 'nowhere' could not be found.";
    assert_eq!(refused(place.bus.send("nowhere", vec![message("m")]).await), nowhere);
    assert_eq!(refused(place.bus.receive("nowhere", 1, NOW).await), nowhere);
    assert_eq!(refused(place.bus.complete("nowhere", Uuid::nil()).await), nowhere);
    assert_eq!(
        refused(place.bus.receive("t", 1, NOW).await),
        "'t' is a topic: receive from one of its subscriptions, 't/Subscriptions/name'."
    );
    for path in ["t/subscriptions/s", "q/$DeadLetterQueue"] {
        assert_eq!(
            refused(place.bus.send(path, vec![message("m")]).await),
            format!("'{path}' takes no messages: send to a queue or a topic.")
        );
    }
}
