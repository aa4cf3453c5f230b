//! What was changed behind the platform's back is found, told, and put right.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::Story;
use crate::{
    demo::{
        checks::{holds, verify},
        orders::Service,
        teller::Teller,
    },
    failure::Failure,
    output::text,
};

/// What somebody puts in the place of what was deployed.
const FOREIGN_IMAGE: &str = "docker.io/somebody/else:latest";
/// The version of the API of diagnostic settings.
const DIAGNOSTICS: &str = "2021-05-01-preview";
/// What the kinds of drift are that this story makes.
const KINDS: [&str; 3] = ["ImageMismatch", "ConfigurationMismatch", "ResourceMissing"];
/// The pause between two looks: the same second counts as one.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1100);
/// Findings that are looked through.
const FINDINGS_MAX: usize = 50;

pub const STORY: Story = Story {
    name: "drift",
    title: "RuntimeDriftDetected -> RemediateDrift -> Deploy: what was changed behind its back is put right",
    needs: &["release"],
    takes_down: false,
    tell: |teller| Box::pin(tell(teller)),
};

async fn tell(teller: &mut Teller) -> Result<(), Failure> {
    let group = teller.group().await?;
    let (reservations, billing) =
        (teller.serving(Service::Reservations).await?, teller.serving(Service::Billing).await?);
    let gone = meddles(teller, &group, &billing.revision).await?;
    let found = teller.is_found().await?;
    for finding in &found {
        let id = text(finding, "findingId");
        let detected = teller
            .happens("RuntimeDriftDetected", &id, |event| text(&event["payload"], "findingId") == id)
            .await?;
        verify(
            "what may be put right by itself",
            text(&detected["payload"], "autoRemediable"),
            "true".to_owned(),
        )?;
    }
    let answer = teller.asks(Service::Billing).await?;
    verify("the answer after a replica was killed", text(&answer, "status"), "ok".to_owned())?;
    teller
        .narrator
        .verified("what somebody meant is found, each once; the killed replica is back, which is no drift")?;
    for finding in &found {
        let id = text(finding, "findingId");
        let is_it = |event: &Value| text(&event["payload"], "findingId") == id;
        let resolved = teller.happens("RuntimeDriftResolved", &id, is_it).await?;
        verify("how it was resolved", text(&resolved["payload"], "resolution"), "Remediated".to_owned())?;
    }
    let now = teller.serving(Service::Reservations).await?;
    verify("the image that serves", now.image, reservations.image)?;
    let app = teller.outside.app(&group, Service::Billing.name()).await?;
    let edited = variables(&app).iter().any(|variable| text(variable, "value") == "edited by hand");
    holds(!edited, || "the edited variable should be gone, and is still there".to_owned())?;
    teller.outside.manager(Method::GET, &format!("{gone}?api-version={DIAGNOSTICS}"), None).await?;
    teller.narrator.verified(
        "three corrections, without a person: the image, the variable and the resource are as they were",
    )?;
    let health = teller.asks(Service::Reservations).await?;
    verify("the answer", text(&health, "status"), "ok".to_owned())?;
    teller.forgets_the_trickle();
    Ok(())
}

/// Changes an image and a variable, deletes a resource and kills a replica; the resource's id.
async fn meddles(teller: &mut Teller, group: &str, billing: &str) -> Result<String, Failure> {
    let name = Service::Reservations.name();
    let mut containers = containers(&teller.outside.app(group, name).await?);
    containers[0]["image"] = json!(FOREIGN_IMAGE);
    let body = json!({ "properties": { "template": { "containers": containers } } });
    teller.outside.patch_app(group, name, &body).await?;
    teller.saw("the image changed", name, &format!("to {FOREIGN_IMAGE}"), "somebody, at Azure")?;

    let name = Service::Billing.name();
    let replicas = teller.outside.replicas(group, name, billing).await?;
    let victim = replicas.first().cloned().unwrap_or_default();
    teller.outside.kill_replica(&victim).await?;
    let short = victim.rsplit('/').next().unwrap_or_default().to_owned();
    teller.saw("a replica killed", name, &short, "somebody, at Azure")?;

    let mut containers = self::containers(&teller.outside.app(group, name).await?);
    let mut variables = containers[0]["env"].as_array().cloned().unwrap_or_default();
    variables.push(json!({ "name": "LOG_EVERYTHING", "value": "edited by hand" }));
    containers[0]["env"] = json!(variables);
    let body = json!({ "properties": { "template": { "containers": containers } } });
    teller.outside.patch_app(group, name, &body).await?;
    teller.saw("the settings edited", name, "a variable LOG_EVERYTHING", "somebody, at Azure")?;

    let planned = teller.planned().await?;
    let gone = planned
        .iter()
        .map(|change| text(change, "id"))
        .find(|id| id.to_ascii_lowercase().contains("/providers/microsoft.insights/diagnosticsettings/"));
    let gone = gone.ok_or_else(|| Failure::failed("the environment should have diagnostic settings"))?;
    teller.outside.delete(&gone, DIAGNOSTICS).await?;
    let short = gone.rsplit('/').next().unwrap_or_default().to_owned();
    teller.saw("a resource deleted", &short, "the diagnostic settings of the apps", "somebody, at Azure")?;
    Ok(gone)
}

fn containers(app: &Value) -> Value {
    app["properties"]["template"]["containers"].clone()
}

fn variables(app: &Value) -> Vec<Value> {
    app["properties"]["template"]["containers"][0]["env"].as_array().cloned().unwrap_or_default()
}

impl Teller {
    /// Has the environment looked at until everything that was changed is certain; the findings.
    async fn is_found(&mut self) -> Result<Vec<Value>, Failure> {
        self.sweeps("drift").await?;
        loop {
            sleep(BETWEEN_LOOKS).await;
            self.until("waiting for the sweep", async |_: &Self| Ok(Some(()))).await?;
            let query = [("environmentId", self.environment.as_str())];
            let findings = self.client.list("drift", &query, FINDINGS_MAX).await?.items;
            let certain: Vec<_> =
                findings.into_iter().filter(|finding| text(finding, "status") != "Suspected").collect();
            if KINDS.iter().all(|kind| certain.iter().any(|finding| text(finding, "kind") == *kind)) {
                verify("the number of findings", certain.len(), KINDS.len())?;
                return Ok(certain);
            }
            self.sweeps_again("drift").await?;
        }
    }
}
