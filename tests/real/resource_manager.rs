//! `azure-mgmt-appcontainers` and, for the metrics, `azure-mgmt-monitor` from PyPI judge the Resource
//! Manager stand-in: over HTTPS, with their own pollers and their own models.

use std::time::Duration;

use runtime_platform::local::{
    azure::{AUDIENCE, Azure, AzureOptions},
    certificates::Authority,
    https,
    identity::Tokens,
};
use tokio::{net::TcpListener, runtime::Runtime};

use crate::python;

/// What is installed: the clients, and the two packages that their requests and pollers come from.
const PACKAGES: [&str; 4] = [
    "azure-mgmt-appcontainers==5.1.0",
    "azure-mgmt-monitor==7.0.0",
    "azure-mgmt-core==1.6.0",
    "azure-core==1.41.0",
];
/// How long the judge may take.
const JUDGE_TIMEOUT: Duration = Duration::from_secs(180);

/// Starts the stand-in in this process and lets the client at it.
pub fn run() -> Result<(), String> {
    let python = python::environment("resource-manager", &PACKAGES)?;
    let runtime = Runtime::new().map_err(|error| format!("no runtime can be started: {error}"))?;
    runtime.block_on(async {
        let directory =
            tempfile::tempdir().map_err(|error| format!("there is no temporary directory: {error}"))?;
        let authority = Authority::open(directory.path()).map_err(|error| error.to_string())?;
        let tls = authority.server(&["localhost"]).map_err(|error| error.to_string())?;
        let listener =
            TcpListener::bind("127.0.0.1:0").await.map_err(|error| format!("nothing can listen: {error}"))?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        let endpoint = format!("https://localhost:{port}");
        let tokens = Tokens::new([5; 32], "header".to_owned());
        let options =
            AzureOptions::new(directory.path().join("azure.db"), tokens.clone(), endpoint.clone(), 9443);
        let azure = Azure::open(options).map_err(|error| error.to_string())?;
        azure.start().await.map_err(|error| error.to_string())?;
        let server = tokio::spawn(https::serve(listener, Some(tls), azure.router()));

        let token = tokens.issue(AUDIENCE, jiff::Timestamp::now().as_second());
        let root = authority.root_certificate();
        let verdict =
            python::judged(&python, "resource_manager.py", &endpoint, root, &token, JUDGE_TIMEOUT).await;
        azure.stop().await;
        server.abort();
        verdict
    })
}
