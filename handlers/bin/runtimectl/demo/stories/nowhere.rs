//! A Deploy to an environment that does not exist.

use super::Story;
use crate::{
    demo::{
        checks::holds,
        orders::{self, NO_ENVIRONMENT, Service},
        teller::Teller,
    },
    failure::Failure,
};

pub const STORY: Story = Story {
    name: "nowhere",
    title: "Deploy to an environment that does not exist: the sender is told what to do",
    needs: &[],
    takes_down: false,
    tell: |teller| Box::pin(tell(teller)),
};

async fn tell(teller: &mut Teller) -> Result<(), Failure> {
    let payload = orders::deploy(NO_ENVIRONMENT, Service::Reservations, "1.4.2");
    let what = format!("{} to {NO_ENVIRONMENT}", Service::Reservations.image("1.4.2"));
    let mut sent = teller.send("Deploy", &what, &payload).await?;
    let moment = teller.follow(&mut sent).await?;
    let detail = teller.refusal(&moment, "Rejected", "EnvironmentNotFound")?;
    holds(detail.contains(NO_ENVIRONMENT) && detail.contains("ProvisionEnvironment"), || {
        format!("the sentence should name {NO_ENVIRONMENT} and say what to do: {detail}")
    })?;
    teller.narrator.verified(&format!("the sender is told what to do: {detail}"))
}
