//! Two workloads come up, and the next version of one takes over in steps.

use serde_json::Value;

use super::Story;
use crate::{
    demo::{
        checks::{holds, verify},
        orders::{self, Service},
        sample,
        teller::{Moment, Teller},
        traffic::Trickle,
    },
    failure::Failure,
    output::{scalar, text},
};

pub const STORY: Story = Story {
    name: "release",
    title: "Deploy: two workloads come up behind health gates; the next version takes over in steps",
    needs: &["provisioning"],
    takes_down: false,
    tell: |teller| Box::pin(tell(teller)),
};

async fn tell(teller: &mut Teller) -> Result<(), Failure> {
    let (one, other) = (Service::Reservations.image("1.4.1"), Service::Billing.image("2.0"));
    let mut both = [
        teller.deploys(Service::Reservations, "1.4.1").await?,
        teller.deploys(Service::Billing, "2.0").await?,
    ];
    let moments = teller.follow_all(&mut both).await?;
    for (sent, (moment, image)) in both.iter().zip(moments.iter().zip([&one, &other])) {
        let outcome = teller.completed(sent, moment, image).await?;
        let previous = scalar(&outcome["payload"]["previousImage"]);
        verify("`previousImage` of a first deployment", previous, String::new())?;
    }
    let answer = teller.asks(Service::Reservations).await?;
    verify("the image that answers", text(&answer, "status"), "ok".to_owned())?;
    let url = teller.serving(Service::Reservations).await?.url;
    teller.trickle = Some(Trickle::start(teller.http.clone(), url.clone()));
    teller
        .narrator
        .verified(&format!("{url} answers 200; from here on about 20 requests a second go there"))?;

    let before = teller.tally(Service::Reservations).await?;
    let next = Service::Reservations.image("1.4.2");
    let mut sent = teller.deploys(Service::Reservations, "1.4.2").await?;
    let moment = teller.follow(&mut sent).await?;
    let outcome = teller.completed(&sent, &moment, &next).await?;
    verify("`previousImage`", text(&outcome["payload"], "previousImage"), one)?;
    let shifts = shifts(&moment);
    holds(shifts >= 2, || format!("traffic should shift in steps, and shifted {shifts} times"))?;
    let problems = sample::problems(&outcome);
    holds(problems.is_empty(), || format!("the envelope differs from the sample: {}", problems.join("; ")))?;
    teller.narrator.line("The envelope of RuntimeDeploymentCompleted, as it was published:")?;
    teller.narrator.json(&outcome)?;
    teller.narrator.verified("it has the ten fields of the events page, in that order and those formats")?;
    let came = teller.tally(Service::Reservations).await?.since(&before);
    let revision = teller.serving(Service::Reservations).await?.revision;
    holds(came.reaches(&revision), || {
        "requests should have reached 1.4.2 while traffic shifted, and none did".to_owned()
    })?;
    teller.counted("while traffic shifted", &came).await?;
    teller.nobody_noticed("during the release")
}

/// How many times a rollout changed weights.
fn shifts(moment: &Moment) -> usize {
    let notes = moment.operation["notes"].as_array().map(Vec::as_slice).unwrap_or_default();
    notes.iter().filter(|note: &&Value| text(note, "text").starts_with("traffic: ")).count()
}

impl Teller {
    /// Sends the Deploy of a version.
    pub async fn deploys(
        &mut self,
        service: Service,
        version: &str,
    ) -> Result<crate::demo::teller::Sent, Failure> {
        let payload = orders::deploy(&self.environment, service, version);
        self.send("Deploy", &service.image(version), &payload).await
    }
}
