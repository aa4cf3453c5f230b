//! Sends a command and tells what becomes of it: notes of its operation and events of the feed, merged,
//! as they come.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use runtime_platform::local::azure::Azure;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::{
    facts::{self, Fact},
    narrator::Narrator,
    orders::{self, TENANT},
    steps::Deployed,
    traffic::{Tally, Trickle},
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
    up::ContextFile,
};

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// How long one look may take before the next: long enough for a busy machine, short enough that
/// whoever watches is told that nothing comes.
const LOOK_TIMEOUT: Duration = Duration::from_secs(4);
/// Pages of the feed that are read in one look, at most.
const PAGES_MAX: usize = 20;

/// Everything that the story needs beside the platform itself.
pub struct Teller {
    pub narrator: Narrator,
    pub client: Client,
    pub azure: Azure,
    pub http: reqwest::Client,
    pub context: Context,
    bus: Bus,
    feed: Feed,
    /// Events that were read and not told yet.
    untold: Vec<Value>,
    /// Types of what was sent, by eventId.
    sent: HashMap<String, &'static str>,
    /// The environment of the story.
    pub environment: String,
    /// What was deployed, by version.
    pub deployed: HashMap<&'static str, Deployed>,
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
}

/// How a command stands.
#[derive(Default)]
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
    pub async fn new(context: &ContextFile, azure: Azure, out: Out) -> Result<Self, Failure> {
        let (context, _) = Context::read(&context.data_directory.join("context.json"))?;
        Ok(Self {
            narrator: Narrator::new(out),
            client: Client::new(&context, TENANT).await?,
            azure,
            http: client::http(&context).await?,
            bus: Bus::new(&context).await?,
            context,
            feed: Feed::new(None, None),
            untold: Vec::new(),
            sent: HashMap::new(),
            environment: String::new(),
            deployed: HashMap::new(),
            trickle: None,
        })
    }

    /// Puts the command of a step into its queue.
    pub async fn send(
        &mut self,
        step: u32,
        command: &'static str,
        what: &str,
        payload: &Value,
    ) -> Result<Sent, Failure> {
        let args = orders::send_args(step, command);
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
        })
    }

    /// Tells what becomes of a command until it has ended.
    pub async fn follow(&mut self, sent: &mut Sent) -> Result<Moment, Failure> {
        self.follow_until(sent, Moment::ended).await
    }

    /// Tells what becomes of a command until it stands as `enough` says.
    pub async fn follow_until(
        &mut self,
        sent: &mut Sent,
        enough: impl Fn(&Moment) -> bool,
    ) -> Result<Moment, Failure> {
        loop {
            // What is told is told in one go, so that a look can be cut short anywhere.
            let moment = match timeout(LOOK_TIMEOUT, self.look(sent)).await {
                Ok(moment) => moment?,
                Err(_) => Moment::default(),
            };
            if enough(&moment) {
                return Ok(moment);
            }
            self.narrator.doing(&in_words(sent, &moment));
            sleep(PAUSE).await;
        }
    }

    /// One look at a command: tells what is new of it.
    async fn look(&mut self, sent: &mut Sent) -> Result<Moment, Failure> {
        let path = format!("commands/{}", segment(&sent.event_id));
        let command = ask(self.client.get(&path, &[])).await?.unwrap_or_default();
        if let Some(operation) = command["operationId"].as_str()
            && sent.notes.is_none()
        {
            sent.notes = Some((operation.to_owned(), 0, None));
        }
        // The feed first: what ends an operation is committed with its last note, so that whoever has
        // read the end in the feed finds all notes in the operation.
        self.read_feed().await?;
        let operation = match &sent.notes {
            Some((id, ..)) => {
                let path = format!("operations/{}", segment(id));
                ask(self.client.get(&path, &[])).await?
            }
            None if command["ended"].as_bool() == Some(true) => Some(Value::Null),
            None => None,
        };
        // Without the operation the events wait: told alone they could come before what led to them.
        let Some(operation) = operation else { return Ok(Moment { command, operation: Value::Null }) };
        self.tell(sent, &operation)?;
        Ok(Moment { command, operation })
    }

    async fn read_feed(&mut self) -> Result<(), Failure> {
        for _ in 0..PAGES_MAX {
            let Some(page) = ask(self.feed.next(&self.client)).await? else { return Ok(()) };
            self.untold.extend(page.items.into_iter().map(|mut item| item["envelope"].take()));
            if page.last {
                break;
            }
        }
        Ok(())
    }

    fn tell(&mut self, sent: &mut Sent, operation: &Value) -> Result<(), Failure> {
        let notes = operation["notes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let fresh = match &mut sent.notes {
            Some((_, count, last)) => {
                let from = follow::fresh(notes, *count, last.as_ref());
                (*count, *last) = (notes.len(), notes.last().cloned());
                notes[from..].to_vec()
            }
            None => Vec::new(),
        };
        let events = std::mem::take(&mut self.untold);
        let out = self.narrator.out;
        for fact in facts::in_order(fresh, events, operation["outcomeEventId"].as_str()) {
            let line = match &fact {
                Fact::Note(note) => facts::note_line(&out, operation, note, sent.command),
                Fact::Event(envelope) => story::line(&out, envelope, self.cause(envelope)),
            };
            self.narrator.line(&line)?;
        }
        Ok(())
    }

    /// The type of the message that caused an event.
    fn cause(&self, envelope: &Value) -> Option<&str> {
        let id = envelope["causationId"].as_str()?;
        self.sent.get(id).copied().or_else(|| self.feed.type_of(id))
    }

    /// All events of one workflow, as the feed has them.
    pub async fn events_of(&self, sent: &Sent) -> Result<Vec<Value>, Failure> {
        let mut feed = Feed::new(None, Some(&sent.correlation_id));
        let (items, _) = feed.rest(&self.client, 1000).await?;
        Ok(items.into_iter().map(|mut item| item["envelope"].take()).collect())
    }

    /// What the ingress counted so far for the one app.
    pub fn tally(&self) -> Tally {
        let url = self.deployed.values().next().map(|deployed| deployed.url.as_str()).unwrap_or_default();
        Tally::at(&self.azure, url)
    }

    /// The version that a revision runs, for people.
    pub fn version_of(&self, revision: &str) -> String {
        let known = self.deployed.iter().find(|(_, deployed)| deployed.revision == revision);
        known.map_or_else(|| revision.to_owned(), |(version, _)| format!("{version} ({revision})"))
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
fn in_words(sent: &Sent, moment: &Moment) -> String {
    let step = text(&moment.operation, "step");
    match (moment.command.is_null(), step.is_empty()) {
        (true, _) => format!("waiting for word of {}", sent.command),
        (false, true) => format!("{} goes on", sent.command),
        (false, false) => format!("{} is at {step}", sent.command),
    }
}
