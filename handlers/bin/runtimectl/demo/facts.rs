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
    /// A note of an operation: what was done, or seen.
    Note(Value),
    /// The envelope of an event.
    Event(Value),
}

/// Puts new notes and new events in order; `outcome` is the id of the event that ends the operation.
pub fn in_order(notes: Vec<Value>, events: Vec<Value>, outcome: Option<&str>) -> Vec<Fact> {
    let second = |value: &Value, member: &str| {
        text(value, member).parse::<Timestamp>().map_or(0, Timestamp::as_second)
    };
    let mut all = Vec::with_capacity(notes.len() + events.len());
    for event in events {
        let is_outcome = outcome.is_some() && event["eventId"].as_str() == outcome;
        let key = if is_outcome { (i64::MAX, 0) } else { (second(&event, "occurredAt"), 0) };
        all.push((key, Fact::Event(event)));
    }
    all.extend(notes.into_iter().map(|note| ((second(&note, "at"), 1), Fact::Note(note))));
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
    fn an_event_comes_before_the_notes_of_its_second_and_the_outcome_after_all() {
        let first = note("2026-03-02T10:15:30.1Z", "first");
        let second = note("2026-03-02T10:15:30.9Z", "second");
        let last = note("2026-03-02T10:15:33.2Z", "last");
        let requested = event("evt-1", "2026-03-02T10:15:30Z");
        // Its second is that of an earlier note: it was cut off.
        let completed = event("evt-2", "2026-03-02T10:15:32Z");
        assert_eq!(
            in_order(
                vec![first.clone(), second.clone(), last.clone()],
                vec![completed.clone(), requested.clone()],
                Some("evt-2"),
            ),
            [
                Fact::Event(requested),
                Fact::Note(first),
                Fact::Note(second),
                Fact::Note(last),
                Fact::Event(completed)
            ]
        );
    }

    #[test]
    fn without_an_outcome_time_alone_orders() {
        let early = note("2026-03-02T10:15:29Z", "early");
        let late = note("2026-03-02T10:15:31Z", "late");
        let between = event("evt-1", "2026-03-02T10:15:30Z");
        assert_eq!(
            in_order(vec![early.clone(), late.clone()], vec![between.clone()], None),
            [Fact::Note(early), Fact::Event(between), Fact::Note(late)]
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
