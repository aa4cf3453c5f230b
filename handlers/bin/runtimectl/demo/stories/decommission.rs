//! An environment is taken down, with what runs in it.

use serde_json::json;

use super::Story;
use crate::{
    client::{ReadError, segment},
    demo::{
        checks::{holds, verify},
        teller::Teller,
    },
    failure::Failure,
    output::text,
};

/// Why, for whoever reads it later.
const REASON: &str = "the demo is over";

pub const STORY: Story = Story {
    name: "decommission",
    title: "The environment is taken down: not while something runs, unless that is meant",
    needs: &["release"],
    takes_down: true,
    tell: |teller| Box::pin(tell(teller)),
};

async fn tell(teller: &mut Teller) -> Result<(), Failure> {
    let group = teller.group().await?;
    let path = format!("environments/{}/decommission", segment(&teller.environment));
    let environment = teller.environment.clone();
    let order = teller.client.post(&path, &json!({ "reason": REASON }), "demo-decommission").await;
    let Err(ReadError::Refused { message, .. }) = order else {
        return Err(Failure::failed("an environment in which something runs should not be taken down"));
    };
    teller.saw("decommission", &environment, &format!("refused: {message}"), "you, over HTTP")?;
    teller.trickle = None;
    let body = json!({ "reason": REASON, "force": true });
    let order = teller.client.post(&path, &body, "demo-decommission-by-force").await?;
    teller.saw("decommission", &environment, "by force: what runs goes too", "you, over HTTP")?;
    let operation = teller.follow_operation("decommission", &text(&order, "operationId")).await?;
    verify("the end of taking it down", text(&operation, "status"), "Succeeded".to_owned())?;
    teller
        .happens("RuntimeEnvironmentDecommissioned", &environment, |event| {
            text(&event["payload"], "environmentId") == environment
        })
        .await?;
    let left = teller.outside.resources(&group).await?;
    holds(left.is_empty(), || format!("nothing should be left of it, and there is {}", left.join(", ")))?;
    teller.narrator.verified(&format!("{environment} is gone, and Azure has nothing left of it"))
}

impl Teller {
    /// The id of the environment's resource group.
    pub async fn group(&self) -> Result<String, Failure> {
        let changes = self.planned().await?;
        let id = changes.iter().map(|change| text(change, "id")).find(|id| {
            let parts: Vec<_> = id.split('/').collect();
            parts.len() == 5 && parts[3].eq_ignore_ascii_case("resourceGroups")
        });
        id.ok_or_else(|| Failure::failed("the plan should have made a resource group, and names none"))
    }
}
