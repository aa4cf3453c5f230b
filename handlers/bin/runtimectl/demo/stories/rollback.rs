//! A bad release is taken back by its gate and kept out; a good one is taken back by hand.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::Story;
use crate::{
    demo::{
        checks::{holds, verify},
        orders::{self, Service},
        teller::Teller,
    },
    failure::Failure,
    output::{scalar, text},
};

/// How long the ingress is watched after a rollback.
const WATCH: Duration = Duration::from_millis(700);

pub const STORY: Story = Story {
    name: "rollback",
    title: "A bad release is taken back by its gate and kept out; RollbackDeployment takes back a good one",
    needs: &["release"],
    takes_down: false,
    tell: |teller| Box::pin(tell(teller)),
};

async fn tell(teller: &mut Teller) -> Result<(), Failure> {
    takes_back_a_bad_one(teller).await?;
    keeps_it_out(teller).await?;
    goes_back_by_hand(teller).await
}

async fn takes_back_a_bad_one(teller: &mut Teller) -> Result<(), Failure> {
    let serving = teller.serving(Service::Reservations).await?;
    let before = teller.tally(Service::Reservations).await?;
    let mut sent = teller.deploys(Service::Reservations, "1.5.0").await?;
    let moment = teller.follow(&mut sent).await?;
    let came = teller.tally(Service::Reservations).await?.since(&before);
    let outcome = teller.outcome(&moment, "RuntimeDeploymentRolledBack")?;
    verify("the reason", text(&outcome["payload"], "reason"), "GateFailed".to_owned())?;
    verify("the restored image", text(&outcome["payload"], "restoredImage"), serving.image.clone())?;
    teller.number_of(&sent, "RuntimeDeploymentCompleted", 0).await?;

    let deployment = teller.deployment(&text(&outcome["payload"], "deploymentId")).await?;
    verify("the gate's verdict", text(&deployment["gate"], "verdict"), "Failed".to_owned())?;
    let failed = failed_samples(&deployment);
    holds(!failed.is_empty(), || {
        "the gate should keep the samples that failed it, and keeps none".to_owned()
    })?;
    let why = text(&deployment["gate"], "reason");
    teller
        .narrator
        .verified(&format!("the gate failed: {why}; the samples that failed it: {}", failed.join(", ")))?;
    if !came.all_to(&serving.revision) || came.not_well() > 0 {
        let counts = teller.counts(&came).await?;
        return Err(Failure::failed(format!(
            "all traffic should have stayed where it was and been answered 200; the ingress counted {counts}"
        )));
    }
    teller.counted("traffic never went there", &came).await?;
    teller.narrator.verified("RuntimeDeploymentRolledBack was published, and no RuntimeDeploymentCompleted")
}

async fn keeps_it_out(teller: &mut Teller) -> Result<(), Failure> {
    let mut again = teller.deploys(Service::Reservations, "1.5.0").await?;
    let moment = teller.follow(&mut again).await?;
    let outcome = teller.outcome(&moment, "RuntimeCommandFailed")?;
    verify("the reason", text(&outcome["payload"], "reasonCode"), "Quarantined".to_owned())?;
    let query = [("environmentId", teller.environment.as_str())];
    let kept_out = teller.client.list("quarantine", &query, 10).await?.items;
    verify("the number of entries in quarantine", kept_out.len(), 1)?;
    let why = text(&outcome["payload"], "detail");
    teller.narrator.verified(&format!("the same release again is refused: {why}"))
}

async fn goes_back_by_hand(teller: &mut Teller) -> Result<(), Failure> {
    let bad = teller.serving(Service::Reservations).await?;
    let before = teller.tally(Service::Reservations).await?;
    let payload = orders::rollback(&teller.environment, &bad.deployment_id);
    let mut sent = teller.send("RollbackDeployment", &bad.deployment_id, &payload).await?;
    let moment = teller.follow(&mut sent).await?;
    let took = sent.began.elapsed();
    let outcome = teller.outcome(&moment, "RuntimeDeploymentRolledBack")?;
    verify("the reason", text(&outcome["payload"], "reason"), "Operator".to_owned())?;
    let restored = text(&outcome["payload"], "restoredImage");
    verify("the restored image", restored, Service::Reservations.image("1.4.1"))?;
    let restored = teller.deployment(&text(&outcome["payload"], "restoredDeploymentId")).await?;
    let revision = text(&restored, "revision");
    let after = teller.tally(Service::Reservations).await?;
    sleep(WATCH).await;
    let now = teller.tally(Service::Reservations).await?.since(&after);
    if !now.all_to(&revision) || now.not_well() > 0 {
        let counts = teller.counts(&now).await?;
        return Err(Failure::failed(format!(
            "all traffic should be back at 1.4.1 and answered 200; the ingress counted {counts}"
        )));
    }
    teller.narrator.verified(&format!(
        "1.4.2 is taken back after {:.1} s: the revision {revision} of 1.4.1 serves again, without a rebuild",
        took.as_secs_f64(),
    ))?;
    let came = teller.tally(Service::Reservations).await?.since(&before);
    teller.counted("during the rollback", &came).await?;
    teller.nobody_noticed("through all this")
}

/// The samples of a gate that were no 200, in words.
fn failed_samples(deployment: &Value) -> Vec<String> {
    let samples = deployment["gate"]["samples"].as_array().map(Vec::as_slice).unwrap_or_default();
    samples
        .iter()
        .enumerate()
        .filter(|(_, sample)| sample["answer"].get("status").is_none_or(|status| *status != json!(200)))
        .map(|(at, sample)| match &sample["answer"]["status"] {
            Value::Null => format!("sample {} got no answer", at + 1),
            status => format!("sample {} got {}", at + 1, scalar(status)),
        })
        .collect()
}
