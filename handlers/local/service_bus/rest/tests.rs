use std::{collections::BTreeMap, sync::Mutex};

use axum::body::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::{
    local::service_bus::{Message, Topology},
    ports::clock::Clock,
};

struct Hands(Mutex<Timestamp>);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

struct Place {
    bus: ServiceBus,
    router: Router,
    clock: Arc<Hands>,
    bearer: String,
    _directory: tempfile::TempDir,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn broker_properties(&self) -> Value {
        serde_json::from_slice(self.headers["brokerproperties"].as_bytes()).unwrap()
    }

    /// Status and the sentence of an error.
    fn error(&self) -> (u16, String) {
        let body = String::from_utf8(self.body.to_vec()).unwrap();
        let start = format!("<Error><Code>{}</Code><Detail>", self.status);
        let detail = body.strip_prefix(&start).and_then(|rest| rest.strip_suffix("</Detail></Error>"));
        (self.status, detail.unwrap_or_else(|| panic!("no error: {body}")).to_owned())
    }
}

impl Place {
    fn new() -> Self {
        let topology = json!({
            "queues": [{ "name": "q", "lockDuration": "PT30S", "duplicateDetectionWindow": "PT1M" }],
            "topics": [{ "name": "t", "subscriptions": [
                { "name": "s", "rules": [{ "name": "$Default", "sqlFilter": "[cs-attempt] = 1" }] },
            ] }],
        });
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(Hands(Mutex::new("2026-01-02T03:04:05Z".parse().unwrap())));
        let topology = Topology::parse("messaging.json", &topology.to_string()).unwrap();
        let bus = ServiceBus::open(&directory.path().join("bus.sqlite"), topology, clock.clone()).unwrap();
        let tokens = Tokens::new([7; 32], "header".into());
        let bearer = format!("Bearer {}", tokens.issue(AUDIENCE, clock.now().as_second()));
        let router = router(bus.clone(), tokens, key());
        Self { bus, router, clock, bearer, _directory: directory }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "bus.localhost:7000");
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", &self.bearer);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn send(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        self.ask("POST", &format!("/{path}/messages"), headers, body).await
    }

    async fn stored(&self, path: &str) -> Message {
        self.bus.take(path, 1, Duration::ZERO).await.unwrap().remove(0).message
    }
}

fn key() -> SasKey {
    SasKey { name: "RootManageSharedAccessKey".into(), key: "a2V5".into() }
}

#[tokio::test]
async fn a_single_send_carries_every_property() {
    let place = Place::new();
    let broker = json!({
        "MessageId": "m-1", "CorrelationId": "c", "SessionId": "s", "Label": "l", "To": "to", "ReplyTo": "r",
        "ReplyToSessionId": "rs", "PartitionKey": "s", "TimeToLive": 90.5, "State": "Active",
        "ScheduledEnqueueTimeUtc": "Fri, 02 Jan 2026 03:04:05 GMT",
    });
    let headers = [
        ("content-type", "application/vnd.masstransit+json"),
        ("BrokerProperties", &broker.to_string()),
        ("user-agent", "azsdk"),
        ("x-ms-client-request-id", "unquoted"),
        ("accept", "*/*"),
        ("CS-Event-Type", "\"SecretRotated\""),
        ("traceparent", "\"00-aa-bb-01\""),
        ("cs-sequence", "17"),
        ("cs-ratio", "0.5"),
        ("cs-final", "true"),
        ("cs-quoted", "\"17\""),
        ("cs-wide", "\"\\u00e9\""),
    ];
    assert_eq!(place.send("q", &headers, "{}").await.status, 201);
    let expected = Message {
        message_id: "m-1".into(),
        content_type: Some("application/vnd.masstransit+json".into()),
        correlation_id: Some("c".into()),
        session_id: Some("s".into()),
        subject: Some("l".into()),
        to: Some("to".into()),
        reply_to: Some("r".into()),
        reply_to_session_id: Some("rs".into()),
        partition_key: Some("s".into()),
        time_to_live: Some(Duration::from_millis(90_500)),
        scheduled_enqueue_time: Some("2026-01-02T03:04:05Z".parse().unwrap()),
        properties: BTreeMap::from([
            ("cs-event-type".to_owned(), json!("SecretRotated")),
            ("traceparent".to_owned(), json!("00-aa-bb-01")),
            ("cs-sequence".to_owned(), json!(17)),
            ("cs-ratio".to_owned(), json!(0.5)),
            ("cs-final".to_owned(), json!(true)),
            ("cs-quoted".to_owned(), json!("17")),
            ("cs-wide".to_owned(), json!("é")),
        ]),
        body: b"{}".to_vec(),
    };
    assert_eq!(place.stored("q").await, expected);
}

#[tokio::test]
async fn scheduling_takes_both_forms_of_a_time_and_duplicates_are_accepted_in_silence() {
    let place = Place::new();
    for (id, time) in [("a", "Fri, 02 Jan 2026 03:05:05 GMT"), ("b", "2026-01-02T03:05:05Z")] {
        let broker = json!({ "MessageId": id, "ScheduledEnqueueTimeUtc": time }).to_string();
        for _ in 0..2 {
            assert_eq!(place.send("q", &[("brokerproperties", &broker)], "x").await.status, 201);
        }
    }
    assert_eq!(place.bus.counts().await.unwrap()["q"], (0, 0, 2));
}

#[tokio::test]
async fn a_batch_is_several_messages_and_custom_headers_are_not_theirs() {
    let place = Place::new();
    let batch = json!([
        { "Body": "one", "BrokerProperties": { "MessageId": "1", "Label": "l" }, "UserProperties": { "cs-attempt": 1 } },
        { "Body": "two", "BrokerProperties": { "MessageId": "2" } },
    ]);
    let headers = [("content-type", properties::BATCH), ("cs-event-type", "\"X\"")];
    assert_eq!(place.send("q", &headers, batch.to_string()).await.status, 201);
    let first = Message {
        message_id: "1".into(),
        subject: Some("l".into()),
        properties: BTreeMap::from([("cs-attempt".to_owned(), json!(1))]),
        body: b"one".to_vec(),
        ..Message::default()
    };
    assert_eq!(place.stored("q").await, first);
    assert_eq!(
        place.stored("q").await,
        Message { message_id: "2".into(), body: b"two".to_vec(), ..Message::default() }
    );
}

#[tokio::test]
async fn peek_lock_renew_abandon_and_complete_go_by_the_location() {
    let place = Place::new();
    let headers = [
        ("content-type", "text/plain"),
        ("cs-attempt", "1"),
        ("brokerproperties", r#"{"MessageId":"m","Label":"é"}"#),
    ];
    assert_eq!(place.send("t", &headers, "hello").await.status, 201);
    let entity = "/t/subscriptions/S";

    let peeked =
        place.ask("POST", &format!("{entity}/messages/head?api-version=2015-01&timeout=0"), &[], "").await;
    assert_eq!((peeked.status, peeked.body.as_ref()), (201, b"hello".as_slice()));
    assert_eq!(
        (&peeked.headers["content-type"], &peeked.headers["cs-attempt"]),
        (&"text/plain".parse().unwrap(), &"1".parse().unwrap())
    );
    let properties = peeked.broker_properties();
    let lock = properties["LockToken"].as_str().unwrap();
    let expected = json!({
        "DeliveryCount": 1,
        "EnqueuedTimeUtc": "Fri, 02 Jan 2026 03:04:05 GMT",
        "LockToken": lock,
        "LockedUntilUtc": "Fri, 02 Jan 2026 03:05:05 GMT",
        "MessageId": "m",
        "SequenceNumber": 1,
        "State": "Active",
        "Label": "é",
    });
    assert_eq!(properties, expected);
    let location = peeked.headers["location"].to_str().unwrap();
    assert_eq!(location, format!("https://bus.localhost:7000/t/subscriptions/S/messages/1/{lock}"));
    let locked = location.strip_prefix("https://bus.localhost:7000").unwrap();

    let head = format!("{entity}/messages/head?timeout=0");
    assert_eq!(place.ask("POST", &head, &[], "").await.status, 204);
    *place.clock.0.lock().unwrap() += Duration::from_secs(50);
    assert_eq!(place.ask("POST", locked, &[], "").await.status, 200);
    *place.clock.0.lock().unwrap() += Duration::from_secs(50);
    assert_eq!(place.ask("PUT", locked, &[], "").await.status, 200);
    let again = place.ask("POST", &head, &[], "").await;
    assert_eq!(again.broker_properties()["DeliveryCount"], 2);
    let lost =
        (410, "The lock supplied is invalid: it has expired, or the message was settled already.".to_owned());
    assert_eq!(place.ask("DELETE", locked, &[], "").await.error(), lost);
    let locked =
        again.headers["location"].to_str().unwrap().strip_prefix("https://bus.localhost:7000").unwrap();
    assert_eq!(place.ask("DELETE", locked, &[], "").await.status, 200);
    assert_eq!(place.ask("DELETE", locked, &[], "").await.error(), lost);
}

#[tokio::test]
async fn receive_and_delete_leaves_nothing_and_shows_dead_letters() {
    let place = Place::new();
    place.bus.send("q", vec![Message { message_id: "m".into(), ..Message::default() }]).await.unwrap();
    let lock = place.bus.receive("q", 1, Duration::ZERO).await.unwrap()[0].lock_token;
    place.bus.dead_letter("q", lock, "Reason", "Why: é\n").await.unwrap();
    let head = "/q/$DeadLetterQueue/messages/head?timeout=0";
    let taken = place.ask("DELETE", head, &[], "").await;
    assert_eq!(taken.status, 200);
    assert_eq!(taken.headers["deadletterreason"], "\"Reason\"");
    assert_eq!(taken.headers["deadlettererrordescription"], "\"Why: \\u00e9\\n\"");
    assert_eq!(taken.broker_properties().get("LockToken"), None);
    assert_eq!(place.ask("DELETE", &head.replace('$', "%24"), &[], "").await.status, 204);
}

#[tokio::test]
async fn who_has_no_right_is_told_why() {
    let place = Place::new();
    let now = place.clock.now();
    let signed = |resource: &str, seconds: i64| {
        sign(resource, &key(), Timestamp::from_second(now.as_second() + seconds).unwrap())
    };
    let tokens = Tokens::new([7; 32], "header".into());
    let vault = format!("Bearer {}", tokens.issue("https://vault.azure.net", now.as_second()));
    let stranger = sign(
        "https://bus.localhost/",
        &SasKey { key: "other".into(), ..key() },
        now + Duration::from_secs(60),
    );
    let table = [
        (signed("https://bus.localhost/q", 60), 201, ""),
        (
            signed("https://bus.localhost/", -1),
            401,
            "Not authorized: the shared access signature has expired.",
        ),
        (
            signed("https://bus.localhost/t", 60),
            401,
            "Not authorized: the shared access signature is for 'https://bus.localhost/t', not for what was asked.",
        ),
        (stranger, 401, "Not authorized: the signature does not match its key, resource and expiry."),
        (
            vault,
            401,
            "Not authorized: the token is for `https://vault.azure.net`, this service takes tokens for `https://servicebus.azure.net`.",
        ),
        (
            "Basic x".to_owned(),
            401,
            "Not authorized: the request needs an Authorization header, with a bearer token or a shared access signature.",
        ),
    ];
    for (authorization, status, detail) in table {
        let answer = place.send("q", &[("authorization", &authorization)], "x").await;
        assert_eq!(answer.status, status, "{authorization}");
        if status == 401 {
            assert_eq!(answer.error().1, detail);
        }
    }
}

#[tokio::test]
async fn a_bad_request_is_answered_with_a_sentence() {
    let place = Place::new();
    let property = "The header cs-x is an application property: its value must be a text in double quotation marks, a number, true or false.";
    let broker = |value: &str| vec![("brokerproperties".to_owned(), value.to_owned())];
    let table = [
        (broker("["), "The header BrokerProperties must be a JSON object."),
        (
            broker(r#"{"messageId":"m"}"#),
            "In the header BrokerProperties, messageId is not known: names are written as in MessageId.",
        ),
        (broker(r#"{"MessageId":5}"#), "In the header BrokerProperties, MessageId must be a text."),
        (
            broker(r#"{"TimeToLive":"PT1M"}"#),
            "In the header BrokerProperties, TimeToLive must be a number of seconds above 0.",
        ),
        (
            broker(r#"{"ScheduledEnqueueTimeUtc":"soon"}"#),
            "In the header BrokerProperties, ScheduledEnqueueTimeUtc must be a time such as Sun, 06 Nov 1994 08:49:37 GMT.",
        ),
        (vec![("cs-x".to_owned(), "unquoted".to_owned())], property),
        (vec![("cs-x".to_owned(), "[1]".to_owned())], property),
    ];
    for (headers, problem) in table {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(place.send("q", &headers, "x").await.error(), (400, problem.to_owned()));
    }
    let batches = [
        ("{}", "The batch must be a JSON list of objects (line 1, column 0)."),
        (
            r#"[{"Body":"x"},{"body":"x"}]"#,
            "Message 1: 'body' is not known: there are Body, BrokerProperties and UserProperties.",
        ),
        (r#"[{"BrokerProperties":{}}]"#, "Message 0: Body must be a text."),
        (
            r#"[{"Body":"x","UserProperties":{"p":[]}}]"#,
            "The property 'p' is no text, number or boolean: make it one, or leave it out.",
        ),
    ];
    for (batch, problem) in batches {
        assert_eq!(
            place.send("q", &[("content-type", properties::BATCH)], batch).await.error(),
            (400, problem.to_owned())
        );
    }
    let table = [
        ("POST", "/nowhere/messages", 404, "The messaging entity 'nowhere' could not be found."),
        ("POST", "/q", 404, "There is nothing at '/q': write '/entity/messages' or '/entity/messages/head'."),
        ("GET", "/q/messages", 405, "GET means nothing at '/q/messages'."),
        (
            "POST",
            "/t/messages/head",
            400,
            "'t' is a topic: receive from one of its subscriptions, 't/Subscriptions/name'.",
        ),
        (
            "DELETE",
            "/q/messages/1/xyz",
            400,
            "'xyz' is no lock token: write the LockToken of the BrokerProperties.",
        ),
        (
            "POST",
            "/q/messages/head?timeout=x",
            400,
            "timeout=x is no number of seconds: write e.g. timeout=10.",
        ),
        ("POST", "/%3Cq%3E/messages", 404, "The messaging entity '&lt;q&gt;' could not be found."),
    ];
    for (method, path, status, detail) in table {
        assert_eq!(
            place.ask(method, path, &[], "x").await.error(),
            (status, detail.to_owned()),
            "{method} {path}"
        );
    }
    assert_eq!(place.bus.counts().await.unwrap()["q"], (0, 0, 0));
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_without_reading_it_all() {
    let place = Place::new();
    let announced = place.send("q", &[("content-length", "104857600")], "x").await;
    assert_eq!(announced.error(), (403, "The message is 104857600 bytes, 262144 are allowed.".to_owned()));
    let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 4096])));
    let unannounced = place.send("q", &[], Body::from_stream(endless)).await;
    assert_eq!(
        unannounced.error(),
        (403, "The message is larger than the 262144 bytes that are allowed.".to_owned())
    );
    let properties_too = place.send("q", &[], vec![b'x'; MESSAGE_BYTES_MAX]).await;
    assert_eq!(properties_too.status, 403);
    let fits = place.send("q", &[], vec![b'x'; MESSAGE_BYTES_MAX - 100]).await;
    assert_eq!(fits.status, 201);
}

#[tokio::test]
async fn a_waiting_receive_is_answered_when_a_message_comes() {
    let place = Place::new();
    let (answer, ()) = tokio::join!(place.ask("POST", "/q/messages/head?timeout=30", &[], ""), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(place.send("q", &[], "x").await.status, 201);
    });
    assert_eq!((answer.status, answer.body.as_ref()), (201, b"x".as_slice()));
}
