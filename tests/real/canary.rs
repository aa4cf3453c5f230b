//! A secret's value is nowhere but in the vault and in the workload that it is for.
//!
//! Values that exist only in this run are bound, deployed, rotated, and put by mistake where they do not
//! belong. The user's program proves that it got each of them, by answering its hash. Then everything that
//! the platform has written, shown or started is searched: data files, log, events, documents, answers,
//! what `up` printed, arguments and environments of processes.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use runtime_platform::functions::{self, Trigger};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    client::{Client, Mail},
    orders::{self, Order, deploy},
    up::{Place, Up},
    user_program,
};

/// How long a command may take to its end.
const END: Duration = Duration::from_secs(120);
/// The pause between two looks at something that is awaited.
const PAUSE: Duration = Duration::from_millis(200);
/// Looks at something that is awaited.
const LOOKS_MAX: usize = 300;
const MODULE: &str = "module-shop";
const EXTERNAL: &str = "db-password";
const GENERATED: &str = "api-token";

/// A value that is in nothing else on this machine.
fn canary() -> String {
    format!("cnry{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

pub fn run() -> Result<(), String> {
    crate::block_on(async {
        let place = Place::new();
        let catalogue = place.write("images.json", &catalogue().to_string());
        let mut up = place.up(&["--images", catalogue.to_str().unwrap()]);
        let client = up.ready().await;
        let environment = client.carry_out(&orders::provision("staging"), END).await;
        let environment = environment["environmentId"].as_str().unwrap().to_owned();
        let vault = client.vaults().await.pop().expect("the environment has a vault");
        let mut kept = Vec::new();

        let first = canary();
        client.put_secret(&vault, EXTERNAL, &first).await;
        ends(&client, &deploy(&environment, MODULE, "my.registry/shop:1"), "RuntimeDeploymentCompleted")
            .await;
        let binding = bind(&client, &environment, &vault, EXTERNAL, "External").await;
        proves(&client, EXTERNAL, &first).await;
        kept.push(first);
        let generated = bind(&client, &environment, &vault, GENERATED, "Generated").await;
        kept.push(client.secret(&vault, GENERATED).await);
        proves(&client, GENERATED, &kept[1]).await;

        let second = canary();
        client.put_secret(&vault, EXTERNAL, &second).await;
        ends(&client, &rotate(&environment, &binding), "SecretRotated").await;
        proves(&client, EXTERNAL, &second).await;
        kept.push(second);
        ends(&client, &rotate(&environment, &generated), "SecretRotated").await;
        let newest = client.secret(&vault, GENERATED).await;
        assert!(!kept.contains(&newest), "the rotation made no new value");
        proves(&client, GENERATED, &newest).await;
        kept.push(newest);

        let mistakes = mistakes(&client, &environment).await;
        let shown = shown(&client).await;
        let processes = processes(&place, &kept, &mistakes);
        let files = search(&place, &up, &shown, &kept, &mistakes);
        assert!(up.interrupt().await.success());
        // What the end wrote is searched too.
        for file in files_under(&place.data()) {
            nothing_in(&file.display().to_string(), &fs::read(&file).unwrap(), &kept);
        }
        println!(
            "  {} values were looked for in {files} files, {} answers and {processes} processes",
            kept.len() + mistakes.len(),
            shown.len()
        );
    })
}

/// This program, answering with the hashes of its secrets.
fn catalogue() -> Value {
    let program = std::env::current_exe().unwrap();
    json!({ "images": [{ "match": "my.registry/shop:1", "command": [program, user_program::ARGUMENT, "1"] }] })
}

async fn ends(client: &Client, order: &Order, event: &str) -> Value {
    let ended = client.carry_out(order, END).await;
    assert_eq!(ended["outcome"]["eventType"], event, "{ended}");
    ended
}

async fn bind(client: &Client, environment: &str, vault: &str, name: &str, source: &str) -> String {
    let payload = json!({
        "environmentId": environment,
        "moduleId": MODULE,
        "secretName": name,
        "vaultUri": vault,
        "source": source,
    });
    let bound = ends(client, &Order::new("BindSecret", payload), "SecretBound").await;
    bound["outcome"]["payload"]["secretBindingId"].as_str().unwrap().to_owned()
}

fn rotate(environment: &str, binding: &str) -> Order {
    let payload = json!({ "environmentId": environment, "secretBindingId": binding, "reason": "Manual" });
    Order::new("RotateSecret", payload)
}

fn hash(value: &str) -> String {
    Sha256::digest(value.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits until the program that serves answers with the hash of a value.
async fn proves(client: &Client, secret: &str, value: &str) {
    let wanted = hash(value);
    let mut answer = String::new();
    for _ in 0..LOOKS_MAX {
        let deployments = client.list("deployments").await;
        let url = deployments.iter().find(|deployment| deployment["weight"] == 100);
        if let Some(url) = url.and_then(|deployment| deployment["url"].as_str()) {
            let variable = secret.to_uppercase().replace('-', "_");
            let asked = client.http.get(format!("{url}{}{variable}", user_program::HASH_PATH)).send().await;
            if let Ok(asked) = asked {
                answer = asked.text().await.unwrap_or_default();
            }
            if answer == wanted {
                return;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("the program does not have the value of `{secret}`: {answer:?} in place of {wanted}");
}

/// Values that their senders put where they do not belong, each of which is refused. They were in messages,
/// so the broker had them; nothing else repeats them.
async fn mistakes(client: &Client, environment: &str) -> BTreeMap<&'static str, String> {
    let (setting, poison, payload) = (canary(), canary(), canary());
    let settings = json!({ "environmentId": environment, "settings": { "DB_PASSWORD": setting } });
    let refused = client.carry_out(&Order::new("PublishConfiguration", settings), END).await;
    assert_eq!(refused["status"], "Rejected", "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("DB_PASSWORD"), "{refused}");
    let wrong = json!({ "environmentId": environment, "moduleId": { "password": payload }, "secretName": 7 });
    let wrong = Order::new("BindSecret", wrong);
    let refused = client.carry_out(&wrong, END).await;
    assert_eq!(refused["ended"], true, "{refused}");
    let letters = client.list("dead-letters?unreadable=true").await.len();
    for (queue, body) in
        [("deploy", format!("{{\"password\": {poison:?}")), ("rotate-secret", poison.clone())]
    {
        let mail = Mail {
            queue,
            message_id: &Uuid::new_v4().to_string(),
            content_type: "application/json",
            properties: &[],
            broker: json!({}),
            body: body.into_bytes(),
        };
        assert_eq!(client.post(mail).await.unwrap().0, 201);
    }
    for _ in 0..LOOKS_MAX {
        if client.list("dead-letters?unreadable=true").await.len() >= letters + 2 {
            return BTreeMap::from([("setting", setting), ("poison", poison), ("payload", payload)]);
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("the poison messages were not filed");
}

/// Every list that can be asked for, and every thing on it by its id, as the answers' texts. A dead letter
/// by its id shows the message that was sent, to an operator who asks for it, and is left out.
async fn shown(client: &Client) -> Vec<(String, String)> {
    let mut shown = Vec::new();
    for function in functions::all() {
        let Trigger::Http { method: "get", route } = function.trigger else { continue };
        let path = route.trim_start_matches("v1/runtime/").trim_end_matches("/{id?}");
        if path.contains('{') || path == "health" {
            continue;
        }
        let items = client.list(path).await;
        for item in &items {
            let id = item.as_object().and_then(|item| item.iter().find(|(name, _)| name.ends_with("Id")));
            if let (Some(id), true) = (id.and_then(|(_, id)| id.as_str()), route.ends_with("/{id?}")) {
                let one = client.get(&format!("{path}/{id}")).await.unwrap().1;
                shown.push((format!("{path}/{id}"), one.to_string()));
            }
        }
        shown.push((path.to_owned(), Value::from(items).to_string()));
    }
    let unreadable = client.list("dead-letters?unreadable=true").await;
    shown.push(("dead-letters".to_owned(), Value::from(unreadable).to_string()));
    let apps = client.apps().await;
    for app in &apps {
        shown.push(("revisions".to_owned(), Value::from(client.revisions(app).await).to_string()));
    }
    shown.push(("apps".to_owned(), Value::from(apps).to_string()));
    assert!(shown.len() > 20, "only {} answers were looked at", shown.len());
    shown
}

/// Looks through what the processes of the platform were started with; the workload's environment alone may
/// hold what it is bound to.
fn processes(place: &Place, kept: &[String], mistakes: &BTreeMap<&'static str, String>) -> usize {
    let processes = place.processes();
    assert!(processes.len() >= 3, "{processes:?}");
    for (pid, line) in &processes {
        nothing_in(&format!("the arguments of {pid}"), line.as_bytes(), kept);
        nothing_in(&format!("the arguments of {pid}"), line.as_bytes(), mistakes.values());
        let is_workload = line.contains(user_program::ARGUMENT);
        if let (false, Ok(environment)) = (is_workload, fs::read(format!("/proc/{pid}/environ"))) {
            nothing_in(&format!("the environment of {pid}, {line}"), &environment, kept);
        }
    }
    processes.len()
}

/// Looks through everything that was written or shown, and answers how many files there were.
fn search(
    place: &Place,
    up: &Up<'_>,
    shown: &[(String, String)],
    kept: &[String],
    mistakes: &BTreeMap<&'static str, String>,
) -> usize {
    for (path, answer) in shown {
        nothing_in(path, answer.as_bytes(), kept);
        nothing_in(path, answer.as_bytes(), mistakes.values());
    }
    let printed = format!("{}{}", up.printed(), up.told());
    nothing_in("what `up` printed", printed.as_bytes(), kept);
    nothing_in("what `up` printed", printed.as_bytes(), mistakes.values());
    let files = files_under(&place.data());
    let name = |file: &Path| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    assert!(files.iter().any(|file| name(file).starts_with("key-vault.db")), "{files:?}");
    for file in &files {
        let bytes = fs::read(file).unwrap();
        let what = file.display().to_string();
        nothing_in(&what, &bytes, kept);
        if name(file).contains("log") {
            nothing_in(&what, &bytes, mistakes.values());
        }
        // What the platform understood and refused is in no document of its own.
        if name(file).starts_with("store.db") {
            nothing_in(&what, &bytes, [&mistakes["setting"], &mistakes["payload"]]);
        }
    }
    files.len()
}

fn files_under(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_under(&path));
        } else if path.is_file() {
            files.push(path);
        }
    }
    files
}

/// # Panics
/// Where a value is in the bytes, as it is or in base64. The value itself is not told.
fn nothing_in<'a>(what: &str, bytes: &[u8], values: impl IntoIterator<Item = &'a String>) {
    for value in values {
        for (form, text) in forms(value) {
            let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
            assert!(!found, "a secret's value is in {what}, {form}");
        }
    }
}

/// A value as it may be written: in base64 it depends on what stands before it.
fn forms(value: &str) -> Vec<(&'static str, String)> {
    let mut forms = vec![("as it is", value.to_owned())];
    for before in 0..3_usize {
        let encoded = BASE64_STANDARD.encode([&vec![b' '; before][..], value.as_bytes()].concat());
        // The characters at both ends belong to the neighbours as well.
        forms.push(("in base64", encoded[4..encoded.len() - 4].to_owned()));
    }
    forms
}
