use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use super::*;

/// Long enough that a test which needs it has failed.
const LONG: Duration = seconds(30);
/// What "at once" may take on a busy machine.
const SOON: Duration = seconds(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receivers_are_woken_one_for_each_message() {
    let place = Place::new(&queue(&json!({})));
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let bus = place.bus.clone();
            tokio::spawn(async move { bus.receive("q", 1, LONG).await.unwrap().len() })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let start = Instant::now();
    place.bus.send("q", (0..4).map(|id| message(&id.to_string())).collect()).await.unwrap();
    for id in 4..8 {
        place.send("q", &id.to_string()).await;
    }
    for receiver in waiting {
        assert_eq!(receiver.await.unwrap(), 1);
    }
    assert!(start.elapsed() < SOON);
}

#[tokio::test]
async fn an_empty_queue_answers_nothing_when_the_wait_is_over() {
    let place = Place::new(&queue(&json!({})));
    let start = Instant::now();
    assert_eq!(place.bus.receive("q", 1, Duration::from_millis(50)).await.unwrap(), []);
    assert!(start.elapsed() >= Duration::from_millis(50));
}

/// Something becomes visible while a receiver waits for it.
async fn becomes_visible(place: &Place, pass: Duration) -> String {
    let bus = place.bus.clone();
    let waiting = tokio::spawn(async move { bus.receive("q", 1, LONG).await.unwrap() });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    place.pass(pass);
    let received = tokio::time::timeout(SOON, waiting).await.expect("it is woken").unwrap();
    received[0].message.message_id.clone()
}

#[tokio::test]
async fn a_receiver_wakes_when_a_scheduled_message_falls_due() {
    let place = Place::new(&queue(&json!({})));
    let later = Message { scheduled_enqueue_time: Some(place.at(seconds(60))), ..message("later") };
    place.bus.send("q", vec![later]).await.unwrap();
    assert_eq!(becomes_visible(&place, seconds(60)).await, "later");
}

#[tokio::test]
async fn a_receiver_wakes_when_somebody_elses_lock_runs_out() {
    let place = Place::new(&queue(&json!({})));
    let bus = place.bus.clone();
    let waiting = tokio::spawn(async move { bus.receive("q", 1, LONG).await.unwrap() });
    let other = place.bus.clone();
    let other = tokio::spawn(async move { other.receive("q", 1, LONG).await.unwrap() });
    tokio::time::sleep(Duration::from_millis(50)).await;
    place.send("q", "m").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(waiting.is_finished() != other.is_finished(), "one of them has it");
    place.pass(seconds(60));
    for receiver in [waiting, other] {
        let received = tokio::time::timeout(SOON, receiver).await.expect("it is woken").unwrap();
        assert_eq!(received[0].message.message_id, "m");
    }
}

#[tokio::test]
async fn a_receiver_wakes_when_a_message_is_given_back() {
    let place = Place::new(&queue(&json!({})));
    place.send("q", "m").await;
    let lock = place.one("q").await.lock_token;
    let bus = place.bus.clone();
    let waiting = tokio::spawn(async move { bus.receive("q", 1, LONG).await.unwrap() });
    tokio::time::sleep(Duration::from_millis(50)).await;
    place.bus.abandon("q", lock).await.unwrap();
    let received = tokio::time::timeout(SOON, waiting).await.expect("it is woken").unwrap();
    assert_eq!(received[0].delivery_count, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_cancelled_receiver_was_being_handed_comes_back_uncounted() {
    let place = Place::new(&queue(&json!({})));
    place.send("q", "m").await;
    // However far the receiver gets in so many steps, nothing may be lost, and no lock be left.
    for steps in 0..200_u64 {
        let receiving = place.bus.receive("q", 1, LONG);
        let cancelled = tokio::time::timeout(Duration::from_micros(steps * 10), receiving).await;
        let received = match cancelled {
            Ok(received) => received.unwrap(),
            Err(_) => tokio::time::timeout(SOON, place.bus.receive("q", 1, LONG))
                .await
                .expect("it comes back")
                .unwrap(),
        };
        assert_eq!(received[0].delivery_count, 1, "after {steps} steps");
        place.bus.release("q", received[0].lock_token).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wake_up_is_passed_on_by_a_receiver_that_goes_away() {
    let place = Place::new(&queue(&json!({})));
    for round in 0..50 {
        let receivers: Vec<_> = (0..2)
            .map(|_| {
                let bus = place.bus.clone();
                tokio::spawn(async move { bus.receive("q", 1, LONG).await.unwrap().len() })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(2)).await;
        place.send("q", &round.to_string()).await;
        receivers[0].abort();
        let [aborted, stayed] = <[_; 2]>::try_from(receivers).unwrap();
        // Where the aborted one was quicker than its end, the other has nothing to get.
        if aborted.await.is_ok() {
            stayed.abort();
        } else {
            assert_eq!(
                tokio::time::timeout(SOON, stayed).await.expect("it is woken").unwrap(),
                1,
                "round {round}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn competing_receivers_get_every_message_once() {
    const MESSAGES: usize = 400;
    let place = Place::new(&queue(&json!({})));
    let settled = Arc::new(AtomicUsize::new(0));
    let receivers: Vec<_> = (0..4)
        .map(|_| {
            let (bus, settled) = (place.bus.clone(), settled.clone());
            tokio::spawn(async move {
                let mut ids = Vec::new();
                while settled.load(Ordering::SeqCst) < MESSAGES {
                    for received in bus.receive("q", 7, Duration::from_millis(50)).await.unwrap() {
                        bus.complete("q", received.lock_token).await.unwrap();
                        settled.fetch_add(1, Ordering::SeqCst);
                        ids.push(received.message.message_id);
                    }
                }
                ids
            })
        })
        .collect();
    for batch in 0..MESSAGES / 20 {
        place.bus.send("q", (0..20).map(|id| message(&format!("{batch}-{id}"))).collect()).await.unwrap();
    }
    let mut ids = Vec::new();
    for receiver in receivers {
        ids.extend(receiver.await.unwrap());
    }
    let distinct: BTreeSet<_> = ids.iter().collect();
    assert_eq!((ids.len(), distinct.len()), (MESSAGES, MESSAGES));
    assert_eq!(place.counts("q").await, (0, 0, 0));
}
