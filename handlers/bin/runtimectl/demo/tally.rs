//! What the whole came to: which commands were sent and how they ended, which events there were, and
//! which message led to which.

use std::{collections::BTreeMap, time::Duration};

use runtime_platform::events::{COMMANDS, EVENTS};
use serde_json::Value;

use crate::output::{Grid, text};

/// The arrows of the diagram that one message leaves on the next: what led to it, and what it is. Where a
/// worker looks first and tells of what it saw, the event names the deployment that it is about.
const ARROWS: [(&str, &str); 10] = [
    ("ProvisionEnvironment", "RuntimeEnvironmentProvisioned"),
    ("Deploy", "RuntimeDeploymentRequested"),
    ("ConfigurationSynced", "RuntimeDeploymentRequested"),
    ("SecretRotated", "RuntimeDeploymentRequested"),
    ("RuntimeDeploymentRequested", "RuntimeDeploymentCompleted"),
    ("RuntimeDeploymentCompleted", "RuntimeInventoryUpdated"),
    ("RuntimeDeploymentCompleted", "HealthCheckCompleted"),
    ("RuntimeDeploymentCompleted", "ScalingPolicyApplied"),
    ("RuntimeDeploymentCompleted", "RuntimeDriftDetected"),
    ("RemediateDrift", "RuntimeDeploymentRequested"),
];

/// How long each story took.
pub fn times(times: &[(&'static str, Duration)]) -> Grid {
    let row =
        |(story, took): &(&str, Duration)| vec![(*story).to_owned(), format!("{:.1} s", took.as_secs_f64())];
    Grid { header: vec!["STORY", "TOOK"], rows: times.iter().map(row).collect(), status: None }
}

/// Each of the nine commands: how many were sent, by whom, and how they ended.
pub fn commands(sent: &[&str], by_the_platform: &[&str], ends: &[(&str, String)]) -> Grid {
    let rows = COMMANDS.iter().map(|command| {
        let count = |all: &[&str]| all.iter().filter(|sent| sent == &command).count();
        let mut kinds = BTreeMap::new();
        for (_, end) in ends.iter().filter(|(of, _)| of == command) {
            *kinds.entry(end.as_str()).or_insert(0) += 1;
        }
        let ended = kinds.iter().map(|(kind, number)| format!("{number} {kind}")).collect::<Vec<_>>();
        vec![
            (*command).to_owned(),
            count(sent).to_string(),
            count(by_the_platform).to_string(),
            ended.join(", "),
        ]
    });
    Grid { header: vec!["COMMAND", "BY YOU", "BY IT", "ENDED IN"], rows: rows.collect(), status: None }
}

/// Each event: how often it was seen, and what led to it.
pub fn events(events: &[Value], cause: impl Fn(&Value) -> Option<String>) -> Grid {
    let rows = EVENTS.iter().map(|kind| {
        let mut causes = BTreeMap::new();
        let of_kind = events.iter().filter(|event| text(event, "eventType") == *kind);
        for event in of_kind.clone() {
            *causes.entry(cause(event).unwrap_or_default()).or_insert(0) += 1;
        }
        let arrows = causes.iter().map(|(cause, number)| format!("{number} <- {cause}")).collect::<Vec<_>>();
        vec![(*kind).to_owned(), of_kind.count().to_string(), arrows.join(", ")]
    });
    Grid { header: vec!["EVENT", "SEEN", "LED TO BY"], rows: rows.collect(), status: None }
}

/// The commands that were not sent, and the events that were not seen.
pub fn missing(sent: &[&str], events: &[Value]) -> Vec<String> {
    let unsent = COMMANDS.into_iter().filter(|command| !sent.contains(command));
    let unseen =
        EVENTS.iter().copied().filter(|kind| !events.iter().any(|event| text(event, "eventType") == *kind));
    unsent.chain(unseen).map(str::to_owned).collect()
}

/// The arrows of the diagram that no event came by.
pub fn missing_arrows(events: &[Value], cause: impl Fn(&Value) -> Option<String>) -> Vec<String> {
    let came = |(from, to): &(&str, &str)| {
        events
            .iter()
            .any(|event| text(event, "eventType") == *to && cause(event).is_some_and(|cause| cause == *from))
    };
    ARROWS.iter().filter(|arrow| !came(arrow)).map(|(from, to)| format!("{from} -> {to}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn commands_and_events_are_counted_and_what_is_missing_is_named() {
        let sent = ["Deploy", "Deploy", "BindTenant"];
        let ends = [
            ("Deploy", "RuntimeDeploymentCompleted".to_owned()),
            ("Deploy", "RuntimeCommandFailed".to_owned()),
        ];
        let grid = commands(&sent, &["RemediateDrift"], &ends);
        let row = |name: &str| grid.rows.iter().find(|row| row[0] == name).unwrap().clone();
        assert_eq!(grid.rows.len(), 9);
        assert_eq!(
            row("Deploy"),
            ["Deploy", "2", "0", "1 RuntimeCommandFailed, 1 RuntimeDeploymentCompleted"]
        );
        assert_eq!(row("RemediateDrift"), ["RemediateDrift", "0", "1", ""]);

        let seen = [
            json!({"eventType": "RuntimeDeploymentCompleted", "causationId": "a"}),
            json!({"eventType": "RuntimeDeploymentCompleted", "causationId": "b"}),
        ];
        let grid = super::events(&seen, |event| Some(text(event, "causationId")));
        let row = grid.rows.iter().find(|row| row[0] == "RuntimeDeploymentCompleted").unwrap();
        assert_eq!(row[1..], ["2", "1 <- a, 1 <- b"]);
        let missing = missing(&sent, &seen);
        let is_missing = |name: &str| missing.iter().any(|missing| missing == name);
        assert!(is_missing("RotateSecret") && is_missing("SecretRotated"), "{missing:?}");
        assert!(!is_missing("Deploy") && !is_missing("RuntimeDeploymentCompleted"), "{missing:?}");
        let missing = missing_arrows(&seen, |_| Some("RuntimeDeploymentRequested".to_owned()));
        assert_eq!(missing.len(), ARROWS.len() - 1);
        assert!(missing.contains(&"SecretRotated -> RuntimeDeploymentRequested".to_owned()), "{missing:?}");
    }
}
