//! Every workload is asked how it is, at its own host.

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

pub const STORY: Story = Story {
    name: "health",
    title: "HealthCheckCompleted: the sweep asks every workload how it is; the inventory knows",
    needs: &["release"],
    takes_down: false,
    tell: |teller| Box::pin(tell(teller)),
};

async fn tell(teller: &mut Teller) -> Result<(), Failure> {
    teller.sweeps("health").await?;
    for service in [Service::Reservations, Service::Billing] {
        let module = service.module();
        let checked = teller
            .happens("HealthCheckCompleted", service.name(), |event| text(event, "moduleId") == module)
            .await?;
        verify("the health", text(&checked["payload"], "status"), "Healthy".to_owned())?;
        let cause = teller.cause(&checked).unwrap_or_default().to_owned();
        verify("what led to it", cause, "RuntimeDeploymentCompleted".to_owned())?;
    }
    let query = [("environmentId", teller.environment.clone())];
    let query = query.each_ref().map(|(name, value)| (*name, value.as_str()));
    let services = teller.client.list("services", &query, 10).await?.items;
    verify("the number of services in the inventory", services.len(), 2)?;
    for service in &services {
        verify("the inventory's status", text(service, "status"), "Running".to_owned())?;
    }
    let images: Vec<_> = services.iter().map(|service| text(service, "image")).collect();
    let short = |image: &String| image.rsplit('/').next().unwrap_or_default().to_owned();
    let images: Vec<_> = images.iter().map(short).collect();
    holds(images.iter().any(|image| image.starts_with("billing-api:")), || {
        format!("the inventory should know both images, and knows {}", images.join(", "))
    })?;
    teller.narrator.verified(&format!("both are Healthy, and the inventory has them: {}", images.join(", ")))
}
