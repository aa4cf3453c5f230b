//! Sending to Service Bus over its REST interface, signed with the key of a connection string or,
//! where the context has none, with the login of Azure's own tools.

use std::{collections::BTreeMap, time::Duration};

use azure_core::credentials::TokenCredential;
use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, Mac};
use jiff::Timestamp;
use reqwest::StatusCode;
use serde_json::json;
use sha2::Sha256;

use crate::{client, context::Context, failure::Failure};

/// How long a signature is good for; it is used at once.
const SIGNATURE_LIFETIME: Duration = Duration::from_secs(600);
/// The longest answer of the broker that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// What a token for Service Bus is asked for.
const SCOPE: &str = "https://servicebus.azure.net/.default";

/// A message on its way to a queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Mail {
    pub queue: String,
    /// What the broker's duplicate detection goes by.
    pub message_id: String,
    pub correlation_id: Option<String>,
    pub content_type: &'static str,
    /// Application properties, names in lower case.
    pub properties: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// The parts of a connection string that sending needs.
#[derive(PartialEq, Eq)]
struct ConnectionString {
    endpoint: String,
    key_name: String,
    key: String,
}

impl ConnectionString {
    fn read(text: &str) -> Result<Self, Failure> {
        let part = |name: &str| {
            text.split(';')
                .filter_map(|part| part.split_once('='))
                .find(|(key, _)| key.trim().eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim().to_owned())
                .filter(|value| !value.is_empty())
                .ok_or_else(|| {
                    Failure::unusable(format!("The context's `serviceBusConnectionString` has no `{name}`"))
                        .advice("it reads Endpoint=sb://HOST/;SharedAccessKeyName=NAME;SharedAccessKey=KEY")
                })
        };
        let endpoint = part("Endpoint")?;
        let host =
            endpoint.split_once("://").map_or(endpoint.as_str(), |(_, host)| host).trim_end_matches('/');
        Ok(Self {
            endpoint: format!("https://{host}"),
            key_name: part("SharedAccessKeyName")?,
            key: part("SharedAccessKey")?,
        })
    }
}

enum Credential {
    Key(ConnectionString),
    Login,
}

/// The queues of one platform, for sending.
pub struct Bus {
    http: reqwest::Client,
    endpoint: String,
    credential: Credential,
}

impl Bus {
    /// # Errors
    /// When the context does not say where Service Bus is, or its connection string is none.
    pub async fn new(context: &Context) -> Result<Self, Failure> {
        let connection =
            context.service_bus_connection_string.as_deref().map(ConnectionString::read).transpose()?;
        let endpoint = context
            .service_bus_endpoint
            .clone()
            .or_else(|| connection.as_ref().map(|connection| connection.endpoint.clone()))
            .ok_or_else(|| {
                Failure::unusable(format!(
                    "The context `{}` does not say where Service Bus is",
                    context.file.display()
                ))
                .advice("write `serviceBusConnectionString`, or `serviceBusEndpoint` to use your Azure login")
            })?;
        Ok(Self {
            http: client::http(context).await?,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            credential: connection.map_or(Credential::Login, Credential::Key),
        })
    }

    /// The host that Service Bus is at, as addresses within messages name it.
    pub fn host(&self) -> &str {
        self.endpoint.split_once("://").map_or(self.endpoint.as_str(), |(_, host)| host)
    }

    /// Sends one message; returning means that the broker has it.
    ///
    /// # Errors
    /// When the broker cannot be reached or does not take it.
    pub async fn send(&self, mail: Mail) -> Result<(), Failure> {
        let entity = format!("{}/{}", self.endpoint, mail.queue);
        let mut broker = serde_json::Map::new();
        broker.insert("MessageId".into(), json!(mail.message_id));
        if let Some(correlation) = &mail.correlation_id {
            broker.insert("CorrelationId".into(), json!(correlation));
        }
        let mut request = self
            .http
            .post(format!("{entity}/messages"))
            .header("authorization", self.authorization(&entity).await?)
            .header("content-type", mail.content_type)
            .header("brokerproperties", serde_json::Value::Object(broker).to_string());
        for (name, value) in &mail.properties {
            request = request.header(name, json!(value).to_string());
        }
        let mut answer = request.body(mail.body).send().await.map_err(|error| {
            Failure::unusable(format!("Service Bus at {} cannot be reached", self.endpoint))
                .because(&error)
                .advice("start the platform with `runtimectl up`, or name another with --context")
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let mut body = Vec::new();
        // What cannot be read of a refusal only shortens what is told of it.
        while let Ok(Some(part)) = answer.chunk().await {
            body.extend_from_slice(&part);
            if body.len() > ANSWER_BYTES_MAX {
                break;
            }
        }
        Err(refusal(&mail.queue, status, &client::shown(&body)))
    }

    async fn authorization(&self, entity: &str) -> Result<String, Failure> {
        match &self.credential {
            Credential::Key(connection) => {
                let until = Timestamp::now().as_second() + SIGNATURE_LIFETIME.as_secs().cast_signed();
                Ok(sign(entity, &connection.key_name, &connection.key, until))
            }
            Credential::Login => {
                let failed = |error: azure_core::Error| {
                    Failure::unusable("There is no Azure login to send with")
                        .because(&error)
                        .advice("run `az login`, or write `serviceBusConnectionString` into the context")
                };
                let credential = azure_identity::DeveloperToolsCredential::new(None).map_err(failed)?;
                let token = credential.get_token(&[SCOPE], None).await.map_err(failed)?;
                Ok(format!("Bearer {}", token.token.secret()))
            }
        }
    }
}

fn refusal(queue: &str, status: StatusCode, answer: &str) -> Failure {
    let failure = |what: String| Failure::unusable(format!("{what} (HTTP {}: {answer})", status.as_u16()));
    match status {
        StatusCode::NOT_FOUND => failure(format!("Service Bus has no queue `{queue}`"))
            .advice("name another with --queue; the queues are declared in infra/messaging.json"),
        StatusCode::UNAUTHORIZED => failure("Service Bus refused our credential".into()).advice(
            "the context's key belongs to another platform, or the clocks differ by more than ten minutes",
        ),
        StatusCode::FORBIDDEN => failure(format!("Service Bus did not take the message into `{queue}`"))
            .advice("the answer says which it is: no right to send, a full queue, or too large a message"),
        _ => failure(format!("Service Bus did not take the message into `{queue}`"))
            .advice("try again in a moment"),
    }
}

/// A shared access signature for `resource`, good until `until` (seconds of the Unix epoch).
fn sign(resource: &str, key_name: &str, key: &str, until: i64) -> String {
    let encode = client::segment;
    let resource = encode(&resource.to_lowercase());
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(format!("{resource}\n{until}").as_bytes());
    let signature = encode(&BASE64_STANDARD.encode(mac.finalize().into_bytes()));
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={until}&skn={}", encode(key_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_is_read_in_any_order_and_case() {
        let text = "sharedaccesskey=a=b=;SharedAccessKeyName=root;Endpoint=sb://ns.servicebus.windows.net/";
        let read = ConnectionString::read(text).unwrap_or_else(|_| panic!());
        assert!(
            read == ConnectionString {
                endpoint: "https://ns.servicebus.windows.net".into(),
                key_name: "root".into(),
                key: "a=b=".into()
            }
        );
        let Err(Failure::Told { what, .. }) = ConnectionString::read("Endpoint=sb://x/") else { panic!() };
        assert_eq!(what, "The context's `serviceBusConnectionString` has no `SharedAccessKeyName`");
    }

    #[test]
    fn a_signature_covers_the_resource_and_its_end() {
        // Worked out apart from this code: HMAC-SHA256 with key `key` over
        // `https%3A%2F%2Fns%2Fdeploy` LF `1700000000`.
        let signed = sign("https://NS/deploy", "root", "key", 1_700_000_000);
        assert_eq!(
            signed,
            "SharedAccessSignature sr=https%3A%2F%2Fns%2Fdeploy&sig=2agcS6IkCI4PtmZFKLnjQP3yGJi6VZ0B9pf6UylzQ%2Bw%3D&se=1700000000&skn=root"
        );
    }
}
