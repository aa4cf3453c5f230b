//! A new version of the configuration reaches what runs: one workload first, then the rest.

use super::Story;
use crate::{
    demo::{
        checks::{holds, verify},
        orders::{self, Service},
        teller::Teller,
    },
    failure::Failure,
    output::text,
};

/// The setting that the workloads tell.
const TOLD: &str = "RELEASE_NOTES_VERSION";

pub const STORY: Story = Story {
    name: "sync",
    title: "ConfigurationSynced -> Deploy: version 2 reaches one workload, and once that has passed the rest",
    needs: &["configuration", "release"],
    takes_down: false,
    tell: |teller| Box::pin(tell(teller)),
};

async fn tell(teller: &mut Teller) -> Result<(), Failure> {
    for service in [Service::Reservations, Service::Billing] {
        verify("the version that runs before", teller.runs_with(service, TOLD).await?, "1".to_owned())?;
    }
    let payload = orders::publish(&teller.environment, 1, &orders::settings("2"));
    let mut sent = teller.send("PublishConfiguration", "version 2", &payload).await?;
    let moment = teller.follow(&mut sent).await?;
    let published = teller.outcome(&moment, "ConfigurationPublished")?;
    let id = text(&published["payload"], "configurationId");
    let synced: Vec<_> = teller
        .events
        .iter()
        .filter(|event| text(event, "eventType") == "ConfigurationSynced")
        .filter(|event| text(&event["payload"], "configurationId") == id)
        .filter(|event| text(&event["payload"], "version") == "2")
        .cloned()
        .collect();
    verify("the number of workloads that version 2 came to", synced.len(), 2)?;
    let first = teller.carried_out(&synced[0]).await?;
    teller.carried_out(&synced[1]).await?;
    let place = |event: &serde_json::Value| {
        teller.events.iter().position(|known| text(known, "eventId") == text(event, "eventId"))
    };
    holds(place(&first) < place(&synced[1]), || {
        "the second workload should get version 2 after the first has passed with it".to_owned()
    })?;
    for service in [Service::Reservations, Service::Billing] {
        verify("the version that runs now", teller.runs_with(service, TOLD).await?, "2".to_owned())?;
    }
    teller.narrator.verified(&format!(
        "{} passed its gate with version 2 before the other workload got it; both say by themselves that they run with it",
        text(&first, "moduleId")
    ))?;
    teller.nobody_noticed("meanwhile")
}
