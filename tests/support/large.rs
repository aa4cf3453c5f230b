//! A data directory with many environments.
//!
//! One environment is made as it is always made, by commands and sweeps; the others are copies of its
//! documents under ids of their own. So they have whatever the platform keeps, in its true proportions.

use std::{path::Path, sync::Arc};

use futures::{StreamExt, stream};
use jiff::SignedDuration;
use runtime_platform::{
    functions::{self, Function, Run, Trigger},
    invocation::{HttpAnswer, HttpRequest},
    ledger::Ledger,
    platform::Platform,
    ports::{
        clock::Clock,
        store::{COMMIT_WRITES_MAX, Document, Partition, Store, Stored, Write},
    },
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    builders::{IMAGE, MODULE, Order, TENANT, bind, bind_secret, deploy, provision, publish_configuration},
    counting::CountingStore,
    fakes::compute::Behaviour,
    test_platform::TestPlatform,
};

/// Workloads of each environment.
pub const SERVICES: usize = 10;
/// Environments that are written at once.
const AT_ONCE: usize = 16;
/// The documents of a list that are asked for.
pub const LIMIT: &str = "10";

/// The environment that is copied.
pub struct Template {
    documents: Vec<Stored>,
    /// Ids of commands that were sent.
    commands: Vec<String>,
}

impl Template {
    /// Lets one environment come to be, with [`SERVICES`] workloads, a configuration, a secret, a bound
    /// tenant, something in quarantine and a dead letter.
    pub async fn make() -> Self {
        let mut platform = TestPlatform::new();
        platform.tidy = false;
        platform.compute.image(&format!("{IMAGE}:bad"), Behaviour::Answers(500));
        let mut commands = Vec::new();
        let orders = [provision(&id("provision")), bind(&id("bind"), "acme", "shared")];
        let deploys =
            (0..SERVICES).map(|number| module(&deploy(&id(&format!("deploy-{number}")), "1.4.1"), number));
        let rest = [
            publish_configuration(&id("publish"), json!({ "LOG_LEVEL": "debug" })),
            bind_secret(&id("secret"), "db-password"),
            module(&deploy(&id("bad"), "bad"), 0),
        ];
        for order in orders.into_iter().chain(deploys).chain(rest) {
            platform.run(&order).await;
            commands.push(order.event_id);
        }
        platform.run(&Order { body: Some(b"tea".to_vec()), ..deploy(&id("poison"), "1") }).await;
        platform.compute.meddle("reservations-api", false, |spec| {
            spec.env.insert("DEBUG".into(), "1".into());
        });
        let timers: Vec<_> =
            functions::all().into_iter().filter(is_sweep).map(|function| function.name).collect();
        for _ in 0..3 {
            platform.clock.set(platform.clock.now() + SignedDuration::from_hours(1));
            for timer in &timers {
                platform.fire(timer).await;
                platform.run_until_quiet().await;
            }
        }
        Self { documents: platform.documents(), commands }
    }

    /// Documents of a kind in each environment.
    pub fn count(&self, kind: &str) -> usize {
        self.documents.iter().filter(|stored| stored.document.kind == kind).count()
    }

    /// The id of a command that was sent to an environment.
    pub fn command(&self, environment: usize) -> String {
        renamed(&self.commands[environment % self.commands.len()], environment)
    }

    /// What there is of one environment.
    fn copy(&self, environment: usize) -> impl Iterator<Item = (Partition, Document)> {
        let theirs = self.documents.iter().filter(|stored| stored.partition != Partition::platform("_"));
        theirs.map(move |Stored { partition, document, .. }| {
            let partition = Partition {
                tenant_id: partition.tenant_id.clone(),
                environment_id: renamed(&partition.environment_id, environment),
            };
            // Made one after the other, and not all in one instant.
            let at = document.at - SignedDuration::from_secs(i64::try_from(environment).unwrap());
            let (id, body) = (renamed(&document.id, environment), value(&document.body, environment));
            (partition, Document { id, at, body, ..document.clone() })
        })
    }
}

/// An id of a command, by its role.
fn id(role: &str) -> String {
    format!("evt-{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, role.as_bytes()))
}

/// The first workload is the builders' own.
fn module(order: &Order, number: usize) -> Order {
    let module = if number == 0 { MODULE.to_owned() } else { format!("module-m{number}") };
    order.clone().with("/workloads/0/moduleId", json!(module))
}

fn is_sweep(function: &Function) -> bool {
    matches!(function.trigger, Trigger::Timer(_)) && function.name.ends_with("Sweep")
}

/// Many environments of one tenant in one file.
pub struct Large {
    pub test: TestPlatform,
    pub template: Template,
    /// The same platform over a store that counts.
    pub platform: Platform,
    pub store: CountingStore,
    pub environments: usize,
    /// Documents that were written.
    pub documents: usize,
}

impl Large {
    /// Fills a new file in `directory`.
    pub async fn fill(directory: &Path, environments: usize) -> Self {
        let template = Template::make().await;
        let mut test = TestPlatform::on_disk(directory);
        test.tidy = false;
        let store = &test.store;
        let written: Vec<_> = stream::iter(0..environments)
            .map(|environment| write(store, template.copy(environment).collect()))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let documents = written.into_iter().sum();
        let store = CountingStore::new(Arc::new(test.store.clone()));
        let platform = Platform { ledger: Ledger::new(Arc::new(store.clone())), ..test.platform.clone() };
        Self { test, template, platform, store, environments, documents }
    }

    /// Calls a GET function for the tenant.
    pub async fn get(&self, ask: &Ask, environment: usize) -> HttpAnswer {
        let Run::Http(run) = ask.function.run else { panic!("{} takes no requests", ask.function.name) };
        let mut request = HttpRequest { method: "GET".into(), ..HttpRequest::default() };
        request.headers.insert("x-cs-tenant-id".into(), TENANT.into());
        if let Some(ids) = &ask.ids {
            request.params.insert("id".into(), ids[environment % ids.len()].clone());
        } else {
            request.query.insert("limit".into(), LIMIT.into());
            request.query.extend(
                ask.query.iter().map(|(name, ids)| (name.clone(), ids[environment % ids.len()].clone())),
            );
        }
        run(self.platform.clone(), request).await
    }

    /// Everything that can be asked with GET: each list, each list by environment and by status, and each
    /// thing by its id.
    pub async fn asks(&self) -> Vec<Ask> {
        let functions = functions::all();
        let is_get = |function: &&Function| matches!(function.trigger, Trigger::Http { method: "get", .. });
        let mut asks = Vec::new();
        let environments = self.ids(&functions, "environments").await;
        for function in functions.iter().filter(is_get) {
            let Trigger::Http { route, .. } = function.trigger else { continue };
            let ask = |what: &str| Ask {
                name: format!("{} {what}", function.name),
                function: function.clone(),
                ids: None,
                query: Vec::new(),
            };
            if !route.contains("{id}") {
                asks.push(ask("list"));
                let by = |name: &str, values: &[String]| vec![(name.to_owned(), values.to_vec())];
                asks.push(Ask { query: by("environmentId", &environments), ..ask("of an environment") });
                asks.push(Ask { query: by("status", &["Failed".into()]), ..ask("of a status") });
                asks.push(Ask { query: by("correlationId", &["corr-0".into()]), ..ask("of a correlation") });
            }
            if route.contains("{id") {
                let collection = route.split('/').nth(2).unwrap_or_default();
                let ids = self.ids(&functions, collection).await;
                // What is not there is asked for too.
                asks.push(Ask { ids: Some(vec!["dep-00000000".into()]), ..ask("that is not there") });
                if !ids.is_empty() {
                    asks.push(Ask { ids: Some(ids), ..ask("by id") });
                }
            }
        }
        asks
    }

    /// Ids of things of a collection, as its list tells them.
    async fn ids(&self, functions: &[Function], collection: &str) -> Vec<String> {
        if collection == "commands" {
            return (0..self.environments).map(|environment| self.template.command(environment)).collect();
        }
        let (from, member) = match collection {
            "plans" => ("environments", "/planId"),
            "events" => ("events", "/envelope/eventId"),
            other => (other, ""),
        };
        let list = functions.iter().find(|function| match function.trigger {
            Trigger::Http { method: "get", route } => {
                route.split('/').nth(2) == Some(from) && !route.contains("{id}")
            }
            _ => false,
        });
        let Some(list) = list else { panic!("tell this test where ids of `{collection}` are found") };
        let ask = Ask { name: String::new(), function: list.clone(), ids: None, query: Vec::new() };
        let answer = self.get(&ask, 0).await;
        let items = answer.body["items"].as_array().cloned().unwrap_or_default();
        let id = |item: &Value| {
            let found = if member.is_empty() { first_id(item) } else { item.pointer(member) };
            found.and_then(Value::as_str).map(str::to_owned)
        };
        items.iter().filter_map(id).collect()
    }
}

/// The member that an item goes by is its first one.
fn first_id(item: &Value) -> Option<&Value> {
    item.as_object()?.iter().find(|(name, _)| name.ends_with("Id")).map(|(_, value)| value)
}

/// Something that is asked.
pub struct Ask {
    pub name: String,
    function: Function,
    ids: Option<Vec<String>>,
    query: Vec<(String, Vec<String>)>,
}

async fn write(store: &impl Store, documents: Vec<(Partition, Document)>) -> usize {
    let count = documents.len();
    let mut partitions: Vec<(Partition, Vec<Write>)> = Vec::new();
    for (partition, document) in documents {
        match partitions.iter_mut().find(|(place, _)| *place == partition) {
            Some((_, writes)) => writes.push(Write::Create(document)),
            None => partitions.push((partition, vec![Write::Create(document)])),
        }
    }
    for (partition, writes) in partitions {
        for batch in writes.chunks(COMMIT_WRITES_MAX) {
            store.commit(&partition, batch.to_vec()).await.unwrap();
        }
    }
    count
}

fn value(value: &Value, environment: usize) -> Value {
    match value {
        Value::String(text) => Value::String(renamed(text, environment)),
        Value::Array(items) => items.iter().map(|item| self::value(item, environment)).collect(),
        Value::Object(members) => Value::Object(
            members
                .iter()
                .map(|(name, member)| (renamed(name, environment), self::value(member, environment)))
                .collect::<Map<_, _>>(),
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// A text with every id in it made another one of the same length. Ids are runs of eight hexadecimal
/// digits or more; days, counts and digests of images are not.
fn renamed(text: &str, environment: usize) -> String {
    let mut renamed = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        let (before, from) = rest.split_at(begin);
        let end = from.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(from.len());
        let (word, behind) = from.split_at(end);
        renamed.push_str(before);
        let before = renamed.chars().next_back();
        let whole = before.is_none_or(|c| !c.is_ascii_alphanumeric() && c != ':');
        let hex = word.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
        if whole && hex && word.len() >= 8 && !word.starts_with("0000") && !word.starts_with("2026") {
            let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{environment} {word}").as_bytes());
            renamed.extend(hash.simple().to_string().chars().cycle().take(word.len()));
        } else {
            renamed.push_str(word);
        }
        rest = behind;
    }
    renamed.push_str(rest);
    renamed
}

#[test]
fn ids_are_renamed_and_nothing_else_is() {
    let text = "op-0123abcd of evt-1de79af2-0000-5000-8000-abcdefabcdef on 20260302, 12345 bytes, decade, event-x-00000001";
    let other = renamed(text, 7);
    assert_eq!(other.len(), text.len());
    assert!(!other.contains("0123abcd") && !other.contains("abcdefabcdef"), "{other}");
    assert!(other.ends_with(" on 20260302, 12345 bytes, decade, event-x-00000001"), "{other}");
    assert_ne!(renamed(text, 8), other);
}
