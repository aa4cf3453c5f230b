//! The handler is killed in the middle of a deployment, and nobody can tell afterwards.

use rustix::process::{Pid, Signal, kill_process};

use super::Story;
use crate::{
    demo::{
        orders::Service,
        teller::{Moment, Teller},
    },
    failure::Failure,
    output::text,
};

/// The version that is deployed meanwhile.
const VERSION: &str = "1.4.3";

pub const STORY: Story = Story {
    name: "crash",
    title: "kill -9 of the handler in the middle of a Deploy, which ends as if nothing had happened",
    needs: &["release"],
    takes_down: false,
    tell: |teller| Box::pin(tell(teller)),
};

async fn tell(teller: &mut Teller) -> Result<(), Failure> {
    let mut sent = teller.deploys(Service::Reservations, VERSION).await?;
    let in_the_middle = |moment: &Moment| {
        matches!(text(&moment.operation, "step").as_str(), "HealthGating" | "Promoting") || moment.ended()
    };
    let moment = teller.follow_until(&mut sent, in_the_middle).await?;
    if moment.ended() {
        return Err(Failure::failed("the deployment ended before the handler could be killed"));
    }
    let old = *teller.handler.borrow_and_update();
    let old = old.ok_or_else(|| Failure::failed("no handler is running that could be killed"))?;
    kill(old)?;
    let process = |pid: u32| format!("process {pid}");
    teller.saw("kill -9", &process(old), "the handler, in the middle of the deployment", "this demo")?;
    let gone = || Failure::failed("the platform's host ended");
    let other = |pid: &Option<u32>| pid.is_some_and(|pid| pid != old);
    let new = *teller.handler.wait_for(other).await.map_err(|_| gone())?;
    let new = new.ok_or_else(gone)?;
    let because = format!("the end of {}", process(old));
    teller.saw("restart", &process(new), "the handler again, started by the host", &because)?;

    let moment = teller.follow(&mut sent).await?;
    teller.completed(&sent, &moment, &Service::Reservations.image(VERSION)).await?;
    let events = teller.events_of(&sent).await?;
    teller.narrator.verified(&format!(
        "the deployment ended as if nothing had happened: {} events in its workflow, one of them its RuntimeDeploymentCompleted",
        events.len()
    ))?;
    teller.nobody_noticed("meanwhile")
}

fn kill(pid: u32) -> Result<(), Failure> {
    let no = || Failure::failed(format!("process {pid} cannot be killed"));
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(no)?;
    kill_process(raw, Signal::KILL).map_err(|error| no().because(&error))
}
