//! `ApplyScalingPolicy`: how many replicas a workload may have, and by what it is scaled between them.
//!
//! Ends in `ScalingPolicyApplied` once the workload has been rolled out with the policy; in
//! `RuntimeCommandCompleted` where what serves has these bounds and rules already; or in
//! `RuntimeCommandFailed`. A rollout that does not pass leaves the policy that was before it.
//!
//! | kind | `target` | scaled by |
//! |---|---|---|
//! | `Cpu`, `Memory` | percent of what a replica asks for | the target |
//! | `RequestRate` | requests at a time for each replica | the target |
//! | `QueueDepth` | waiting messages for each replica; `queue` is the queue's id | the target, or the platform where the queue is in another subscription |
//! | `Schedule` | none; `schedule` has a time zone and windows with bounds | the platform moves the bounds |
//! | `Fixed` | none; the bounds are one number | nobody |
//!
//! Redelivery is safe at every await: the function only records.

use serde::{Deserialize, Serialize};

use super::{
    applying::{self, Change},
    bounds_are_good,
    compile::{Bounds, Queue, compile},
    schedule::Schedule,
    state::{PolicyStatus, ScalingKind, ScalingPolicy, ScalingSpec, Wanted},
};
use crate::{
    delivery::{self, Command, Decision, Message, Refusal},
    events::ReasonCode,
    ids::{EnvironmentId, ServiceId},
    ledger::{Commit, Loaded},
    outcome::Fault,
    platform::Platform,
    ports::{compute::ScalingEntry, store::Partition},
    services::{
        deployment_service::{self, Running, deploy::environment_not_found, state::Workload},
        runtime_environment_service::ProvisioningStatus,
        tenant_runtime_isolation_service::Ground,
    },
};

/// The most requests, or messages, for each replica.
const TARGET_MAX: u32 = 100_000;
/// The shortest and the longest pause between two changes, in seconds.
const COOLDOWN_SECONDS: std::ops::RangeInclusive<u32> = 10..=86_400;

/// The payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplyScalingPolicy {
    pub environment_id: String,
    /// The workload, as the inventory names it.
    pub service_id: String,
    pub kind: ScalingKind,
    pub min_replicas: u32,
    pub max_replicas: u32,
    #[serde(default)]
    pub target: Option<u32>,
    /// `/subscriptions/../resourceGroups/../providers/Microsoft.ServiceBus/namespaces/../queues/..`
    #[serde(default)]
    pub queue: Option<String>,
    #[serde(default)]
    pub schedule: Option<Schedule>,
    /// In place of the platform's 60 s up and 300 s down.
    #[serde(default)]
    pub cooldown_seconds: Option<u32>,
}

#[async_trait::async_trait]
impl Command for ApplyScalingPolicy {
    const NAME: &'static str = "ApplyScalingPolicy";

    async fn environment(_: &Platform, message: &Message<Self>) -> Result<String, Fault> {
        Ok(delivery::partition_of(&message.envelope.payload.environment_id))
    }

    async fn decide(platform: &Platform, message: &Message<Self>) -> Result<Decision, Fault> {
        let asked = match validate(&message.envelope.payload) {
            Ok(asked) => asked,
            Err(refusal) => return Ok(Decision::Refused(refusal)),
        };
        let tenant = &message.envelope.tenant_id;
        let partition = Partition::environment(tenant, asked.environment_id.as_str());
        let ground = Ground::find(&platform.ledger, tenant, &asked.environment_id).await?;
        let ground = match accepts(&asked, ground) {
            Ok(ground) => ground,
            Err(refusal) => return Ok(Decision::Refused(refusal)),
        };
        let Some(running) = running(platform, message, &partition, &asked).await? else {
            return Ok(Decision::Refused(nothing_serves(&asked)));
        };
        if let Some(quota) = ground.quota() {
            let used =
                deployment_service::usage(&platform.ledger, &partition, Some(&running.module_id)).await?;
            let most = asked.spec.most();
            let workload = Workload { max_replicas: most, ..running.deployment.workload.clone() };
            if let Err(refusal) = deployment_service::within(quota, used, &workload) {
                return Ok(Decision::Refused(refusal));
            }
        }
        let document = ScalingPolicy::document(&running.module_id);
        let (policy, loaded) = platform.ledger.load::<ScalingPolicy>(&partition, &document).await?.take();
        record(platform, message, asked, &ground, &running, policy, &loaded).await
    }
}

impl ScalingSpec {
    /// The most replicas that it may ever ask for.
    pub fn most(&self) -> u32 {
        let windows = self.schedule.iter().flat_map(|schedule| &schedule.windows);
        windows.map(|window| window.max_replicas).max().unwrap_or(0).max(self.max_replicas)
    }
}

/// A payload that was looked through.
#[derive(Debug)]
struct Asked {
    environment_id: EnvironmentId,
    service_id: ServiceId,
    spec: ScalingSpec,
}

fn invalid(field: &str, what: impl std::fmt::Display) -> Refusal {
    Refusal::new(ReasonCode::InvalidPayload, format!("payload.{field}: {what}."))
}

fn validate(payload: &ApplyScalingPolicy) -> Result<Asked, Refusal> {
    let environment_id =
        EnvironmentId::of_ours(&payload.environment_id).map_err(|error| invalid("environmentId", error))?;
    let service_id = ServiceId::of_ours(&payload.service_id).map_err(|error| invalid("serviceId", error))?;
    bounds_are_good(payload.min_replicas, payload.max_replicas)
        .map_err(|(field, what)| invalid(field, what))?;
    if payload.kind == ScalingKind::Fixed && payload.min_replicas != payload.max_replicas {
        return Err(invalid(
            "maxReplicas",
            "`Fixed` is one number of replicas: it must be the same as minReplicas",
        ));
    }
    validate_target(payload)?;
    match (payload.kind, &payload.queue) {
        (ScalingKind::QueueDepth, queue) => {
            if queue.as_deref().and_then(Queue::read).is_none() {
                return Err(invalid(
                    "queue",
                    "`QueueDepth` needs the id of a queue, `/subscriptions/../resourceGroups/../providers/Microsoft.ServiceBus/namespaces/../queues/..`",
                ));
            }
        }
        (kind, Some(_)) => {
            return Err(invalid("queue", format!("`{}` looks at no queue; leave it out", kind.as_str())));
        }
        (_, None) => {}
    }
    match (payload.kind, &payload.schedule) {
        (ScalingKind::Schedule, Some(schedule)) => {
            schedule.validate().map_err(|(field, what)| invalid(&format!("schedule.{field}"), what))?
        }
        (ScalingKind::Schedule, None) => {
            return Err(invalid("schedule", "`Schedule` needs a timeZone and windows"));
        }
        (kind, Some(_)) => {
            return Err(invalid("schedule", format!("`{}` has none; leave it out", kind.as_str())));
        }
        (_, None) => {}
    }
    if let Some(seconds) = payload.cooldown_seconds.filter(|seconds| !COOLDOWN_SECONDS.contains(seconds)) {
        return Err(invalid(
            "cooldownSeconds",
            format!(
                "{seconds} is asked for; it must be {} to {}",
                COOLDOWN_SECONDS.start(),
                COOLDOWN_SECONDS.end()
            ),
        ));
    }
    let spec = ScalingSpec {
        kind: payload.kind,
        min_replicas: payload.min_replicas,
        max_replicas: payload.max_replicas,
        target: payload.target,
        queue: payload.queue.clone(),
        schedule: payload.schedule.clone(),
        cooldown_seconds: payload.cooldown_seconds,
    };
    Ok(Asked { environment_id, service_id, spec })
}

fn validate_target(payload: &ApplyScalingPolicy) -> Result<(), Refusal> {
    let kind = payload.kind.as_str();
    let (most, of) = match payload.kind {
        ScalingKind::Cpu | ScalingKind::Memory => (100, "percent of what a replica asks for"),
        ScalingKind::RequestRate => (TARGET_MAX, "requests at a time for each replica"),
        ScalingKind::QueueDepth => (TARGET_MAX, "waiting messages for each replica"),
        ScalingKind::Schedule | ScalingKind::Fixed => {
            return match payload.target {
                Some(_) => Err(invalid("target", format!("`{kind}` has none; leave it out"))),
                None => Ok(()),
            };
        }
    };
    match payload.target {
        Some(target) if target >= 1 && target <= most => Ok(()),
        Some(_) | None => Err(invalid("target", format!("`{kind}` needs one of 1 to {most}: {of}"))),
    }
}

/// Whether the environment takes policies.
fn accepts(asked: &Asked, ground: Option<Ground>) -> Result<Ground, Refusal> {
    let id = &asked.environment_id;
    let Some(ground) = ground else { return Err(environment_not_found(id)) };
    let status = ground.environment().status;
    if status != ProvisioningStatus::Provisioned {
        return Err(Refusal {
            code: ReasonCode::EnvironmentNotProvisioned,
            detail: format!(
                "`{id}` is {status:?}; what runs there is scaled while it is Provisioned. Wait for RuntimeEnvironmentProvisioned, or see its operation for what holds it up."
            ),
            retryable: true,
        });
    }
    Ok(ground)
}

fn nothing_serves(asked: &Asked) -> Refusal {
    Refusal {
        code: ReasonCode::Conflict,
        detail: format!(
            "Nothing serves in `{}` as `{}`, and a policy is for what runs. Deploy it first, or correct payload.serviceId; `runtimectl get services` lists those there are.",
            asked.environment_id, asked.service_id
        ),
        retryable: true,
    }
}

/// The workload that is asked about, where something of it serves.
async fn running(
    platform: &Platform,
    message: &Message<ApplyScalingPolicy>,
    partition: &Partition,
    asked: &Asked,
) -> Result<Option<Running>, Fault> {
    let place = (&message.envelope.tenant_id, &asked.environment_id);
    let likely = message.envelope.module_id.as_ref();
    let module =
        deployment_service::module_of(&platform.ledger, partition, place, &asked.service_id, likely).await?;
    match module {
        Some(module) => deployment_service::running_one(&platform.ledger, partition, &module).await,
        None => Ok(None),
    }
}

/// Writes the decision: the policy as it is asked for, and what brings it to the workload.
async fn record(
    platform: &Platform,
    message: &Message<ApplyScalingPolicy>,
    asked: Asked,
    ground: &Ground,
    running: &Running,
    policy: Option<ScalingPolicy>,
    loaded: &Loaded<ScalingPolicy>,
) -> Result<Decision, Fault> {
    let partition = Partition::environment(&message.envelope.tenant_id, asked.environment_id.as_str());
    let mut commit = Commit::new(partition, message.now);
    let module = &running.module_id;
    if let Some(moving) = policy.as_ref().and_then(|policy| policy.moving.as_ref()) {
        return Ok(Decision::Refused(Refusal {
            code: ReasonCode::Conflict,
            detail: format!(
                "`{module}` is being scaled by `{}`; wait for its end and send the command again.",
                moving.operation_id
            ),
            retryable: true,
        }));
    }
    let serves = &running.deployment;
    let (min, max) = serves.bounds();
    let serving = Bounds { min, max };
    // Without a rule of the target, the platform begins with as many as there are.
    let desired = Some(serving.max);
    let compiled = compile(&asked.spec, &serves.compute_target, desired, None, message.now);
    let before = policy.as_ref().filter(|policy| policy.status == PolicyStatus::Active);
    let same = before.is_some_and(|policy| policy.wanted.spec == asked.spec);
    let rules = serves.scaling.as_ref().map_or(&[][..], |entry| &entry.rules);
    let in_place = compiled.bounds == serving && compiled.rules == rules;
    if same && in_place {
        let id = before.map_or("", |policy| policy.scaling_policy_id.as_str());
        let detail = format!(
            "`{module}` is scaled by `{id}` like that already: {} at {} replicas.",
            asked.spec.kind.as_str(),
            serving
        );
        return Ok(Decision::NoChange { commit, detail });
    }
    let cause = message.cause(asked.environment_id.as_str());
    let operation_id = cause.operation(0);
    let generation = policy.as_ref().map_or(0, |policy| policy.generations) + 1;
    let scaling_policy_id = ScalingPolicy::id(&commit.partition, module);
    let wanted = Wanted {
        entry: ScalingEntry {
            scaling_policy_id: scaling_policy_id.clone(),
            generation,
            min_replicas: compiled.bounds.min,
            max_replicas: compiled.bounds.max,
            rules: compiled.rules,
        },
        spec: asked.spec,
    };
    let back = before.map(|policy| policy.wanted.clone());
    let observed = policy.as_ref().and_then(|policy| policy.observed_replicas);
    let kind = wanted.spec.kind;
    let mut policy = ScalingPolicy {
        scaling_policy_id,
        environment_id: asked.environment_id.clone(),
        service_id: asked.service_id,
        module_id: module.clone(),
        status: PolicyStatus::Active,
        reason: None,
        wanted,
        generations: generation,
        moving: None,
        failures: None,
        desired_replicas: Some(compiled.bounds.max).filter(|_| kind == ScalingKind::QueueDepth),
        observed_replicas: observed.or(Some(serving.min)),
        last_scaled_at: policy.as_ref().and_then(|policy| policy.last_scaled_at),
        recommendations: Vec::new(),
        said: None,
        evaluated_window: policy.as_ref().and_then(|policy| policy.evaluated_window),
        history: policy.as_ref().map(|policy| policy.history.clone()).unwrap_or_default(),
        operation_id: operation_id.clone(),
        sequence: policy.as_ref().map_or(0, |policy| policy.sequence),
        made_at: policy.as_ref().map_or(message.now, |policy| policy.made_at),
    };
    ground.guard(&mut commit)?;
    if in_place {
        let detail = format!(
            "`{}` is kept; `{module}` has its bounds and rules already, {serving} replicas.",
            policy.scaling_policy_id
        );
        commit.put(loaded, &policy)?;
        return Ok(Decision::NoChange { commit, detail });
    }
    let change = Change {
        operation_id: operation_id.clone(),
        by_command: true,
        from: serving,
        reason: format!(
            "ApplyScalingPolicy: {} instead of {serving} replicas, {}{}; {}.",
            compiled.bounds,
            kind.as_str(),
            policy.wanted.spec.target.map(|target| format!(" with the target {target}")).unwrap_or_default(),
            compiled.why
        ),
        back,
        over: serves.deployment_id.clone(),
        lineage: policy.lineage(&message.lineage()),
        caused_by: message.envelope.event_id.to_string(),
    };
    applying::begin(&platform.ledger, &mut commit, &mut policy, change).await?;
    commit.put(loaded, &policy)?;
    Ok(Decision::Accepted { commit, operation_id: Some(operation_id) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn payload(change: impl FnOnce(&mut Value)) -> ApplyScalingPolicy {
        let mut payload = json!({
            "environmentId": "env-7d1f0c42",
            "serviceId": "svc-0b9e6a51",
            "kind": "Cpu",
            "minReplicas": 1,
            "maxReplicas": 5,
            "target": 60,
        });
        change(&mut payload);
        serde_json::from_value(payload).unwrap()
    }

    #[test]
    fn every_refusal_names_its_field() {
        type Change = fn(&mut Value);
        let table: [(Change, &str); 17] = [
            (
                |it| it["environmentId"] = json!("dep-1"),
                "payload.environmentId: `dep-1` should begin with `env-`.",
            ),
            (|it| it["serviceId"] = json!("api"), "payload.serviceId: `api` should begin with `svc-`."),
            (
                |it| it["minReplicas"] = json!(0),
                "payload.minReplicas: it must be 1 or more: the platform looks at every workload each half minute, and would wake one without replicas each time.",
            ),
            (
                |it| it["minReplicas"] = json!(6),
                "payload.maxReplicas: 5 is asked for; it must be at most 1000 and no less than minReplicas, 6.",
            ),
            (
                |it| it["maxReplicas"] = json!(1001),
                "payload.maxReplicas: 1001 is asked for; it must be at most 1000 and no less than minReplicas, 1.",
            ),
            (
                |it| it["target"] = Value::Null,
                "payload.target: `Cpu` needs one of 1 to 100: percent of what a replica asks for.",
            ),
            (
                |it| it["target"] = json!(101),
                "payload.target: `Cpu` needs one of 1 to 100: percent of what a replica asks for.",
            ),
            (
                |it| (it["kind"], it["target"]) = (json!("RequestRate"), json!(0)),
                "payload.target: `RequestRate` needs one of 1 to 100000: requests at a time for each replica.",
            ),
            (
                |it| it["kind"] = json!("QueueDepth"),
                "payload.queue: `QueueDepth` needs the id of a queue, `/subscriptions/../resourceGroups/../providers/Microsoft.ServiceBus/namespaces/../queues/..`.",
            ),
            (|it| it["queue"] = json!("orders"), "payload.queue: `Cpu` looks at no queue; leave it out."),
            (|it| it["kind"] = json!("Schedule"), "payload.target: `Schedule` has none; leave it out."),
            (
                |it| (it["kind"], it["target"]) = (json!("Schedule"), Value::Null),
                "payload.schedule: `Schedule` needs a timeZone and windows.",
            ),
            (
                |it| {
                    (it["kind"], it["target"]) = (json!("Schedule"), Value::Null);
                    it["schedule"] = json!({ "timeZone": "UTC", "windows": [] });
                },
                "payload.schedule.windows: there are 0; 1 to 20 are taken.",
            ),
            (
                |it| {
                    it["schedule"] = json!({ "timeZone": "UTC", "windows": [] });
                },
                "payload.schedule: `Cpu` has none; leave it out.",
            ),
            (
                |it| (it["kind"], it["target"]) = (json!("Fixed"), Value::Null),
                "payload.maxReplicas: `Fixed` is one number of replicas: it must be the same as minReplicas.",
            ),
            (
                |it| it["cooldownSeconds"] = json!(9),
                "payload.cooldownSeconds: 9 is asked for; it must be 10 to 86400.",
            ),
            (
                |it| it["cooldownSeconds"] = json!(86_401),
                "payload.cooldownSeconds: 86401 is asked for; it must be 10 to 86400.",
            ),
        ];
        for (change, detail) in table {
            let refusal = validate(&payload(change)).unwrap_err();
            assert_eq!(refusal, Refusal::new(ReasonCode::InvalidPayload, detail));
        }
        assert!(validate(&payload(|_| {})).is_ok());
    }
}
