//! `azure-keyvault-secrets` from PyPI judges the vaults' stand-in: over HTTPS, with the challenge's
//! resource verified against the vault's host.

use std::{path::Path, sync::Arc, time::Duration};

use axum::{body::Body, http::Request};
use runtime_platform::local::{
    azure::{AUDIENCE, Azure, AzureOptions, KeyVaults, hosts_server},
    certificates::Authority,
    https,
    identity::Tokens,
};
use tokio::{net::TcpListener, runtime::Runtime};
use tower::ServiceExt;

use crate::python;

const PACKAGES: [&str; 2] = ["azure-keyvault-secrets==4.10.0", "azure-core==1.41.0"];
/// How long the judge may take.
const JUDGE_TIMEOUT: Duration = Duration::from_secs(120);
const GROUP: &str = "/subscriptions/s1/resourceGroups/rg";
const VAULT: &str = r#"{"location":"westeurope","properties":{"tenantId":"00000000-0000-0000-0000-000000000001","sku":{"family":"A","name":"standard"}}}"#;

/// Starts the stand-in in this process and lets the client at it.
pub fn run() -> Result<(), String> {
    let python = python::environment("key-vault", &PACKAGES)?;
    let runtime = Runtime::new().map_err(|error| format!("no runtime can be started: {error}"))?;
    runtime.block_on(judge(&python))
}

async fn judge(python: &Path) -> Result<(), String> {
    let directory =
        tempfile::tempdir().map_err(|error| format!("there is no temporary directory: {error}"))?;
    let authority = Arc::new(Authority::open(directory.path()).map_err(|error| error.to_string())?);
    let listener =
        TcpListener::bind("127.0.0.1:0").await.map_err(|error| format!("nothing can listen: {error}"))?;
    let port = listener.local_addr().map_err(|error| error.to_string())?.port();
    let tokens = Tokens::new([5; 32], "header".to_owned());
    let domain = format!("vault.localhost:{port}");
    let options = AzureOptions {
        vault_domain: domain.clone(),
        ..AzureOptions::new(
            directory.path().join("azure.db"),
            tokens.clone(),
            "https://localhost".to_owned(),
            9443,
        )
    };
    let azure = Azure::open(options).map_err(|error| error.to_string())?;
    let now = jiff::Timestamp::now().as_second();
    let manager = tokens.issue(AUDIENCE, now);
    put(&azure, &format!("{GROUP}?api-version=2021-04-01"), r#"{"location":"westeurope"}"#, &manager).await?;
    put(
        &azure,
        &format!("{GROUP}/providers/Microsoft.KeyVault/vaults/kv-judge?api-version=2023-07-01"),
        VAULT,
        &manager,
    )
    .await?;
    let vaults = KeyVaults::open(&azure, &directory.path().join("key-vault.db"))
        .await
        .map_err(|error| error.to_string())?;
    let tls = hosts_server(authority.clone(), "vault.localhost").map_err(|error| error.to_string())?;
    let server = tokio::spawn(https::serve(listener, Some(tls), vaults.router()));
    let token = tokens.issue(&format!("https://{domain}"), now);
    let root = authority.root_certificate();
    let verdict = python::judged(
        python,
        "key_vault.py",
        &format!("https://kv-judge.{domain}"),
        root,
        &token,
        JUDGE_TIMEOUT,
    )
    .await;
    server.abort();
    verdict
}

async fn put(azure: &Azure, path: &str, body: &str, token: &str) -> Result<(), String> {
    let request = Request::put(path)
        .header("authorization", format!("Bearer {token}"))
        .body(Body::from(body.to_owned()));
    let request = request.map_err(|error| error.to_string())?;
    let answer = azure.router().oneshot(request).await.map_err(|error| error.to_string())?;
    match answer.status().is_success() {
        true => Ok(()),
        false => Err(format!("`{path}` cannot be made: {}", answer.status())),
    }
}
