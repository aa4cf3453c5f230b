//! What happened, in the order in which it happened: notes of an operation and events of the feed,
//! merged.
//!
//! Notes carry fractions of a second and events whole seconds only, so time alone does not order them.
//! Of one second, an event comes before the notes, for it set the work going; the event that tells the
//! end of an operation comes after all of them.

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    output::{Out, Tint, clock, text},
    story,
};

/// The width that the kinds of facts fit in, in characters: as wide as an event's type is told.
const KIND_WIDTH: usize = 30;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A note of an operation, and the place of the operation in the list: what was done, or seen.
    Note(usize, Value),
    /// The envelope of an event.
    Event(Value),
}

/// What is new of an operation.
#[derive(Clone, Debug, Default)]
pub struct Fresh {
    pub notes: Vec<Value>,
    /// The id of the event that ends it.
    pub outcome: Option<String>,
}

/// Puts new notes of operations and new events in order.
pub fn in_order(operations: Vec<Fresh>, events: Vec<Value>) -> Vec<Fact> {
    let second = |value: &Value, member: &str| {
        text(value, member).parse::<Timestamp>().map_or(0, Timestamp::as_second)
    };
    let mut all = Vec::new();
    for event in events {
        let at = second(&event, "occurredAt");
        let id = event["eventId"].as_str();
        let ended = operations.iter().find(|operation| id.is_some() && operation.outcome.as_deref() == id);
        let key = match ended {
            Some(operation) => {
                (operation.notes.iter().map(|note| second(note, "at")).max().unwrap_or(at).max(at), 2)
            }
            None => (at, 0),
        };
        all.push((key, Fact::Event(event)));
    }
    for (place, operation) in operations.into_iter().enumerate() {
        let notes = operation.notes.into_iter();
        all.extend(notes.map(|note| ((second(&note, "at"), 1), Fact::Note(place, note))));
    }
    // Stable: what came in order and has the same time stays in order.
    all.sort_by_key(|(key, _)| *key);
    all.into_iter().map(|(_, fact)| fact).collect()
}

/// A note as one line: time, whose note, about what, what, and the command behind it.
pub fn note_line(out: &Out, operation: &Value, note: &Value, command: &str) -> String {
    line(
        out,
        &clock(&text(note, "at")),
        &out.paint(Tint::Dim, &format!("{:KIND_WIDTH$}", format!("  {}", doing(&text(operation, "kind"))))),
        story::short(&text(operation, "subject")),
        &text(note, "text"),
        &format!("<- {command} {}", story::short(&text(operation, "commandId"))),
    )
}

/// A command that was sent, as one line.
pub fn sent_line(out: &Out, at: Timestamp, command: &str, event_id: &str, what: &str, queue: &str) -> String {
    line(
        out,
        &clock(&at.to_string()),
        &out.paint(Tint::Cyan, &format!("{command:KIND_WIDTH$}")),
        story::short(event_id),
        what,
        &format!("<- you, over the queue {queue}"),
    )
}

/// Something that the demo itself did or saw, as one line.
pub fn seen_line(out: &Out, at: Timestamp, kind: &str, subject: &str, what: &str, cause: &str) -> String {
    let kind = out.paint(Tint::Bold, &format!("{kind:KIND_WIDTH$}"));
    line(out, &clock(&at.to_string()), &kind, subject, what, &format!("<- {cause}"))
}

fn line(out: &Out, time: &str, kind: &str, subject: &str, what: &str, cause: &str) -> String {
    let time = out.paint(Tint::Dim, time);
    let cause = out.paint(Tint::Dim, cause);
    format!("{time}  {kind}  {subject}  {what}  {cause}").replace(['\n', '\r'], " ")
}

/// What an operation of this kind is at.
fn doing(kind: &str) -> &str {
    match kind {
        "Provision" => "provisioning",
        "Deploy" => "deploying",
        "Rollback" => "rolling back",
        "Configure" => "distributing",
        "BindSecret" => "binding",
        "RotateSecret" => "rotating",
        "Scale" => "scaling",
        "Remediate" => "putting right",
        "Decommission" => "taking down",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn note(at: &str, text: &str) -> Value {
        json!({ "at": at, "text": text })
    }

    fn event(id: &str, at: &str) -> Value {
        json!({ "eventId": id, "occurredAt": at })
    }

    #[test]
    fn an_event_comes_before_the_notes_of_its_second_and_an_outcome_after_the_notes_that_led_to_it() {
        let first = note("2026-03-02T10:15:30.1Z", "first");
        let second = note("2026-03-02T10:15:30.9Z", "second");
        let last = note("2026-03-02T10:15:33.2Z", "last");
        let requested = event("evt-1", "2026-03-02T10:15:30Z");
        // Its second is that of an earlier note: it was cut off.
        let completed = event("evt-2", "2026-03-02T10:15:32Z");
        let other = note("2026-03-02T10:15:34Z", "of another operation");
        let one = Fresh {
            notes: vec![first.clone(), second.clone(), last.clone()],
            outcome: Some("evt-2".to_owned()),
        };
        let two = Fresh { notes: vec![other.clone()], outcome: None };
        assert_eq!(
            in_order(vec![one, two], vec![completed.clone(), requested.clone()]),
            [
                Fact::Event(requested),
                Fact::Note(0, first),
                Fact::Note(0, second),
                Fact::Note(0, last),
                Fact::Event(completed),
                Fact::Note(1, other),
            ]
        );
    }

    #[test]
    fn without_an_outcome_time_alone_orders() {
        let early = note("2026-03-02T10:15:29Z", "early");
        let late = note("2026-03-02T10:15:31Z", "late");
        let between = event("evt-1", "2026-03-02T10:15:30Z");
        let fresh = Fresh { notes: vec![early.clone(), late.clone()], outcome: None };
        assert_eq!(
            in_order(vec![fresh], vec![between.clone()]),
            [Fact::Note(0, early), Fact::Event(between), Fact::Note(0, late)]
        );
    }

    #[test]
    fn a_note_is_one_line_with_time_kind_subject_and_cause() {
        let operation = json!({
            "kind": "Deploy", "subject": "dep-1", "commandId": "evt-3a6e1f0c-6f0b-4f5e-9d0e-2f6b7a1c9e11"
        });
        assert_eq!(
            note_line(&Out::plain(), &operation, &note("2026-03-02T10:15:30.1Z", "sample 1:\n200"), "Deploy"),
            "10:15:30Z    deploying                     dep-1  sample 1: 200  <- Deploy evt-3a6e1f0c"
        );
    }

    #[test]
    fn what_was_sent_and_what_was_seen_are_lines_of_the_same_form() {
        let at: Timestamp = "2026-03-02T10:15:30Z".parse().unwrap();
        assert_eq!(
            sent_line(&Out::plain(), at, "Deploy", "evt-1", "a:1", "deploy"),
            "10:15:30Z  Deploy                          evt-1  a:1  <- you, over the queue deploy"
        );
        assert_eq!(
            seen_line(&Out::plain(), at, "kill -9", "process 7", "gone", "the demo"),
            "10:15:30Z  kill -9                         process 7  gone  <- the demo"
        );
    }
}
