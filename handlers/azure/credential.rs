//! Who we are towards Azure: one setting names one kind of credential.
//!
//! Deliberately absent: a chain that tries one kind after another, which hides a wrong setting behind
//! whoever happens to be signed in.

use std::{str::FromStr, sync::Arc};

use azure_core::credentials::TokenCredential;
use azure_identity::{
    AzureCliCredential, ClientAssertionCredentialOptions, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};

use super::http_client::{client_options, reason};

/// Which credential is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    /// The identity that Azure gives to the app it runs; its endpoint is in `IDENTITY_ENDPOINT` and
    /// `IDENTITY_HEADER`, which the SDK reads itself.
    Managed,
    /// A Kubernetes service account that Entra trusts.
    Workload,
    /// Whoever is signed in to the Azure command line.
    Cli,
}

/// Why there is no credential.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    #[error("`{0}` is no kind of credential; it must be `managed`, `workload` or `cli`")]
    UnknownKind(String),
    #[error("the credential `{kind}` cannot be used here: {reason}")]
    Unusable { kind: &'static str, reason: String },
}

impl CredentialKind {
    /// The kind as a setting spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Managed => "managed",
            Self::Workload => "workload",
            Self::Cli => "cli",
        }
    }
}

impl FromStr for CredentialKind {
    type Err = CredentialError;

    fn from_str(text: &str) -> Result<Self, CredentialError> {
        [Self::Managed, Self::Workload, Self::Cli]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| CredentialError::UnknownKind(text.to_owned()))
    }
}

/// Makes the credential; for [`CredentialKind::Managed`] the identity that belongs to the app itself.
/// It keeps its tokens and renews them before they expire, so asking for one is cheap.
///
/// # Errors
/// When what this kind needs of its surroundings is not there.
pub fn credential(
    kind: CredentialKind,
    client: &reqwest::Client,
) -> Result<Arc<dyn TokenCredential>, CredentialError> {
    let made: azure_core::Result<Arc<dyn TokenCredential>> = match kind {
        CredentialKind::Managed => return managed(None, client),
        CredentialKind::Workload => {
            let credential_options =
                ClientAssertionCredentialOptions { client_options: client_options(client) };
            let options = WorkloadIdentityCredentialOptions { credential_options, ..Default::default() };
            WorkloadIdentityCredential::new(Some(options)).map(|made| made as _)
        }
        CredentialKind::Cli => AzureCliCredential::new(None).map(|made| made as _),
    };
    made.map_err(|error| unusable(kind, &error))
}

/// The managed identity, of the app itself or a user-assigned one by its client id.
///
/// # Errors
/// When the endpoint that the environment names is no URL.
pub fn managed(
    client_id: Option<&str>,
    client: &reqwest::Client,
) -> Result<Arc<dyn TokenCredential>, CredentialError> {
    let options = ManagedIdentityCredentialOptions {
        user_assigned_id: client_id.map(|id| UserAssignedId::ClientId(id.to_owned())),
        client_options: client_options(client),
    };
    match ManagedIdentityCredential::new(Some(options)) {
        Ok(made) => Ok(made),
        Err(error) => Err(unusable(CredentialKind::Managed, &error)),
    }
}

fn unusable(kind: CredentialKind, error: &azure_core::Error) -> CredentialError {
    CredentialError::Unusable { kind: kind.as_str(), reason: reason(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_one_of_three_words() {
        for kind in [CredentialKind::Managed, CredentialKind::Workload, CredentialKind::Cli] {
            assert_eq!(kind.as_str().parse::<CredentialKind>().unwrap(), kind);
        }
        let error = "Managed".parse::<CredentialKind>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`Managed` is no kind of credential; it must be `managed`, `workload` or `cli`"
        );
    }
}

#[cfg(all(test, feature = "local"))]
mod against_the_identity_endpoint {
    use std::process::Stdio;

    use super::*;
    use crate::{
        azure::http_client::{HttpSettings, client, install_tls_provider},
        local::{https, identity},
    };

    const ENDPOINT: &str = "IDENTITY_ENDPOINT";
    const SCOPE: &str = "https://servicebus.azure.net/.default";

    fn tokens() -> identity::Tokens {
        identity::Tokens::new([9; 32], "this-machine".to_owned())
    }

    /// The SDK reads the endpoint from the environment, and a process must not change its own: so
    /// this test starts an endpoint and runs itself again as a child that has the variables.
    #[tokio::test]
    async fn a_managed_identity_gets_a_token_for_the_scope() {
        if std::env::var_os(ENDPOINT).is_some() {
            return in_the_child().await;
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(https::serve(listener, None, identity::router(tokens())));
        let name =
            "azure::credential::against_the_identity_endpoint::a_managed_identity_gets_a_token_for_the_scope";
        let child = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(ENDPOINT, format!("http://{address}/msi/token"))
            .env("IDENTITY_HEADER", "this-machine")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        server.abort();
        let said =
            String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success() && said.contains("1 passed"), "{said}");
    }

    async fn in_the_child() {
        install_tls_provider();
        let settings = HttpSettings { resolve_localhost: true, ..HttpSettings::default() };
        let credential = credential(CredentialKind::Managed, &client(&settings).unwrap()).unwrap();
        let token = credential.get_token(&[SCOPE], None).await.unwrap();
        let bearer = format!("Bearer {}", token.token.secret());
        let now = jiff::Timestamp::now().as_second();
        assert_eq!(tokens().check(Some(&bearer), "https://servicebus.azure.net", now), Ok(()));
    }
}
