//! The adapter against the vaults of this machine, over HTTPS, with the challenge verified.

use axum::{body::Body, http::Request};
use tower::ServiceExt;

use super::*;
use crate::{
    azure::{
        http_client::{HttpSettings, client, client_options, install_tls_provider},
        testing::{Issuer, tokens},
    },
    local::{
        azure::{AUDIENCE, Azure, AzureOptions, KeyVaults, hosts_server},
        certificates::Authority,
        https,
    },
};

const GROUP: &str = "/subscriptions/s1/resourceGroups/rg";

struct Bench {
    vault: KeyVault,
    secret: SecretRef,
    directory: tempfile::TempDir,
    server: tokio::task::JoinHandle<std::convert::Infallible>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn put(azure: &Azure, path: &str, version: &str, body: &str) {
    let token = tokens().issue(AUDIENCE, Timestamp::now().as_second());
    let request = Request::put(format!("{path}?api-version={version}"))
        .header("authorization", format!("Bearer {token}"))
        .body(Body::from(body.to_owned()))
        .unwrap();
    let response = azure.router().oneshot(request).await.unwrap();
    assert!(response.status().is_success(), "{path}: {}", response.status());
}

impl Bench {
    async fn start() -> Self {
        install_tls_provider();
        let directory = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(directory.path()).unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let options = AzureOptions {
            vault_domain: format!("vault.localhost:{port}"),
            pace: 0.0,
            ..AzureOptions::new(
                directory.path().join("azure.db"),
                tokens(),
                "https://localhost".to_owned(),
                1,
            )
        };
        let azure = Azure::open(options).unwrap();
        put(&azure, GROUP, "2021-04-01", r#"{"location":"westeurope"}"#).await;
        let body = r#"{"location":"westeurope","properties":{"tenantId":"00000000-0000-0000-0000-000000000001","sku":{"family":"A","name":"standard"}}}"#;
        put(&azure, &format!("{GROUP}/providers/Microsoft.KeyVault/vaults/Kv-1"), "2023-07-01", body).await;
        let vaults = KeyVaults::open(&azure, &directory.path().join("key-vault.db")).await.unwrap();
        let tls = hosts_server(authority.clone(), "vault.localhost").unwrap();
        let server = tokio::spawn(https::serve(listener, Some(tls), vaults.router()));
        let settings = HttpSettings {
            additional_root: Some(authority.root_certificate().to_owned()),
            resolve_localhost: true,
            ..HttpSettings::default()
        };
        let options = client_options(&client(&settings).unwrap());
        let vault = KeyVault::new("vault.localhost", options, Arc::new(Issuer));
        let vault_uri = format!("https://kv-1.vault.localhost:{port}");
        Self { vault, secret: SecretRef { vault_uri, name: "db-password".to_owned() }, directory, server }
    }
}

#[tokio::test]
async fn a_rotation_generates_once_and_what_is_disabled_is_not_current() {
    let bench = Bench::start().await;
    let (vault, secret) = (&bench.vault, &bench.secret);
    assert_eq!(vault.current(secret).await.unwrap(), None);
    assert_eq!(vault.versions(secret).await.unwrap(), []);
    let first = vault.generate(secret, "rot-1").await.unwrap();
    assert_eq!(vault.generate(secret, "rot-1").await.unwrap(), first);
    // Within the same second, most likely: the newest is told apart all the same.
    let second = vault.generate(secret, "rot-2").await.unwrap();
    assert_eq!(vault.versions(secret).await.unwrap(), [second.clone(), first.clone()]);
    assert_eq!(vault.current(secret).await.unwrap().as_ref(), Some(&second));
    assert!(vault.verify(secret, &second.version).await.unwrap());
    assert!(!vault.verify(secret, "0123456789abcdef0123456789abcdef").await.unwrap());
    for _ in 0..2 {
        vault.disable(secret, &second.version).await.unwrap();
    }
    assert!(!vault.verify(secret, &second.version).await.unwrap());
    assert_eq!(vault.current(secret).await.unwrap(), Some(first));
}

#[tokio::test]
async fn versions_are_listed_over_several_pages() {
    let bench = Bench::start().await;
    for rotation in 0..27 {
        bench.vault.generate(&bench.secret, &format!("rot-{rotation}")).await.unwrap();
    }
    assert_eq!(bench.vault.versions(&bench.secret).await.unwrap().len(), 27);
}

#[tokio::test]
async fn no_token_goes_to_what_is_no_vault_of_the_domain() {
    let bench = Bench::start().await;
    for vault_uri in [
        "https://kv-1.vault.localhost.example.com",
        "http://kv-1.vault.localhost",
        "https://vault.localhost",
        "https://a.b.vault.localhost",
        "https://evilvault.localhost",
        "https://user@kv-1.vault.localhost",
        "https://kv-1.vault.localhost/path",
        "nothing",
    ] {
        let secret = SecretRef { vault_uri: vault_uri.to_owned(), name: "a".to_owned() };
        let refused = bench.vault.current(&secret).await.unwrap_err();
        assert!(
            matches!(&refused, Fault::Rejected { code, .. } if code == "VaultNotAllowed"),
            "{vault_uri}: {refused}"
        );
    }
    let bad = SecretRef { name: "a/b".to_owned(), ..bench.secret.clone() };
    let refused = bench.vault.current(&bad).await.unwrap_err();
    assert!(matches!(&refused, Fault::Rejected { code, .. } if code == "BadName"), "{refused}");
    let other = bench.secret.vault_uri.replace("kv-1", "kv-2");
    let refused =
        bench.vault.current(&SecretRef { vault_uri: other, name: "a".to_owned() }).await.unwrap_err();
    assert!(matches!(&refused, Fault::Rejected { code, .. } if code == "VaultNotFound"), "{refused}");
}

#[tokio::test]
async fn another_key_does_not_open_the_file() {
    let bench = Bench::start().await;
    bench.vault.generate(&bench.secret, "rot-1").await.unwrap();
    let directory = bench.directory.path();
    std::fs::write(directory.join("key-vault.key"), [7; 32]).unwrap();
    let options = AzureOptions::new(directory.join("other.db"), tokens(), "https://localhost".to_owned(), 1);
    let azure = Azure::open(options).unwrap();
    let refused = KeyVaults::open(&azure, &directory.join("key-vault.db")).await.err().unwrap();
    assert!(matches!(refused, crate::local::azure::VaultsError::OtherKey { .. }), "{refused}");
}
