//! What stories verify: how a command ended, what serves, what the ingress counted.

use std::fmt::Display;

use serde_json::{Value, json};

use super::{
    orders::Service,
    teller::{Moment, Sent, Teller},
    traffic::Tally,
};
use crate::{client::segment, failure::Failure, output::text, story};

/// Deployments that are looked through, at most: the stories make fewer.
const DEPLOYMENTS_MAX: usize = 100;

/// A deployment that serves.
#[derive(Clone, Debug)]
pub struct Serving {
    pub deployment_id: String,
    /// The reference of its image, as it was given.
    pub image: String,
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

/// An expectation without a value of its own.
pub fn holds(it_does: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if it_does { Ok(()) } else { Err(Failure::failed(otherwise())) }
}

impl Teller {
    /// The stories need a platform on which nothing happened yet.
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

    /// The event that ended a command, which must be of this type.
    pub fn outcome(&self, moment: &Moment, event_type: &str) -> Result<Value, Failure> {
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

    /// The sentence with which a command was refused, or failed, for this reason.
    pub fn refusal(&self, moment: &Moment, outcome: &str, reason: &str) -> Result<String, Failure> {
        let failed = self.outcome(moment, "RuntimeCommandFailed")?;
        verify("the outcome", text(&failed["payload"], "outcome"), outcome.to_owned())?;
        verify("the reason", text(&failed["payload"], "reasonCode"), reason.to_owned())?;
        Ok(text(&failed["payload"], "detail"))
    }

    /// Verifies that a deployment that was asked for went through, once and whole.
    pub async fn completed(&mut self, sent: &Sent, moment: &Moment, image: &str) -> Result<Value, Failure> {
        let outcome = self.outcome(moment, "RuntimeDeploymentCompleted")?;
        verify("the image", text(&outcome["payload"], "image"), image.to_owned())?;
        verify("the health gate", text(&outcome["payload"], "healthGate"), "Passed".to_owned())?;
        self.number_of(sent, "RuntimeDeploymentRequested", 1).await?;
        self.number_of(sent, "RuntimeDeploymentCompleted", 1).await?;
        let deployment = self.deployment(&text(&outcome["payload"], "deploymentId")).await?;
        verify("the deployment's status", text(&deployment, "status"), "Completed".to_owned())?;
        verify("its share of the traffic in percent", text(&deployment, "weight"), "100".to_owned())?;
        Ok(outcome)
    }

    /// Waits for the deployment that an event set going, which must pass; answers its Completed.
    pub async fn carried_out(&mut self, cause: &Value) -> Result<Value, Failure> {
        let (id, kind) = (text(cause, "eventId"), text(cause, "eventType"));
        let requested = self
            .happens("RuntimeDeploymentRequested", &format!("what {kind} leads to"), |event| {
                text(event, "causationId") == id
            })
            .await?;
        let deployment = text(&requested["payload"], "deploymentId");
        self.passes(&deployment).await
    }

    /// Waits for the end of a deployment, which must pass.
    pub async fn passes(&mut self, deployment_id: &str) -> Result<Value, Failure> {
        let path = format!("deployments/{}", segment(deployment_id));
        let ended = self
            .until(&format!("waiting for the end of {deployment_id}"), async |teller: &Self| {
                let deployment = teller.client.get(&path, &[]).await;
                match deployment {
                    Ok(deployment) => {
                        let status = text(&deployment, "status");
                        let over = ["Completed", "RolledBack", "Failed"].contains(&status.as_str());
                        Ok(over.then_some(status))
                    }
                    Err(error) if error.may_pass() => Ok(None),
                    Err(error) => Err(error.into()),
                }
            })
            .await?;
        verify(&format!("the end of {deployment_id}"), ended, "Completed".to_owned())?;
        self.happens("RuntimeDeploymentCompleted", deployment_id, |event| {
            text(&event["payload"], "deploymentId") == deployment_id
        })
        .await
    }

    /// What the environment's plan was made of.
    pub async fn planned(&self) -> Result<Vec<Value>, Failure> {
        let environment =
            self.client.get(&format!("environments/{}", segment(&self.environment)), &[]).await?;
        let plan = self.client.get(&format!("plans/{}", segment(&text(&environment, "planId"))), &[]).await?;
        Ok(plan["changes"].as_array().cloned().unwrap_or_default())
    }

    pub async fn deployment(&self, id: &str) -> Result<Value, Failure> {
        Ok(self.client.get(&format!("deployments/{}", segment(id)), &[]).await?)
    }

    /// How many events of a type a workflow has must be as expected.
    pub async fn number_of(&self, sent: &Sent, event_type: &str, expected: usize) -> Result<(), Failure> {
        let events = self.events_of(sent).await?;
        let came = events.iter().filter(|event| text(event, "eventType") == event_type).count();
        verify(&format!("the number of {event_type} events"), came, expected)
    }

    /// What serves of a workload.
    pub async fn serving(&self, service: Service) -> Result<Serving, Failure> {
        let module = service.module();
        let query = [("environmentId", self.environment.as_str()), ("moduleId", module.as_str())];
        let deployments = self.client.list("deployments", &query, DEPLOYMENTS_MAX).await?.items;
        let serves = deployments.iter().find(|deployment| {
            deployment["weight"] == json!(100) && text(deployment, "status") == "Completed"
        });
        let Some(serves) = serves else {
            return Err(Failure::failed(format!(
                "a deployment of {} should serve, and none does",
                service.name()
            )));
        };
        Ok(Serving {
            deployment_id: text(serves, "deploymentId"),
            image: text(serves, "image"),
            revision: text(serves, "revision"),
            url: text(serves, "url"),
        })
    }

    /// What an app answers about itself, through the ingress.
    pub async fn asks(&self, service: Service) -> Result<Value, Failure> {
        let url = self.serving(service).await?.url;
        let no_answer = |error| Failure::failed(format!("{url} does not answer")).because(&error);
        let answer = self.http.get(&url).send().await.map_err(no_answer)?;
        verify(&format!("the answer of {url}"), answer.status().as_u16(), 200)?;
        let bytes = answer.bytes().await.map_err(no_answer)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Failure::failed(format!("{url} does not answer in JSON")).because(&error))
    }

    /// The version of a variable that an app was started with.
    pub async fn runs_with(&self, service: Service, variable: &str) -> Result<String, Failure> {
        Ok(text(&self.asks(service).await?["versions"], variable))
    }

    /// What the ingress counted so far for an app.
    pub async fn tally(&self, service: Service) -> Result<Tally, Failure> {
        Ok(Tally::at(&self.azure, &self.serving(service).await?.url))
    }

    /// Tells what the ingress counted, with the images that the revisions run.
    pub async fn counted(&mut self, when: &str, came: &Tally) -> Result<(), Failure> {
        let counts = self.counts(came).await?;
        self.narrator.verified(&format!("{when}, {} requests at the ingress: {counts}", came.requests()))
    }

    /// What was counted, in words.
    pub async fn counts(&self, came: &Tally) -> Result<String, Failure> {
        let query = [("environmentId", self.environment.as_str())];
        let deployments = self.client.list("deployments", &query, DEPLOYMENTS_MAX).await?.items;
        Ok(came.in_words(|revision| {
            let of = deployments.iter().find(|deployment| text(deployment, "revision") == revision);
            let image = of.map(|deployment| text(deployment, "image")).unwrap_or_default();
            match image.rsplit('/').next().filter(|image| !image.is_empty()) {
                Some(image) => format!("{image} ({revision})"),
                None => revision.to_owned(),
            }
        }))
    }

    /// What was asked so far is nobody's business any more.
    pub fn forgets_the_trickle(&self) {
        if let Some(trickle) = &self.trickle {
            trickle.since_last();
        }
    }

    /// Everybody who asked since the last time was answered, and well.
    pub fn nobody_noticed(&mut self, meanwhile: &str) -> Result<(), Failure> {
        let Some(trickle) = &self.trickle else { return Ok(()) };
        let (asked, unwell) = trickle.since_last();
        verify(&format!("the number of requests that were not answered well {meanwhile}"), unwell, 0)?;
        self.narrator.verified(&format!("{meanwhile} {asked} requests were answered, all with 200"))
    }
}
