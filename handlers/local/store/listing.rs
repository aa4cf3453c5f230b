//! Listings, a page at a time. A page begins behind the place where the last one ended, so that
//! documents that come and go meanwhile neither repeat nor hide others.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use rusqlite::{Connection, params_from_iter};

use super::{
    Refused,
    rows::{COLUMNS, Row, time_text},
};
use crate::ports::store::{Filter, Listing, PAGE_ITEMS_MAX, Partition, is_indexed};

/// What a listing goes through, and in which order.
pub struct Scope {
    /// A condition of SQL on the values that follow.
    condition: &'static str,
    /// The index of members with the way through it, and the same condition on it; none where documents
    /// of all tenants are meant. SQLite is told the way: it takes the two for equally long.
    of_members: Option<(&'static str, &'static str)>,
    values: Vec<String>,
    order: Order,
}

/// The columns that a listing is ordered by; together they are unique within its scope.
#[derive(Clone, Copy)]
enum Order {
    Made,
    Due,
}

impl Order {
    fn columns(self) -> [&'static str; 4] {
        match self {
            Self::Made => ["at", "id", "environment", "tenant"],
            Self::Due => ["due", "id", "tenant", "environment"],
        }
    }

    fn place(self, row: &Row) -> Place {
        let (id, tenant, environment) = (row.id.clone(), row.tenant.clone(), row.environment.clone());
        Place(match self {
            Self::Made => [row.at.clone(), id, environment, tenant],
            Self::Due => [row.due.clone().unwrap_or_default(), id, tenant, environment],
        })
    }
}

/// The columns of [`Order::Made`] as the index of members names them.
const MADE_OF_MEMBERS: [&str; 4] = ["made_at", "document_id", "environment_id", "tenant_id"];

impl Scope {
    pub fn partition(partition: &Partition, kind: &str) -> Self {
        Self {
            condition: "tenant = ? AND environment = ? AND kind = ?",
            of_members: Some((
                "members INDEXED BY members_of_partition",
                "tenant_id = ? AND environment_id = ? AND document_kind = ?",
            )),
            values: vec![partition.tenant_id.clone(), partition.environment_id.clone(), kind.to_owned()],
            order: Order::Made,
        }
    }

    pub fn tenant(tenant: &str, kind: &str) -> Self {
        Self {
            condition: "tenant = ? AND kind = ?",
            of_members: Some(("members NOT INDEXED", "tenant_id = ? AND document_kind = ?")),
            values: vec![tenant.to_owned(), kind.to_owned()],
            order: Order::Made,
        }
    }

    pub fn due(kind: &str, until: Timestamp) -> Self {
        Self {
            condition: "kind = ? AND due IS NOT NULL AND due <= ?",
            of_members: None,
            values: vec![kind.to_owned(), time_text(until)],
            order: Order::Due,
        }
    }
}

/// Where a page ended: the last document's values of the columns of the order.
#[derive(Debug, PartialEq)]
pub struct Place([String; 4]);

impl Place {
    pub fn read(token: &str) -> Result<Self, Refused> {
        let place = || serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(token).ok()?).ok();
        place().map(Self).ok_or(Refused::ForeignMark)
    }

    fn token(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::Value::from(self.0.to_vec()).to_string())
    }
}

/// Reads the documents of `scope` behind `after` that live at `now`, at most `size`, at least one.
pub fn page(
    connection: &Connection,
    scope: &Scope,
    filter: &Filter,
    after: Option<&Place>,
    size: usize,
    now: Timestamp,
) -> Result<Listing, Refused> {
    let size = size.clamp(1, PAGE_ITEMS_MAX);
    let (sql, values) = statement(scope, filter, after, size + 1, now);
    let mut statement = connection.prepare_cached(&sql)?;
    // One more than the page holds tells whether there is a next one.
    let rows = statement.query_map(params_from_iter(values), Row::of)?.collect::<Result<Vec<_>, _>>()?;
    let next = if rows.len() > size { Some(scope.order.place(&rows[size - 1]).token()) } else { None };
    let mut items = Vec::with_capacity(size.min(rows.len()));
    for row in rows.into_iter().take(size) {
        match (row.read(), scope.order) {
            (Ok(stored), _) => items.push(stored),
            // What is due is everybody's: one document that is broken must not stop all the others.
            (Err(Refused::Unreadable(problem)), Order::Due) => {
                tracing::error!("a document that is due is left out: {problem}");
            }
            (Err(refused), _) => return Err(refused),
        }
    }
    Ok(Listing { items, next })
}

/// The statement of a page and its values. Where a member that is asked for is in the index, the index
/// leads and the documents follow, so that what was not asked for is not read.
pub fn statement(
    scope: &Scope,
    filter: &Filter,
    after: Option<&Place>,
    rows: usize,
    now: Timestamp,
) -> (String, Vec<String>) {
    let leads = scope.of_members.and_then(|condition| {
        let place = filter.equal.iter().position(|(member, _)| is_indexed(member))?;
        Some((condition, place))
    });
    let mut values = scope.values.clone();
    let (mut sql, columns) = match leads {
        None => {
            let sql = format!("SELECT {COLUMNS} FROM documents WHERE {}", scope.condition);
            (sql, scope.order.columns())
        }
        Some(((way, condition), place)) => {
            let (member, text) = &filter.equal[place];
            values.extend([member.clone(), text.clone()]);
            let sql = format!(
                "SELECT {COLUMNS} FROM {way} CROSS JOIN documents \
                 ON tenant = tenant_id AND environment = environment_id AND id = document_id \
                 WHERE {condition} AND name = ? AND value = ?"
            );
            (sql, MADE_OF_MEMBERS)
        }
    };
    // Not as an OR, which SQLite would make two searches of.
    sql.push_str(" AND ifnull(expires > ?, TRUE)");
    values.push(time_text(now));
    if let Some(since) = filter.since {
        sql.push_str(&format!(" AND {} >= ?", if leads.is_some() { "made_at" } else { "at" }));
        values.push(time_text(since));
    }
    for (place, (member, text)) in filter.equal.iter().enumerate() {
        if leads.is_some_and(|(_, leading)| leading == place) {
            continue;
        }
        sql.push_str(if is_indexed(member) { HAS_INDEXED } else { HAS });
        values.extend([member.clone(), text.clone()]);
    }
    let (further, direction) = if filter.newest_first { ("<", " DESC") } else { (">", "") };
    if let Some(Place(place)) = after {
        sql.push_str(&format!(" AND ({}) {further} (?, ?, ?, ?)", columns.join(", ")));
        values.extend(place.iter().cloned());
    }
    let order: Vec<_> = columns.iter().map(|column| format!("{column}{direction}")).collect();
    sql.push_str(&format!(" ORDER BY {} LIMIT {rows}", order.join(", ")));
    (sql, values)
}

/// That a document has a member of a text, seen in its body. Not a JSON path: a member's name needs no
/// quoting here.
const HAS: &str = " AND EXISTS (SELECT 1 FROM json_each(body) AS member \
     WHERE member.key = ? AND member.type = 'text' AND member.value = ?)";
/// The same, seen in the index.
const HAS_INDEXED: &str = " AND EXISTS (SELECT 1 FROM members AS further \
     WHERE further.tenant_id = tenant AND further.document_kind = kind AND further.name = ? AND further.value = ? \
     AND further.made_at = at AND further.document_id = id AND further.environment_id = environment)";
