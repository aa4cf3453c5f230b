//! The client against a server that answers as it is told, over TLS and with tokens.

use serde_json::json;

use super::*;
use crate::azure::{
    http_client::client_options,
    testing::{Issuer, Line, Server, reply},
};

const AUDIENCE: &str = "https://management.azure.com";
const APP: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.App/containerApps/a";
const VERSION: &str = "2026-01-01";

fn line(status: u16, body: Value) -> Line {
    (status, vec![], body)
}

fn soon() -> (&'static str, String) {
    ("x-ms-retry-after-ms", "10".to_owned())
}

fn state(state: &str) -> Value {
    json!({ "id": APP, "properties": { "provisioningState": state } })
}

/// Looks until the operation is no longer running, each time with what was read back from JSON.
async fn to_the_end(manager: &ResourceManager, mut reply: Reply) -> Reply {
    for _ in 0..10 {
        let Reply::Running { operation, .. } = reply else { return reply };
        let text = serde_json::to_string(&operation).unwrap();
        reply = manager.look(&serde_json::from_str::<LongRunning>(&text).unwrap()).await.unwrap();
    }
    reply
}

#[tokio::test]
async fn a_resource_is_read_with_a_token_and_a_version() {
    let server =
        Server::scripted(AUDIENCE, vec![line(200, state("Succeeded")), line(404, Value::Null)]).await;
    let manager = server.resource_manager();
    assert_eq!(manager.get(APP, VERSION).await.unwrap(), Some(state("Succeeded")));
    assert_eq!(manager.get(APP, VERSION).await.unwrap(), None);
    assert_eq!(server.lines(), vec![format!("GET {APP}?api-version={VERSION}"); 2]);
}

#[tokio::test]
async fn a_listing_follows_its_pages_and_no_stranger() {
    let server = Server::start(AUDIENCE, |seen| {
        if seen.path_and_query.contains("skip=1") {
            return reply(200, &[], &json!({ "value": [2] }));
        }
        let next = format!("https://{}/apps?skip=1", seen.authority);
        reply(200, &[], &json!({ "value": [1], "nextLink": next }))
    })
    .await;
    let found = server.resource_manager().list("/apps?$filter=x", VERSION).await.unwrap();
    assert_eq!(found, [json!(1), json!(2)]);
    assert_eq!(server.lines(), ["GET /apps?$filter=x&api-version=2026-01-01", "GET /apps?skip=1"]);

    let stranger = json!({ "value": [], "nextLink": "https://elsewhere.localhost/apps" });
    let server = Server::scripted(AUDIENCE, vec![line(200, stranger)]).await;
    let fault = server.resource_manager().list("/apps", VERSION).await.unwrap_err();
    assert!(matches!(fault, Fault::Rejected { code, .. } if code == "UntrustedUrl"));

    let endless = json!({ "value": [], "nextLink": "/apps" });
    let server = Server::scripted(AUDIENCE, vec![line(200, endless)]).await;
    let fault = server.resource_manager().list("/apps", VERSION).await.unwrap_err();
    assert!(matches!(fault, Fault::Rejected { code, .. } if code == "TooManyPages"));
}

#[tokio::test]
async fn an_operation_with_a_status_is_looked_at_and_then_the_resource_is_read() {
    let operation = ("azure-asyncoperation", "/operations/1?t=opaque".to_owned());
    let server = Server::scripted(
        AUDIENCE,
        vec![
            (201, vec![operation, soon()], state("InProgress")),
            (200, vec![soon()], json!({ "status": "InProgress" })),
            line(200, json!({ "status": "SomethingNew" })),
            line(200, json!({ "status": "Succeeded" })),
            line(200, state("Succeeded")),
        ],
    )
    .await;
    let manager = server.resource_manager();
    let first = manager.put(APP, VERSION, &json!({ "location": "westeurope" })).await.unwrap();
    let Reply::Running { operation, again_in } = &first else { panic!("{first:?}") };
    assert_eq!(*again_in, Duration::from_millis(10));
    assert_eq!(
        serde_json::to_value(operation).unwrap(),
        json!({
            "kind": "asyncOperation",
            "url": format!("{}/operations/1?t=opaque", server.endpoint),
            "resourceId": APP,
            "apiVersion": VERSION,
            "readBack": true,
            "looks": 0,
        })
    );
    assert_eq!(to_the_end(&manager, first).await, Reply::Done(state("Succeeded")));
    let (put, get) = (format!("PUT {APP}?api-version={VERSION}"), format!("GET {APP}?api-version={VERSION}"));
    let poll = "GET /operations/1?t=opaque".to_owned();
    assert_eq!(server.lines(), [put, poll.clone(), poll.clone(), poll, get]);
    assert_eq!(server.seen()[0].json(), json!({ "location": "westeurope" }));
}

#[tokio::test]
async fn an_operation_with_a_location_moves_with_it() {
    let server = Server::scripted(
        AUDIENCE,
        vec![
            (202, vec![("location", "/results/1".to_owned()), soon()], Value::Null),
            (202, vec![("location", "/results/2".to_owned()), soon()], Value::Null),
            (202, vec![soon()], Value::Null),
            line(200, state("Succeeded")),
            line(200, state("Succeeded")),
        ],
    )
    .await;
    let manager = server.resource_manager();
    let first = manager.patch(APP, VERSION, &json!({})).await.unwrap();
    assert_eq!(to_the_end(&manager, first).await, Reply::Done(state("Succeeded")));
    let lines = server.lines();
    assert_eq!(lines[1..4], ["GET /results/1", "GET /results/2", "GET /results/2"]);
}

#[tokio::test]
async fn a_resource_tells_by_its_state_where_nothing_else_does() {
    let server = Server::scripted(
        AUDIENCE,
        vec![
            line(201, state("Creating")),
            line(404, Value::Null),
            line(200, state("Updating")),
            line(200, state("Succeeded")),
        ],
    )
    .await;
    let manager = server.resource_manager();
    let first = manager.put(APP, VERSION, &json!({})).await.unwrap();
    assert!(matches!(first, Reply::Running { operation: LongRunning::ProvisioningState { .. }, .. }));
    assert_eq!(to_the_end(&manager, first).await, Reply::Done(state("Succeeded")));
}

#[tokio::test]
async fn what_has_no_state_is_done_at_once() {
    let body = json!({ "id": APP, "properties": {} });
    let server = Server::scripted(AUDIENCE, vec![line(201, body.clone())]).await;
    assert_eq!(server.resource_manager().put(APP, VERSION, &json!({})).await.unwrap(), Reply::Done(body));
}

#[tokio::test]
async fn a_resource_that_never_appears_is_a_failure_in_the_end() {
    let server = Server::scripted(AUDIENCE, vec![line(201, state("Creating")), line(404, Value::Null)]).await;
    let manager = server.resource_manager();
    let first = manager.put(APP, VERSION, &json!({})).await.unwrap();
    let end = to_the_end(&manager, first).await;
    assert_eq!(end, Reply::Failed { code: "Http404".into(), detail: "it says nothing more".into() });
}

#[tokio::test]
async fn a_failure_tells_azures_code_and_sentence() {
    let error = json!({ "code": "ImagePullFailed", "message": "No such image." });
    let operation = ("azure-asyncoperation", "/operations/1".to_owned());
    let failed = Reply::Failed { code: "ImagePullFailed".into(), detail: "No such image.".into() };
    for answer in
        [line(200, json!({ "status": "Failed", "error": error })), line(409, json!({ "error": error }))]
    {
        let server =
            Server::scripted(AUDIENCE, vec![(202, vec![operation.clone()], Value::Null), answer]).await;
        let manager = server.resource_manager();
        let first = manager.put(APP, VERSION, &json!({})).await.unwrap();
        assert_eq!(to_the_end(&manager, first).await, failed);
    }
    let state = json!({ "properties": { "provisioningState": "Canceled" } });
    let server = Server::scripted(AUDIENCE, vec![line(200, state)]).await;
    let reply = server.resource_manager().put(APP, VERSION, &json!({})).await.unwrap();
    assert_eq!(reply, Reply::Failed { code: "Canceled".into(), detail: "it says nothing more".into() });
}

#[tokio::test]
async fn an_operation_that_azure_forgot_is_told_by_the_resource() {
    let location = ("location", "/results/1".to_owned());
    let server = Server::scripted(
        AUDIENCE,
        vec![
            (202, vec![location.clone()], Value::Null),
            line(404, Value::Null),
            line(200, state("Succeeded")),
        ],
    )
    .await;
    let manager = server.resource_manager();
    let first = manager.patch(APP, VERSION, &json!({})).await.unwrap();
    assert_eq!(to_the_end(&manager, first).await, Reply::Done(state("Succeeded")));

    let server =
        Server::scripted(AUDIENCE, vec![(202, vec![location], Value::Null), line(404, Value::Null)]).await;
    let manager = server.resource_manager();
    let first = manager.delete(APP, VERSION).await.unwrap();
    assert_eq!(to_the_end(&manager, first).await, Reply::Done(Value::Null));
}

#[tokio::test]
async fn what_is_not_there_is_deleted() {
    let server = Server::scripted(AUDIENCE, vec![line(404, Value::Null)]).await;
    assert_eq!(server.resource_manager().delete(APP, VERSION).await.unwrap(), Reply::Done(Value::Null));
}

#[tokio::test]
async fn a_token_goes_to_resource_manager_alone() {
    let away = ("azure-asyncoperation", "https://management.example.org/operations/1".to_owned());
    let server = Server::scripted(AUDIENCE, vec![(201, vec![away], Value::Null)]).await;
    let manager = server.resource_manager();
    let fault = manager.put(APP, VERSION, &json!({})).await.unwrap_err();
    assert!(matches!(fault, Fault::Rejected { code, .. } if code == "UntrustedUrl"));
    let trusted = |url: &str| manager.trusted(url, "looking").is_ok();
    let port = manager.endpoint.port().unwrap();
    for (url, expected) in [
        (format!("https://server.localhost:{port}/x"), true),
        (format!("https://westeurope.server.localhost:{port}/x"), true),
        ("/x".to_owned(), true),
        (format!("https://evilserver.localhost:{port}/x"), false),
        (format!("http://server.localhost:{port}/x"), false),
        ("https://server.localhost/x".to_owned(), false),
        (format!("https://user@server.localhost:{port}/x"), false),
        ("//example.org/x".to_owned(), false),
    ] {
        assert_eq!(trusted(&url), expected, "{url}");
    }
    let stored = LongRunning::Location {
        url: "https://management.example.org/".into(),
        resource_id: APP.into(),
        api_version: VERSION.into(),
        read_back: false,
        looks: 0,
    };
    assert!(manager.look(&stored).await.is_err());
    assert_eq!(server.lines().len(), 1);
}

#[tokio::test]
async fn a_short_pause_is_waited_for_and_a_long_one_is_handed_on() {
    let busy =
        |milliseconds: &str| (429, vec![("x-ms-retry-after-ms", milliseconds.to_owned())], Value::Null);
    let server = Server::scripted(AUDIENCE, vec![busy("5"), line(200, state("Succeeded"))]).await;
    assert!(server.resource_manager().get(APP, VERSION).await.unwrap().is_some());
    assert_eq!(server.lines().len(), 2);

    let server = Server::scripted(AUDIENCE, vec![busy("60000")]).await;
    let fault = server.resource_manager().get(APP, VERSION).await.unwrap_err();
    assert!(
        matches!(fault, Fault::Transient { retry_after: Some(pause), .. } if pause == Duration::from_secs(60))
    );
    assert_eq!(server.lines().len(), 1);
}

#[tokio::test]
async fn what_may_have_been_done_is_not_said_twice() {
    for (method, times) in [("get", 3), ("put", 3), ("patch", 1), ("post", 1)] {
        let server = Server::scripted(AUDIENCE, vec![line(500, Value::Null)]).await;
        let manager = server.resource_manager();
        let fault = match method {
            "get" => manager.get(APP, VERSION).await.map(drop),
            "put" => manager.put(APP, VERSION, &json!({})).await.map(drop),
            "patch" => manager.patch(APP, VERSION, &json!({})).await.map(drop),
            _ => manager.post(APP, VERSION, None).await.map(drop),
        }
        .unwrap_err();
        assert!(matches!(fault, Fault::Transient { .. }), "{method}");
        assert_eq!(server.lines().len(), times, "{method}");
    }
}

#[tokio::test]
async fn an_azure_that_is_not_there_is_transient_and_its_url_is_not_told() {
    let server = Server::scripted(AUDIENCE, vec![line(200, Value::Null)]).await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let endpoint = format!("https://server.localhost:{free}");
    let manager =
        ResourceManager::new(&endpoint, client_options(&server.client()), Arc::new(Issuer)).unwrap();
    let fault = manager.get(APP, VERSION).await.unwrap_err();
    assert!(matches!(fault, Fault::Transient { retry_after: None, .. }));
    let chain = fault.chain();
    assert!(chain.starts_with(&format!("reading `{APP}`: Connection refused")), "{chain}");
    assert!(!chain.contains("https://"), "{chain}");
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let server = Server::scripted(AUDIENCE, vec![line(200, json!("x".repeat(ANSWER_BYTES_MAX)))]).await;
    let fault = server.resource_manager().get(APP, VERSION).await.unwrap_err();
    assert!(matches!(fault, Fault::Rejected { code, .. } if code == "AnswerTooLong"));
    assert_eq!(server.lines().len(), 1);
}

#[tokio::test]
async fn a_revoked_token_is_asked_for_once_more_and_then_it_is_a_no() {
    let server = Server::scripted("https://other.example.org", vec![line(200, Value::Null)]).await;
    let fault = server.resource_manager().get(APP, VERSION).await.unwrap_err();
    assert!(matches!(fault, Fault::Rejected { code, .. } if code == "Http401"));
    assert_eq!(server.lines().len(), 2);
}

#[tokio::test]
async fn an_id_does_not_walk() {
    let server = Server::scripted(AUDIENCE, vec![line(200, Value::Null)]).await;
    let manager = server.resource_manager();
    for id in ["/subscriptions/../other", "subscriptions/s", ""] {
        let fault = manager.get(id, VERSION).await.unwrap_err();
        assert!(matches!(fault, Fault::Rejected { code, .. } if code == "InvalidId"), "{id}");
    }
    assert_eq!(server.lines(), [""; 0]);
}

#[test]
fn an_endpoint_in_the_clear_is_refused() {
    let refused =
        ResourceManager::new("http://arm.localhost", ClientOptions::default(), Arc::new(Issuer)).err();
    assert_eq!(refused, Some(EndpointError { endpoint: "http://arm.localhost".to_owned() }));
}
