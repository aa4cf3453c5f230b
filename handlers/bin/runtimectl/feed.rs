//! The events feed, read so that each event comes once: its cursor overlaps, since a late commit may
//! sort before what was read already.

use std::collections::{HashMap, VecDeque};

use serde_json::Value;

use crate::{
    client::{Client, ReadError, page_of},
    output::text,
};

/// Events asked for at a time.
const PAGE_SIZE: &str = "200";
/// Ids that are remembered to drop repeats by: far more than an overlap holds.
const REMEMBERED_MAX: usize = 20_000;

/// A place in the feed.
pub struct Feed {
    cursor: Option<String>,
    correlation: Option<String>,
    seen: Seen,
}

/// What has been read lately, by id; what is told of it is its type.
#[derive(Default)]
struct Seen {
    types: HashMap<String, String>,
    order: VecDeque<String>,
}

impl Seen {
    /// Whether this is the first time.
    fn first(&mut self, id: &str, event_type: &str) -> bool {
        if self.types.contains_key(id) {
            return false;
        }
        self.types.insert(id.to_owned(), event_type.to_owned());
        self.order.push_back(id.to_owned());
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.types.remove(&oldest);
        }
        true
    }
}

/// Part of the feed.
#[derive(Debug, PartialEq)]
pub struct Page {
    /// What was not read before, in the feed's order.
    pub items: Vec<Value>,
    /// There is nothing behind this page yet.
    pub last: bool,
}

impl Feed {
    /// The feed from after a cursor, or from the oldest event that is kept; of one workflow, or all.
    pub fn new(cursor: Option<&str>, correlation: Option<&str>) -> Self {
        Self {
            cursor: cursor.map(str::to_owned),
            correlation: correlation.map(str::to_owned),
            seen: Seen::default(),
        }
    }

    /// The next page.
    ///
    /// # Errors
    /// When the platform does not answer. The place is kept: ask again.
    pub async fn next(&mut self, client: &Client) -> Result<Page, ReadError> {
        let mut query = vec![("limit", PAGE_SIZE)];
        query.extend(self.cursor.as_deref().map(|cursor| ("after", cursor)));
        query.extend(self.correlation.as_deref().map(|correlation| ("correlationId", correlation)));
        let (items, next) = page_of("events", client.get("events", &query).await?)?;
        Ok(self.take(items, next))
    }

    fn take(&mut self, items: Vec<Value>, next: Option<String>) -> Page {
        let moved = next.is_some() && next != self.cursor;
        let empty = items.is_empty();
        if next.is_some() {
            self.cursor = next;
        }
        let fresh = |item: &Value| {
            let envelope = &item["envelope"];
            self.seen.first(&text(envelope, "eventId"), &text(envelope, "eventType"))
        };
        let items = items.into_iter().filter(fresh).collect::<Vec<_>>();
        // A page of repeats only is the overlap of the end.
        let last = !moved || empty || items.is_empty();
        Page { items, last }
    }

    /// The type of an event that was read.
    pub fn type_of(&self, event_id: &str) -> Option<&str> {
        self.seen.types.get(event_id).map(String::as_str)
    }

    /// All that there is, up to `limit` items; and whether that is all.
    ///
    /// # Errors
    /// As [`Feed::next`].
    pub async fn rest(&mut self, client: &Client, limit: usize) -> Result<(Vec<Value>, bool), ReadError> {
        let mut all = Vec::new();
        loop {
            let page = self.next(client).await?;
            all.extend(page.items);
            if all.len() > limit {
                all.truncate(limit);
                return Ok((all, false));
            }
            if page.last {
                return Ok((all, true));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(id: &str) -> Value {
        json!({"envelope": {"eventId": id, "eventType": "T"}})
    }

    #[test]
    fn what_overlaps_comes_once() {
        let mut feed = Feed::new(None, None);
        let first = feed.take(vec![event("a"), event("b")], Some("1".into()));
        assert_eq!(first, Page { items: vec![event("a"), event("b")], last: false });
        let second = feed.take(vec![event("b"), event("c")], Some("2".into()));
        assert_eq!(second, Page { items: vec![event("c")], last: false });
        let end = feed.take(vec![event("c")], Some("3".into()));
        assert_eq!(end, Page { items: vec![], last: true });
        let late = feed.take(vec![event("c"), event("late")], Some("3".into()));
        assert_eq!(late, Page { items: vec![event("late")], last: true });
        assert_eq!(feed.type_of("late"), Some("T"));
    }

    #[test]
    fn an_end_without_a_cursor_keeps_the_place() {
        let mut feed = Feed::new(Some("7"), None);
        assert_eq!(feed.take(vec![], None), Page { items: vec![], last: true });
        assert_eq!(feed.cursor.as_deref(), Some("7"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut seen = Seen::default();
        for number in 0..REMEMBERED_MAX + 10 {
            assert!(seen.first(&number.to_string(), "T"));
        }
        assert_eq!((seen.types.len(), seen.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
        assert!(seen.first("0", "T"));
    }
}
