//! A scaling policy becomes the target's own rules.

use serde_json::{Value, json};

use super::Story;
use crate::{
    demo::{
        checks::{holds, verify},
        orders::{self, REPLICAS_MAX, Service},
        teller::Teller,
    },
    failure::Failure,
    output::text,
};

pub const STORY: Story = Story {
    name: "policy",
    title: "ApplyScalingPolicy: a policy becomes rules of the target's own; the same again changes nothing",
    needs: &["release"],
    takes_down: false,
    tell: |teller| Box::pin(tell(teller)),
};

async fn tell(teller: &mut Teller) -> Result<(), Failure> {
    let service = teller.service_id(Service::Billing).await?;
    let payload = orders::scale(&teller.environment, &service);
    let what = format!("billing-api, 1 to {REPLICAS_MAX} replicas by requests at a time");
    let mut sent = teller.send("ApplyScalingPolicy", &what, &payload).await?;
    let moment = teller.follow(&mut sent).await?;
    let applied = teller.outcome(&moment, "ScalingPolicyApplied")?;
    verify("the service", text(&applied["payload"], "serviceId"), service)?;

    let mut again = teller.send("ApplyScalingPolicy", "the same once more", &payload).await?;
    let moment = teller.follow(&mut again).await?;
    let nothing = teller.outcome(&moment, "RuntimeCommandCompleted")?;
    verify("the outcome of the same again", text(&nothing["payload"], "outcome"), "NoChange".to_owned())?;

    let group = teller.group().await?;
    let app = teller.outside.app(&group, Service::Billing.name()).await?;
    let scale = &app["properties"]["template"]["scale"];
    verify("the app's most replicas at Azure", scale["maxReplicas"].clone(), json!(REPLICAS_MAX))?;
    let rules = scale["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
    holds(rules.iter().any(|rule: &Value| rule["http"].is_object()), || {
        "the app should have a rule that goes by requests, and has none".to_owned()
    })?;
    teller.narrator.verified(&format!(
        "Azure has the bounds and the rule, so that its autoscaler acts by itself: {}",
        rules.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")
    ))
}

impl Teller {
    /// What the inventory calls a workload.
    pub async fn service_id(&mut self, service: Service) -> Result<String, Failure> {
        let module = service.module();
        self.until(&format!("waiting until {} is in the inventory", service.name()), async |teller: &Self| {
            let query = [("environmentId", teller.environment.as_str())];
            let services = teller.client.list("services", &query, 10).await?.items;
            let found = services.iter().find(|known| text(known, "moduleId") == module);
            Ok(found.map(|known| text(known, "serviceId")).filter(|id| !id.is_empty()))
        })
        .await
    }
}
