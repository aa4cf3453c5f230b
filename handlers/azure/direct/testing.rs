//! Resource Manager in memory, for the tests of this folder.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Mutex,
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Arm;
use crate::{
    azure::resource_manager::{LongRunning, Reply},
    outcome::Fault,
    ports::{clock::Clock, infrastructure::Resource},
};

/// A resource of the key as its id, type and version; what it is made of is the test's.
pub(super) fn resource(key: &str, depends_on: &[&str], body: Value) -> Resource {
    Resource {
        key: key.to_owned(),
        resource_type: "Test/things".to_owned(),
        api_version: "2026-01-01".to_owned(),
        id: format!("/subscriptions/s/things/{key}"),
        body,
        depends_on: depends_on.iter().map(|&key| key.to_owned()).collect(),
        immutable: vec!["/location".to_owned()],
    }
}

/// How a write of one resource goes.
#[derive(Debug)]
pub(super) enum Course {
    /// Done after this many looks.
    Looks(u32),
    /// Azure gives up at the first look.
    GivesUp,
    Refuses(Fault),
    /// What it does happens, and the answer is lost.
    LosesTheAnswer,
}

#[derive(Default)]
struct World {
    there: BTreeMap<String, Value>,
    courses: BTreeMap<String, VecDeque<Course>>,
    calls: Vec<String>,
    /// What a collection has, beside what is told by `there`.
    listed: Vec<Value>,
    in_flight: usize,
    in_flight_most: usize,
}

/// Resource Manager in memory. Ids end in the key.
#[derive(Default)]
pub(super) struct MemoryArm(Mutex<World>);

impl MemoryArm {
    pub fn set(&self, key: &str, body: Value) {
        self.0.lock().unwrap().there.insert(key.to_owned(), body);
    }

    pub fn body(&self, key: &str) -> Option<Value> {
        self.0.lock().unwrap().there.get(key).cloned()
    }

    pub fn remove(&self, key: &str) {
        self.0.lock().unwrap().there.remove(key);
    }

    /// The next write of `key` goes like this; without any, it is done at once.
    pub fn next(&self, key: &str, course: Course) {
        self.0.lock().unwrap().courses.entry(key.to_owned()).or_default().push_back(course);
    }

    /// The writes since last asked, as `PUT key`.
    pub fn writes(&self) -> Vec<String> {
        let mut world = self.0.lock().unwrap();
        let calls = std::mem::take(&mut world.calls);
        calls.into_iter().filter(|call| call.starts_with("PUT")).collect()
    }

    /// Ends what Azure is at work on and nobody in `pending` remembers.
    pub fn finish_forgotten(&self, pending: &BTreeMap<String, Value>) {
        let mut world = self.0.lock().unwrap();
        for (key, body) in &mut world.there {
            if body["properties"]["provisioningState"] == "Creating" && !pending.contains_key(key) {
                body["properties"]["provisioningState"] = json!("Succeeded");
            }
        }
    }

    /// What every collection answers.
    pub fn lists(&self, items: Vec<Value>) {
        self.0.lock().unwrap().listed = items;
    }

    /// The deletions so far, as `DELETE key`.
    pub fn deletes(&self) -> Vec<String> {
        let world = self.0.lock().unwrap();
        world.calls.iter().filter(|call| call.starts_with("DELETE")).cloned().collect()
    }

    /// The most writes that were on their way at one time.
    pub fn in_flight_most(&self) -> usize {
        self.0.lock().unwrap().in_flight_most
    }
}

fn key_of(id: &str) -> String {
    id.rsplit('/').next().unwrap().to_owned()
}

fn answered(world: &mut World, key: &str, body: &Value, state: &str) -> Value {
    let mut body = body.clone();
    body["id"] = json!(format!("/subscriptions/s/things/{key}"));
    body["properties"]["provisioningState"] = json!(state);
    body["properties"]["principalId"] = json!(format!("principal of {key}"));
    world.there.insert(key.to_owned(), body.clone());
    body
}

fn lost() -> Fault {
    Fault::Transient {
        doing: "writing".to_owned(),
        retry_after: None,
        source: "the connection was lost".into(),
    }
}

#[async_trait]
impl Arm for MemoryArm {
    async fn get(&self, id: &str, _: &str) -> Result<Option<Value>, Fault> {
        Ok(self.body(&key_of(id)))
    }

    async fn put(&self, id: &str, _: &str, body: &Value) -> Result<Reply, Fault> {
        let mut world = self.0.lock().unwrap();
        let key = key_of(id);
        world.calls.push(format!("PUT {key}"));
        let course = world.courses.get_mut(&key).and_then(VecDeque::pop_front).unwrap_or(Course::Looks(0));
        match course {
            Course::Looks(0) => Ok(Reply::Done(answered(&mut world, &key, body, "Succeeded"))),
            Course::Looks(looks) => {
                answered(&mut world, &key, body, "Creating");
                world.in_flight += 1;
                world.in_flight_most = world.in_flight_most.max(world.in_flight);
                Ok(running(&key, i64::from(looks)))
            }
            Course::GivesUp => {
                answered(&mut world, &key, body, "Creating");
                world.in_flight += 1;
                Ok(running(&key, -1))
            }
            Course::Refuses(fault) => Err(fault),
            Course::LosesTheAnswer => {
                answered(&mut world, &key, body, "Succeeded");
                Err(lost())
            }
        }
    }

    async fn delete(&self, id: &str, _: &str) -> Result<Reply, Fault> {
        let mut world = self.0.lock().unwrap();
        let key = key_of(id);
        world.calls.push(format!("DELETE {key}"));
        let course = world.courses.get_mut(&key).and_then(VecDeque::pop_front).unwrap_or(Course::Looks(0));
        match course {
            Course::Looks(looks) if looks > 0 && world.there.contains_key(&key) => {
                world.there.remove(&key);
                Ok(running(&key, i64::from(looks)))
            }
            Course::Looks(_) | Course::GivesUp => {
                world.there.remove(&key);
                Ok(Reply::Done(Value::Null))
            }
            Course::Refuses(fault) => Err(fault),
            Course::LosesTheAnswer => {
                world.there.remove(&key);
                Err(lost())
            }
        }
    }

    async fn list(&self, _: &str, _: &str) -> Result<Vec<Value>, Fault> {
        Ok(self.0.lock().unwrap().listed.clone())
    }

    async fn look(&self, operation: &LongRunning) -> Result<Reply, Fault> {
        let mut world = self.0.lock().unwrap();
        let key = key_of(operation.resource_id());
        let LongRunning::AsyncOperation { url, .. } = operation else { panic!("{operation:?}") };
        let looks: i64 = url.parse().unwrap();
        let Some(body) = world.there.get(&key).cloned() else {
            // It is going, or gone.
            return Ok(if looks > 1 { running(&key, looks - 1) } else { Reply::Done(Value::Null) });
        };
        match looks {
            -1 => {
                world.in_flight = world.in_flight.saturating_sub(1);
                answered(&mut world, &key, &body, "Failed");
                Ok(Reply::Failed { code: "Broken".to_owned(), detail: "it broke".to_owned() })
            }
            1 => {
                world.in_flight = world.in_flight.saturating_sub(1);
                Ok(Reply::Done(answered(&mut world, &key, &body, "Succeeded")))
            }
            looks => Ok(running(&key, looks - 1)),
        }
    }
}

/// An operation whose URL is how many looks are left.
fn running(key: &str, looks: i64) -> Reply {
    let operation = LongRunning::AsyncOperation {
        url: looks.to_string(),
        resource_id: format!("/subscriptions/s/things/{key}"),
        api_version: "2026-01-01".to_owned(),
        read_back: true,
        looks: 0,
    };
    Reply::Running { operation, again_in: Duration::from_secs(1) }
}

/// A clock that goes on when it is told to.
pub(super) struct TestClock(Mutex<Timestamp>);

impl Default for TestClock {
    fn default() -> Self {
        Self(Mutex::new("2026-01-01T00:00:00Z".parse().unwrap()))
    }
}

impl TestClock {
    pub fn pass(&self, time: Duration) {
        let mut now = self.0.lock().unwrap();
        *now += time;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}
