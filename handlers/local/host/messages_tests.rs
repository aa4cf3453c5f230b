//! The loop against a source of its own, whose every call is noted.

use std::{
    collections::VecDeque,
    future,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use jiff::SignedDuration;
use tokio::sync::mpsc;

use super::*;
use crate::{
    local::{host::events::HostEvent, service_bus::Message},
    ports::clock::SystemClock,
};

#[derive(Clone, Default)]
struct Fake {
    waiting: Arc<Mutex<VecDeque<Received>>>,
    asked: Arc<Mutex<Vec<usize>>>,
    /// e.g. `complete a`.
    calls: Arc<Mutex<Vec<String>>>,
    refuses_receiving: bool,
    lock_is_lost: bool,
}

impl Fake {
    fn with(names: &[&str], lock: Duration) -> Self {
        let received = |(index, name): (usize, &&str)| Received {
            message: Message { message_id: (*name).to_owned(), ..Message::default() },
            sequence_number: 1,
            delivery_count: 1,
            enqueued_at: Timestamp::now(),
            expires_at: None,
            lock_token: Uuid::from_u128(index as u128),
            locked_until: Timestamp::now() + SignedDuration::try_from(lock).unwrap(),
            dead_letter_source: None,
        };
        let fake = Self::default();
        fake.waiting.lock().unwrap().extend(names.iter().enumerate().map(received));
        fake
    }

    fn note(&self, call: &str, lock_token: Uuid) -> Result<(), BusRefusal> {
        self.calls.lock().unwrap().push(format!("{call} {}", lock_token.as_u128()));
        if self.lock_is_lost { Err(BusRefusal::LockLost) } else { Ok(()) }
    }

    fn calls(&self) -> Vec<String> {
        let mut calls = self.calls.lock().unwrap().clone();
        calls.sort();
        calls
    }
}

impl MessageSource for Fake {
    async fn receive(&self, path: &str, max: usize, _wait: Duration) -> Result<Vec<Received>, BusRefusal> {
        if self.refuses_receiving {
            return Err(BusRefusal::EntityNotFound(path.to_owned()));
        }
        self.asked.lock().unwrap().push(max);
        let messages: Vec<Received> = {
            let mut waiting = self.waiting.lock().unwrap();
            let count = max.min(waiting.len());
            waiting.drain(..count).collect()
        };
        if messages.is_empty() {
            future::pending::<()>().await;
        }
        Ok(messages)
    }

    async fn complete(&self, _path: &str, lock_token: Uuid) -> Result<(), BusRefusal> {
        self.note("complete", lock_token)
    }

    async fn abandon(&self, _path: &str, lock_token: Uuid) -> Result<(), BusRefusal> {
        self.note("abandon", lock_token)
    }

    async fn renew(&self, _path: &str, lock_token: Uuid) -> Result<Timestamp, BusRefusal> {
        self.note("renew", lock_token)?;
        Ok(Timestamp::now() + SignedDuration::from_millis(400))
    }
}

struct Running {
    stop: watch::Sender<bool>,
    events: mpsc::Receiver<HostEvent>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    /// Stops the loop, waits for its end, and answers what was told.
    async fn end(mut self) -> Vec<String> {
        self.stop.send_replace(true);
        tokio::time::timeout(Duration::from_secs(10), self.task)
            .await
            .expect("the loop comes to its end")
            .unwrap();
        let mut told = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            match event {
                HostEvent::Told { text, .. } => told.push(text),
                other => panic!("{other:?}"),
            }
        }
        told
    }
}

fn start<I>(
    source: &Fake,
    concurrent_calls: usize,
    invoke: impl Fn(Received) -> I + Send + Sync + 'static,
) -> Running
where
    I: Future<Output = bool> + Send + 'static,
{
    let (stop, stopping) = watch::channel(false);
    let (sender, events) = mpsc::channel(64);
    let messages = MessageLoop {
        function: "Deploy".into(),
        path: "deploy".into(),
        source: source.clone(),
        config: ServiceBusConfig { concurrent_calls, lock_renewal: Duration::from_secs(60) },
        events: Events::new(sender),
        clock: Arc::new(SystemClock),
        stopping,
    };
    Running { stop, events, task: tokio::spawn(messages.run(|| future::ready(true), invoke)) }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come true within 5 seconds");
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn success_completes_and_failure_abandons() {
    let source = Fake::with(&["good", "bad"], MINUTE);
    let running = start(&source, 4, |received| future::ready(received.message.message_id == "good"));
    until("both settled", || source.calls().len() == 2).await;
    assert_eq!(running.end().await, Vec::<String>::new());
    assert_eq!(source.calls(), ["abandon 1", "complete 0"]);
}

#[tokio::test]
async fn no_more_run_than_may_and_no_more_are_asked_for_than_there_is_room() {
    let source = Fake::with(&["a", "b", "c", "d", "e"], MINUTE);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, peak) = (now.clone(), most.clone());
    let running = start(&source, 2, move |_| {
        let (count, peak) = (count.clone(), peak.clone());
        async move {
            peak.fetch_max(count.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            sleep(Duration::from_millis(30)).await;
            count.fetch_sub(1, Ordering::SeqCst);
            true
        }
    });
    until("all settled", || source.calls().len() == 5).await;
    running.end().await;
    assert_eq!(most.load(Ordering::SeqCst), 2);
    assert!(source.asked.lock().unwrap().iter().all(|asked| (1..=2).contains(asked)));
}

#[tokio::test]
async fn a_lock_is_kept_while_the_function_runs() {
    let source = Fake::with(&["long"], Duration::from_millis(400));
    let running = start(&source, 1, |_| async {
        sleep(Duration::from_millis(900)).await;
        true
    });
    until("settled", || source.calls().contains(&"complete 0".to_owned())).await;
    running.end().await;
    let renewals = source.calls().iter().filter(|call| *call == "renew 0").count();
    assert!((2..=6).contains(&renewals), "{renewals} renewals");
}

#[tokio::test]
async fn a_lost_lock_is_told_and_the_function_runs_on() {
    let source = Fake { lock_is_lost: true, ..Fake::with(&["long"], Duration::from_millis(200)) };
    let running = start(&source, 1, |_| async {
        sleep(Duration::from_millis(300)).await;
        true
    });
    until("settled", || source.calls().contains(&"complete 0".to_owned())).await;
    let lost = "The lock supplied is invalid: it has expired, or the message was settled already.";
    assert_eq!(
        running.end().await,
        [
            format!("Deploy: the lock of message long could not be renewed: {lost}"),
            format!("Deploy: message long could not be completed, so it will be delivered again: {lost}"),
        ]
    );
}

#[tokio::test]
async fn stopping_takes_nothing_new_and_lets_the_rest_end() {
    let source = Fake::with(&["running", "waiting"], MINUTE);
    let running = start(&source, 1, |_| async {
        sleep(Duration::from_millis(200)).await;
        true
    });
    until("received", || !source.asked.lock().unwrap().is_empty()).await;
    running.end().await;
    assert_eq!(source.calls(), ["complete 0"]);
    assert_eq!(source.waiting.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_source_that_refuses_is_told_of_once() {
    let source = Fake { refuses_receiving: true, ..Fake::default() };
    let running = start(&source, 1, |_| future::ready(true));
    sleep(Duration::from_millis(900)).await;
    assert_eq!(
        running.end().await,
        [
            "Deploy: messages of `deploy` cannot be received, which is tried again: The messaging entity 'deploy' could not be found."
        ]
    );
}
