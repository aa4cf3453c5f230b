//! Every function, one line each: routes and every `functions/<Name>/function.json` come from here.

use std::{future::Future, pin::Pin};

use serde_json::{Value, json};

use crate::{
    admin,
    delivery::{
        self, Command,
        subscription::{self, Subscriber},
    },
    events,
    invocation::{HttpAnswer, HttpRequest, QueueMessage, REQUEST, RESPONSE, TRIGGER},
    operations, outbox_relay,
    outcome::Fault,
    platform::Platform,
    services::{
        deployment_service::{
            deploy::Deploy, on_runtime_configuration::OnRuntimeConfiguration,
            on_runtime_drift::OnRuntimeDrift, on_runtime_secrets::OnRuntimeSecrets,
            remediate_drift::RemediateDrift, rollback_deployment::RollbackDeployment,
        },
        drift_detection_worker,
        runtime_configuration_service::publish_configuration::PublishConfiguration,
        runtime_environment_service::{decommission, provision_environment::ProvisionEnvironment},
        runtime_inventory_worker,
        runtime_scaling_service::apply_scaling_policy::ApplyScalingPolicy,
        scaling_policy_worker,
        secret_binding_service::{bind_secret::BindSecret, rotate_secret::RotateSecret},
        service_catalog_runtime_service::on_runtime_environment::OnRuntimeEnvironment,
        tenant_runtime_isolation_service::{bind_tenant::BindTenant, tenant_view},
    },
    sweeps,
};

/// The setting that names the Service Bus connection.
pub const SERVICE_BUS_CONNECTION: &str = "ServiceBus";

/// All functions of the app.
pub fn all() -> Vec<Function> {
    vec![
        // Commands, each with a queue of its own name.
        command::<ProvisionEnvironment>(),
        command::<Deploy>(),
        command::<RollbackDeployment>(),
        command::<BindTenant>(),
        command::<PublishConfiguration>(),
        command::<BindSecret>(),
        command::<RotateSecret>(),
        command::<RemediateDrift>(),
        command::<ApplyScalingPolicy>(),
        // What it makes of its own events.
        subscription::<OnRuntimeConfiguration>(),
        subscription::<OnRuntimeSecrets>(),
        subscription::<OnRuntimeDrift>(),
        subscription::<drift_detection_worker::OnRuntimeDeployment>(),
        subscription::<drift_detection_worker::OnRuntimeHealth>(),
        subscription::<OnRuntimeEnvironment>(),
        subscription::<runtime_inventory_worker::OnRuntimeDeployment>(),
        subscription::<runtime_inventory_worker::OnRuntimeScaling>(),
        subscription::<scaling_policy_worker::on_runtime_health::OnRuntimeHealth>(),
        // What the platform tells itself.
        queue(operations::FUNCTION, operations::TICKS, |platform, message| {
            Box::pin(async move { delivery::tick(&platform, &message).await })
        }),
        queue("Redeliveries", delivery::REDELIVERIES, |platform, message| {
            Box::pin(async move { delivery::redelivery(&platform, message).await })
        }),
        queue("BindTenantView", tenant_view::QUEUE, |platform, message| {
            Box::pin(async move { tenant_view::write(&platform, &message).await })
        }),
        queue("Sweep", sweeps::QUEUE, |platform, message| {
            Box::pin(async move { sweeps::one(&platform, &message).await })
        }),
        queue("DecommissionEnvironment", decommission::QUEUE, |platform, message| {
            Box::pin(async move { decommission::begin(&platform, &message).await })
        }),
        queue("DeadLetters", delivery::DEAD_LETTERS, |platform, message| {
            Box::pin(async move { admin::dead_letters::file(&platform, &message).await })
        }),
        // Safety nets.
        timer("OutboxRelay", "*/10 * * * * *", |platform| {
            Box::pin(async move { outbox_relay::sweep(&platform).await.map(|_| ()) })
        }),
        timer("ResumeOperations", "0 * * * * *", |platform| {
            Box::pin(async move { admin::resume_operations::run(&platform).await })
        }),
        timer("RotationSweep", "0 0 * * * *", |platform| {
            Box::pin(async move { sweeps::start(&platform, sweeps::Kind::Rotation).await })
        }),
        timer("DriftSweep", "0 */5 * * * *", |platform| {
            Box::pin(async move { sweeps::start(&platform, sweeps::Kind::Drift).await })
        }),
        // What it looks after by itself.
        timer("HealthSweep", "*/30 * * * * *", |platform| {
            Box::pin(async move { sweeps::start(&platform, sweeps::Kind::Health).await })
        }),
        timer("ScalingSweep", "0 * * * * *", |platform| {
            Box::pin(async move { sweeps::start(&platform, sweeps::Kind::Scaling).await })
        }),
        // What operators read.
        get("Health", "v1/runtime/health", |platform, _| {
            Box::pin(async move { admin::health::get(&platform) })
        }),
        get("Environments", "v1/runtime/environments/{id?}", |platform, request| {
            Box::pin(async move { admin::environments::get(&platform, &request).await })
        }),
        get("Deployments", "v1/runtime/deployments/{id?}", |platform, request| {
            Box::pin(async move { admin::deployments::get(&platform, &request).await })
        }),
        get("Operations", "v1/runtime/operations/{id?}", |platform, request| {
            Box::pin(async move { admin::operations::get(&platform, &request).await })
        }),
        get("Configurations", "v1/runtime/configurations/{id?}", |platform, request| {
            Box::pin(async move { admin::configurations::get(&platform, &request).await })
        }),
        get("SecretBindings", "v1/runtime/secret-bindings/{id?}", |platform, request| {
            Box::pin(async move { admin::secret_bindings::get(&platform, &request).await })
        }),
        get("Services", "v1/runtime/services/{id?}", |platform, request| {
            Box::pin(async move { admin::services::get(&platform, &request).await })
        }),
        get("ServiceHealth", "v1/runtime/services/{id}/health", |platform, request| {
            Box::pin(async move { admin::services::health(&platform, &request).await })
        }),
        get("ScalingPolicies", "v1/runtime/scaling-policies/{id?}", |platform, request| {
            Box::pin(async move { admin::scaling_policies::get(&platform, &request).await })
        }),
        get("Plans", "v1/runtime/plans/{id}", |platform, request| {
            Box::pin(async move { admin::plans::get(&platform, &request).await })
        }),
        get("TenantBindings", "v1/runtime/tenant-bindings/{id?}", |platform, request| {
            Box::pin(async move { admin::tenant_bindings::get(&platform, &request).await })
        }),
        get("Commands", "v1/runtime/commands/{id?}", |platform, request| {
            Box::pin(async move { admin::commands::get(&platform, &request).await })
        }),
        get("Events", "v1/runtime/events/{id?}", |platform, request| {
            Box::pin(async move { admin::events::get(&platform, &request).await })
        }),
        get("Quarantine", "v1/runtime/quarantine", |platform, request| {
            Box::pin(async move { admin::quarantine::get(&platform, &request).await })
        }),
        get("FiledDeadLetters", "v1/runtime/dead-letters/{id?}", |platform, request| {
            Box::pin(async move { admin::filed::get(&platform, &request).await })
        }),
        get("Holds", "v1/runtime/holds/{id?}", |platform, request| {
            Box::pin(async move { admin::holds::get(&platform, &request).await })
        }),
        get("Sweeps", "v1/runtime/sweeps", |platform, request| {
            Box::pin(async move { admin::sweeps::get(&platform, &request).await })
        }),
        get("Outbox", "v1/runtime/outbox", |platform, request| {
            Box::pin(async move { admin::outbox::get(&platform, &request).await })
        }),
        get("Drift", "v1/runtime/drift/{id?}", |platform, request| {
            Box::pin(async move { admin::drift::get(&platform, &request).await })
        }),
        get("DriftSuppressions", "v1/runtime/drift/suppressions", |platform, request| {
            Box::pin(async move { admin::drift_suppressions::get(&platform, &request).await })
        }),
        // Commands over HTTP, each named `Post` and the command.
        posted::<ProvisionEnvironment>("PostProvisionEnvironment", "v1/runtime/environments"),
        posted::<Deploy>("PostDeploy", "v1/runtime/deployments"),
        posted::<RollbackDeployment>("PostRollbackDeployment", "v1/runtime/deployments/{id}/rollback"),
        posted::<PublishConfiguration>("PostPublishConfiguration", "v1/runtime/configurations"),
        posted::<BindSecret>("PostBindSecret", "v1/runtime/secret-bindings"),
        posted::<RotateSecret>("PostRotateSecret", "v1/runtime/secret-bindings/{id}/rotate"),
        posted::<BindTenant>("PostBindTenant", "v1/runtime/tenant-bindings"),
        posted::<ApplyScalingPolicy>("PostApplyScalingPolicy", "v1/runtime/scaling-policies"),
        posted::<RemediateDrift>("PostRemediateDrift", "v1/runtime/drift/{id}/remediate"),
        // What operators do.
        post("Hold", "v1/runtime/holds", |platform, request| {
            Box::pin(async move { admin::holds::post(&platform, &request).await })
        }),
        post("ReleaseHold", "v1/runtime/holds/{id}/release", |platform, request| {
            Box::pin(async move { admin::holds::release(&platform, &request).await })
        }),
        post("SuppressDrift", "v1/runtime/drift/suppressions", |platform, request| {
            Box::pin(async move { admin::drift_suppressions::post(&platform, &request).await })
        }),
        post("CancelOperation", "v1/runtime/operations/{id}/cancel", |platform, request| {
            Box::pin(async move { admin::cancel_operation::post(&platform, &request).await })
        }),
        post("Decommission", "v1/runtime/environments/{id}/decommission", |platform, request| {
            Box::pin(async move { admin::decommission::post(&platform, &request).await })
        }),
        post("SweepNow", "v1/runtime/environments/{id}/sweep/{kind}", |platform, request| {
            Box::pin(async move { admin::sweep_now::post(&platform, &request).await })
        }),
        post("LiftQuarantine", "v1/runtime/quarantine/{id}/lift", |platform, request| {
            Box::pin(async move { admin::quarantine::lift(&platform, &request).await })
        }),
    ]
}

/// What the host calls, and when.
#[derive(Clone)]
pub struct Function {
    /// The folder's name, and the route: `POST /<name>`.
    pub name: &'static str,
    pub trigger: Trigger,
    pub run: Run,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    Queue(String),
    Subscription {
        topic: &'static str,
        subscription: &'static str,
    },
    /// Six fields: second, minute, hour, day, month, day of the week.
    Timer(&'static str),
    /// The route is under the host's prefix.
    Http {
        method: &'static str,
        route: &'static str,
    },
}

type Running<T> = Pin<Box<dyn Future<Output = T> + Send>>;

#[derive(Clone, Copy)]
pub enum Run {
    Message(fn(Platform, QueueMessage) -> Running<Result<(), Fault>>),
    Timer(fn(Platform) -> Running<Result<(), Fault>>),
    Http(fn(Platform, HttpRequest) -> Running<HttpAnswer>),
}

fn command<C: Command>() -> Function {
    let run: fn(Platform, QueueMessage) -> Running<Result<(), Fault>> =
        |platform, message| Box::pin(async move { delivery::command::<C>(&platform, &message).await });
    Function { name: C::NAME, trigger: Trigger::Queue(events::queue_name(C::NAME)), run: Run::Message(run) }
}

fn subscription<S: Subscriber>() -> Function {
    let run: fn(Platform, QueueMessage) -> Running<Result<(), Fault>> =
        |platform, message| Box::pin(async move { subscription::event::<S>(&platform, &message).await });
    let trigger = Trigger::Subscription { topic: S::TOPIC.name(), subscription: S::SUBSCRIPTION };
    Function { name: S::NAME, trigger, run: Run::Message(run) }
}

fn queue(
    name: &'static str,
    queue: &str,
    run: fn(Platform, QueueMessage) -> Running<Result<(), Fault>>,
) -> Function {
    Function { name, trigger: Trigger::Queue(queue.to_owned()), run: Run::Message(run) }
}

fn timer(
    name: &'static str,
    schedule: &'static str,
    run: fn(Platform) -> Running<Result<(), Fault>>,
) -> Function {
    Function { name, trigger: Trigger::Timer(schedule), run: Run::Timer(run) }
}

fn get(
    name: &'static str,
    route: &'static str,
    run: fn(Platform, HttpRequest) -> Running<HttpAnswer>,
) -> Function {
    Function { name, trigger: Trigger::Http { method: "get", route }, run: Run::Http(run) }
}

fn post(
    name: &'static str,
    route: &'static str,
    run: fn(Platform, HttpRequest) -> Running<HttpAnswer>,
) -> Function {
    Function { name, trigger: Trigger::Http { method: "post", route }, run: Run::Http(run) }
}

/// The function that takes a command over HTTP; `name` is `Post` and the command's name.
fn posted<C: Command>(name: &'static str, route: &'static str) -> Function {
    post(name, route, |platform, request| {
        Box::pin(async move { admin::command_posts::post::<C>(&platform, &request).await })
    })
}

/// The queue that a function reads; none for a function that reads no queue.
pub fn queue_of(function: &str) -> Option<String> {
    all().into_iter().find_map(|candidate| match candidate.trigger {
        Trigger::Queue(queue) if candidate.name == function => Some(queue),
        Trigger::Queue(_) | Trigger::Subscription { .. } | Trigger::Timer(_) | Trigger::Http { .. } => None,
    })
}

impl Function {
    /// The function's `function.json`.
    pub fn json(&self) -> Value {
        let bindings = match &self.trigger {
            Trigger::Queue(queue) => json!([{
                "name": TRIGGER,
                "type": "serviceBusTrigger",
                "direction": "in",
                "queueName": queue,
                "connection": SERVICE_BUS_CONNECTION,
                // As bytes, so that no member of a body overwrites the broker's own metadata.
                "dataType": "binary",
            }]),
            Trigger::Subscription { topic, subscription } => json!([{
                "name": TRIGGER,
                "type": "serviceBusTrigger",
                "direction": "in",
                "topicName": topic,
                "subscriptionName": subscription,
                "connection": SERVICE_BUS_CONNECTION,
                "dataType": "binary",
            }]),
            Trigger::Timer(schedule) => json!([{
                "name": "timer",
                "type": "timerTrigger",
                "direction": "in",
                "schedule": schedule,
            }]),
            Trigger::Http { method, route } => json!([
                {
                    "name": REQUEST,
                    "type": "httpTrigger",
                    "direction": "in",
                    "authLevel": "function",
                    "methods": [method],
                    "route": route,
                },
                { "name": RESPONSE, "type": "http", "direction": "out" },
            ]),
        };
        json!({ "bindings": bindings })
    }
}
