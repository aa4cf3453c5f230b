//! Service Bus triggers: receive under a lock, renew it while the handler works, complete on success,
//! give back at once on any failure.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::JoinSet};
use uuid::Uuid;

use super::{
    HostEvent, Shared,
    app::{ServiceBusOptions, ServiceBusTrigger},
    encoding,
};
use crate::local::service_bus::{Received, ServiceBus};

/// How long one receive waits for a message.
const RECEIVE_WAIT: Duration = Duration::from_secs(5);
/// The pause after the broker refused.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
const NAMESPACE: &str = "localhost";

pub(super) async fn run(
    shared: Shared,
    bus: Arc<ServiceBus>,
    function: String,
    trigger: ServiceBusTrigger,
    options: ServiceBusOptions,
) {
    let room = Arc::new(Semaphore::new(options.concurrent_calls));
    let mut calls = JoinSet::new();
    let mut stopping = shared.stopping.clone();
    loop {
        while calls.try_join_next().is_some() {}
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let free = room.available_permits() + 1;
        let received = tokio::select! {
            received = bus.receive(&trigger.path, free, RECEIVE_WAIT) => received,
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        let messages = match received {
            Ok(messages) => messages,
            Err(refusal) => {
                shared.tell(HostEvent::Told { level: "ERROR", text: format!("{function} cannot receive: {refusal}") });
                tokio::time::sleep(REFUSED_PAUSE).await;
                continue;
            }
        };
        let mut permit = Some(permit);
        for message in messages {
            let permit = match permit.take() {
                Some(permit) => permit,
                None => match room.clone().acquire_owned().await {
                    Ok(permit) => permit,
                    Err(_) => return,
                },
            };
            let (shared, bus, function, trigger) = (shared.clone(), bus.clone(), function.clone(), trigger.clone());
            calls.spawn(async move {
                let _permit = permit;
                handle(&shared, &bus, &function, &trigger, options.lock_renewal, &message).await;
            });
        }
    }
    while calls.join_next().await.is_some() {}
}

async fn handle(
    shared: &Shared,
    bus: &ServiceBus,
    function: &str,
    trigger: &ServiceBusTrigger,
    renewal: Duration,
    message: &Received,
) {
    let id = Uuid::new_v4();
    let payload = encoding::service_bus(function, trigger, message, NAMESPACE, shared.clock.now());
    let invocation = shared.supervisor.invoke(function, id, &payload);
    let result = tokio::select! {
        result = invocation => result,
        () = renew(shared, bus, function, trigger, renewal, message) => unreachable!("renewing goes on until it is dropped"),
    };
    let settled = match result {
        Ok(_) => bus.complete(&trigger.path, message.lock_token).await,
        Err(failure) => {
            shared.failed(function, &id.to_string(), &failure.to_string());
            bus.abandon(&trigger.path, message.lock_token).await
        }
    };
    if let Err(refusal) = settled {
        shared.tell(HostEvent::Told {
            level: "WARN",
            text: format!("{function} ({id}) was done and its message could not be settled: {refusal}"),
        });
    }
}

/// Renews the lock at half of its time, for as long as the app allows, and then stands still.
async fn renew(
    shared: &Shared,
    bus: &ServiceBus,
    function: &str,
    trigger: &ServiceBusTrigger,
    renewal: Duration,
    message: &Received,
) {
    let began = tokio::time::Instant::now();
    let mut until = message.locked_until;
    while began.elapsed() < renewal {
        let left = until.duration_since(shared.clock.now());
        let pause = Duration::try_from(left / 2).unwrap_or(REFUSED_PAUSE);
        tokio::time::sleep(pause.max(Duration::from_millis(200))).await;
        match bus.renew(&trigger.path, message.lock_token).await {
            Ok(renewed) => until = renewed,
            Err(refusal) => {
                shared.tell(HostEvent::Told { level: "WARN", text: format!("the lock of a message of {function} was not renewed: {refusal}") });
                break;
            }
        }
    }
    std::future::pending().await
}
