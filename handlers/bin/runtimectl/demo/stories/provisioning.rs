//! An environment, by a plan that is told before it is applied.

use super::Story;
use crate::{
    client::segment,
    demo::{
        checks::{holds, verify},
        orders,
        teller::Teller,
    },
    failure::Failure,
    output::text,
};

pub const STORY: Story = Story {
    name: "provisioning",
    title: "ProvisionEnvironment: an empty cloud gets an environment, resource by resource",
    needs: &[],
    takes_down: false,
    tell: |teller| Box::pin(tell(teller)),
};

async fn tell(teller: &mut Teller) -> Result<(), Failure> {
    let payload = orders::provision();
    let what = format!("environment {} in {}", text(&payload, "name"), text(&payload, "region"));
    let mut sent = teller.send("ProvisionEnvironment", &what, &payload).await?;
    let moment = teller.follow(&mut sent).await?;
    let outcome = teller.outcome(&moment, "RuntimeEnvironmentProvisioned")?;
    teller.environment = text(&outcome["payload"], "environmentId");

    let path = format!("environments/{}", segment(&teller.environment));
    let environment = teller.client.get(&path, &[]).await?;
    verify("the environment's status", text(&environment, "status"), "Provisioned".to_owned())?;
    let plan = teller.client.get(&format!("plans/{}", segment(&text(&environment, "planId"))), &[]).await?;
    let planned = plan["changes"].as_array().map_or(0, Vec::len);
    let in_place = plan["inPlace"].as_array().map_or(0, Vec::len);
    verify("the number of planned resources in place", in_place, planned)?;
    holds(planned > 0, || "the plan should name what is created, and names nothing".to_owned())?;
    let environment = teller.environment.clone();
    teller.narrator.verified(&format!("{environment} stands: all {planned} planned resources are in place"))
}
