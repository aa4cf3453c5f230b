//! `azure-containerregistry` from PyPI judges the registries' stand-in: over HTTPS, with its own token
//! exchange, and its own check of each digest against what it was given.

use std::{path::Path, time::Duration};

use runtime_platform::local::{
    azure::{Azure, AzureOptions, REGISTRY_AUDIENCE},
    certificates::Authority,
    https,
    identity::Tokens,
};
use tokio::{net::TcpListener, runtime::Runtime};

use crate::python;

const PACKAGES: [&str; 2] = ["azure-containerregistry==1.2.0", "azure-core==1.41.0"];
/// How long the judge may take.
const JUDGE_TIMEOUT: Duration = Duration::from_secs(120);
/// The registry that is asked. The judge resolves the name to this machine.
const REGISTRY: &str = "acr.azurecr.io";

/// Starts the stand-in in this process and lets the client at it.
pub fn run() -> Result<(), String> {
    let python = python::environment("registry", &PACKAGES)?;
    let runtime = Runtime::new().map_err(|error| format!("no runtime can be started: {error}"))?;
    runtime.block_on(judge(&python))
}

async fn judge(python: &Path) -> Result<(), String> {
    let directory =
        tempfile::tempdir().map_err(|error| format!("there is no temporary directory: {error}"))?;
    let authority = Authority::open(directory.path()).map_err(|error| error.to_string())?;
    let tls = authority.server(&[REGISTRY]).map_err(|error| error.to_string())?;
    let listener =
        TcpListener::bind("127.0.0.1:0").await.map_err(|error| format!("nothing can listen: {error}"))?;
    let port = listener.local_addr().map_err(|error| error.to_string())?.port();
    let tokens = Tokens::new([5; 32], "header".to_owned());
    let manager = "https://localhost".to_owned();
    let options = AzureOptions::new(directory.path().join("azure.db"), tokens.clone(), manager, 9443);
    let azure = Azure::open(options).map_err(|error| error.to_string())?;
    let server = tokio::spawn(https::serve(listener, Some(tls), azure.registry()));
    let token = tokens.issue(REGISTRY_AUDIENCE, jiff::Timestamp::now().as_second());
    let root = authority.root_certificate();
    let verdict = python::judged(
        python,
        "registry.py",
        &format!("https://{REGISTRY}:{port}"),
        root,
        &token,
        JUDGE_TIMEOUT,
    )
    .await;
    server.abort();
    verdict
}
