//! A secret is rotated, and the workloads that read it are refreshed one after the other.

use super::Story;
use crate::{
    demo::{
        checks::{holds, verify},
        orders::{self, SECRET, Service},
        teller::Teller,
    },
    failure::Failure,
    output::text,
};

/// The variable in which a workload gets the secret.
const VARIABLE: &str = "DB_PASSWORD";

pub const STORY: Story = Story {
    name: "rotation",
    title: "RotateSecret, SecretRotated -> Deploy: a new version is made, and one workload after the other runs with it",
    needs: &["secrets", "release"],
    takes_down: false,
    tell: |teller| Box::pin(tell(teller)),
};

async fn tell(teller: &mut Teller) -> Result<(), Failure> {
    let binding = teller.binding(Service::Reservations).await?;
    let old = text(&binding, "version");
    for service in [Service::Reservations, Service::Billing] {
        verify("the version that runs before", teller.runs_with(service, VARIABLE).await?, old.clone())?;
    }
    let before = teller.events.len();
    let payload = orders::rotate(&teller.environment, &text(&binding, "secretBindingId"));
    let mut sent = teller.send("RotateSecret", &format!("{SECRET}, by hand"), &payload).await?;
    let moment = teller.follow(&mut sent).await?;
    let rotated = teller.outcome(&moment, "SecretRotated")?;
    let new = text(&rotated["payload"], "newVersion");
    verify("the version before", text(&rotated["payload"], "previousVersion"), old.clone())?;
    holds(new != old, || format!("a rotation should come to another version than {old}"))?;
    let moves: Vec<_> = teller.events[before..]
        .iter()
        .filter(|event| text(event, "eventType") == "SecretRotated")
        .cloned()
        .collect();
    verify("the number of bindings that moved", moves.len(), 2)?;
    for moved in &moves {
        teller.carried_out(moved).await?;
    }
    for service in [Service::Reservations, Service::Billing] {
        verify("the version that runs now", teller.runs_with(service, VARIABLE).await?, new.clone())?;
        let binding = teller.binding(service).await?;
        verify("the version that the binding names", text(&binding, "version"), new.clone())?;
    }
    teller.narrator.verified(&format!(
        "both programs say by themselves that they run with version {new}; {old} stays good for the overlap"
    ))?;
    teller.nobody_noticed("meanwhile")
}
