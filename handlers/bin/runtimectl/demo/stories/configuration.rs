//! The first version of a configuration, before anything runs; and what no configuration may hold.

use serde_json::json;

use super::Story;
use crate::{
    demo::{
        checks::{holds, verify},
        orders,
        teller::Teller,
    },
    failure::Failure,
    output::text,
};

/// What somebody puts where it does not belong.
const CARELESS: &str = "hunter2-hunter2";

pub const STORY: Story = Story {
    name: "configuration",
    title: "PublishConfiguration: version 1 waits for what will run; a password among the settings is refused",
    needs: &["provisioning"],
    takes_down: false,
    tell: |teller| Box::pin(tell(teller)),
};

async fn tell(teller: &mut Teller) -> Result<(), Failure> {
    let careless = json!({ "GREETING": "hello", "SMTP_PASSWORD": CARELESS });
    let careless = orders::publish(&teller.environment, 0, &careless);
    let settings = orders::publish(&teller.environment, 0, &orders::settings("1"));
    let mut refused = teller.send("PublishConfiguration", "with a password in it", &careless).await?;
    let moment = teller.follow(&mut refused).await?;
    let why = teller.refusal(&moment, "Rejected", "InvalidPayload")?;
    holds(why.contains("SMTP_PASSWORD"), || format!("the refusal should name the setting: {why}"))?;
    holds(!why.contains(CARELESS), || "the refusal repeats the password".to_owned())?;

    let mut sent = teller.send("PublishConfiguration", "version 1", &settings).await?;
    let moment = teller.follow(&mut sent).await?;
    let published = teller.outcome(&moment, "ConfigurationPublished")?;
    verify("the version", text(&published["payload"], "version"), "1".to_owned())?;
    teller
        .narrator
        .verified(&format!("version 1 is what new workloads start with; the password was refused: {why}"))
}
