//! What `get` can show: every collection of the platform in one table, with where it is, what narrows
//! it down and its columns.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    output::{Grid, age, text},
    story,
};

/// A kind of thing that the platform tells of.
#[derive(Debug, PartialEq)]
pub struct Collection {
    /// As it is typed.
    pub name: &'static str,
    /// Shorter ways to type it.
    pub aliases: &'static [&'static str],
    /// Where the list is, below the platform's routes; none where there is only one at a time.
    pub list: Option<&'static str>,
    /// Where one thing is, `{}` for its id; none where there is only the list.
    pub one: Option<&'static str>,
    /// Query parameters that narrow the list down.
    pub filters: &'static [&'static str],
    /// Query parameters of one thing.
    pub one_filters: &'static [&'static str],
    columns: &'static [Column],
}

/// A column of a table: its title, the member (dots lead into objects), and how it is written.
#[derive(Debug, PartialEq)]
pub struct Column(&'static str, &'static str, Form);

/// How a member is written in a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Text,
    /// A time, as how long ago it was.
    Age,
    /// `reservations-api:1.4.2` of `acr.azurecr.io/reservations-api:1.4.2`.
    Image,
    Percent,
    /// An id without its prefix and most of its digits.
    Short,
    /// What an event is about.
    Subject,
    /// Only its length.
    Count,
}

use Form::{Age, Count, Image, Percent, Short, Subject, Text};

/// All of them, in the order in which the help lists them.
pub const COLLECTIONS: &[Collection] = &[
    Collection {
        name: "environments",
        aliases: &["environment", "env"],
        list: Some("environments"),
        one: Some("environments/{}"),
        filters: &["name", "stage", "status"],
        one_filters: &[],
        columns: &[
            Column("ENVIRONMENT", "environmentId", Text),
            Column("NAME", "name", Text),
            Column("STAGE", "stage", Text),
            Column("REGION", "region", Text),
            Column("STATUS", "status", Text),
            Column("TARGETS", "computeTargets", Text),
            Column("OPERATION", "operationId", Text),
            Column("AGE", "createdAt", Age),
        ],
    },
    Collection {
        name: "deployments",
        aliases: &["deployment", "dep"],
        list: Some("deployments"),
        one: Some("deployments/{}"),
        filters: &["environmentId", "moduleId", "status"],
        one_filters: &[],
        columns: &[
            Column("DEPLOYMENT", "deploymentId", Text),
            Column("ENVIRONMENT", "environmentId", Text),
            Column("MODULE", "moduleId", Text),
            Column("IMAGE", "image", Image),
            Column("TARGET", "target", Text),
            Column("STATUS", "status", Text),
            Column("GATE", "healthGate", Text),
            Column("WEIGHT", "weight", Percent),
            Column("AGE", "requestedAt", Age),
        ],
    },
    Collection {
        name: "services",
        aliases: &["service", "svc"],
        list: Some("services"),
        one: Some("services/{}"),
        filters: &["environmentId", "moduleId", "status"],
        one_filters: &["at"],
        columns: &[
            Column("SERVICE", "serviceId", Text),
            Column("ENVIRONMENT", "environmentId", Text),
            Column("MODULE", "moduleId", Text),
            Column("VERSION", "version", Text),
            Column("STATUS", "status", Text),
            Column("REPLICAS", "replicas", Text),
            Column("ENDPOINT", "endpointUrl", Text),
            Column("SEEN", "lastObservedAt", Age),
        ],
    },
    Collection {
        name: "service-health",
        aliases: &[],
        list: None,
        one: Some("services/{}/health"),
        filters: &[],
        one_filters: &[],
        columns: &[],
    },
    Collection {
        name: "operations",
        aliases: &["operation", "op"],
        list: Some("operations"),
        one: Some("operations/{}"),
        filters: &["environmentId", "moduleId", "status", "kind"],
        one_filters: &[],
        columns: &[
            Column("OPERATION", "operationId", Text),
            Column("KIND", "kind", Text),
            Column("SUBJECT", "subject", Text),
            Column("STATUS", "status", Text),
            Column("STEP", "step", Text),
            Column("ATTEMPT", "attempt", Text),
            Column("AGE", "startedAt", Age),
            Column("DETAIL", "detail", Text),
        ],
    },
    Collection {
        name: "commands",
        aliases: &["command", "cmd"],
        list: Some("commands"),
        one: Some("commands/{}"),
        filters: &["environmentId", "commandType"],
        one_filters: &[],
        columns: &[
            Column("COMMAND", "eventId", Text),
            Column("TYPE", "commandType", Text),
            Column("ENVIRONMENT", "environmentId", Text),
            Column("STATUS", "status", Text),
            Column("OPERATION", "operationId", Text),
            Column("AGE", "at", Age),
            Column("DETAIL", "detail", Text),
        ],
    },
    Collection {
        name: "tenant-bindings",
        aliases: &["tenant-binding", "tb"],
        list: Some("tenant-bindings"),
        one: Some("tenant-bindings/{}"),
        filters: &["environmentId", "boundTenantId"],
        one_filters: &[],
        columns: &[
            Column("BINDING", "tenantBindingId", Text),
            Column("ENVIRONMENT", "environmentId", Text),
            Column("OWNER", "ownerTenantId", Text),
            Column("TENANT", "boundTenantId", Text),
            Column("MODEL", "isolationModel", Text),
            Column("SERVICES", "quota.maxServices", Text),
            Column("REPLICAS", "quota.maxReplicas", Text),
            Column("AGE", "boundAt", Age),
        ],
    },
    Collection {
        name: "configurations",
        aliases: &["configuration", "cfg"],
        list: Some("configurations"),
        one: Some("configurations/{}"),
        filters: &["environmentId"],
        one_filters: &[],
        columns: &[
            Column("CONFIGURATION", "configurationId", Text),
            Column("ENVIRONMENT", "environmentId", Text),
            Column("VERSION", "version", Text),
            Column("STATUS", "status", Text),
            Column("AGE", "publishedAt", Age),
            Column("REASON", "reason", Text),
        ],
    },
    Collection {
        name: "secret-bindings",
        aliases: &["secret-binding", "sb"],
        list: Some("secret-bindings"),
        one: Some("secret-bindings/{}"),
        filters: &["environmentId", "moduleId"],
        one_filters: &[],
        columns: &[
            Column("BINDING", "secretBindingId", Text),
            Column("ENVIRONMENT", "environmentId", Text),
            Column("MODULE", "moduleId", Text),
            Column("SECRET", "secretName", Text),
            Column("VERSION", "version", Text),
            Column("STATUS", "status", Text),
            Column("AGE", "boundAt", Age),
            Column("ROTATED", "lastRotatedAt", Age),
            Column("DUE", "nextRotationDueAt", Text),
            Column("REASON", "reason", Text),
        ],
    },
    Collection {
        name: "scaling-policies",
        aliases: &["scaling-policy", "sp"],
        list: Some("scaling-policies"),
        one: Some("scaling-policies/{}"),
        filters: &["environmentId", "moduleId", "serviceId", "status"],
        one_filters: &[],
        columns: &[
            Column("POLICY", "scalingPolicyId", Text),
            Column("ENVIRONMENT", "environmentId", Text),
            Column("MODULE", "moduleId", Text),
            Column("KIND", "kind", Text),
            Column("TARGET", "target", Text),
            Column("MIN", "inForce.minReplicas", Text),
            Column("MAX", "inForce.maxReplicas", Text),
            Column("REPLICAS", "observedReplicas", Text),
            Column("STATUS", "status", Text),
            Column("AGE", "appliedAt", Age),
            Column("SAID", "said", Text),
        ],
    },
    Collection {
        name: "drift",
        aliases: &["drift-finding", "df"],
        list: Some("drift"),
        one: Some("drift/{}"),
        filters: &["environmentId", "moduleId", "status", "severity", "kind"],
        one_filters: &[],
        columns: &[
            Column("FINDING", "findingId", Text),
            Column("ENVIRONMENT", "environmentId", Text),
            Column("KIND", "kind", Text),
            Column("SEVERITY", "severity", Text),
            Column("STATUS", "status", Text),
            Column("RESOURCE", "resourceId", Image),
            Column("PATH", "path", Text),
            Column("SEEN", "lastSeenAt", Age),
            Column("WAITS", "waits", Text),
        ],
    },
    Collection {
        name: "drift-suppressions",
        aliases: &["suppressions", "drift-suppression"],
        list: Some("drift/suppressions"),
        one: None,
        filters: &["environmentId"],
        one_filters: &[],
        columns: &[
            Column("SUPPRESSION", "suppressionId", Text),
            Column("ENVIRONMENT", "environmentId", Text),
            Column("KIND", "match.kind", Text),
            Column("RESOURCE", "match.resource", Text),
            Column("PATH", "match.path", Text),
            Column("BY", "createdBy", Text),
            Column("UNTIL", "expiresAt", Text),
            Column("IN FORCE", "inForce", Text),
            Column("REASON", "reason", Text),
        ],
    },
    Collection {
        name: "plans",
        aliases: &["plan"],
        list: None,
        one: Some("plans/{}"),
        filters: &[],
        one_filters: &[],
        columns: &[],
    },
    Collection {
        name: "events",
        aliases: &["event", "evt"],
        list: Some("events"),
        one: Some("events/{}"),
        filters: &["correlationId"],
        one_filters: &[],
        columns: &[
            Column("EVENT", "envelope.eventId", Text),
            Column("TYPE", "envelope.eventType", Text),
            Column("SUBJECT", "envelope", Subject),
            Column("CAUSE", "envelope.causationId", Short),
            Column("WORKFLOW", "envelope.correlationId", Text),
            Column("AGE", "envelope.occurredAt", Age),
        ],
    },
    Collection {
        name: "quarantine",
        aliases: &[],
        list: Some("quarantine"),
        one: None,
        filters: &["environmentId", "moduleId"],
        one_filters: &[],
        columns: &[
            Column("DEPLOYMENT", "deploymentId", Text),
            Column("ENVIRONMENT", "environmentId", Text),
            Column("MODULE", "moduleId", Text),
            Column("KIND", "kind", Text),
            Column("IMAGE", "image", Image),
            Column("CONFIGURATION", "configurationVersion", Text),
            Column("AGE", "since", Age),
            Column("BY", "by", Text),
            Column("REASON", "reason", Text),
        ],
    },
    Collection {
        name: "holds",
        aliases: &["hold"],
        list: Some("holds"),
        one: Some("holds/{}"),
        filters: &["environmentId", "moduleId", "status"],
        one_filters: &[],
        columns: &[
            Column("HOLD", "holdId", Text),
            Column("SCOPE", "scope", Text),
            Column("ENVIRONMENT", "environmentId", Text),
            Column("MODULE", "moduleId", Text),
            Column("STATUS", "status", Text),
            Column("UNTIL", "until", Text),
            Column("BY", "by", Text),
            Column("REASON", "reason", Text),
        ],
    },
    Collection {
        name: "sweeps",
        aliases: &["sweep"],
        list: Some("sweeps"),
        one: None,
        filters: &["environmentId", "kind"],
        one_filters: &[],
        columns: &[
            Column("KIND", "kind", Text),
            Column("ENVIRONMENT", "environmentId", Text),
            Column("CHECKED", "checked", Text),
            Column("CHANGED", "changed", Text),
            Column("UNREADABLE", "unreadable", Text),
            Column("AGE", "endedAt", Age),
            Column("NOTES", "notes", Count),
        ],
    },
    Collection {
        name: "outbox",
        aliases: &[],
        list: Some("outbox"),
        one: None,
        filters: &["all"],
        one_filters: &[],
        columns: &[
            Column("KIND", "kind", Text),
            Column("TO", "to", Text),
            Column("TYPE", "eventType", Text),
            Column("ENVIRONMENT", "environmentId", Text),
            Column("AGGREGATE", "aggregate", Text),
            Column("NUMBER", "sequence", Text),
            Column("AGE", "recordedAt", Age),
        ],
    },
    Collection {
        name: "dead-letters",
        aliases: &["dead-letter", "dl"],
        list: Some("dead-letters"),
        one: Some("dead-letters/{}"),
        filters: &["reason", "function", "eventType", "unreadable"],
        one_filters: &["unreadable"],
        columns: &[
            Column("DEAD LETTER", "deadLetterId", Text),
            Column("TYPE", "eventType", Text),
            Column("MESSAGE", "eventId", Text),
            Column("FUNCTION", "function", Text),
            Column("REASON", "reason", Text),
            Column("AGE", "filedAt", Age),
            Column("DETAIL", "detail", Text),
        ],
    },
];

/// Reads a collection's name as it is typed.
pub fn parser() -> impl TypedValueParser<Value = &'static Collection> {
    let names = COLLECTIONS
        .iter()
        .map(|collection| PossibleValue::new(collection.name).aliases(collection.aliases.iter().copied()));
    PossibleValuesParser::new(names).map(|typed| named(&typed))
}

/// The collection of a name; only names that the parser knows come here.
fn named(typed: &str) -> &'static Collection {
    let known = COLLECTIONS.iter().find(|it| it.name == typed || it.aliases.contains(&typed));
    known.expect("the parser lets only names of the table pass")
}

impl Collection {
    /// Its items as a table.
    pub fn grid(&self, items: &[Value], now: Timestamp) -> Grid {
        let cells = |item: &Value| self.columns.iter().map(|column| column.cell(item, now)).collect();
        Grid {
            header: self.columns.iter().map(|Column(title, ..)| *title).collect(),
            rows: items.iter().map(cells).collect(),
            status: self
                .columns
                .iter()
                .position(|Column(title, ..)| *title == "STATUS")
                .or_else(|| self.columns.iter().position(|Column(title, ..)| *title == "TYPE")),
        }
    }

    /// Tells programs and people the same name for it.
    pub fn plural(&self) -> String {
        self.name.replace('-', " ")
    }
}

impl Column {
    fn cell(&self, item: &Value, now: Timestamp) -> String {
        let Self(_, member, form) = self;
        let (path, last) = member.rsplit_once('.').unwrap_or(("", member));
        let inner = path.split('.').filter(|name| !name.is_empty()).fold(item, |value, name| &value[name]);
        let written = text(inner, last);
        match form {
            Text => written,
            Age => written.parse().map_or_else(|_| String::new(), |at| age(at, now)),
            Image => written.rsplit('/').next().unwrap_or(&written).to_owned(),
            Percent if written.is_empty() => written,
            Percent => format!("{written}%"),
            Short => story::short(&written).to_owned(),
            Subject => story::subject(&inner[last]),
            Count => inner[last].as_array().map_or_else(String::new, |list| list.len().to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use runtime_platform::functions::{self, Trigger};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deployment_is_a_row_with_its_age_and_its_weight() {
        let item = json!({
            "deploymentId": "dep-1", "environmentId": "env-1", "moduleId": "m", "image": "acr.io/x/api:1.4.2",
            "target": "container-apps", "status": "Completed", "weight": 100, "requestedAt": "2026-03-02T10:00:00Z",
            "healthGate": "Passed"
        });
        let grid = named("dep").grid(&[item], "2026-03-02T10:05:00Z".parse().unwrap());
        assert_eq!(
            grid.rows,
            [["dep-1", "env-1", "m", "api:1.4.2", "container-apps", "Completed", "Passed", "100%", "5m"]]
        );
        assert_eq!(grid.status, Some(5));
    }

    #[test]
    fn what_is_within_an_object_is_found_and_a_list_is_counted() {
        let binding = json!({ "quota": { "maxServices": 3 } });
        assert!(named("tb").grid(&[binding], Timestamp::UNIX_EPOCH).rows[0].contains(&"3".to_owned()));
        let sweep = json!({ "notes": ["a", "b"] });
        assert_eq!(named("sweeps").grid(&[sweep], Timestamp::UNIX_EPOCH).rows[0].last().unwrap(), "2");
    }

    #[test]
    fn every_list_has_columns_and_what_is_absent_is_empty() {
        for collection in COLLECTIONS {
            let grid = collection.grid(&[json!({})], Timestamp::UNIX_EPOCH);
            assert_eq!(grid.header.is_empty(), collection.list.is_none(), "{}", collection.name);
            assert!(grid.rows[0].iter().all(String::is_empty), "{:?}", grid.rows);
        }
    }

    #[test]
    fn no_name_is_anothers() {
        let mut names = BTreeSet::new();
        for collection in COLLECTIONS {
            for name in collection.aliases.iter().chain([&collection.name]) {
                assert!(names.insert(*name), "`{name}` is said twice");
            }
            assert!(collection.list.is_some() || collection.one.is_some(), "{}", collection.name);
        }
    }

    #[test]
    fn whatever_the_platform_tells_of_can_be_asked_for() {
        let routes = functions::all().into_iter().filter_map(|function| match function.trigger {
            Trigger::Http { method: "get", route } => route.strip_prefix("v1/runtime/"),
            Trigger::Http { .. } | Trigger::Queue(_) | Trigger::Subscription { .. } | Trigger::Timer(_) => {
                None
            }
        });
        for route in routes.filter(|route| *route != "health") {
            let (list, one) = match route.strip_suffix("/{id?}") {
                Some(list) => (Some(list), Some(format!("{list}/{{}}"))),
                None if route.contains("{id}") => (None, Some(route.replace("{id}", "{}"))),
                None => (Some(route), None),
            };
            let told = COLLECTIONS
                .iter()
                .any(|it| (list.is_none() || it.list == list) && (one.is_none() || it.one == one.as_deref()));
            assert!(told, "no collection tells of `{route}`");
        }
    }
}
