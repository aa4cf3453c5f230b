use super::*;

const DEAD: &str = "q/$DeadLetterQueue";

/// Why a message is dead: reason and description.
fn why(received: &Received) -> (&str, &str) {
    let text = |name: &str| received.message.properties[name].as_str().unwrap();
    (text("DeadLetterReason"), text("DeadLetterErrorDescription"))
}

#[tokio::test]
async fn too_many_deliveries_end_in_the_dead_letters() {
    let place = Place::new(&queue(&json!({ "maxDeliveryCount": 2, "lockDuration": "PT10S" })));
    place.send("q", "abandoned").await;
    for _ in 0..2 {
        let lock = place.one("q").await.lock_token;
        place.bus.abandon("q", lock).await.unwrap();
    }
    let dead = place.one(DEAD).await;
    assert_eq!(why(&dead), ("MaxDeliveryCountExceeded", "The message was not completed in 2 deliveries."));
    assert_eq!((dead.message.body.as_slice(), dead.sequence_number), (b"abandoned".as_slice(), 1));
    place.bus.complete(DEAD, dead.lock_token).await.unwrap();

    place.send("q", "unsettled, asked for").await;
    place.send("q", "unsettled, swept").await;
    for _ in 0..2 {
        assert_eq!(place.receive("q").await.len(), 2);
        place.pass(seconds(10));
    }
    place.sweep().await;
    assert_eq!(place.counts("q").await, (0, 2, 0));
    let dead = place.receive(DEAD).await;
    assert_eq!(why(&dead[0]).0, "MaxDeliveryCountExceeded");
}

#[tokio::test]
async fn a_receiver_finds_no_exhausted_message_even_before_a_sweep() {
    let place = Place::new(&queue(&json!({ "maxDeliveryCount": 1 })));
    place.send("q", "m").await;
    place.one("q").await;
    place.pass(seconds(60));
    assert_eq!(place.ids("q").await, [""; 0]);
    assert_eq!(place.counts("q").await, (0, 1, 0));
}

#[tokio::test]
async fn a_receiver_dead_letters_with_its_own_words() {
    let place = Place::new(&queue(&json!({})));
    place.send("q", "m").await;
    let lock = place.one("q").await.lock_token;
    place.bus.dead_letter("q", lock, "Unreadable", "No JSON.").await.unwrap();
    let dead = place.one(DEAD).await;
    assert_eq!(why(&dead), ("Unreadable", "No JSON."));
    assert_eq!(
        refused(place.bus.dead_letter(DEAD, dead.lock_token, "again", "").await),
        "The message is in a dead-letter queue already: complete it or abandon it."
    );
    for _ in 0..20 {
        let lock = place.bus.receive(DEAD, 1, seconds(1)).await.unwrap();
        let lock = lock.first().map_or(dead.lock_token, |again| again.lock_token);
        place.bus.abandon(DEAD, lock).await.unwrap();
    }
    assert_eq!(place.counts("q").await, (0, 1, 0), "a dead letter stays however often it is given back");
}

#[tokio::test]
async fn what_expires_is_dropped_or_dead_lettered_as_declared() {
    for (dead_letters, expected) in [(false, (0, 0, 0)), (true, (0, 1, 0))] {
        for swept in [false, true] {
            let form = json!({ "timeToLive": "PT1M", "deadLetteringOnExpiration": dead_letters });
            let place = Place::new(&queue(&form));
            place.send("q", "m").await;
            place.pass(seconds(59));
            place.sweep().await;
            assert_eq!(place.counts("q").await, (1, 0, 0));
            place.pass(seconds(1));
            if swept {
                place.sweep().await;
            } else {
                assert_eq!(place.ids("q").await, [""; 0]);
            }
            assert_eq!(place.counts("q").await, expected, "dead letters {dead_letters}, swept {swept}");
            if dead_letters {
                let dead = place.one(DEAD).await;
                let expected = ("TTLExpiredException", "The message expired before anybody completed it.");
                assert_eq!((why(&dead), dead.expires_at), (expected, None));
            }
        }
    }
}

#[tokio::test]
async fn the_shorter_time_to_live_counts() {
    let place = Place::new(&queue(&json!({ "timeToLive": "PT1M" })));
    let living = |id: &str, time| Message { time_to_live: Some(seconds(time)), ..message(id) };
    place.bus.send("q", vec![living("short", 30), living("long", 600)]).await.unwrap();
    place.send("q", "default").await;
    let expiries = place.receive("q").await;
    let expiries: Vec<_> = expiries.iter().map(|m| m.expires_at.unwrap()).collect();
    assert_eq!(expiries, [place.at(seconds(30)), place.at(seconds(60)), place.at(seconds(60))]);
}

#[tokio::test]
async fn a_locked_message_does_not_expire_under_its_receiver() {
    let place = Place::new(&queue(&json!({ "timeToLive": "PT10S", "lockDuration": "PT30S" })));
    place.send("q", "completed").await;
    let lock = place.one("q").await.lock_token;
    place.pass(seconds(20));
    place.sweep().await;
    place.bus.complete("q", lock).await.unwrap();

    place.send("q", "forgotten").await;
    place.one("q").await;
    place.pass(seconds(30));
    assert_eq!(place.ids("q").await, [""; 0]);
    assert_eq!(place.counts("q").await, (0, 0, 0));
}

fn chain() -> Value {
    let window = "PT1M";
    json!({
        "queues": [
            { "name": "q", "forwardDeadLetteredMessagesTo": "middle" },
            { "name": "middle", "forwardDeadLetteredMessagesTo": "dead-letters", "duplicateDetectionWindow": window },
            { "name": "dead-letters", "timeToLive": "P30D" },
        ],
        "topics": [],
    })
}

async fn kill(place: &Place, path: &str) {
    let lock = place.one(path).await.lock_token;
    place.bus.dead_letter(path, lock, path, "why").await.unwrap();
}

#[tokio::test]
async fn dead_letters_are_forwarded_and_remember_where_they_died_first() {
    let place = Place::new(&chain());
    place.bus.send("q", vec![Message { time_to_live: Some(seconds(60)), ..message("m") }]).await.unwrap();
    kill(&place, "q").await;
    assert_eq!(place.counts("q").await, (0, 0, 0));
    place.pass(seconds(3600));
    kill(&place, "middle").await;
    let dead = place.one("dead-letters").await;
    assert_eq!(dead.dead_letter_source.as_deref(), Some("q"));
    assert_eq!(why(&dead), ("middle", "why"));
    assert_eq!((dead.delivery_count, dead.enqueued_at), (1, place.at(NOW)));
    assert_eq!(dead.expires_at, Some(place.at(seconds(30 * 86_400))), "the target's time to live begins");
}

#[tokio::test]
async fn a_forwarded_dead_letter_is_nobodys_duplicate() {
    let place = Place::new(&chain());
    place.send("middle", "m").await;
    place.send("q", "m").await;
    kill(&place, "q").await;
    assert_eq!(place.ids("middle").await, ["m", "m"]);
}

#[tokio::test]
async fn a_dead_letter_stays_while_its_target_has_no_room() {
    let mut topology = parse(&chain());
    topology.queues[1].size_bytes_max = 0;
    let place = Place::with(topology);
    place.send("q", "m").await;
    kill(&place, "q").await;
    place.sweep().await;
    assert_eq!((place.counts("q").await, place.counts("middle").await), ((0, 1, 0), (0, 0, 0)));

    let place = place.reopened(&chain());
    place.sweep().await;
    assert_eq!((place.counts("q").await, place.counts("middle").await), ((0, 0, 0), (1, 0, 0)));
    let moved = place.one("middle").await;
    assert_eq!((why(&moved), moved.dead_letter_source.as_deref()), (("q", "why"), Some("q")));
}
