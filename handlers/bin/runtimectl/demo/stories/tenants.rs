//! A tenant is bound to an environment; the same again changes nothing, and a silo takes no second one.

use super::Story;
use crate::{
    demo::{
        checks::{holds, verify},
        orders::{self, TENANT},
        teller::Teller,
    },
    failure::Failure,
    output::text,
};

/// Who would like to be let in.
const OTHER: &str = "globex";

pub const STORY: Story = Story {
    name: "tenants",
    title: "BindTenant: a silo takes one tenant, with a quota, and no second one",
    needs: &["provisioning"],
    takes_down: false,
    tell: |teller| Box::pin(tell(teller)),
};

async fn tell(teller: &mut Teller) -> Result<(), Failure> {
    let payload = orders::bind_tenant(&teller.environment, TENANT);
    let mut first = teller.send("BindTenant", &format!("{TENANT}, silo"), &payload).await?;
    let moment = teller.follow(&mut first).await?;
    let bound = teller.outcome(&moment, "RuntimeTenantBound")?;
    verify("the change", text(&bound["payload"], "change"), "Created".to_owned())?;

    let other = orders::bind_tenant(&teller.environment, OTHER);
    let mut both = [
        teller.send("BindTenant", &format!("{TENANT} once more"), &payload).await?,
        teller.send("BindTenant", OTHER, &other).await?,
    ];
    let moments = teller.follow_all(&mut both).await?;
    let again = teller.outcome(&moments[0], "RuntimeCommandCompleted")?;
    verify("the outcome of the same again", text(&again["payload"], "outcome"), "NoChange".to_owned())?;
    let why = teller.refusal(&moments[1], "Rejected", "Conflict")?;
    holds(why.contains(TENANT), || format!("the refusal should name who is in there: {why}"))?;
    teller.narrator.verified(&format!(
        "{TENANT} is bound as {}; said again nothing changes; {OTHER} is refused: {why}",
        text(&bound["payload"], "tenantBindingId")
    ))
}
