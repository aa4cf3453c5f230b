//! Under a load the target scales by itself within seconds, and the sweep tells of it, and why.

use super::Story;
use crate::{
    demo::{
        checks::{holds, verify},
        orders::{REPLICAS_MAX, REQUESTS_AT_A_TIME, Service},
        teller::Teller,
        traffic::Load,
    },
    failure::Failure,
    output::text,
};

/// Who ask at a time: what keeps the most replicas busy, and no more.
const ASKING: u32 = REPLICAS_MAX * REQUESTS_AT_A_TIME;

pub const STORY: Story = Story {
    name: "scaling",
    title: "Under load the replicas become more within seconds; ScalingPolicyApplied tells how many, and why",
    needs: &["policy"],
    takes_down: false,
    tell: |teller| Box::pin(tell(teller)),
};

async fn tell(teller: &mut Teller) -> Result<(), Failure> {
    let serving = teller.serving(Service::Billing).await?;
    let group = teller.group().await?;
    let service = teller.service_id(Service::Billing).await?;
    let replicas = teller.outside.replicas(&group, Service::Billing.name(), &serving.revision).await?;
    verify("the number of replicas before", replicas.len(), 1)?;
    let what = format!("{ASKING} clients at a time, at {}", serving.url);
    teller.saw("a load", "billing-api", &what, "this demo")?;
    let load = Load::start(&teller.http, &serving.url, ASKING);

    let most = usize::try_from(REPLICAS_MAX).unwrap_or(usize::MAX);
    teller
        .until("waiting for more replicas", async |teller: &Teller| {
            let group = group.as_str();
            let replicas = teller.outside.replicas(group, Service::Billing.name(), &serving.revision).await?;
            Ok((replicas.len() >= most).then_some(()))
        })
        .await?;
    let took = load.began.elapsed().as_secs_f64();
    teller.narrator.verified(&format!(
        "{REPLICAS_MAX} replicas after {took:.1} s, by the target's own rule of {REQUESTS_AT_A_TIME} requests at a time"
    ))?;
    let up = teller
        .swept("scaling", "ScalingPolicyApplied", "the load", |event| {
            text(&event["payload"], "serviceId") == service
                && text(&event["payload"], "direction") == "Up"
                && text(&event["payload"], "toReplicas") == REPLICAS_MAX.to_string()
        })
        .await?;
    let (asked, unwell) = load.ends().await;
    verify("the number of requests of the load that were not answered well", unwell, 0)?;
    let why = text(&up["payload"], "reason");
    holds(why.contains(&REQUESTS_AT_A_TIME.to_string()), || {
        format!("the event should tell the threshold, and tells: {why}")
    })?;
    teller
        .narrator
        .verified(&format!("{asked} requests were answered, all with 200; the event says why: {why}"))
}
