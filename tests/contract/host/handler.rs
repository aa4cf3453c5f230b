//! A custom handler that does what a test asks of it. It is this test binary, started by the host with
//! arguments that select one test, which serves instead of testing.
//!
//! The setting `FAKE_LOG` names a file that gets a line for each invocation. `FAKE_START` is an exit
//! code to end with at once. `FAKE_<Function>` lists answers, one for each call, the last one for all
//! that follow: `ok`, `status 500`, `empty`, `text`, `hang`, `slow`, `exit 1` or a reply in JSON.

use std::{
    collections::HashMap,
    env,
    fs::OpenOptions,
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};

/// What the host is told to start: this binary, as the test below.
pub const ARGUMENTS: &[&str] =
    &["contract::host::handler::a_custom_handler_answers_invocations", "--exact", "--nocapture"];

#[tokio::test]
async fn a_custom_handler_answers_invocations() {
    if let Ok(port) = env::var("FUNCTIONS_CUSTOMHANDLER_PORT") {
        serve(port.parse().expect("the host gives a port")).await;
    }
    // Not started by a host: the handler itself is what is tested.
    let handler = Handler::default();
    let answer =
        invoke(State(handler), Path("Unknown".to_owned()), HeaderMap::new(), Bytes::from_static(b"{}")).await;
    assert_eq!(
        (answer.status(), answer.headers()["content-type"].to_str().unwrap()),
        (StatusCode::OK, "application/json")
    );
}

#[derive(Clone, Default)]
struct Handler(Arc<Mutex<HashMap<String, usize>>>);

async fn serve(port: u16) -> ! {
    println!("the fake handler starts");
    eprintln!("and complains");
    if let Ok(code) = env::var("FAKE_START") {
        std::process::exit(code.parse().expect("FAKE_START is an exit code"));
    }
    let router = Router::new()
        .route("/{function}", post(invoke))
        .layer(DefaultBodyLimit::disable())
        .with_state(Handler::default());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("the host's port is free");
    axum::serve(listener, router).await.expect("serving does not fail");
    unreachable!("serving does not end");
}

async fn invoke(
    State(handler): State<Handler>,
    Path(function): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    log(&function, &headers, &body);
    let script = env::var(format!("FAKE_{function}")).unwrap_or_else(|_| "ok".to_owned());
    let answers: Vec<&str> = script.split('|').collect();
    let call = {
        let mut calls = handler.0.lock().expect("nobody panics while holding the calls");
        let count = calls.entry(function).or_default();
        *count += 1;
        *count - 1
    };
    let answer = answers[call.min(answers.len() - 1)];
    match answer.split_once(' ') {
        Some(("exit", code)) => std::process::exit(code.parse().expect("an exit code")),
        Some(("status", code)) => StatusCode::from_bytes(code.as_bytes()).expect("a status").into_response(),
        _ => match answer {
            "ok" => Json(json!({})).into_response(),
            "empty" => StatusCode::OK.into_response(),
            "text" => "{}".into_response(),
            "hang" => std::future::pending().await,
            "slow" => {
                tokio::time::sleep(Duration::from_millis(700)).await;
                Json(json!({})).into_response()
            }
            reply => Json(serde_json::from_str::<Value>(reply).expect("a reply in JSON")).into_response(),
        },
    }
}

fn log(function: &str, headers: &HeaderMap, body: &[u8]) {
    let Ok(file) = env::var("FAKE_LOG") else { return };
    let headers: HashMap<&str, &str> =
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or("?"))).collect();
    let environment: HashMap<String, String> = env::vars().collect();
    let body: Value = serde_json::from_slice(body).expect("the host posts JSON");
    let mut line =
        json!({ "function": function, "headers": headers, "body": body, "environment": environment })
            .to_string();
    line.push('\n');
    let mut file = OpenOptions::new().create(true).append(true).open(file).expect("the log can be opened");
    file.write_all(line.as_bytes()).expect("the log can be written");
}
