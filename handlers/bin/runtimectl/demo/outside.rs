//! Whoever else may change what is in the subscription: Resource Manager, with a token of its own, and
//! without a word to the platform.

use std::{fs, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{client::shown, failure::Failure, output::text, up::ContextFile};

/// The version of Container Apps' API.
const CONTAINER_APPS: &str = "2026-01-01";
/// The version of the API of resource groups.
const RESOURCES: &str = "2021-04-01";
/// The audience of tokens for Resource Manager.
const AUDIENCE: &str = "https://management.azure.com";
/// The pause between two looks whether a change is through.
const PAUSE: Duration = Duration::from_millis(100);
/// How many times that is looked at.
const LOOKS_MAX: u32 = 100;

/// A caller of Resource Manager.
pub struct Outside {
    http: reqwest::Client,
    endpoint: String,
    identity_endpoint: String,
    /// What opens the identity endpoint on this machine.
    identity_header: String,
}

impl Outside {
    /// # Errors
    /// When the platform's keys cannot be read.
    pub fn new(context: &ContextFile, http: reqwest::Client) -> Result<Self, Failure> {
        let file = context.data_directory.join("keys.json");
        let cannot = || Failure::unusable(format!("Cannot use {}", file.display()));
        let keys = fs::read(&file).map_err(|error| cannot().because(&error))?;
        let keys: Value = serde_json::from_slice(&keys).map_err(|error| cannot().because(&error))?;
        Ok(Self {
            http,
            endpoint: context.resource_manager_endpoint.clone(),
            identity_endpoint: context.identity_endpoint.clone(),
            identity_header: text(&keys, "identityHeader"),
        })
    }

    async fn token(&self) -> Result<String, Failure> {
        let request = self
            .http
            .get(&self.identity_endpoint)
            .query(&[("api-version", "2019-08-01"), ("resource", AUDIENCE)])
            .header("x-identity-header", &self.identity_header);
        let (_, answer) = self.answer("a token", request).await?;
        Ok(text(&answer, "access_token"))
    }

    /// Asks Resource Manager; what it refuses is a failure.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub async fn manager(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let url = format!("{}{path}", self.endpoint);
        let mut request = self.http.request(method, url).bearer_auth(self.token().await?);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        Ok(self.answer(path, request).await?.1)
    }

    async fn answer(
        &self,
        what: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<(StatusCode, Value), Failure> {
        let unreachable = |error| Failure::failed("The stand-in of Azure does not answer").because(&error);
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(unreachable)?;
        if !status.is_success() {
            return Err(Failure::failed(format!("Azure refused {what} (HTTP {status}): {}", shown(&bytes))));
        }
        Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    /// An app of an environment, as Resource Manager shows it.
    ///
    /// # Errors
    /// When there is none, or Resource Manager does not answer.
    pub async fn app(&self, group: &str, name: &str) -> Result<Value, Failure> {
        self.manager(Method::GET, &app(group, name), None).await
    }

    /// Changes an app, and waits until that is through.
    ///
    /// # Errors
    /// When Resource Manager refuses, or the change does not come to its end.
    pub async fn patch_app(&self, group: &str, name: &str, body: &Value) -> Result<(), Failure> {
        self.manager(Method::PATCH, &app(group, name), Some(body)).await?;
        for _ in 0..LOOKS_MAX {
            let state = text(&self.app(group, name).await?["properties"], "provisioningState");
            match state.as_str() {
                "Succeeded" => return Ok(()),
                "Failed" | "Canceled" => break,
                _ => sleep(PAUSE).await,
            }
        }
        Err(Failure::failed(format!("the change of the app {name} did not come to its end")))
    }

    /// What there is in a resource group, by the ids; nothing where the group is gone.
    ///
    /// # Errors
    /// When Resource Manager does not answer.
    pub async fn resources(&self, group: &str) -> Result<Vec<String>, Failure> {
        let groups = format!(
            "{}/resourcegroups?api-version={RESOURCES}",
            group.split("/resource").next().unwrap_or(group)
        );
        let answer = self.manager(Method::GET, &groups, None).await?;
        let groups = answer["value"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !groups.iter().any(|known| text(known, "id").eq_ignore_ascii_case(group)) {
            return Ok(Vec::new());
        }
        let answer =
            self.manager(Method::GET, &format!("{group}/resources?api-version={RESOURCES}"), None).await?;
        let resources = answer["value"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(std::iter::once(group.to_owned())
            .chain(resources.iter().map(|resource| text(resource, "id")))
            .collect())
    }

    /// Deletes a resource.
    ///
    /// # Errors
    /// When Resource Manager refuses.
    pub async fn delete(&self, id: &str, api_version: &str) -> Result<(), Failure> {
        self.manager(Method::DELETE, &format!("{id}?api-version={api_version}"), None).await.map(drop)
    }

    /// The replicas of a revision that run, by their ids.
    ///
    /// # Errors
    /// When Resource Manager does not answer.
    pub async fn replicas(&self, group: &str, name: &str, revision: &str) -> Result<Vec<String>, Failure> {
        let path = format!(
            "{group}/providers/Microsoft.App/containerApps/{name}/revisions/{revision}/replicas?api-version={CONTAINER_APPS}"
        );
        let answer = self.manager(Method::GET, &path, None).await?;
        let replicas = answer["value"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(replicas.iter().map(|replica| text(replica, "id")).collect())
    }

    /// Kills a replica's container.
    ///
    /// # Errors
    /// When there is no such replica.
    pub async fn kill_replica(&self, id: &str) -> Result<(), Failure> {
        self.manager(Method::POST, "/local/kill-replica", Some(&json!({ "id": id }))).await.map(drop)
    }
}

fn app(group: &str, name: &str) -> String {
    format!("{group}/providers/Microsoft.App/containerApps/{name}?api-version={CONTAINER_APPS}")
}
