//! A program of the user's own behind the health gate: this very program, started again as a small
//! server, stands for it.

use std::{
    io::{Read, Write},
    net::TcpListener,
    process::ExitCode,
    time::Duration,
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    client::Client,
    orders::{self, deploy},
    up::Place,
};

/// What makes this program the user's.
pub const ARGUMENT: &str = "serve-as-the-users-program";
/// Under this path it answers the hash of a variable of its environment.
pub const HASH_PATH: &str = "/hash-of/";
/// How long a command may take to its end.
const END: Duration = Duration::from_secs(40);
/// How long something may live on after `up` was killed.
const GONE: Duration = Duration::from_secs(2);
/// The longest head of a request that is read, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The user's program: answers every request with its version and what it was asked for. The second
/// argument is the version; `broken` answers 500.
pub fn serve() -> ExitCode {
    let version = std::env::args().nth(2).unwrap_or_default();
    let port = std::env::var("PORT").ok().and_then(|port| port.parse::<u16>().ok());
    let Some(listener) = port.and_then(|port| TcpListener::bind(("127.0.0.1", port)).ok()) else {
        eprintln!("PORT names no port that can be listened on");
        return ExitCode::FAILURE;
    };
    println!("the user's program, version {version}, is process {}", std::process::id());
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let version = version.clone();
        std::thread::spawn(move || {
            let mut head = Vec::new();
            let mut part = [0; 1024];
            while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
                match stream.read(&mut part) {
                    Ok(read) if read > 0 => head.extend_from_slice(&part[..read]),
                    _ => return,
                }
            }
            let asked = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned();
            let body = match asked.strip_prefix(HASH_PATH) {
                Some(variable) => hash_of(variable),
                None => format!("version {version}"),
            };
            let status = if version == "broken" { "500 Internal Server Error" } else { "200 OK" };
            let length = body.len();
            // Who asked may be gone.
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
            );
        });
    }
    ExitCode::SUCCESS
}

/// The SHA-256 of a variable, in hexadecimal digits.
fn hash_of(variable: &str) -> String {
    let value = std::env::var(variable).unwrap_or_default();
    Sha256::digest(value.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn run() -> Result<(), String> {
    crate::block_on(async {
        let place = Place::new();
        let catalogue = place.write("images.json", &catalogue().to_string());
        let mut up = place.up(&["--images", catalogue.to_str().unwrap()]);
        let client = up.ready().await;
        let environment = client.carry_out(&orders::provision("staging"), END).await;
        let environment = environment["environmentId"].as_str().unwrap().to_owned();

        let first = client.carry_out(&deploy(&environment, "module-shop", "my.registry/shop:1"), END).await;
        assert_eq!(first["outcome"]["eventType"], "RuntimeDeploymentCompleted", "{first}");
        let url = serving(&client).await;
        assert_eq!(ask(&client, &url).await, (200, "version 1".to_owned()));

        let bad =
            client.carry_out(&deploy(&environment, "module-shop", "my.registry/shop:broken"), END).await;
        assert_eq!(bad["outcome"]["eventType"], "RuntimeDeploymentRolledBack", "{bad}");
        assert_eq!(bad["outcome"]["payload"]["reason"], "GateFailed", "{bad}");
        assert_eq!(ask(&client, &url).await, (200, "version 1".to_owned()));

        let gone = client.carry_out(&deploy(&environment, "module-shop", "my.registry/shop:2"), END).await;
        assert_eq!(gone["outcome"]["eventType"], "RuntimeDeploymentCompleted", "{gone}");
        assert_eq!(ask(&client, &url).await, (200, "version 2".to_owned()));

        let running = place.processes();
        assert!(running.iter().any(|(_, line)| line.contains(ARGUMENT)), "{running:?}");
        // What it printed is in the log.
        assert_eq!(place.log_lines("the user's program, version 2").len(), 1);
        up.kill();
        place.is_empty_within(GONE).await;

        // It serves again when the platform does, with no command.
        let mut up = place.up(&["--images", catalogue.to_str().unwrap()]);
        let client = up.ready().await;
        let url = serving(&client).await;
        let mut answer = ask(&client, &url).await;
        for _ in 0..100 {
            if answer.0 == 200 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            answer = ask(&client, &url).await;
        }
        assert_eq!(answer, (200, "version 2".to_owned()));
        assert!(up.interrupt().await.success());
        place.is_empty_within(GONE).await;
    })
}

/// This program under the names of its versions.
fn catalogue() -> Value {
    let program = std::env::current_exe().unwrap();
    let entry = |version: &str| json!({ "match": format!("my.registry/shop:{version}"), "command": [program, ARGUMENT, version] });
    json!({ "images": [entry("1"), entry("2"), entry("broken")] })
}

/// Where the deployment that serves is found, as the platform tells it.
async fn serving(client: &Client) -> String {
    let deployments = client.list("deployments").await;
    let serving = deployments.iter().find(|deployment| deployment["weight"] == 100).unwrap();
    serving["url"].as_str().unwrap().to_owned()
}

async fn ask(client: &Client, url: &str) -> (u16, String) {
    let answer = client.http.get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}
