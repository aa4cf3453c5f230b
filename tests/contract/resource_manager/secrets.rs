//! Secrets by reference: read with the app's identity, handed to its containers and to nobody else.

use runtime_platform::local::azure::Happening;
use serde_json::{Value, json};

use super::{
    VAULT,
    apps::{APP, body, template},
    bench::{Answer, Bench, GROUP},
    ingress::programs,
};

const IDENTITY: &str =
    "/subscriptions/s1/resourceGroups/Rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id";
const CANARY: &str = "canary-4711";

impl Bench {
    /// An environment, an identity that may read the vault's secrets, and a secret; answers its version.
    async fn secret(&self) -> String {
        self.environment().await;
        let vault = json!({ "location": "westeurope", "properties": { "enableRbacAuthorization": true } });
        assert_eq!(self.put(VAULT, vault).await.status, 201);
        self.pass(std::time::Duration::from_secs(2));
        let principal =
            self.put(IDENTITY, json!({ "location": "westeurope" })).await.body["properties"]["principalId"]
                .clone();
        let role = json!({ "properties": { "principalId": principal,
            "roleDefinitionId": "/providers/Microsoft.Authorization/roleDefinitions/4633458b-17de-408a-b874-0445c86b69e6" } });
        assert_eq!(self.put(&role_id(), role).await.status, 201);
        self.version(CANARY).await
    }

    async fn version(&self, value: &str) -> String {
        let set = self.vault("PUT", "/secrets/db", json!({ "value": value })).await;
        set["id"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
    }

    async fn switch(&self, version: &str, enabled: bool) {
        let attributes = json!({ "attributes": { "enabled": enabled } });
        self.vault("PATCH", &format!("/secrets/db/{version}"), attributes).await;
    }
}

fn role_id() -> String {
    format!("{VAULT}/providers/Microsoft.Authorization/roleAssignments/11111111-1111-1111-1111-111111111111")
}

fn entry(version: &str) -> Value {
    json!({ "name": format!("db-{}", &version[..4]), "identity": IDENTITY,
        "keyVaultUrl": format!("https://kv.vault.localhost/secrets/db/{version}") })
}

fn app(image: &str, version: &str) -> Value {
    let mut body = body(image, "own");
    body["identity"] = json!({ "type": "UserAssigned", "userAssignedIdentities": { IDENTITY: {} } });
    body["properties"]["configuration"]["secrets"] = json!([entry(version)]);
    body["properties"]["template"] = with_secret(image, "own", version);
    body
}

fn with_secret(image: &str, suffix: &str, version: &str) -> Value {
    let mut template = template(image, suffix);
    template["containers"][0]["env"] = json!([{ "name": "GREETING", "secretRef": entry(version)["name"] },
        { "name": "CS_CONFIGURATION_VERSION", "value": "7" }]);
    template
}

fn refused(answer: &Answer, says: &str) {
    assert_eq!(
        (answer.status, answer.code()),
        (400, "InvalidParameterValueInContainerTemplate"),
        "{}",
        answer.body
    );
    let message = answer.body["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("Unable to get value using Managed identity") && message.contains(says),
        "{message}"
    );
}

#[tokio::test]
async fn a_rotation_reaches_what_runs_and_no_value_is_told() {
    let bench = Bench::new().await;
    let first = bench.secret().await;
    bench.put(APP, app("r/api:1", &first)).await;
    bench.pass(std::time::Duration::from_secs(2));
    bench.running("api--own").await;
    let host = bench.host("api").await;
    let told = bench.ask(&host, "/").await.1;
    assert_eq!(told["versions"], json!({ "CS_CONFIGURATION_VERSION": "7", "GREETING": first }));

    let second = bench.version("canary-4712").await;
    let patch = json!({ "configuration": { "secrets": [entry(&first), entry(&second)] },
        "template": with_secret("r/api:1", "new", &second) });
    assert_eq!(bench.patch(patch).await.status, 202);
    bench.running("api--new").await;
    assert_eq!(bench.ask(&bench.host("api--new").await, "/").await.1["versions"]["GREETING"], json!(second));
    assert_eq!(bench.ask(&bench.host("api--own").await, "/").await.1["versions"]["GREETING"], json!(first));

    // What runs goes on when its version is switched off; what is to be started anew does not.
    bench.switch(&first, false).await;
    bench.patch(json!({ "tags": {} })).await;
    assert_eq!(bench.ask(&bench.host("api--own").await, "/").await.0, 200);
    let texts = [bench.get(APP).await.body, bench.post("listSecrets").await.body, told];
    assert!(texts.iter().all(|text| !text.to_string().contains("canary")), "{texts:?}");
    let disk = bench.disk();
    assert!(!disk.windows(6).any(|window| window == b"canary"), "a value is on disk");

    let bench = bench.restart().await;
    bench
        .until("the old revision to have failed", async |bench: &Bench| {
            (bench.revision("api--own").await["runningState"] == json!("Failed")).then_some(())
        })
        .await;
    let detail = bench.revision("api--own").await["runningStateDetails"].as_str().unwrap().to_owned();
    assert!(detail.contains("Operation get is not allowed on a disabled secret"), "{detail}");
    bench.running("api--new").await;
}

#[tokio::test]
async fn a_program_gets_the_value_in_its_environment() {
    let bench = Bench::with(programs()).await;
    let version = bench.secret().await;
    bench.put(APP, app("mine/web:1", &version)).await;
    bench.pass(std::time::Duration::from_secs(2));
    bench.running("api--own").await;
    assert_eq!(bench.ask(&bench.host("api").await, "/").await.1, json!({ "greeting": CANARY }));
    // The program itself said it; nobody else did.
    let heard = bench.heard.lock().unwrap();
    let others = heard.iter().filter(|happening| !matches!(happening, Happening::Output { .. }));
    assert!(others.into_iter().all(|happening| !format!("{happening:?}").contains(CANARY)));
}

#[tokio::test]
async fn a_reference_that_cannot_be_read_is_refused_with_the_reason() {
    let bench = Bench::new().await;
    let version = bench.secret().await;
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = app("r/api:1", &version);
        change(&mut body);
        body
    };
    let put = async |body: Value| bench.put(APP, body).await;
    let secret = |name: &'static str, value: &'static str| {
        move |body: &mut Value| body["properties"]["configuration"]["secrets"][0][name] = json!(value)
    };
    refused(&put(with(&|body| body["identity"] = json!({ "type": "None" }))).await, "not assigned");
    let other = secret("keyVaultUrl", "https://kv.vault.localhost/secrets/none");
    refused(&put(with(&other)).await, "was not found in this key vault");
    let nowhere = secret("keyVaultUrl", "https://other.vault.localhost/secrets/db");
    refused(&put(with(&nowhere)).await, "no vault `other`");
    let elsewhere = put(with(&secret("keyVaultUrl", "https://example.com/secrets/db"))).await;
    assert_eq!(elsewhere.code(), "ContainerAppSecretKeyVaultUrlInvalid");

    bench.switch(&version, false).await;
    refused(&put(with(&|_| ())).await, "disabled secret");
    bench.switch(&version, true).await;
    assert_eq!(
        bench.send("DELETE", &format!("{}?api-version=2022-04-01", role_id()), None).await.status,
        200
    );
    refused(&put(with(&|_| ())).await, "Forbidden");
    assert_eq!(bench.get(APP).await.status, 404);

    // A role on the group is as good as one on the vault.
    let principal = bench.get(IDENTITY).await.body["properties"]["principalId"].clone();
    let role = json!({ "properties": { "principalId": principal,
        "roleDefinitionId": "/x/roleDefinitions/4633458B-17DE-408A-B874-0445C86B69E6" } });
    bench.put(&role_id().replace(VAULT, GROUP), role).await;
    assert_eq!(put(with(&|_| ())).await.status, 201);
}
