//! What `infra/messaging.json` declares: queues, topics, subscriptions and their rules.
//!
//! The same file tells Azure's namespace and this one what to be, so what is refused here would
//! have been refused, or misunderstood, there.

mod read;

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use serde_json::Value;

use super::filter::{CorrelationFilter, Filter};

/// Bytes that the file may have.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Characters of a subscription's or a rule's name, as on Azure.
const SHORT_NAME_CHARS_MAX: usize = 50;

/// The first rule of every subscription has this name: on Azure a new subscription comes with a rule
/// of this name that lets everything through, and a declared one replaces it.
pub const DEFAULT_RULE: &str = "$Default";

/// What `infra/messaging.json` declares.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    pub(super) file: String,
    pub(super) queues: Vec<Queue>,
    pub(super) topics: Vec<Topic>,
    pub(super) per_tenant: Option<TenantTemplate>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Queue {
    pub name: String,
    pub holding: Holding,
    pub duplicate_detection_window: Option<Duration>,
    pub size_bytes_max: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    pub name: String,
    pub duplicate_detection_window: Option<Duration>,
    /// Of all its subscriptions together.
    pub size_bytes_max: u64,
    pub subscriptions: Vec<Subscription>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Subscription {
    pub name: String,
    pub holding: Holding,
    /// A message gets in, once, when any of them matches.
    pub rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub name: String,
    pub filter: Filter,
}

/// How a queue or subscription holds its messages.
#[derive(Clone, Debug, PartialEq)]
pub struct Holding {
    pub lock_duration: Duration,
    pub max_delivery_count: u32,
    /// What a message gets that asks for none, or for more.
    pub time_to_live: Option<Duration>,
    /// Whether what has expired is dead-lettered; it is dropped otherwise.
    pub dead_lettering_on_expiration: bool,
    /// A queue or topic.
    pub forward_dead_lettered_messages_to: Option<String>,
}

impl Default for Holding {
    fn default() -> Self {
        Self {
            lock_duration: Duration::from_secs(60),
            max_delivery_count: 10,
            time_to_live: None,
            dead_lettering_on_expiration: false,
            forward_dead_lettered_messages_to: None,
        }
    }
}

/// A subscription that is made per tenant for a subscriber who wants one.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantTemplate {
    /// With `{subscriber}` and `{tenantId}`.
    pub name: String,
    pub holding: Holding,
    /// Application properties to filter on; values may be `{tenantId}` and `{eventType}`.
    pub properties: BTreeMap<String, String>,
}

/// An error in `infra/messaging.json`: where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {path}: {problem}")]
pub struct TopologyError {
    pub file: String,
    /// e.g. `topics[2].subscriptions[0].rules[1].sqlFilter`
    pub path: String,
    pub problem: String,
}

impl Topology {
    /// Reads the file.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place in the file.
    pub fn read(file: &Path) -> Result<Self, Vec<TopologyError>> {
        let name = file.display().to_string();
        let unreadable =
            |problem: String| vec![TopologyError { file: name.clone(), path: "(file)".to_owned(), problem }];
        let size = fs::metadata(file).map_err(|error| unreadable(format!("cannot be read: {error}")))?.len();
        if size > FILE_BYTES_MAX {
            return Err(unreadable(format!("has {size} bytes, {FILE_BYTES_MAX} are allowed")));
        }
        let text =
            fs::read_to_string(file).map_err(|error| unreadable(format!("cannot be read: {error}")))?;
        Self::parse(&name, &text)
    }

    /// Reads a text of the file's form; `file` is what errors call it.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place in the text.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<TopologyError>> {
        read::parse(file, text)
    }

    pub fn queues(&self) -> &[Queue] {
        &self.queues
    }

    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// Adds a subscription of `subscriber` to `topic` for one tenant's events of these types.
    ///
    /// # Errors
    /// When there is no template, no such topic, or the subscription would have a bad or a taken name.
    pub fn with_tenant_subscription(
        mut self,
        topic: &str,
        subscriber: &str,
        tenant_id: &str,
        event_types: &[&str],
    ) -> Result<Self, TopologyError> {
        let file = self.file.clone();
        let error = |path: &str, problem: String| TopologyError {
            file: file.clone(),
            path: path.to_owned(),
            problem,
        };
        let template = self.per_tenant.clone().ok_or_else(|| {
            error(
                "perTenantTemplate",
                "is not declared, so no subscription can be made for a tenant".to_owned(),
            )
        })?;
        let subscription = template
            .subscription(subscriber, tenant_id, event_types)
            .map_err(|problem| error("perTenantTemplate", problem))?;
        let topic = self
            .topics
            .iter_mut()
            .find(|candidate| candidate.name.eq_ignore_ascii_case(topic))
            .ok_or_else(|| error("topics", format!("there is no topic `{topic}`")))?;
        if topic.subscriptions.iter().any(|other| other.name.eq_ignore_ascii_case(&subscription.name)) {
            let problem = format!("`{}` already has a subscription `{}`", topic.name, subscription.name);
            return Err(error("topics", problem));
        }
        topic.subscriptions.push(subscription);
        Ok(self)
    }
}

impl TenantTemplate {
    fn subscription(
        &self,
        subscriber: &str,
        tenant_id: &str,
        event_types: &[&str],
    ) -> Result<Subscription, String> {
        if event_types.is_empty() {
            return Err("a tenant's subscription needs at least one event type".to_owned());
        }
        let name = self.name.replace("{subscriber}", subscriber).replace("{tenantId}", tenant_id);
        read::short_name_problem(&name).map_or(Ok(()), Err)?;
        let rules = event_types.iter().enumerate().map(|(index, event_type)| {
            let properties = self.properties.iter().map(|(property, value)| {
                let value = value.replace("{tenantId}", tenant_id).replace("{eventType}", event_type);
                (property.clone(), Value::String(value))
            });
            let filter =
                CorrelationFilter { properties: properties.collect(), ..CorrelationFilter::default() };
            let name = if index == 0 { DEFAULT_RULE } else { event_type };
            Rule { name: name.to_owned(), filter: Filter::Correlation(filter) }
        });
        Ok(Subscription { rules: rules.collect(), name, holding: self.holding.clone() })
    }
}

#[cfg(test)]
mod tests;
