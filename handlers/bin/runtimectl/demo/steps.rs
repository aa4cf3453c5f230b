//! The steps of the story, each with what it claims and how that is verified.

use std::{fmt::Display, time::Duration};

use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    orders::{self, NO_ENVIRONMENT, image},
    sample,
    teller::{Moment, Sent, Teller},
    traffic::{Tally, Trickle},
};
use crate::{
    client::segment,
    failure::Failure,
    output::{scalar, text},
    story,
};

/// How long the ingress is watched after a rollback.
const WATCH: Duration = Duration::from_millis(700);

/// A deployment that went through.
#[derive(Clone, Debug)]
pub struct Deployed {
    pub deployment_id: String,
    pub revision: String,
    pub url: String,
}

/// What was expected, and what came instead.
pub fn verify<T: PartialEq + Display>(what: &str, came: T, expected: T) -> Result<(), Failure> {
    if came == expected {
        return Ok(());
    }
    Err(Failure::failed(format!("{what} should be `{expected}` and is `{came}`")))
}

impl Teller {
    /// The story needs a platform on which nothing happened yet.
    pub async fn nothing_is_there(&mut self) -> Result<(), Failure> {
        let there = self.client.list("environments", &[], 1).await?;
        match there.items.first() {
            None => Ok(()),
            Some(environment) => Err(Failure::unusable(format!(
                "The data directory holds the environment {} already, and the story begins with none",
                text(environment, "environmentId")
            ))
            .advice("name another directory with --data, or none for a temporary one")),
        }
    }

    /// Step 1: an environment, by a plan that is told before it is applied.
    pub async fn provisions(&mut self) -> Result<(), Failure> {
        self.narrator.heading(1, "ProvisionEnvironment: tenant connectsoft, project proj-booking-saas")?;
        let payload = orders::provision();
        let what = format!("environment {} in {}", text(&payload, "name"), text(&payload, "region"));
        let mut sent = self.send(1, "ProvisionEnvironment", &what, &payload).await?;
        let moment = self.follow(&mut sent).await?;
        let outcome = self.outcome(&moment, "RuntimeEnvironmentProvisioned")?;
        self.environment = text(&outcome["payload"], "environmentId");

        let environment =
            self.client.get(&format!("environments/{}", segment(&self.environment)), &[]).await?;
        verify("the environment's status", text(&environment, "status"), "Provisioned".to_owned())?;
        let plan = self.client.get(&format!("plans/{}", segment(&text(&environment, "planId"))), &[]).await?;
        let planned = plan["changes"].as_array().map_or(0, Vec::len);
        let in_place = plan["inPlace"].as_array().map_or(0, Vec::len);
        verify("the number of planned resources in place", in_place, planned)?;
        if planned == 0 {
            return Err(Failure::failed("the plan should name what is created, and names nothing"));
        }
        self.narrator
            .verified(&format!("{} stands: all {planned} planned resources are in place", self.environment))
    }

    /// Step 2: the first deployment.
    pub async fn deploys_the_first(&mut self) -> Result<(), Failure> {
        self.narrator
            .heading(2, "Deploy reservations-api:1.4.1: the first deployment, behind a health gate")?;
        let (outcome, _) = self.deploys(2, "1.4.1").await?;
        verify(
            "`previousImage` of a first deployment",
            scalar(&outcome["payload"]["previousImage"]),
            String::new(),
        )?;
        let url = self.the("1.4.1")?.url.clone();
        let answer = self.http.get(&url).send().await;
        let answer =
            answer.map_err(|error| Failure::failed(format!("{url} does not answer")).because(&error))?;
        verify("the answer of the app through the ingress", answer.status().as_u16(), 200)?;
        self.trickle = Some(Trickle::start(self.http.clone(), url.clone()));
        self.narrator
            .verified(&format!("{url} answers 200; from here on about 20 requests a second go there"))
    }

    /// Step 3: the next version, in steps.
    pub async fn deploys_the_next(&mut self) -> Result<(), Failure> {
        self.narrator.heading(3, "Deploy reservations-api:1.4.2: traffic shifts in steps")?;
        let before = self.tally();
        let (outcome, moment) = self.deploys(3, "1.4.2").await?;
        verify("`previousImage`", text(&outcome["payload"], "previousImage"), image("1.4.1"))?;
        let notes = moment.operation["notes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let shifts = notes.iter().filter(|note| text(note, "text").starts_with("traffic: ")).count();
        if shifts < 2 {
            return Err(Failure::failed(format!(
                "traffic should shift in steps, and shifted {shifts} times"
            )));
        }
        let problems = sample::problems(&outcome);
        if !problems.is_empty() {
            return Err(Failure::failed(format!(
                "the envelope differs from the sample: {}",
                problems.join("; ")
            )));
        }
        self.narrator.line("The envelope of RuntimeDeploymentCompleted, as it was published:")?;
        self.narrator.json(&outcome)?;
        self.narrator
            .verified("it has the ten fields of the events page, in that order and those formats")?;
        let came = self.tally().since(&before);
        if !came.reaches(&self.the("1.4.2")?.revision) {
            return Err(Failure::failed(
                "requests should have reached 1.4.2 while traffic shifted, and none did",
            ));
        }
        self.counted("while traffic shifted", &came)
    }

    /// Step 4: a version that starts and then answers 500.
    pub async fn deploys_a_bad_one(&mut self) -> Result<(), Failure> {
        self.narrator.heading(4, "Deploy reservations-api:1.5.0: it starts, and then answers 500")?;
        let serving = self.the("1.4.2")?.revision.clone();
        let before = self.tally();
        let mut sent =
            self.send(4, "Deploy", &image("1.5.0"), &orders::deploy(&self.environment, "1.5.0")).await?;
        let moment = self.follow(&mut sent).await?;
        let came = self.tally().since(&before);
        let outcome = self.outcome(&moment, "RuntimeDeploymentRolledBack")?;
        verify("the reason", text(&outcome["payload"], "reason"), "GateFailed".to_owned())?;
        verify("the restored image", text(&outcome["payload"], "restoredImage"), image("1.4.2"))?;
        self.number_of(&sent, "RuntimeDeploymentCompleted", 0).await?;

        let deployment = self.deployment(&moment).await?;
        verify("the gate's verdict", text(&deployment["gate"], "verdict"), "Failed".to_owned())?;
        let failed = failed_samples(&deployment);
        if failed.is_empty() {
            return Err(Failure::failed("the gate should keep the samples that failed it, and keeps none"));
        }
        let why = text(&deployment["gate"], "reason");
        self.narrator.verified(&format!(
            "the gate failed: {why}; the samples that failed it: {}",
            failed.join(", ")
        ))?;
        if !came.all_to(&serving) || came.not_well() > 0 {
            return Err(Failure::failed(format!(
                "all traffic should have stayed with 1.4.2 and been answered 200; the ingress counted {}",
                came.in_words(|revision| self.version_of(revision))
            )));
        }
        self.counted("traffic never left 1.4.2", &came)?;
        self.narrator.verified("RuntimeDeploymentRolledBack was published, and no RuntimeDeploymentCompleted")
    }

    /// Step 5: back to the version before, without a rebuild.
    pub async fn rolls_back(&mut self) -> Result<(), Failure> {
        self.narrator.heading(5, "RollbackDeployment of 1.4.2: back to 1.4.1, without a rebuild")?;
        let (bad, good) = (self.the("1.4.2")?.clone(), self.the("1.4.1")?.clone());
        let before = self.tally();
        let payload = orders::rollback(&self.environment, &bad.deployment_id);
        let mut sent = self.send(5, "RollbackDeployment", &bad.deployment_id, &payload).await?;
        let moment = self.follow(&mut sent).await?;
        let took = sent.began.elapsed();
        let outcome = self.outcome(&moment, "RuntimeDeploymentRolledBack")?;
        verify("the reason", text(&outcome["payload"], "reason"), "Operator".to_owned())?;
        verify(
            "the restored deployment",
            text(&outcome["payload"], "restoredDeploymentId"),
            good.deployment_id,
        )?;
        let after = self.tally();
        sleep(WATCH).await;
        let now = self.tally().since(&after);
        if !now.all_to(&good.revision) || now.not_well() > 0 {
            return Err(Failure::failed(format!(
                "all traffic should be back at 1.4.1 and answered 200; the ingress counted {}",
                now.in_words(|revision| self.version_of(revision))
            )));
        }
        self.narrator.verified(&format!(
            "back after {:.1} s: the revision {} that step 2 made serves again",
            took.as_secs_f64(),
            good.revision
        ))?;
        let came = self.tally().since(&before);
        self.counted("during the rollback", &came)?;
        self.ends_the_trickle()
    }

    /// Step 7: an environment that does not exist.
    pub async fn deploys_to_nowhere(&mut self) -> Result<(), Failure> {
        self.narrator.heading(7, "Deploy to an environment that does not exist")?;
        let what = format!("{} to {NO_ENVIRONMENT}", image("1.4.2"));
        let mut sent = self.send(7, "Deploy", &what, &orders::deploy(NO_ENVIRONMENT, "1.4.2")).await?;
        let moment = self.follow(&mut sent).await?;
        let outcome = self.outcome(&moment, "RuntimeCommandFailed")?;
        verify("the outcome", text(&outcome["payload"], "outcome"), "Rejected".to_owned())?;
        verify("the reason", text(&outcome["payload"], "reasonCode"), "EnvironmentNotFound".to_owned())?;
        let detail = text(&outcome["payload"], "detail");
        if !detail.contains(NO_ENVIRONMENT) || !detail.contains("ProvisionEnvironment") {
            return Err(Failure::failed(format!(
                "the sentence should name {NO_ENVIRONMENT} and say what to do: {detail}"
            )));
        }
        self.narrator.verified(&format!("the sender is told what to do: {detail}"))
    }

    /// Deploys a good version and sees it through.
    async fn deploys(&mut self, step: u32, version: &'static str) -> Result<(Value, Moment), Failure> {
        let payload = orders::deploy(&self.environment, version);
        let mut sent = self.send(step, "Deploy", &image(version), &payload).await?;
        let moment = self.follow(&mut sent).await?;
        let outcome = self.completed(&sent, &moment, version).await?;
        Ok((outcome, moment))
    }

    /// Verifies that a deployment went through, once and whole, and remembers it.
    pub async fn completed(
        &mut self,
        sent: &Sent,
        moment: &Moment,
        version: &'static str,
    ) -> Result<Value, Failure> {
        let outcome = self.outcome(moment, "RuntimeDeploymentCompleted")?;
        verify("the image", text(&outcome["payload"], "image"), image(version))?;
        verify("the health gate", text(&outcome["payload"], "healthGate"), "Passed".to_owned())?;
        self.number_of(sent, "RuntimeDeploymentRequested", 1).await?;
        self.number_of(sent, "RuntimeDeploymentCompleted", 1).await?;
        let deployment = self.deployment(moment).await?;
        verify("the deployment's status", text(&deployment, "status"), "Completed".to_owned())?;
        verify("its share of the traffic in percent", text(&deployment, "weight"), "100".to_owned())?;
        let deployed = Deployed {
            deployment_id: text(&deployment, "deploymentId"),
            revision: text(&deployment, "revision"),
            url: text(&deployment, "url"),
        };
        self.deployed.insert(version, deployed);
        Ok(outcome)
    }

    /// The event that ended a command, which must be of this type.
    fn outcome(&self, moment: &Moment, event_type: &str) -> Result<Value, Failure> {
        let outcome = &moment.command["outcome"];
        if outcome["eventType"] == json!(event_type) {
            return Ok(outcome.clone());
        }
        let came = match outcome.is_object() {
            true => format!("{}: {}", text(outcome, "eventType"), story::sentence(outcome)),
            false => format!("the status {} and no event", text(&moment.command, "status")),
        };
        Err(Failure::failed(format!("it should end in {event_type}, and ended in {came}")))
    }

    /// The deployment that an operation was about, with its gate.
    async fn deployment(&self, moment: &Moment) -> Result<Value, Failure> {
        let id = text(&moment.operation, "subject");
        Ok(self.client.get(&format!("deployments/{}", segment(&id)), &[]).await?)
    }

    /// How many events of a type a workflow has must be as expected.
    async fn number_of(&self, sent: &Sent, event_type: &str, expected: usize) -> Result<(), Failure> {
        let events = self.events_of(sent).await?;
        let came = events.iter().filter(|event| text(event, "eventType") == event_type).count();
        verify(&format!("the number of {event_type} events"), came, expected)
    }

    /// A version that was deployed.
    fn the(&self, version: &str) -> Result<&Deployed, Failure> {
        self.deployed.get(version).ok_or_else(|| Failure::failed(format!("{version} was never deployed")))
    }

    fn counted(&mut self, when: &str, came: &Tally) -> Result<(), Failure> {
        let counts = came.in_words(|revision| self.version_of(revision));
        self.narrator.verified(&format!("{when}, {} requests at the ingress: {counts}", came.requests()))
    }

    /// Nobody who asked through all this went without an answer.
    fn ends_the_trickle(&mut self) -> Result<(), Failure> {
        let unanswered = self.trickle.take().map_or(0, |trickle| trickle.unanswered());
        verify("the number of requests that got no answer since step 2", unanswered, 0)
    }
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
