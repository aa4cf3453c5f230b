//! Workloads on Azure Container Apps, blue/green by revision.
//!
//! A workload is one container app in multiple-revision mode; a deployment is one revision, whose
//! name follows from the deployment, so that staging twice stages once. Traffic is always given by
//! revision name, never to "the latest": a new revision must not take it by being new.
//!
//! A PATCH cannot be fenced, and it replaces arrays whole. So each one is preceded by a read, carries
//! the arrays as they were with our change in them, and says nothing of what it does not change.
//!
//! Deliberately absent: reading secrets (`listSecrets` is never called) and putting back what was
//! read (secret values are not in it, and would be lost).

mod body;
mod reading;
mod secrets;

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

use super::resource_manager::{LongRunning, Reply, ResourceManager, is_at_work};
use crate::{
    outcome::Fault,
    ports::compute::{Compute, ComputeTarget, Observed, RevisionSpec, Step, WorkloadRef},
};

/// The version of Container Apps' API that the bodies here are written for.
pub const API_VERSION: &str = "2026-01-01";
/// What [`crate::ports::compute::ComputeTarget::target`] says of workloads that belong here.
pub const TARGET: &str = "container-apps";
/// The environment variable by which a revision names the deployment that made it.
pub const DEPLOYMENT_VARIABLE: &str = "CS_DEPLOYMENT_ID";
/// The environment variable by which a revision names the version of the configuration that it was
/// started with.
pub const CONFIGURATION_VARIABLE: &str = "CS_CONFIGURATION_VERSION";

/// The pause asked for while somebody else's change to the app is under way.
const BUSY_PAUSE: Duration = Duration::from_secs(5);
/// The pause before a change that another call of ours began is looked at.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Apps of a listing whose revisions are asked for at once.
const LISTED_AT_ONCE: usize = 4;

/// The adapter. Cheap to clone.
#[derive(Clone)]
pub struct ContainerApps {
    manager: ResourceManager,
}

impl ContainerApps {
    pub fn new(manager: ResourceManager) -> Self {
        Self { manager }
    }

    async fn app(&self, id: &str) -> Result<Option<Value>, Fault> {
        self.manager.get(id, API_VERSION).await
    }

    async fn revisions(&self, id: &str) -> Result<Vec<Value>, Fault> {
        self.manager.list(&format!("{id}/revisions"), API_VERSION).await
    }

    /// A revision beside those that the app has.
    async fn stage_beside(
        &self,
        id: &str,
        app: &Value,
        workload: &WorkloadRef,
        revision: &RevisionSpec,
    ) -> Result<Step, Fault> {
        let doing = format!("staging revision `{}` of `{}`", revision.suffix, workload.name);
        if is_at_work(app) {
            // Our own change, begun by a call that did not live to tell; or another's, which ends.
            if reading::is_template_of(app, revision) {
                let operation = LongRunning::provisioning_state(id, API_VERSION);
                return Ok(Step::Pending { token: token_of(&operation), again_in: LOOK_PAUSE });
            }
            let source = "another change to the app is under way".into();
            return Err(Fault::Transient { doing, retry_after: Some(BUSY_PAUSE), source });
        }
        let revisions = self.revisions(id).await?;
        let name = self.revision_name(workload, &revision.suffix);
        if let Some(existing) = revisions.iter().find(|existing| reading::is_named(existing, &name)) {
            return match reading::deployment_of(existing) {
                Some(deployment) if deployment == revision.deployment_id => Ok(Step::Done),
                owner => {
                    let owner = owner
                        .map_or("no deployment of ours".to_owned(), |owner| format!("deployment `{owner}`"));
                    let detail =
                        format!("a revision `{name}` exists and belongs to {owner}; it is not taken over");
                    Err(rejected(doing, "ForeignRevision", detail))
                }
            };
        }
        let traffic = reading::pinned(app, &revisions);
        let port = app.pointer("/properties/configuration/ingress/targetPort").and_then(Value::as_u64);
        let keeps = !traffic.is_empty() && !revision.corrective;
        if let Some(port) = port.filter(|port| keeps && *port != u64::from(revision.port)) {
            let detail = format!(
                "the app takes its traffic on port {port}, and port {} would be that of every revision, the serving one included; listen on {port}, or deploy under another name",
                revision.port
            );
            return Err(rejected(doing, "PortDiffers", detail));
        }
        let mut patch = body::revision_beside(app, workload, revision, &name, traffic);
        if let Some(list) = secrets::with(app, &revisions, revision) {
            patch["properties"]["configuration"]["secrets"] = list;
        }
        step_of(self.manager.patch(id, API_VERSION, &patch).await?, doing)
    }
}

#[async_trait]
impl Compute for ContainerApps {
    async fn observe(&self, workload: &WorkloadRef) -> Result<Option<Observed>, Fault> {
        let id = app_id(workload)?;
        let Some(app) = self.app(&id).await? else { return Ok(None) };
        let revisions = self.revisions(&id).await?;
        // Replicas are asked for the newest alone: that is the one whose restarts a gate looks at,
        // and each more is one more call.
        let newest = reading::newest(&app, &revisions);
        let replicas = match newest {
            Some(newest) => {
                self.manager.list(&format!("{id}/revisions/{newest}/replicas"), API_VERSION).await?
            }
            None => Vec::new(),
        };
        Ok(Some(reading::observed(&app, &revisions, newest, &replicas)))
    }

    async fn list(&self, target: &ComputeTarget) -> Result<Vec<(String, Observed)>, Fault> {
        let apps = format!("{}/providers/Microsoft.App/containerApps", target.resource_group_id);
        let apps = match self.manager.list(&apps, API_VERSION).await {
            // With the group, all that was in it is gone.
            Err(Fault::Rejected { code, .. }) if code == "ResourceGroupNotFound" => Vec::new(),
            apps => apps?,
        };
        let read = |app: Value| async move {
            let Some(name) = app.get("name").and_then(Value::as_str) else { return Ok(None) };
            let name = name.to_owned();
            if let Some(observed) = reading::listed(&app) {
                return Ok(Some((name, observed)));
            }
            let id = format!("{}/providers/Microsoft.App/containerApps/{name}", target.resource_group_id);
            let revisions = self.revisions(&id).await?;
            Ok::<_, Fault>(Some((name, reading::observed(&app, &revisions, None, &[]))))
        };
        stream::iter(apps)
            .map(read)
            .buffered(LISTED_AT_ONCE)
            .try_filter_map(|read| async move { Ok(read) })
            .try_collect()
            .await
    }

    async fn stage(&self, workload: &WorkloadRef, revision: &RevisionSpec) -> Result<Step, Fault> {
        let id = app_id(workload)?;
        let Some(app) = self.app(&id).await? else {
            let name = self.revision_name(workload, &revision.suffix);
            let app = body::first_revision(workload, revision, &name);
            let reply = self.manager.put(&id, API_VERSION, &app).await?;
            return step_of(reply, format!("creating the app `{}`", workload.name));
        };
        self.stage_beside(&id, &app, workload, revision).await
    }

    async fn resume(&self, token: &Value) -> Result<Step, Fault> {
        let operation: LongRunning =
            serde_json::from_value(token.clone()).map_err(|error| Fault::Unreadable {
                doing: "reading what was noted to look at an app again".to_owned(),
                source: error.into(),
            })?;
        let doing = format!("changing `{}`", operation.resource_id());
        step_of(self.manager.look(&operation).await?, doing)
    }

    async fn shift(&self, workload: &WorkloadRef, weights: &BTreeMap<String, u32>) -> Result<Step, Fault> {
        let doing = format!("shifting the traffic of `{}`", workload.name);
        let sum = weights.values().map(|weight| u64::from(*weight)).sum::<u64>();
        if sum != 100 {
            return Err(rejected(
                doing,
                "InvalidWeights",
                format!("the weights add up to {sum}, not to 100"),
            ));
        }
        let id = app_id(workload)?;
        let Some(app) = self.app(&id).await? else {
            return Err(rejected(doing, "AppNotFound", "there is no such app".to_owned()));
        };
        if reading::has_traffic(&app, weights) {
            if is_at_work(&app) {
                let operation = LongRunning::provisioning_state(&id, API_VERSION);
                return Ok(Step::Pending { token: token_of(&operation), again_in: LOOK_PAUSE });
            }
            return Ok(Step::Done);
        }
        let patch = body::traffic(&app, weights);
        step_of(self.manager.patch(&id, API_VERSION, &patch).await?, doing)
    }

    async fn activate(&self, workload: &WorkloadRef, revision: &str) -> Result<(), Fault> {
        let id = app_id(workload)?;
        self.act(&id, revision, "activate").await
    }

    async fn deactivate(&self, workload: &WorkloadRef, revision: &str) -> Result<(), Fault> {
        let id = app_id(workload)?;
        // What has traffic is never switched off, whatever the caller last knew.
        if let Some(app) = self.app(&id).await?
            && reading::traffic(&app).iter().any(|entry| entry.weight > 0 && entry.is_for(revision))
        {
            let doing = format!("deactivating revision `{revision}`");
            return Err(rejected(
                doing,
                "RevisionServes",
                "it has traffic; shift the traffic first".to_owned(),
            ));
        }
        self.act(&id, revision, "deactivate").await
    }

    async fn remove(&self, workload: &WorkloadRef) -> Result<Step, Fault> {
        let id = app_id(workload)?;
        let doing = format!("deleting the app `{}`", workload.name);
        step_of(self.manager.delete(&id, API_VERSION).await?, doing)
    }

    fn revision_name(&self, workload: &WorkloadRef, suffix: &str) -> String {
        format!("{}--{suffix}", workload.name)
    }
}

impl ContainerApps {
    /// What comes of an action is seen by observing; taking it up is all that is waited for.
    async fn act(&self, id: &str, revision: &str, action: &str) -> Result<(), Fault> {
        match self.manager.post(&format!("{id}/revisions/{revision}/{action}"), API_VERSION, None).await? {
            Reply::Done(_) | Reply::Running { .. } => Ok(()),
            Reply::Failed { code, detail } => Err(Fault::Rejected {
                doing: format!("calling {action} of revision `{revision}`"),
                code,
                detail,
            }),
        }
    }
}

fn app_id(workload: &WorkloadRef) -> Result<String, Fault> {
    let target = &workload.target;
    if target.target != TARGET {
        let doing = format!("finding the app `{}`", workload.name);
        let detail = format!("its target is `{}`, and `{TARGET}` is asked", target.target);
        return Err(rejected(doing, "WrongTarget", detail));
    }
    Ok(format!("{}/providers/Microsoft.App/containerApps/{}", target.resource_group_id, workload.name))
}

fn step_of(reply: Reply, doing: String) -> Result<Step, Fault> {
    match reply {
        Reply::Done(_) => Ok(Step::Done),
        Reply::Running { operation, again_in } => Ok(Step::Pending { token: token_of(&operation), again_in }),
        Reply::Failed { code, detail } => Err(Fault::Rejected { doing, code, detail }),
    }
}

fn token_of(operation: &LongRunning) -> Value {
    serde_json::to_value(operation).expect("an operation is texts and numbers, which are JSON")
}

fn rejected(doing: String, code: &str, detail: String) -> Fault {
    Fault::Rejected { doing, code: code.to_owned(), detail }
}

#[cfg(all(test, feature = "local"))]
mod tests;
