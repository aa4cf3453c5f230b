//! Answers a query as Azure Monitor does: of one resource, or of all of a region's at once.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    Aggregation, Metric, Metrics, Summary,
    query::{NAMESPACE, Query, RESOURCE, REVISION},
};
use crate::local::azure::{
    Shared,
    address::{self, ResourceId},
    records::{self, Resource},
    refusals::ArmError,
    resources, types,
};

/// Apps that are read from the file at a time.
const PAGE_ITEMS: usize = 100;

/// What a scope's metrics are: of one container app, or of a subscription.
pub(in crate::local::azure) async fn answer(
    shared: &Shared,
    scope: &str,
    parameters: &HashMap<String, String>,
) -> Result<Value, ArmError> {
    let now = shared.clock.now();
    let one = address::resource(scope);
    let dimensions: &[&str] = if one.is_some() { &[REVISION] } else { &[RESOURCE, REVISION] };
    let query = Query::read(parameters, dimensions, now)?;
    let (apps, region) = match one {
        Some(id) => {
            if id.spec.name != types::APP {
                let message = format!("`{}` has no metrics here: `{NAMESPACE}` has.", id.spec.name);
                return Err(ArmError::bad_request("BadRequest", message));
            }
            let app = shared.database.read(move |connection| resources::stored(connection, &id)).await?;
            let region = region_of(&app.body);
            (vec![app.id], region)
        }
        None => {
            let region = parameters.get("region").map(|region| plain(region)).unwrap_or_default();
            if region.is_empty() {
                let message =
                    "The query parameter `region` is missing: metrics of many resources are of one region.";
                return Err(ArmError::bad_request("BadRequest", message));
            }
            (apps_in(shared, scope, &region, query.filter.names(RESOURCE)).await?, region)
        }
    };
    let value = query.metrics.iter().map(|metric| {
        let (name, shown, unit, description) = metric.words();
        json!({
            "id": format!("{scope}/providers/Microsoft.Insights/metrics/{name}"),
            "type": "Microsoft.Insights/metrics",
            "name": { "value": name, "localizedValue": shown },
            "displayDescription": description,
            "unit": unit,
            "timeseries": series(&shared.metrics, &query, *metric, &apps),
            "errorCode": "Success",
        })
    });
    Ok(json!({
        "cost": (query.until - query.from) * i64::try_from(query.metrics.len()).unwrap_or(1),
        "timespan": query.timespan,
        "interval": query.interval.0,
        "value": value.collect::<Vec<_>>(),
        "namespace": NAMESPACE.to_ascii_lowercase(),
        "resourceregion": region,
    }))
}

fn plain(location: &str) -> String {
    location.to_ascii_lowercase().replace(' ', "")
}

fn region_of(body: &Value) -> String {
    plain(body["location"].as_str().unwrap_or_default())
}

/// The container apps of a subscription that are in a region: those that are named, or all.
async fn apps_in(
    shared: &Shared,
    subscription: &str,
    region: &str,
    named: Option<Vec<String>>,
) -> Result<Vec<ResourceId>, ArmError> {
    let (scope, region) = (subscription.to_owned(), region.to_owned());
    let reading = move |connection: &rusqlite::Connection| {
        let is_there = |app: &Resource| region_of(&app.body) == region;
        let mut found = Vec::new();
        if let Some(named) = named {
            let within = format!("{}/", scope.to_ascii_lowercase());
            for id in named.iter().filter_map(|id| address::resource(id)) {
                let app = records::load(connection, &id.key())?;
                let app =
                    app.filter(|app| app.id.spec.name == types::APP && app.id.key().starts_with(&within));
                found.extend(app.filter(is_there).map(|app| app.id));
            }
            return Ok::<_, ArmError>(found);
        }
        let mut after = String::new();
        loop {
            let page = records::within(connection, &scope, Some(types::APP), &after, PAGE_ITEMS)?;
            let Some(last) = page.last() else { return Ok(found) };
            after = last.id.key();
            found.extend(page.into_iter().filter(is_there).map(|app| app.id));
        }
    };
    shared.database.read(reading).await
}

/// One series for each combination of the dimensions that the filter names.
fn series(metrics: &Metrics, query: &Query, metric: Metric, apps: &[ResourceId]) -> Vec<Value> {
    let mut found: Vec<Value> = Vec::new();
    let (by_resource, by_revision) = (query.filter.splits(RESOURCE), query.filter.splits(REVISION));
    let mut all: Vec<(String, String)> = Vec::new();
    for app in apps {
        let key = app.key();
        let revisions = metrics.revisions(&key).into_iter();
        let revisions = revisions.filter(|revision| query.filter.lets(REVISION, revision));
        let pairs = revisions.map(|revision| (key.clone(), revision)).collect::<Vec<_>>();
        let labels = |revision: Option<&str>| {
            let mut labels = Vec::new();
            if by_resource {
                labels.push(label(RESOURCE, &app.text));
            }
            labels.extend(revision.map(|revision| label(REVISION, revision)));
            labels
        };
        match (by_resource, by_revision) {
            (_, true) => {
                let mut of_app = pairs
                    .iter()
                    .map(|pair| {
                        Steps::of(metrics, query, metric, std::slice::from_ref(pair))
                            .with(labels(Some(&pair.1)))
                    })
                    .collect::<Vec<_>>();
                of_app.sort_by(|one, other| other.sum.total_cmp(&one.sum));
                found.extend(of_app.into_iter().take(query.top).map(|steps| steps.shown));
            }
            (true, false) => found.push(Steps::of(metrics, query, metric, &pairs).with(labels(None)).shown),
            (false, false) => all.extend(pairs),
        }
    }
    if !by_resource && !by_revision {
        found.push(Steps::of(metrics, query, metric, &all).with(Vec::new()).shown);
    }
    found
}

fn label(name: &str, value: &str) -> Value {
    json!({ "name": { "value": name, "localizedValue": name }, "value": value })
}

/// A series, and what it is ordered by.
struct Steps {
    shown: Value,
    sum: f64,
}

impl Steps {
    fn of(metrics: &Metrics, query: &Query, metric: Metric, pairs: &[(String, String)]) -> Self {
        let steps = metrics.steps(pairs, metric, (query.from, query.until, query.interval.1));
        let sum = steps.iter().filter_map(|step| step.by(metric.aggregation())).sum();
        let times = (0..).map(|step| query.from + step * query.interval.1);
        let points = times.zip(&steps).map(|(minute, step)| point(minute, step, &query.aggregations));
        let data = points.collect::<Vec<_>>();
        Self { shown: json!({ "data": data }), sum }
    }

    fn with(self, labels: Vec<Value>) -> Self {
        Self { shown: json!({ "metadatavalues": labels, "data": self.shown["data"] }), ..self }
    }
}

/// A step; where nothing was measured, only its time.
fn point(minute: i64, summary: &Summary, aggregations: &[Aggregation]) -> Value {
    let mut point = Map::new();
    let time = Timestamp::from_second(minute * 60).unwrap_or_default();
    point.insert("timeStamp".to_owned(), json!(time.to_string()));
    for aggregation in aggregations {
        let name = match aggregation {
            Aggregation::Average => "average",
            Aggregation::Minimum => "minimum",
            Aggregation::Maximum => "maximum",
            Aggregation::Total => "total",
            Aggregation::Count => "count",
        };
        if let Some(number) = summary.by(*aggregation) {
            point.insert(name.to_owned(), json!(number));
        }
    }
    Value::Object(point)
}
