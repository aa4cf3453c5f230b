//! `azure-containerregistry` from PyPI judges the registries' stand-in: over HTTPS, with its own token
//! exchange, and its own check of each digest against what it was given.

use std::{path::Path, process::Stdio, time::Duration};

use runtime_platform::local::{
    azure::{Azure, AzureOptions, REGISTRY_AUDIENCE},
    certificates::Authority,
    https,
    identity::Tokens,
};
use tokio::{io::AsyncWriteExt, net::TcpListener, process::Command, runtime::Runtime, time::timeout};

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
    let mut judge = Command::new(python)
        .arg(python::script("registry.py"))
        .arg(format!("https://{REGISTRY}:{port}"))
        .arg(authority.root_certificate())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("the judge cannot be started: {error}"))?;
    let mut input = judge.stdin.take().ok_or("the judge has no standard input")?;
    let said = input.write_all(format!("{token}\n").as_bytes()).await;
    said.map_err(|error| format!("the judge does not listen: {error}"))?;
    drop(input);
    let verdict = timeout(JUDGE_TIMEOUT, judge.wait()).await;
    server.abort();
    match verdict {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("the judge ended with {status}; what it found is above")),
        Ok(Err(error)) => Err(format!("the judge was lost: {error}")),
        Err(_) => Err(format!("the judge did not end in {} seconds", JUDGE_TIMEOUT.as_secs())),
    }
}
