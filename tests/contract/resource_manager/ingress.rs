//! The ingress and what is behind it: weights as counted from outside, programs of the user's,
//! revisions that sleep.

use std::{
    io::{Read, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{body::Body, http::Request};
use runtime_platform::local::{
    azure::{Count, FaultKind, Happening, ImageCatalogue, hosts_server},
    certificates::Authority,
    https,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use tower::ServiceExt;

use super::{
    ENVIRONMENT,
    apps::{APP, body, template},
    bench::Bench,
};

impl Bench {
    pub async fn host(&self, name: &str) -> String {
        let domain =
            self.get(ENVIRONMENT).await.body["properties"]["defaultDomain"].as_str().unwrap().to_owned();
        format!("{name}.{domain}")
    }

    pub async fn ask(&self, host: &str, path: &str) -> (u16, Value) {
        let request =
            Request::builder().uri(path).header("host", format!("{host}:9443")).body(Body::empty()).unwrap();
        let response = self.azure().ingress().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }
}

#[tokio::test]
async fn weights_are_what_is_counted_from_outside() {
    let bench = Bench::new().await;
    bench.app("r/api:1", "one").await;
    bench.patch(json!({ "configuration": { "ingress": { "traffic": [{ "revisionName": "api--one", "weight": 100 }] } } })).await;
    bench.patch(json!({ "template": template("r/api:2", "two") })).await;
    bench.running("api--two").await;
    let (app, new) = (bench.host("api").await, bench.host("api--two").await);
    assert_eq!(bench.ask(&new, "/health").await.1["image"], json!("r/api:2"));
    assert_eq!(bench.ask(&app, "/").await.1["revision"], json!("api--one"));
    let traffic =
        json!([{ "revisionName": "api--two", "weight": 10 }, { "revisionName": "api--one", "weight": 90 }]);
    bench.patch(json!({ "configuration": { "ingress": { "traffic": traffic } } })).await;
    for _ in 0..100 {
        assert_eq!(bench.ask(&app, "/").await.0, 200);
    }
    // What goes to a revision's own host is no traffic of the app's.
    let count = |requests: u64| Count { requests, statuses: [(200, requests)].into() };
    let counts = bench.azure().ingress_counts(Some(&app));
    assert_eq!(counts[&app], [("api--one".to_owned(), count(91)), ("api--two".to_owned(), count(10))].into());
    let told = bench.send_as(None, "GET", &format!("/local/ingress-counts?host={new}:9443"), &[], None).await;
    assert_eq!(told.body, json!({ new: { "api--two": { "requests": 1, "statuses": { "200": 1 } } } }));
}

#[tokio::test]
async fn an_unknown_host_is_404_and_a_revision_that_is_not_ready_503() {
    let bench = Bench::new().await;
    bench.environment().await;
    bench.put(APP, body("r/crash-loop:1", "bad")).await;
    let (app, unknown) = (bench.host("api").await, bench.host("none").await);
    assert_eq!(bench.ask(&unknown, "/").await.0, 404);
    assert_eq!(bench.ask(&app, "/").await.0, 503);
}

#[tokio::test]
async fn a_revision_that_answers_500_runs_all_the_same() {
    let bench = Bench::new().await;
    bench.app("acr.azurecr.io/reservations-api:1.5.0", "bad").await;
    let host = bench.host("api--bad").await;
    assert_eq!(bench.ask(&host, "/health").await.0, 500);
    assert_eq!(bench.revision("api--bad").await["healthState"], json!("Healthy"));
}

pub fn catalogue(images: &Value) -> ImageCatalogue {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("images.json");
    std::fs::write(&file, json!({ "images": images }).to_string()).unwrap();
    ImageCatalogue::read(&file).unwrap()
}

#[tokio::test]
async fn an_image_behaves_as_the_catalogue_says() {
    let bench = Bench::with(catalogue(&json!([
        { "match": "t/slow-start:*", "behaviour": { "kind": "slowStart", "seconds": 0.4 } },
        { "match": "t/later:*", "behaviour": { "kind": "failsAfter", "seconds": 0 } },
        { "match": "t/half:*", "behaviour": { "kind": "errors", "share": 0.5 } },
        { "match": "t/latency:*", "behaviour": { "kind": "latency", "milliseconds": 200 } },
        { "match": "t/loop:*", "behaviour": { "kind": "crashLoop", "afterSeconds": 0.05 } },
    ])))
    .await;
    bench.app("t/slow-start:1", "start").await;
    let started =
        bench.heard.lock().unwrap().iter().any(|happening| matches!(happening, Happening::Ready { .. }));
    assert!(started);
    let asked = async |image: &str, suffix: &str| {
        bench.patch(json!({ "template": template(image, suffix) })).await;
        bench.running(&format!("api--{suffix}")).await;
        let host = bench.host(&format!("api--{suffix}")).await;
        let began = Instant::now();
        let statuses = [bench.ask(&host, "/").await.0, bench.ask(&host, "/").await.0];
        (statuses, began.elapsed())
    };
    assert_eq!(asked("t/later:1", "later").await.0, [500, 500]);
    assert_eq!(asked("t/half:1", "half").await.0, [200, 500]);
    let (statuses, took) = asked("t/latency:1", "latency").await;
    assert_eq!(statuses, [200, 200]);
    assert!(took >= Duration::from_millis(400), "{took:?}");

    bench.patch(json!({ "template": template("t/loop:1", "loop") })).await;
    bench
        .until("the container to have been started three times", async |bench: &Bench| {
            let replicas = bench.get(&format!("{APP}/revisions/api--loop/replicas")).await.body;
            let restarts = replicas["value"][0]["properties"]["containers"][0]["restartCount"].as_u64()?;
            (restarts >= 2).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_revision_may_sleep_and_is_woken_by_a_request() {
    let bench = Bench::new().await;
    bench.environment().await;
    let mut sleepy = body("r/api:1", "one");
    sleepy["properties"]["template"]["scale"] = json!({ "minReplicas": 0, "cooldownPeriod": 0 });
    bench.put(APP, sleepy).await;
    bench
        .until("the revision to sleep", async |bench: &Bench| {
            let revision = bench.revision("api--one").await;
            (revision["runningState"] == json!("Stopped")).then_some(())
        })
        .await;
    let host = bench.host("api").await;
    assert_eq!(bench.ask(&host, "/").await.0, 200);
}

/// A catalogue whose programs are this very test binary, and two that do not work.
pub fn programs() -> ImageCatalogue {
    let test = "contract::resource_manager::ingress::the_program_of_these_tests_greets";
    let own = std::env::current_exe().unwrap();
    catalogue(&json!([
        { "match": "mine/web:*", "command": [own, "--exact", test, "--nocapture"] },
        { "match": "mine/gone:*", "command": ["/no/such/program"] },
        { "match": "mine/short:*", "command": ["sh", "-c", "exit 3"] },
    ]))
}

/// Started by the stand-in, this is the program: it serves until it is killed. Otherwise it serves
/// the test that it is.
#[test]
fn the_program_of_these_tests_greets() {
    let greet = |listener: &std::net::TcpListener, greeting: &str| {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).unwrap();
        let body = json!({ "greeting": greeting }).to_string();
        let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        // Whoever only looked whether we listen is gone by now.
        let _ = stream.write_all((head + &body).as_bytes());
    };
    if std::env::var_os("CONTAINER_APP_REPLICA_NAME").is_some() {
        let port = std::env::var("PORT").unwrap().parse::<u16>().unwrap();
        let greeting = std::env::var("GREETING").unwrap();
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        println!("serving {greeting} on {port}");
        loop {
            greet(&listener, &greeting);
        }
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || greet(&listener, "hello"));
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    server.join().unwrap();
    assert!(answer.ends_with("{\"greeting\":\"hello\"}"), "{answer}");
}

impl Bench {
    /// An app whose one revision runs our program, ready; answers the port that it listens on.
    pub async fn own_program(&self) -> u16 {
        self.environment().await;
        let mut own = body("mine/web:1", "own");
        own["properties"]["template"]["containers"][0]["env"] =
            json!([{ "name": "GREETING", "secretRef": "key" }]);
        self.put(APP, own).await;
        self.pass(Duration::from_secs(2));
        self.running("api--own").await;
        self.until("the program to say where it is", async |bench: &Bench| {
            bench.heard.lock().unwrap().iter().find_map(|happening| match happening {
                Happening::Output { line, .. } => line.split("serving hush on ").nth(1)?.parse().ok(),
                _ => None,
            })
        })
        .await
    }
}

/// Waits until nobody listens on a port any more.
async fn until_gone(port: u16) {
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
        assert!(began.elapsed() < Duration::from_secs(10), "the program outlived its stand-in");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_program_of_the_users_own_is_behind_the_ingress_and_ends_with_its_revision() {
    let bench = Bench::with(programs()).await;
    let port = bench.own_program().await;
    let host = bench.host("api").await;
    assert_eq!(bench.ask(&host, "/").await, (200, json!({ "greeting": "hush" })));
    bench.post("revisions/api--own/deactivate").await;
    assert_eq!(bench.ask(&host, "/").await.0, 503);
    until_gone(port).await;
}

#[tokio::test]
async fn a_program_that_cannot_be_started_or_exits_is_said_to_and_tried_again() {
    let bench = Bench::with(programs()).await;
    bench.environment().await;
    for (image, suffix, says) in [
        ("mine/gone:1", "gone", "`/no/such/program` cannot be started"),
        ("mine/short:1", "short", "`sh` ended: exit status: 3"),
    ] {
        bench.put(&APP.replace("/api", &format!("/{suffix}")), body(image, "one")).await;
        let app = APP.replace("/api", &format!("/{suffix}"));
        let detail = bench.until("the revision to be degraded", async |bench: &Bench| {
            let revision = bench.get(&format!("{app}/revisions/{suffix}--one")).await.body;
            revision["properties"]["runningStateDetails"].as_str().map(str::to_owned)
        });
        let detail = detail.await;
        assert!(detail.contains(says), "{detail}");
    }
}

#[tokio::test]
async fn no_program_runs_on_when_the_stand_in_is_stopped_or_dropped() {
    let bench = Bench::with(programs()).await;
    let port = bench.own_program().await;
    bench.azure().stop().await;
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());

    let bench = Bench::with(programs()).await;
    let port = bench.own_program().await;
    drop(bench);
    until_gone(port).await;
}

/// The test starts itself as another process, which holds a stand-in with a program, and kills it.
#[tokio::test]
async fn no_program_outlives_a_stand_in_that_is_killed() {
    const HELD: &str = "RESOURCE_MANAGER_TEST_HOLDS_A_PROGRAM";
    if std::env::var_os(HELD).is_some() {
        let bench = Bench::with(programs()).await;
        println!("held on {}", bench.own_program().await);
        std::future::pending::<()>().await;
    }
    let name = "contract::resource_manager::ingress::no_program_outlives_a_stand_in_that_is_killed";
    let mut holder = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(HELD, "1")
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let port = loop {
        let line = lines.next_line().await.unwrap().expect("the holder says where its program is");
        if let Some(port) = line.split("held on ").nth(1) {
            break port.parse::<u16>().unwrap();
        }
    };
    TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    holder.kill().await.unwrap();
    until_gone(port).await;
}

#[tokio::test]
async fn over_https_every_host_has_a_certificate_of_its_own() {
    // Another test may have been first; there is only one provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let bench = Bench::new().await;
    bench.app("r/api:1", "one").await;
    let directory = tempfile::tempdir().unwrap();
    let authority = Arc::new(Authority::open(directory.path()).unwrap());
    let root = std::fs::read(authority.root_certificate()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = hosts_server(authority, "apps.localhost").unwrap();
    let server = tokio::spawn(https::serve(listener, Some(tls), bench.azure().ingress()));
    let (app, revision) = (bench.host("api").await, bench.host("api--one").await);
    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&root).unwrap()])
        .resolve(&app, address)
        .resolve(&revision, address)
        .build()
        .unwrap();
    for host in [&app, &revision] {
        let url = format!("https://{host}:{}/some/path?q=1", address.port());
        let response = client.post(url).body("a body").send().await.unwrap();
        assert_eq!(response.status(), 200);
        let said: Value = response.json().await.unwrap();
        assert_eq!((&said["revision"], &said["path"]), (&json!("api--one"), &json!("/some/path")));
    }
    server.abort();
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_passed_on() {
    let bench = Bench::new().await;
    bench.app("r/api:1", "one").await;
    let request = Request::builder().method("POST").uri("/").header("host", bench.host("api").await);
    let request = request.header("content-length", 200 * 1024 * 1024).body(Body::empty()).unwrap();
    assert_eq!(bench.azure().ingress().oneshot(request).await.unwrap().status(), 413);
}

#[tokio::test]
async fn a_dropped_connection_is_dropped_without_a_byte() {
    let bench = Bench::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(https::serve(listener, None, bench.azure().router()));
    let fault = json!([{ "fault": { "kind": "drop" } }]);
    bench.azure().inject(serde_json::from_value(fault).unwrap()).unwrap();
    let ask = async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /subscriptions/s1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        // A reset is as good as an end.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    assert_eq!(ask().await, "");
    assert!(ask().await.starts_with("HTTP/1.1 401 "));
    server.abort();
}

#[tokio::test]
async fn a_fault_kills_the_process_it_names() {
    let bench = Bench::new().await;
    bench.group().await;
    let mut victim = tokio::process::Command::new("sleep").arg("60").kill_on_drop(true).spawn().unwrap();
    let pid = i32::try_from(victim.id().unwrap()).unwrap();
    let fault = json!([{ "match": { "method": "GET" }, "skip": 1, "fault": { "kind": "kill", "pid": pid } }]);
    let faults: Vec<runtime_platform::local::azure::Fault> = serde_json::from_value(fault).unwrap();
    assert_eq!(faults[0].kind, FaultKind::Kill { pid });
    bench.azure().inject(faults).unwrap();
    bench.get(super::bench::GROUP).await;
    assert_eq!(victim.try_wait().unwrap(), None);
    assert_eq!(bench.get(super::bench::GROUP).await.status, 200);
    let status = victim.wait().await.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
}
