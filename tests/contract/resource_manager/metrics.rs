//! Azure Monitor's metrics: what the ingress and the replicas did, of one app and of many.

use serde_json::{Value, json};

use super::{apps::APP, bench::Bench};

const VERSION: &str = "api-version=2023-10-01";

fn of_app(query: &str) -> String {
    format!("{APP}/providers/Microsoft.Insights/metrics?{VERSION}&{query}")
}

/// A batch over a subscription; `filter` is encoded.
fn batch(query: &str, filter: &str) -> String {
    let filter: String = url::form_urlencoded::byte_serialize(filter.as_bytes()).collect();
    format!("/subscriptions/s1/providers/Microsoft.Insights/metrics?{VERSION}&{query}&$filter={filter}")
}

/// The sum of a member over a series' steps.
fn sum(series: &Value, member: &str) -> f64 {
    series["data"].as_array().unwrap().iter().filter_map(|step| step[member].as_f64()).sum()
}

fn labels(series: &Value) -> Vec<(&str, &str)> {
    let labels = series["metadatavalues"].as_array().unwrap().iter();
    labels.map(|label| (label["name"]["value"].as_str().unwrap(), label["value"].as_str().unwrap())).collect()
}

impl Bench {
    /// Waits until the metrics know of so many requests.
    async fn until_requests(&self, wanted: f64) -> Value {
        self.until("the requests to be counted", async |bench: &Bench| {
            let answer =
                bench.send("GET", &of_app("metricnames=Requests,Replicas&timespan=PT5M"), None).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            (sum(&answer.body["value"][0]["timeseries"][0], "total") == wanted).then_some(answer.body)
        })
        .await
    }
}

#[tokio::test]
async fn requests_are_counted_and_replicas_measured() {
    let bench = Bench::new().await;
    bench.app("r/api:1", "one").await;
    let host = bench.host("api").await;
    for _ in 0..7 {
        bench.ask(&host, "/").await;
    }
    let body = bench.until_requests(7.0).await;
    assert_eq!((&body["interval"], &body["resourceregion"]), (&json!("PT1M"), &json!("westeurope")));
    assert_eq!(body["namespace"], json!("microsoft.app/containerapps"));
    let metric = &body["value"][0];
    assert_eq!(metric["id"], json!(format!("{APP}/providers/Microsoft.Insights/metrics/Requests")));
    assert_eq!((&metric["unit"], &metric["errorCode"]), (&json!("Count"), &json!("Success")));
    assert_eq!(metric["timeseries"][0]["metadatavalues"], json!([]));

    let query = "metricnames=Replicas,UsageNanoCores,WorkingSetBytes,CpuPercentage,MemoryPercentage&aggregation=Maximum&timespan=PT1M&interval=PT1M";
    let answer = bench.send("GET", &of_app(query), None).await.body;
    let newest = |index: usize| {
        let steps = answer["value"][index]["timeseries"][0]["data"].as_array().unwrap();
        steps.iter().filter_map(|step| step["maximum"].as_f64()).next_back().unwrap()
    };
    assert_eq!(newest(0), 1.0);
    assert!(newest(1) >= 1e7 && newest(2) >= 6e7 && newest(3) >= 2.0 && newest(4) > 1.0, "{answer}");
}

#[tokio::test]
async fn many_apps_are_one_question_and_split_by_what_the_filter_names() {
    let bench = Bench::new().await;
    bench.app("r/api:1", "one").await;
    let other = APP.replace("/api", "/web");
    let mut body = super::apps::body("r/web:1", "one");
    body["properties"]["template"]["scale"] = json!({ "minReplicas": 2, "maxReplicas": 2 });
    bench.put(&other, body).await;
    bench.ask(&bench.host("api").await, "/").await;
    bench.until_requests(1.0).await;
    let query = "region=westeurope&metricnamespace=Microsoft.App/containerApps&metricnames=Requests,Replicas&timespan=PT5M&aggregation=Total,Maximum";
    let answer =
        bench.send("GET", &batch(query, "Microsoft.ResourceId eq '*' and revisionName eq '*'"), None).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let series = answer.body["value"][0]["timeseries"].as_array().unwrap();
    assert_eq!(
        series.iter().map(|series| labels(series)).collect::<Vec<_>>(),
        [
            vec![("microsoft.resourceid", APP), ("revisionname", "api--one")],
            vec![("microsoft.resourceid", other.as_str()), ("revisionname", "web--one")],
        ]
    );
    assert_eq!((sum(&series[0], "total"), sum(&series[1], "total")), (1.0, 0.0));

    let one = bench
        .send("GET", &batch(query, &format!("Microsoft.ResourceId eq '{}'", other.to_uppercase())), None)
        .await;
    let series = one.body["value"][1]["timeseries"].as_array().unwrap();
    assert_eq!((series.len(), labels(&series[0])), (1, vec![("microsoft.resourceid", other.as_str())]));
    let elsewhere = query.replace("westeurope", "northeurope");
    let none = bench.send("GET", &batch(&elsewhere, "Microsoft.ResourceId eq '*'"), None).await;
    assert_eq!(none.body["value"][0]["timeseries"], json!([]));
}

#[tokio::test]
async fn a_question_that_cannot_be_answered_is_refused() {
    let bench = Bench::new().await;
    bench.group().await;
    let gone = bench.send("GET", &of_app("metricnames=Requests"), None).await;
    assert_eq!((gone.status, gone.code()), (404, "ResourceNotFound"));
    let old = bench.send("GET", &of_app("").replace("2023-10-01", "1999-01-01"), None).await;
    assert_eq!((old.status, old.code()), (400, "NoRegisteredProviderFound"));
    let nowhere =
        bench.send("GET", &batch("metricnames=Requests", "Microsoft.ResourceId eq '*'"), None).await;
    assert_eq!((nowhere.status, nowhere.code()), (400, "BadRequest"));
    let group =
        bench.send("GET", &of_app("").replace("/providers/Microsoft.App/containerApps/api", ""), None).await;
    assert_eq!((group.status, group.code()), (400, "BadRequest"));
    let posted = bench.send("POST", &of_app("metricnames=Requests"), None).await;
    assert_eq!(posted.status, 405);
}
