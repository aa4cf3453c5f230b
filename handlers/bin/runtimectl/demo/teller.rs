//! Sends commands and tells what becomes of them: notes of their operations and events of the feed,
//! merged, as they come.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use jiff::Timestamp;
use runtime_platform::{events::queue_name, local::azure::Azure};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    facts::{self, Fact, Fresh},
    narrator::Narrator,
    orders::{self, TENANT},
    outside::Outside,
    traffic::Trickle,
};
use crate::{
    bus::Bus,
    client::{self, Client, ReadError, segment},
    context::Context,
    failure::Failure,
    feed::Feed,
    follow,
    message::{self, Tenant},
    output::{Out, text},
    story,
    up::World,
};

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(200);
/// How long one look may take before the next: long enough for a busy machine, short enough that
/// whoever watches is told that nothing comes.
const LOOK_TIMEOUT: Duration = Duration::from_secs(4);
/// How long an event of a sweep is waited for before the next is asked for.
const SWEPT: Duration = Duration::from_secs(3);
/// Pages of the feed that are read in one look, at most.
const PAGES_MAX: usize = 20;

/// Everything that the stories need beside the platform itself.
pub struct Teller {
    pub narrator: Narrator,
    pub client: Client,
    pub azure: Azure,
    /// Whoever else may change what is in the subscription.
    pub outside: Outside,
    pub http: reqwest::Client,
    pub context: Context,
    /// What vaults' hosts lie under on this machine.
    pub vault_endpoint: String,
    /// The process that handles invocations, while there is one.
    pub handler: watch::Receiver<Option<u32>>,
    pub bus: Bus,
    feed: Feed,
    /// All events so far, as they were read.
    pub events: Vec<Value>,
    /// How many of them were told.
    told: usize,
    /// Types of what was sent, by eventId.
    pub sent: HashMap<String, &'static str>,
    /// Types of what somebody else sent, by eventId: the platform itself.
    pub orders: HashMap<String, String>,
    told_orders: HashSet<String>,
    /// How commands ended: the command, and the type of the event.
    pub ends: Vec<(&'static str, String)>,
    /// How long each story took.
    pub times: Vec<(&'static str, Duration)>,
    /// The story that is told, and how many commands it sent.
    place: (&'static str, usize),
    /// The environment of the stories.
    pub environment: String,
    pub trickle: Option<Trickle>,
}

/// A command on its way.
pub struct Sent {
    pub command: &'static str,
    pub event_id: String,
    pub correlation_id: String,
    pub began: Instant,
    /// Its operation, once it is known, and how many of its notes were told.
    notes: Option<(String, usize, Option<Value>)>,
    moment: Moment,
}

/// How a command stands.
#[derive(Clone, Default)]
pub struct Moment {
    pub command: Value,
    pub operation: Value,
}

impl Moment {
    /// It has ended, and everything about it was told.
    pub fn ended(&self) -> bool {
        self.command["ended"].as_bool() == Some(true)
            && (self.command["operationId"].is_null() || self.operation["endedAt"].is_string())
    }
}

impl Teller {
    /// # Errors
    /// When the platform's own context cannot be used.
    pub async fn new(world: &World, out: Out) -> Result<Self, Failure> {
        let file = world.context();
        let (context, _) = Context::read(&file.data_directory.join("context.json"))?;
        let http = client::http(&context).await?;
        Ok(Self {
            narrator: Narrator::new(out),
            client: Client::new(&context, TENANT).await?,
            azure: world.azure().clone(),
            outside: Outside::new(file, http.clone())?,
            http,
            vault_endpoint: file.vault_endpoint.clone(),
            handler: world.handler(),
            bus: Bus::new(&context).await?,
            context,
            feed: Feed::new(None, None),
            events: Vec::new(),
            told: 0,
            sent: HashMap::new(),
            orders: HashMap::new(),
            told_orders: HashSet::new(),
            ends: Vec::new(),
            times: Vec::new(),
            place: ("", 0),
            environment: String::new(),
            trickle: None,
        })
    }

    /// What is sent from here on belongs to this story.
    pub fn begins(&mut self, story: &'static str) {
        self.place = (story, 0);
    }

    /// A story has ended.
    pub fn took(&mut self, story: &'static str, time: Duration) {
        self.times.push((story, time));
    }

    /// Puts a command into its queue.
    pub async fn send(
        &mut self,
        command: &'static str,
        what: &str,
        payload: &Value,
    ) -> Result<Sent, Failure> {
        self.place.1 += 1;
        let args = orders::send_args(&format!("{} {}", self.place.0, self.place.1), command);
        let tenant = Tenant { asked: Some(TENANT), usual: None };
        let now = Timestamp::now();
        let message = message::compose(command, &payload.to_string(), &args, tenant, self.bus.host(), now)?;
        let (envelope, queue) = (message.envelope, message.mail.queue.clone());
        let began = Instant::now();
        self.bus.send(message.mail).await?;
        let event_id = envelope.event_id.to_string();
        let line = facts::sent_line(&self.narrator.out, now, command, &event_id, what, &queue);
        self.narrator.line(&line)?;
        self.sent.insert(event_id.clone(), command);
        Ok(Sent {
            command,
            event_id,
            correlation_id: envelope.correlation_id.to_string(),
            began,
            notes: None,
            moment: Moment::default(),
        })
    }

    /// Tells what becomes of a command until it has ended.
    pub async fn follow(&mut self, sent: &mut Sent) -> Result<Moment, Failure> {
        self.follow_until(sent, Moment::ended).await
    }

    /// Tells what becomes of commands that go on side by side, until all have ended.
    pub async fn follow_all(&mut self, sent: &mut [Sent]) -> Result<Vec<Moment>, Failure> {
        self.watch(sent, Moment::ended).await?;
        Ok(sent.iter().map(|sent| sent.moment.clone()).collect())
    }

    /// Tells what becomes of a command until it stands as `enough` says.
    pub async fn follow_until(
        &mut self,
        sent: &mut Sent,
        enough: impl Fn(&Moment) -> bool,
    ) -> Result<Moment, Failure> {
        self.watch(std::slice::from_mut(sent), enough).await?;
        Ok(sent.moment.clone())
    }

    async fn watch(&mut self, sent: &mut [Sent], enough: impl Fn(&Moment) -> bool) -> Result<(), Failure> {
        loop {
            // What is told is told in one go, so that a look can be cut short anywhere.
            if let Ok(looked) = timeout(LOOK_TIMEOUT, self.look(sent)).await {
                looked?;
            }
            let Some(waits) = sent.iter().find(|sent| !enough(&sent.moment)) else { break };
            self.narrator.doing(&in_words(waits));
            sleep(PAUSE).await;
        }
        for sent in sent.iter().filter(|sent| sent.moment.ended()) {
            let outcome = text(&sent.moment.command["outcome"], "eventType");
            self.ends.push((sent.command, outcome));
        }
        Ok(())
    }

    /// Tells what becomes of an operation that no command began, until it has ended; the operation then.
    pub async fn follow_operation(&mut self, kind: &'static str, id: &str) -> Result<Value, Failure> {
        let command = json!({ "ended": true, "operationId": id });
        let mut order = Sent {
            command: kind,
            event_id: String::new(),
            correlation_id: String::new(),
            began: Instant::now(),
            notes: Some((id.to_owned(), 0, None)),
            moment: Moment { command, operation: Value::Null },
        };
        self.watch(std::slice::from_mut(&mut order), Moment::ended).await?;
        Ok(order.moment.operation)
    }

    /// Waits until an event is among those that were told, and answers it.
    pub async fn happens(
        &mut self,
        event_type: &str,
        of_what: &str,
        is_it: impl Fn(&Value) -> bool,
    ) -> Result<Value, Failure> {
        loop {
            if let Ok(looked) = timeout(LOOK_TIMEOUT, self.look(&mut [])).await {
                looked?;
            }
            let mut found = self.events.iter().filter(|event| text(event, "eventType") == event_type);
            if let Some(event) = found.find(|event| is_it(event)) {
                return Ok(event.clone());
            }
            self.narrator.doing(&format!("waiting for {event_type} of {of_what}"));
            sleep(PAUSE).await;
        }
    }

    /// Has the environment swept again and again until an event comes of it, and answers it.
    pub async fn swept(
        &mut self,
        kind: &str,
        event_type: &str,
        of_what: &str,
        is_it: impl Fn(&Value) -> bool,
    ) -> Result<Value, Failure> {
        self.sweeps(kind).await?;
        loop {
            if let Ok(event) = timeout(SWEPT, self.happens(event_type, of_what, &is_it)).await {
                return event;
            }
            self.sweeps_again(kind).await?;
        }
    }

    /// Waits until a question has an answer; what happens meanwhile is told.
    pub async fn until<T>(
        &mut self,
        doing: &str,
        mut ask: impl AsyncFnMut(&Self) -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        loop {
            if let Ok(looked) = timeout(LOOK_TIMEOUT, self.look(&mut [])).await {
                looked?;
            }
            if let Some(answer) = ask(self).await? {
                return Ok(answer);
            }
            self.narrator.doing(doing);
            sleep(PAUSE).await;
        }
    }

    /// Has the environment swept now, as an operator may, and tells so.
    pub async fn sweeps(&mut self, kind: &str) -> Result<(), Failure> {
        self.sweeps_again(kind).await?;
        self.saw(
            &format!("sweep/{kind}"),
            &self.environment.clone(),
            "now, and not by its timer",
            "you, over HTTP",
        )
    }

    /// Has the environment swept once more, which nobody needs to be told.
    pub async fn sweeps_again(&mut self, kind: &str) -> Result<(), Failure> {
        let path = format!("environments/{}/sweep/{kind}", segment(&self.environment));
        self.place.1 += 1;
        let key = format!("demo-{}-{}", self.place.0, self.place.1);
        self.client.post(&path, &json!({ "reason": "the demo does not wait for the timer" }), &key).await?;
        Ok(())
    }

    /// One look: tells what is new of commands, and all new events.
    async fn look(&mut self, sent: &mut [Sent]) -> Result<(), Failure> {
        let commands = sent.iter_mut().filter(|sent| !sent.moment.ended() && !sent.event_id.is_empty());
        for sent in commands {
            let path = format!("commands/{}", segment(&sent.event_id));
            sent.moment.command = ask(self.client.get(&path, &[])).await?.unwrap_or_default();
            if let Some(operation) = sent.moment.command["operationId"].as_str()
                && sent.notes.is_none()
            {
                sent.notes = Some((operation.to_owned(), 0, None));
            }
        }
        // The feed before the operations: what ends an operation is committed with its last note, so
        // that whoever has read the end in the feed finds all notes in the operation.
        self.read_feed().await?;
        let mut all_known = true;
        for sent in sent.iter_mut().filter(|sent| !sent.moment.ended()) {
            match &sent.notes {
                Some((id, ..)) => {
                    let path = format!("operations/{}", segment(id));
                    match ask(self.client.get(&path, &[])).await? {
                        Some(operation) => sent.moment.operation = operation,
                        None => all_known = false,
                    }
                }
                None => all_known &= sent.moment.command["ended"].as_bool() == Some(true),
            }
        }
        // Without an operation the events wait: told alone they could come before what led to them.
        if all_known { self.tell(sent) } else { Ok(()) }
    }

    async fn read_feed(&mut self) -> Result<(), Failure> {
        for _ in 0..PAGES_MAX {
            let Some(page) = ask(self.feed.next(&self.client)).await? else { return Ok(()) };
            self.events.extend(page.items.into_iter().map(|mut item| item["envelope"].take()));
            if page.last {
                break;
            }
        }
        self.learn_orders().await
    }

    /// Looks up who sent what led to events, where that was not us.
    async fn learn_orders(&mut self) -> Result<(), Failure> {
        for at in self.told..self.events.len() {
            let event = &self.events[at];
            let Some(id) = event["causationId"].as_str().filter(|_| self.cause(event).is_none()) else {
                continue;
            };
            let id = id.to_owned();
            if let Some(command) = ask(self.client.get(&format!("commands/{}", segment(&id)), &[])).await? {
                self.orders.insert(id, text(&command, "commandType"));
            }
        }
        Ok(())
    }

    fn tell(&mut self, sent: &mut [Sent]) -> Result<(), Failure> {
        let mut news = Vec::with_capacity(sent.len());
        for sent in sent.iter_mut() {
            let operation = &sent.moment.operation;
            let notes = operation["notes"].as_array().map(Vec::as_slice).unwrap_or_default();
            let mut fresh = Fresh::default();
            if let Some((_, count, last)) = &mut sent.notes {
                let from = follow::fresh(notes, *count, last.as_ref());
                (*count, *last) = (notes.len(), notes.last().cloned());
                fresh.notes = notes[from..].to_vec();
                fresh.outcome = operation["outcomeEventId"].as_str().map(str::to_owned);
            }
            news.push(fresh);
        }
        let events = self.events[self.told..].to_vec();
        self.told = self.events.len();
        let out = self.narrator.out;
        for fact in facts::in_order(news, events) {
            if let Fact::Event(envelope) = &fact
                && let Some(line) = self.order_line(envelope)
            {
                self.narrator.line(&line)?;
            }
            let line = match &fact {
                Fact::Note(place, note) => {
                    facts::note_line(&out, &sent[*place].moment.operation, note, sent[*place].command)
                }
                Fact::Event(envelope) => story::line(&out, envelope, self.cause(envelope)),
            };
            self.narrator.line(&line)?;
        }
        Ok(())
    }

    /// The command that the platform sent itself and that led to an event, the first time that it does.
    fn order_line(&mut self, envelope: &Value) -> Option<String> {
        let id = envelope["causationId"].as_str()?;
        let command = self.orders.get(id)?;
        if !self.told_orders.insert(id.to_owned()) {
            return None;
        }
        let at = text(envelope, "occurredAt").parse().unwrap_or_else(|_| Timestamp::now());
        let cause = format!("the platform, over the queue {}", queue_name(command));
        Some(facts::seen_line(&self.narrator.out, at, command, story::short(id), "by itself", &cause))
    }

    /// The type of the message that caused an event.
    pub fn cause(&self, envelope: &Value) -> Option<&str> {
        let id = envelope["causationId"].as_str()?;
        let sent = self.sent.get(id).copied().or_else(|| self.orders.get(id).map(String::as_str));
        sent.or_else(|| self.feed.type_of(id))
    }

    /// Tells something that was done from outside, or seen.
    pub fn saw(&mut self, kind: &str, subject: &str, what: &str, cause: &str) -> Result<(), Failure> {
        let line = facts::seen_line(&self.narrator.out, Timestamp::now(), kind, subject, what, cause);
        self.narrator.line(&line)
    }

    /// All events of one workflow, as the feed has them.
    pub async fn events_of(&self, sent: &Sent) -> Result<Vec<Value>, Failure> {
        let mut feed = Feed::new(None, Some(&sent.correlation_id));
        let (items, _) = feed.rest(&self.client, 1000).await?;
        Ok(items.into_iter().map(|mut item| item["envelope"].take()).collect())
    }
}

/// What cannot be read now, because the platform is busy or starts anew, is read a moment later.
async fn ask<T>(read: impl Future<Output = Result<T, ReadError>>) -> Result<Option<T>, Failure> {
    match read.await {
        Ok(value) => Ok(Some(value)),
        Err(ReadError::NotFound { .. }) => Ok(None),
        Err(error) if error.may_pass() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What goes on, for whoever waits.
fn in_words(sent: &Sent) -> String {
    let step = text(&sent.moment.operation, "step");
    match (sent.moment.command.is_null(), step.is_empty()) {
        (true, _) => format!("waiting for word of {}", sent.command),
        (false, true) => format!("{} goes on", sent.command),
        (false, false) => format!("{} is at {step}", sent.command),
    }
}
