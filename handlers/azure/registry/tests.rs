//! The adapter against a server that speaks the protocol: over TLS, with challenges and tokens.

use std::sync::Arc;

use axum::response::Response;
use serde_json::{Value, json};

use super::*;
use crate::azure::testing::{Issuer, Seen, Server, reply, tokens};

const DIGEST_OF_1_4: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A registry of Azure's that knows us, and one of somebody else's that knows nobody.
fn registry(seen: &Seen) -> Response {
    let host = seen.headers["host"].to_str().unwrap();
    let bearer = seen.headers.get("authorization").and_then(|value| value.to_str().ok());
    let form: std::collections::BTreeMap<String, String> =
        form_urlencoded::parse(&seen.body).into_owned().collect();
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let challenge = vec![(
        "www-authenticate",
        format!(r#"Bearer realm="https://{host}/oauth2/token",service="{host}",scope="repository:x:pull""#),
    )];
    let digest = vec![("docker-content-digest", DIGEST_OF_1_4.to_owned())];
    let nothing = Value::Null;
    let path = seen.path_and_query.split('?').next().unwrap();
    match (seen.method.as_str(), host, path) {
        ("POST", "acr.azurecr.io" | "shut.azurecr.io", "/oauth2/exchange") => {
            let ours = format!("Bearer {}", field("access_token"));
            let now = Timestamp::now().as_second();
            let known = tokens().check(Some(&ours), "https://containerregistry.azure.net", now).is_ok();
            let right = field("grant_type") == "access_token"
                && field("service") == host
                && field("tenant") == "directory"
                && host == "acr.azurecr.io";
            let status = if known && right { 200 } else { 401 };
            reply(status, &[], &json!({ "refresh_token": "refresh" }))
        }
        ("POST", "acr.azurecr.io", "/oauth2/token") => {
            let right = field("grant_type") == "refresh_token"
                && field("refresh_token") == "refresh"
                && field("scope").starts_with("repository:")
                && field("scope").ends_with(":pull");
            reply(if right { 200 } else { 401 }, &[], &json!({ "access_token": "known" }))
        }
        ("GET", "public.example.org", "/oauth2/token") => reply(200, &[], &json!({ "token": "anybody" })),
        ("GET", _, "/oauth2/token") => reply(401, &[], &nothing),
        ("HEAD", "open.example.org", "/v2/api/manifests/1.4") => reply(200, &digest, &nothing),
        ("HEAD", "silent.example.org", _) => reply(200, &[], &nothing),
        ("HEAD", "busy.example.org", _) => reply(429, &[("retry-after", "7".to_owned())], &nothing),
        ("HEAD", "odd.example.org", _) => reply(302, &[("location", "https://x.io".to_owned())], &nothing),
        ("HEAD", "registry-1.docker.io", "/v2/library/nginx/manifests/1.27") => reply(200, &digest, &nothing),
        ("HEAD", _, "/v2/team/api/manifests/1.4") => match (host, bearer) {
            ("acr.azurecr.io", Some("Bearer known")) | ("public.example.org", Some("Bearer anybody")) => {
                reply(200, &digest, &nothing)
            }
            _ => reply(401, &challenge, &nothing),
        },
        _ => reply(404, &[], &json!({ "errors": [{ "code": "MANIFEST_UNKNOWN" }] })),
    }
}

async fn registries() -> (Server, ContainerRegistries) {
    let server = Server::start("", registry).await;
    let registries = ContainerRegistries::new(
        &server.settings,
        Reach::default(),
        &server.host(),
        "directory",
        Arc::new(Issuer),
    );
    (server, registries.unwrap())
}

async fn resolved(registries: &ContainerRegistries, image: &str) -> Result<String, Fault> {
    registries.resolve(&ImageReference::parse(image).unwrap()).await
}

#[tokio::test]
async fn a_tag_is_asked_for_with_our_identitys_token_in_exchange() {
    let (server, registries) = registries().await;
    let digest = resolved(&registries, "acr.azurecr.io/team/api:1.4").await.unwrap();
    assert_eq!(digest, DIGEST_OF_1_4);
    assert_eq!(
        server.lines(),
        [
            "HEAD /v2/team/api/manifests/1.4",
            "POST /oauth2/exchange",
            "POST /oauth2/token",
            "HEAD /v2/team/api/manifests/1.4",
        ]
    );
    let accept = server.seen()[0].headers["accept"].to_str().unwrap().to_owned();
    assert!(accept.contains("image.index.v1") && accept.contains("manifest.v2"), "{accept}");
}

#[tokio::test]
async fn elsewhere_the_token_is_that_of_anybody_and_ours_is_not_shown() {
    let (server, registries) = registries().await;
    assert_eq!(resolved(&registries, "public.example.org/team/api:1.4").await.unwrap(), DIGEST_OF_1_4);
    assert_eq!(
        server.lines(),
        [
            "HEAD /v2/team/api/manifests/1.4",
            "GET /oauth2/token?service=public.example.org&scope=repository%3Ateam%2Fapi%3Apull",
            "HEAD /v2/team/api/manifests/1.4",
        ]
    );
    assert_eq!(resolved(&registries, "open.example.org/api:1.4").await.unwrap(), DIGEST_OF_1_4);
    assert_eq!(resolved(&registries, "nginx:1.27").await.unwrap(), DIGEST_OF_1_4);
}

#[tokio::test]
async fn a_digest_is_not_asked_for() {
    let (server, registries) = registries().await;
    let image = format!("acr.azurecr.io/team/api:1.4@{DIGEST_OF_1_4}");
    assert_eq!(resolved(&registries, &image).await.unwrap(), DIGEST_OF_1_4);
    assert_eq!(server.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn a_no_is_a_sentence_with_what_to_do() {
    let (_server, registries) = registries().await;
    for (image, told) in [
        (
            "acr.azurecr.io/team/api:9",
            "`acr.azurecr.io` has no image `team/api:9`; push it, or correct the repository or the tag, and send Deploy again (ImageNotFound)",
        ),
        (
            "shut.azurecr.io/team/api:1.4",
            "`shut.azurecr.io` does not let the platform pull `team/api:1.4`; give the platform's identity the role AcrPull there, or let anybody pull, and send Deploy again (ImageForbidden)",
        ),
        (
            "silent.example.org/api:1.4",
            "`silent.example.org` does not say which image `api:1.4` is; name the image by its digest, as in `repository@sha256:...` (DigestMissing)",
        ),
        (
            "odd.example.org/api:1.4",
            "`odd.example.org` answered 302 for `api:1.4`; see whether it is a registry of images (RegistryRefused)",
        ),
    ] {
        let fault = resolved(&registries, image).await.unwrap_err();
        assert!(matches!(fault, Fault::Rejected { .. }), "{fault:?}");
        let doing = format!("asking `{}` which image ", image.split('/').next().unwrap());
        assert!(fault.to_string().starts_with(&doing) && fault.to_string().ends_with(told), "{fault}");
    }
}

#[tokio::test]
async fn a_registry_that_is_away_may_come_back() {
    let (server, registries) = registries().await;
    let busy = resolved(&registries, "busy.example.org/api:1.4").await.unwrap_err();
    let Fault::Transient { retry_after, .. } = &busy else { panic!("{busy:?}") };
    assert_eq!(*retry_after, Some(Duration::from_secs(7)));
    drop(server);
    let away = resolved(&registries, "open.example.org/api:1.4").await.unwrap_err();
    assert!(matches!(away, Fault::Transient { retry_after: None, .. }), "{away:?}");
}

#[tokio::test]
async fn a_registry_that_is_this_machine_is_not_asked() {
    let server = Server::start("", registry).await;
    let registries =
        ContainerRegistries::new(&server.settings, Reach::default(), "", "directory", Arc::new(Issuer));
    let fault = resolved(&registries.unwrap(), &format!("{}/api:1.4", server.host())).await.unwrap_err();
    let told = fault.to_string();
    assert!(told.contains("which is this machine") && told.ends_with("(RegistryForbidden)"), "{told}");
    assert_eq!(server.lines(), Vec::<String>::new());
}

fn challenge(text: &str) -> Option<Challenge> {
    let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, text.parse().unwrap())]);
    Challenge::read(&headers, "team/api")
}

#[test]
fn a_challenge_says_where_tokens_are_given_and_never_widens_what_is_asked_for() {
    let read = challenge(
        r#"Bearer realm="https://acr.azurecr.io/oauth2/token",service="acr.azurecr.io",scope="repository:team/api:pull,push""#,
    );
    let read = read.unwrap();
    assert_eq!(read.realm.as_str(), "https://acr.azurecr.io/oauth2/token");
    assert_eq!((read.service.as_str(), read.scope.as_str()), ("acr.azurecr.io", "repository:team/api:pull"));
    assert!(challenge(r#"Basic realm="x""#).is_none());
    assert!(challenge(r#"Bearer realm="http://in.the.clear/token",service="s""#).is_none());
    assert!(challenge(r#"Bearer service="s""#).is_none());
    assert!(challenge(r#"Bearer realm="https://user:pass@x.io/token""#).is_none());
}

#[test]
fn our_token_goes_to_registries_of_azure_alone() {
    for (host, ours) in [
        ("acr.azurecr.io", true),
        ("ACR.azurecr.io", true),
        ("acr.azurecr.cn", true),
        ("azurecr.io", false),
        (".azurecr.io", false),
        ("a.b.azurecr.io", false),
        ("acr.azurecr.io:444", false),
        ("evil-azurecr.io", false),
        ("acr.azurecr.io.evil.org", false),
        ("docker.io", false),
    ] {
        assert_eq!(is_azures(host), ours, "{host}");
    }
}
