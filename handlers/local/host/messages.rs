//! Service Bus triggers: receive under a lock, keep the lock while the function runs, then complete
//! or abandon at once. There is no back-off between deliveries, because Azure has none.

use std::{future::Future, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use uuid::Uuid;

use super::{app::ServiceBusConfig, events::Events};
use crate::{
    local::service_bus::{BusRefusal, Received, ServiceBus},
    ports::clock::Clock,
};

/// Messages that are asked for at once.
const RECEIVE_MAX: usize = 32;
/// How long one request waits for a message.
const RECEIVE_WAIT: Duration = Duration::from_secs(30);
/// A lock is renewed so long before it ends, or after half its time where that comes later.
const RENEW_BEFORE: Duration = Duration::from_secs(10);
/// The shortest pause between two renewals.
const RENEW_PAUSE_MIN: Duration = Duration::from_millis(100);
/// The pauses after an entity could not be read.
const TROUBLE_PAUSE_MIN: Duration = Duration::from_millis(250);
const TROUBLE_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Where messages come from.
pub(super) trait MessageSource: Clone + Send + Sync + 'static {
    fn receive(
        &self,
        path: &str,
        max: usize,
        wait: Duration,
    ) -> impl Future<Output = Result<Vec<Received>, BusRefusal>> + Send;
    fn complete(&self, path: &str, lock_token: Uuid) -> impl Future<Output = Result<(), BusRefusal>> + Send;
    fn abandon(&self, path: &str, lock_token: Uuid) -> impl Future<Output = Result<(), BusRefusal>> + Send;
    fn renew(
        &self,
        path: &str,
        lock_token: Uuid,
    ) -> impl Future<Output = Result<Timestamp, BusRefusal>> + Send;
}

impl MessageSource for ServiceBus {
    async fn receive(&self, path: &str, max: usize, wait: Duration) -> Result<Vec<Received>, BusRefusal> {
        Self::receive(self, path, max, wait).await
    }

    async fn complete(&self, path: &str, lock_token: Uuid) -> Result<(), BusRefusal> {
        Self::complete(self, path, lock_token).await
    }

    async fn abandon(&self, path: &str, lock_token: Uuid) -> Result<(), BusRefusal> {
        Self::abandon(self, path, lock_token).await
    }

    async fn renew(&self, path: &str, lock_token: Uuid) -> Result<Timestamp, BusRefusal> {
        Self::renew(self, path, lock_token).await
    }
}

/// One function's messages.
pub(super) struct MessageLoop<S> {
    pub function: String,
    pub path: String,
    pub source: S,
    pub config: ServiceBusConfig,
    pub events: Events,
    pub clock: Arc<dyn Clock>,
    /// Turns true when nothing new is to be begun.
    pub stopping: watch::Receiver<bool>,
}

impl<S: MessageSource> MessageLoop<S> {
    /// Receives until it is told to stop, and then lets what runs come to its end. `ready` is waited
    /// for before each request; `invoke` answers whether the function succeeded, and tells why not.
    pub async fn run<R, I>(
        self,
        ready: impl Fn() -> R + Send + Sync,
        invoke: impl Fn(Received) -> I + Send + Sync,
    ) where
        R: Future<Output = bool> + Send,
        I: Future<Output = bool> + Send + 'static,
    {
        let this = Arc::new(self);
        let room = Arc::new(Semaphore::new(this.config.concurrent_calls));
        let mut running = JoinSet::new();
        let mut trouble = Trouble::default();
        let mut stopping = this.stopping.clone();
        loop {
            let received = tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => break,
                received = this.receive(&ready, &room) => received,
            };
            while running.try_join_next().is_some() {}
            match received {
                None => break,
                Some(Ok(messages)) => {
                    trouble = Trouble::default();
                    for received in messages {
                        let permit =
                            room.clone().acquire_owned().await.expect("the semaphore is never closed");
                        let (this, outcome) = (this.clone(), invoke(received.clone()));
                        running.spawn(async move {
                            this.attend(received, outcome).await;
                            drop(permit);
                        });
                    }
                }
                Some(Err(refusal)) => {
                    let pause = this.tell_trouble(&mut trouble, &refusal);
                    tokio::select! {
                        _ = stopping.wait_for(|stopping| *stopping) => break,
                        () = sleep(pause) => {}
                    }
                }
            }
        }
        while running.join_next().await.is_some() {}
    }

    /// Asks for as many messages as there is room for; none where the handler will not come back.
    async fn receive<R: Future<Output = bool>>(
        &self,
        ready: &(impl Fn() -> R + Send + Sync),
        room: &Semaphore,
    ) -> Option<Result<Vec<Received>, BusRefusal>> {
        if !ready().await {
            return None;
        }
        // Only this loop takes permits, so the room that there is now stays.
        drop(room.acquire().await.expect("the semaphore is never closed"));
        let max = room.available_permits().clamp(1, RECEIVE_MAX);
        Some(self.source.receive(&self.path, max, RECEIVE_WAIT).await)
    }

    /// Runs the function under the message's lock, and settles.
    async fn attend(&self, received: Received, outcome: impl Future<Output = bool>) {
        let succeeded = tokio::select! {
            succeeded = outcome => succeeded,
            // The function runs on; that its lock is lost shows when it is settled.
            never = self.keep_lock(&received) => match never {},
        };
        let token = received.lock_token;
        let settled = match succeeded {
            true => self.source.complete(&self.path, token).await,
            false => self.source.abandon(&self.path, token).await,
        };
        if let Err(refusal) = settled {
            let what = if succeeded { "completed" } else { "abandoned" };
            let (function, id) = (&self.function, &received.message.message_id);
            let text = format!(
                "{function}: message {id} could not be {what}, so it will be delivered again: {refusal}"
            );
            self.events.tell("WARN", text);
        }
    }

    /// Renews the lock until it is lost or has been kept for long enough; never ends.
    async fn keep_lock(&self, received: &Received) -> std::convert::Infallible {
        let give_up = Instant::now() + self.config.lock_renewal;
        let mut until = received.locked_until;
        loop {
            let left = until.duration_since(self.clock.now());
            let left = Duration::try_from(left).unwrap_or(Duration::ZERO);
            let next = Instant::now() + (left - (left / 2).min(RENEW_BEFORE)).max(RENEW_PAUSE_MIN);
            if next >= give_up {
                break;
            }
            sleep_until(next).await;
            match self.source.renew(&self.path, received.lock_token).await {
                Ok(renewed) => until = renewed,
                Err(refusal) => {
                    let (function, id) = (&self.function, &received.message.message_id);
                    self.events.tell(
                        "WARN",
                        format!("{function}: the lock of message {id} could not be renewed: {refusal}"),
                    );
                    break;
                }
            }
        }
        std::future::pending().await
    }

    /// Tells of a trouble once, and answers how long to pause.
    fn tell_trouble(&self, trouble: &mut Trouble, refusal: &BusRefusal) -> Duration {
        let text = refusal.to_string();
        if trouble.last.as_ref() != Some(&text) {
            let place = format!("{}: messages of `{}` cannot be received", self.function, self.path);
            self.events.tell("ERROR", format!("{place}, which is tried again: {text}"));
            trouble.last = Some(text);
        }
        trouble.pause = (trouble.pause * 2).clamp(TROUBLE_PAUSE_MIN, TROUBLE_PAUSE_MAX);
        trouble.pause
    }
}

#[derive(Default)]
struct Trouble {
    last: Option<String>,
    pause: Duration,
}

#[cfg(test)]
#[path = "messages_tests.rs"]
mod tests;
