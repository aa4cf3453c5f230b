//! Step 6: the handler is killed in the middle of a deployment, and nobody can tell afterwards.

use std::time::Duration;

use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use super::{
    during, facts,
    orders::{self, image},
    teller::{Moment, Sent, Teller},
};
use crate::{failure::Failure, output::text, up::World};

/// The pause between two looks whether the handler is there again.
const PAUSE: Duration = Duration::from_millis(100);
/// The version that is deployed meanwhile.
const VERSION: &str = "1.4.3";

/// Kills the handler while a deployment is at its gate or shifts traffic.
pub async fn in_the_middle(world: &mut World, teller: &mut Teller) -> Result<(), Failure> {
    let mut sent = during(world, deploys_up_to_the_gate(teller)).await?;
    let old =
        world.handler_pid().ok_or_else(|| Failure::failed("no handler is running that could be killed"))?;
    kill(old)?;
    seen(teller, "kill -9", old, "the handler, in the middle of the deployment", "this demo")?;
    let new = loop {
        match world.handler_pid() {
            Some(new) if new != old => break new,
            Some(_) | None => {}
        }
        teller.narrator.doing("the host starts the handler again");
        during(world, async {
            sleep(PAUSE).await;
            Ok(())
        })
        .await?;
    };
    seen(
        teller,
        "restart",
        new,
        "the handler again, started by the host",
        &format!("the end of process {old}"),
    )?;
    during(world, sees_it_through(teller, &mut sent)).await
}

async fn deploys_up_to_the_gate(teller: &mut Teller) -> Result<Sent, Failure> {
    teller
        .narrator
        .heading(6, "kill -9 of the handler in the middle of a Deploy of reservations-api:1.4.3")?;
    let payload = orders::deploy(&teller.environment, VERSION);
    let mut sent = teller.send(6, "Deploy", &image(VERSION), &payload).await?;
    let in_the_middle = |moment: &Moment| {
        matches!(text(&moment.operation, "step").as_str(), "HealthGating" | "Promoting") || moment.ended()
    };
    let moment = teller.follow_until(&mut sent, in_the_middle).await?;
    if moment.ended() {
        return Err(Failure::failed("the deployment ended before the handler could be killed"));
    }
    Ok(sent)
}

async fn sees_it_through(teller: &mut Teller, sent: &mut Sent) -> Result<(), Failure> {
    let moment = teller.follow(sent).await?;
    teller.completed(sent, &moment, VERSION).await?;
    let events = teller.events_of(sent).await?;
    teller.narrator.verified(&format!(
        "the deployment ended as if nothing had happened: {} events in its workflow, one of them its RuntimeDeploymentCompleted",
        events.len()
    ))
}

fn kill(pid: u32) -> Result<(), Failure> {
    let no = || Failure::failed(format!("process {pid} cannot be killed"));
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(no)?;
    kill_process(raw, Signal::KILL).map_err(|error| no().because(&error))
}

fn seen(teller: &mut Teller, kind: &str, pid: u32, what: &str, cause: &str) -> Result<(), Failure> {
    let out = teller.narrator.out;
    let line = facts::seen_line(&out, Timestamp::now(), kind, &format!("process {pid}"), what, cause);
    teller.narrator.line(&line)
}
