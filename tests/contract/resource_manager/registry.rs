//! Container registries: the token exchange, what a tag stands for, and what runs by a digest.

use axum::{body::Body, http::Request};
use runtime_platform::local::azure::{AUDIENCE, REGISTRY_AUDIENCE};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{
    apps::{APP, body},
    bench::Bench,
};

const ACR: &str = "acr.azurecr.io";
const NAME: &str = "reservations-api";

struct Told {
    status: u16,
    headers: axum::http::HeaderMap,
    body: Value,
    length: usize,
}

impl Told {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    fn code(&self) -> &str {
        self.body["errors"][0]["code"].as_str().unwrap_or_default()
    }
}

impl Bench {
    async fn registry(
        &self,
        host: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        form: &str,
    ) -> Told {
        let mut request = Request::builder().method(method).uri(path).header("host", host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(form.to_owned())).unwrap();
        let response = self.azure().registry().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Told {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
            length: bytes.len(),
        }
    }

    async fn exchange(&self, audience: &str) -> Told {
        let form =
            format!("grant_type=access_token&service={ACR}&tenant=t&access_token={}", self.token(audience));
        self.registry(ACR, "POST", "/oauth2/exchange", &[], &form).await
    }

    /// A token that opens the repository.
    async fn access(&self) -> String {
        let refresh =
            self.exchange(REGISTRY_AUDIENCE).await.body["refresh_token"].as_str().unwrap().to_owned();
        let form = format!(
            "grant_type=refresh_token&service={ACR}&scope=repository%3A{NAME}%3Apull&refresh_token={refresh}"
        );
        let told = self.registry(ACR, "POST", "/oauth2/token", &[], &form).await;
        told.body["access_token"].as_str().unwrap().to_owned()
    }

    async fn ask_for(&self, method: &str, reference: &str) -> Told {
        let bearer = format!("Bearer {}", self.access().await);
        let path = format!("/v2/{NAME}/manifests/{reference}");
        let accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";
        self.registry(ACR, method, &path, &[("authorization", &bearer), ("accept", accept)], "").await
    }

    async fn digest(&self, tag: &str) -> String {
        let told = self.ask_for("HEAD", tag).await;
        assert_eq!((told.status, told.length), (200, 0));
        told.header("docker-content-digest").to_owned()
    }
}

#[tokio::test]
async fn a_registry_of_azure_exchanges_tokens_and_tells_a_digest() {
    let bench = Bench::new().await;
    let path = format!("/v2/{NAME}/manifests/1.4.1");
    let challenged = bench.registry(&format!("{ACR}:7077"), "HEAD", &path, &[], "").await;
    assert_eq!(challenged.status, 401);
    assert_eq!(
        challenged.header("www-authenticate"),
        format!(
            r#"Bearer realm="https://{ACR}/oauth2/token",service="{ACR}",scope="repository:{NAME}:pull""#
        )
    );
    let got = bench.ask_for("GET", "1.4.1").await;
    let digest = bench.digest("1.4.1").await;
    assert_eq!(got.header("docker-content-digest"), digest);
    assert_eq!(got.header("content-type"), "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(got.body["mediaType"], json!("application/vnd.oci.image.manifest.v1+json"));
    assert_eq!(bench.ask_for("GET", &digest).await.body, got.body);
    // As clients may write it.
    assert_eq!(bench.ask_for("GET", &digest.replace(':', "%3A")).await.body, got.body);
    assert_eq!(bench.ask_for("GET", "no%20tag").await.code(), "MANIFEST_UNKNOWN");
    assert_ne!(bench.digest("1.4.2").await, digest);
}

#[tokio::test]
async fn what_is_not_there_or_not_allowed_is_said_so() {
    let bench = Bench::new().await;
    let none = bench.ask_for("GET", &format!("sha256:{}", "0".repeat(64))).await;
    assert_eq!((none.status, none.code()), (404, "MANIFEST_UNKNOWN"));
    let missing = json!({ "match": format!("{ACR}/{NAME}:9.*"), "behaviour": { "kind": "missing" } });
    assert_eq!(bench.send("POST", "/local/images", Some(missing)).await.status, 204);
    assert_eq!(bench.ask_for("GET", "9.9.9").await.code(), "MANIFEST_UNKNOWN");

    // Resource Manager's tokens are as good; a vault's are not; and a token opens one repository.
    assert_eq!(bench.exchange(AUDIENCE).await.status, 200);
    let foreign = bench.exchange("https://vault.localhost").await;
    assert_eq!((foreign.status, foreign.code()), (401, "UNAUTHORIZED"));
    let bearer = format!("Bearer {}", bench.access().await);
    let other = bench.registry(ACR, "HEAD", "/v2/other/manifests/1", &[("authorization", &bearer)], "").await;
    assert_eq!(other.status, 401);
    let elsewhere = bench
        .registry(
            "b.azurecr.io",
            "HEAD",
            &format!("/v2/{NAME}/manifests/1"),
            &[("authorization", &bearer)],
            "",
        )
        .await;
    assert_eq!(elsewhere.status, 401);
    let wrong = "grant_type=password&service=acr.azurecr.io";
    assert_eq!(bench.registry(ACR, "POST", "/oauth2/exchange", &[], wrong).await.status, 400);
}

#[tokio::test]
async fn another_registry_lets_anybody_pull() {
    let bench = Bench::new().await;
    let host = "ghcr.example";
    let path = "/v2/team/app/manifests/1";
    assert_eq!(bench.registry(host, "HEAD", path, &[], "").await.status, 401);
    let query = format!("/oauth2/token?service={host}&scope=repository%3Ateam/app%3Apull");
    let token = bench.registry(host, "GET", &query, &[], "").await.body["token"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {token}");
    let told = bench.registry(host, "HEAD", path, &[("authorization", &bearer)], "").await;
    assert!(told.status == 200 && told.header("docker-content-digest").starts_with("sha256:"));
    let azures = format!("/oauth2/token?service={ACR}&scope=repository%3A{NAME}%3Apull");
    assert_eq!(bench.registry(ACR, "GET", &azures, &[], "").await.status, 401);
}

#[tokio::test]
async fn a_tag_that_is_moved_is_another_digest_and_the_old_one_runs_as_before() {
    let bench = Bench::new().await;
    let old = bench.digest("2.0.0").await;
    let image = |digest: &str| format!("{ACR}/{NAME}@{digest}");
    bench.app(&image(&old), "one").await;

    let broken =
        json!({ "match": format!("{ACR}/{NAME}:2.0.0"), "behaviour": { "kind": "errors", "share": 1.0 } });
    assert_eq!(bench.send_as(None, "POST", "/local/images", &[], Some(broken.clone())).await.status, 401);
    assert_eq!(bench.send("POST", "/local/images", Some(broken)).await.status, 204);
    let new = bench.digest("2.0.0").await;
    assert_ne!(new, old);

    // All of it is durable: what was staged, and what each digest stands for.
    let bench = bench.restart().await;
    assert_eq!(bench.digest("2.0.0").await, new);
    bench.running("api--one").await;
    let host = bench.host("api--one").await;
    let told = bench.ask(&host, "/").await;
    assert_eq!((told.0, &told.1["image"]), (200, &json!(image(&old))));
    let other = APP.replace("/api", "/bad");
    bench.put(&other, body(&image(&new), "one")).await;
    let bad = bench.host("bad--one").await;
    bench
        .until("the new digest to answer 500", async |bench: &Bench| {
            (bench.ask(&bad, "/").await.0 == 500).then_some(())
        })
        .await;
    let nonsense = json!({ "match": "a", "behaviour": { "kind": "odd" } });
    assert_eq!(bench.send("POST", "/local/images", Some(nonsense)).await.code(), "InvalidImage");
}

#[tokio::test]
async fn an_image_that_is_not_in_its_registry_cannot_be_pulled() {
    let bench = Bench::new().await;
    bench.environment().await;
    bench.put(APP, body("r/missing:1", "one")).await;
    let detail = bench.until("the revision to be degraded", async |bench: &Bench| {
        bench.revision("api--one").await["runningStateDetails"].as_str().map(str::to_owned)
    });
    assert!(detail.await.contains("ImagePullBackOff: `r/missing:1` is not in its registry"));
}
