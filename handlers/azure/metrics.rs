//! Measurements: Azure Monitor's metrics of container apps, over Resource Manager, many apps in one
//! call; and how many messages wait in a queue, as Service Bus tells it there.
//!
//! Deliberately absent: workloads of other targets, which are measured at nothing, and the batch
//! endpoint of the data plane, which has hosts and tokens of its own for each region.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{container_apps, resource_manager::ResourceManager};
use crate::{
    outcome::Fault,
    ports::{
        clock::Clock,
        metrics::{Measured, Metrics, Reading},
    },
};

/// The version of Azure Monitor's API.
const METRICS_VERSION: &str = "2023-10-01";
/// The version of Service Bus's API at Resource Manager.
const QUEUE_VERSION: &str = "2021-11-01";
/// Apps that one call names: its address has a length that all on the way take.
const APPS_AT_ONCE: usize = 20;
/// How far back is looked: Azure's newest minutes may have nothing yet.
const LOOK_BACK: SignedDuration = SignedDuration::from_mins(6);
/// One step of time.
const MINUTE: SignedDuration = SignedDuration::from_mins(1);
/// Revisions of an app that are answered.
const REVISIONS: usize = 20;
/// The metrics and how each is put together, in this order.
const METRICS: [(&str, &str); 4] = [
    ("Replicas", "maximum"),
    ("CpuPercentage", "average"),
    ("MemoryPercentage", "average"),
    ("Requests", "total"),
];

/// The adapter. Cheap to clone.
#[derive(Clone)]
pub struct AzureMonitor {
    manager: ResourceManager,
    clock: Arc<dyn Clock>,
}

impl AzureMonitor {
    pub fn new(manager: ResourceManager, clock: Arc<dyn Clock>) -> Self {
        Self { manager, clock }
    }

    /// Reads some apps of one subscription and region.
    async fn chunk(
        &self,
        (subscription, region): (&str, &str),
        apps: &[(String, &str)],
    ) -> Result<Vec<Reading>, Fault> {
        let now = self.clock.now();
        let ids: Vec<_> = apps.iter().map(|(id, _)| format!("Microsoft.ResourceId eq '{id}'")).collect();
        let path = format!(
            "/subscriptions/{subscription}/providers/Microsoft.Insights/metrics?region={region}&metricnamespace=Microsoft.App/containerApps&metricnames={}&aggregation=Average,Maximum,Total&interval=PT1M&timespan={}/{}&top={REVISIONS}&$filter=({}) and revisionName eq '*'",
            METRICS.map(|(name, _)| name).join(","),
            seconds(now - LOOK_BACK),
            seconds(now),
            ids.join(" or "),
        );
        let answer = self.manager.get(&path, METRICS_VERSION).await?.unwrap_or_default();
        Ok(apps.iter().map(|(id, revision)| reading(&answer, id, revision, now)).collect())
    }
}

/// In whole seconds, as the API takes times.
fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[async_trait]
impl Metrics for AzureMonitor {
    async fn read(&self, workloads: &[Measured]) -> Result<Vec<Reading>, Fault> {
        let mut readings = vec![Reading::default(); workloads.len()];
        let mut places: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
        for (index, measured) in workloads.iter().enumerate() {
            let target = &measured.workload.target;
            let subscription = target.resource_group_id.split('/').nth(2);
            if let Some(subscription) = subscription.filter(|_| target.target == container_apps::TARGET) {
                places.entry((subscription, &target.region)).or_default().push(index);
            }
        }
        for (place, indices) in places {
            for chunk in indices.chunks(APPS_AT_ONCE) {
                let apps: Vec<_> = chunk
                    .iter()
                    .map(|index| {
                        let Measured { workload, revision } = &workloads[*index];
                        let group = &workload.target.resource_group_id;
                        let id = format!("{group}/providers/Microsoft.App/containerApps/{}", workload.name);
                        (id, revision.as_str())
                    })
                    .collect();
                for (index, reading) in chunk.iter().zip(self.chunk(place, &apps).await?) {
                    readings[*index] = reading;
                }
            }
        }
        Ok(readings)
    }

    async fn queue_depth(&self, queue: &str) -> Result<Option<u64>, Fault> {
        let queue = self.manager.get(queue, QUEUE_VERSION).await?;
        let depth = |queue: Value| {
            let active = queue.pointer("/properties/countDetails/activeMessageCount");
            active.or_else(|| queue.pointer("/properties/messageCount")).and_then(Value::as_u64)
        };
        Ok(queue.and_then(depth))
    }
}

fn reading(answer: &Value, app: &str, revision: &str, now: Timestamp) -> Reading {
    let newest = |(metric, member): (&str, &str), whole: bool| {
        let points = series(answer, metric, app, revision).filter_map(|point| {
            let at: Timestamp = point.get("timeStamp")?.as_str()?.parse().ok()?;
            Some((at, point.get(member)?.as_f64()?))
        });
        points.filter(|(at, _)| !whole || *at + MINUTE <= now).max_by_key(|(at, _)| *at)
    };
    let value = |metric, whole| newest(metric, whole).map(|(_, value)| value);
    let [replicas, cpu, memory, requests] = METRICS;
    // A count of replicas is a small whole number.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let count = |(at, value): (Timestamp, f64)| (value.round().max(0.0) as u32, at);
    Reading {
        replicas: newest(replicas, false).map(count),
        cpu_percent: value(cpu, false),
        memory_percent: value(memory, false),
        // Of a minute that goes on, the rest is still to come.
        requests: value(requests, true),
    }
}

/// The points of a metric of one revision; names and ids have no case at Azure.
fn series<'a>(
    answer: &'a Value,
    metric: &'a str,
    app: &'a str,
    revision: &'a str,
) -> impl Iterator<Item = &'a Value> {
    let list = |value: &'a Value, name: &str| value.get(name).and_then(Value::as_array).into_iter().flatten();
    let is = |value: Option<&Value>, wanted: &str| {
        value.and_then(Value::as_str).is_some_and(|text| text.eq_ignore_ascii_case(wanted))
    };
    let of = move |series: &'a Value, dimension: &str, wanted: &str| {
        list(series, "metadatavalues")
            .any(|label| is(label.pointer("/name/value"), dimension) && is(label.get("value"), wanted))
    };
    list(answer, "value")
        .filter(move |found| is(found.pointer("/name/value"), metric))
        .flat_map(move |found| list(found, "timeseries"))
        .filter(move |series| of(series, "microsoft.resourceid", app) && of(series, "revisionname", revision))
        .flat_map(move |series| list(series, "data"))
}

#[cfg(all(test, feature = "local"))]
mod tests;
