//! Publishing to Service Bus over its REST API: one POST for one message.
//!
//! Deliberately absent: the batch form, which has no content type for its items; receiving, which the
//! Functions host does for us; retries, which the outbox does for us.

use std::{error::Error, fmt::Write, sync::Arc, time::Duration};

use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use url::Url;

use super::http_client::{reason, retry_after};
use crate::{
    outcome::Fault,
    ports::bus::{Bus, Outgoing},
};

/// What a token for Service Bus is asked for.
const SCOPE: &str = "https://servicebus.azure.net/.default";
/// The most bytes of a message's properties, as headers; broker properties are counted too. An
/// HTTP/2 server takes 16 KiB of headers unless it is told otherwise, and ours come on top of its own.
pub const PROPERTIES_BYTES_MAX: usize = 12 * 1024;
/// The most bytes of the broker's words on a refusal that are read.
const REFUSAL_BYTES_MAX: usize = 8 * 1024;
/// The most characters of them that are told.
const DETAIL_CHARACTERS_MAX: usize = 300;
/// Where the broker reads what is its own of a message.
const BROKER_PROPERTIES: HeaderName = HeaderName::from_static("brokerproperties");
/// Headers with a meaning of their own: a property of such a name would not arrive as one.
const RESERVED: [&str; 14] = [
    "authorization",
    "brokerproperties",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];
/// What is escaped in an entity's name; a topic's name may have slashes.
const ENTITY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// Publishes to one namespace. Cheap to clone.
#[derive(Clone)]
pub struct ServiceBusPublisher {
    endpoint: Url,
    client: reqwest::Client,
    credential: Arc<dyn TokenCredential>,
}

/// Why there is no publisher.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{endpoint}` is no endpoint of a Service Bus namespace; it must be a URL that begins with `https://`"
)]
pub struct NamespaceError {
    pub endpoint: String,
}

impl ServiceBusPublisher {
    /// `endpoint` is e.g. `https://bus-prod.servicebus.windows.net`.
    ///
    /// # Errors
    /// When it is no HTTPS URL: a token never leaves in the clear.
    pub fn new(
        endpoint: &str,
        client: reqwest::Client,
        credential: Arc<dyn TokenCredential>,
    ) -> Result<Self, NamespaceError> {
        let refused = || NamespaceError { endpoint: endpoint.to_owned() };
        let endpoint = Url::parse(endpoint).ok().filter(|url| url.scheme() == "https" && url.has_host());
        Ok(Self { endpoint: endpoint.ok_or_else(refused)?, client, credential })
    }

    fn url(&self, entity: &str) -> Url {
        let mut url = self.endpoint.clone();
        url.set_path(&format!("{}/messages", utf8_percent_encode(entity, ENTITY)));
        url
    }
}

#[async_trait]
impl Bus for ServiceBusPublisher {
    async fn send(&self, message: &Outgoing) -> Result<(), Fault> {
        let doing = format!("sending message `{}` to `{}`", message.message_id, message.entity);
        let mut headers = headers_of(message, &doing)?;
        let token = self.credential.get_token(&[SCOPE], None).await.map_err(|error| {
            Fault::transient(doing.as_str(), format!("there is no token for Service Bus: {}", reason(&error)))
        })?;
        headers.insert(header::AUTHORIZATION, bearer(token.token.secret(), &doing)?);
        let request = self.client.post(self.url(&message.entity)).headers(headers).body(message.body.clone());
        let response =
            request.send().await.map_err(|error| Fault::transient(doing.as_str(), reason(&error)))?;
        let status = response.status().as_u16();
        if (200..300).contains(&status) {
            return Ok(());
        }
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let pause = retry_after(header, Timestamp::now());
        let words = words_of(response).await.unwrap_or_default();
        Err(fault(doing, status, pause, &words))
    }
}

fn bearer(token: &str, doing: &str) -> Result<HeaderValue, Fault> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| Fault::transient(doing, "the token is no text for a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn headers_of(message: &Outgoing, doing: &str) -> Result<HeaderMap, Fault> {
    let refuse = |code: &str, detail: String| Fault::Rejected {
        doing: doing.to_owned(),
        code: code.to_owned(),
        detail,
    };
    let mut headers = HeaderMap::with_capacity(message.properties.len() + 3);
    let content_type = HeaderValue::from_str(&message.content_type)
        .map_err(|_| refuse("InvalidContentType", "the content type is no text for a header".to_owned()))?;
    headers.insert(header::CONTENT_TYPE, content_type);
    let broker = ascii_json(&broker_properties(message));
    let mut bytes = broker.len();
    headers.insert(BROKER_PROPERTIES, in_header(&broker));
    for (name, value) in &message.properties {
        let header = HeaderName::from_bytes(name.as_bytes()).ok().filter(|header| header.as_str() == name);
        let Some(header) = header.filter(|header| !RESERVED.contains(&header.as_str())) else {
            let detail = format!(
                "the property `{name}` cannot be sent: a name must be lower case, a word, and no HTTP header with a meaning"
            );
            return Err(refuse("InvalidProperty", detail));
        };
        let value = ascii_json(&json!(value));
        bytes += name.len() + value.len();
        headers.insert(header, in_header(&value));
    }
    if bytes > PROPERTIES_BYTES_MAX {
        let detail = format!("its properties have {bytes} bytes, the most is {PROPERTIES_BYTES_MAX}");
        return Err(refuse("PropertiesTooLarge", detail));
    }
    Ok(headers)
}

fn in_header(ascii: &str) -> HeaderValue {
    HeaderValue::from_str(ascii).expect("JSON escaped to printable ASCII is a header's text")
}

fn broker_properties(message: &Outgoing) -> Value {
    let mut properties = Map::new();
    properties.insert("MessageId".to_owned(), json!(message.message_id));
    for (name, value) in [
        ("SessionId", &message.session_id),
        ("Label", &message.subject),
        ("CorrelationId", &message.correlation_id),
    ] {
        if let Some(value) = value {
            properties.insert(name.to_owned(), json!(value));
        }
    }
    if let Some(time_to_live) = message.time_to_live {
        properties.insert("TimeToLive".to_owned(), json!(whole_seconds(time_to_live).max(1)));
    }
    if let Some(at) = message.scheduled_at {
        properties.insert("ScheduledEnqueueTimeUtc".to_owned(), json!(http_date(at)));
    }
    Value::Object(properties)
}

/// Rounded up.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// RFC 1123, which has whole seconds: rounded up, so that nothing arrives too early.
fn http_date(at: Timestamp) -> String {
    let up = i64::from(at.subsec_nanosecond() > 0);
    let whole = Timestamp::from_second(at.as_second().saturating_add(up)).unwrap_or(Timestamp::MAX);
    jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&whole)
        .expect("every timestamp from year 0 to 9999 has an HTTP date")
}

/// JSON in printable ASCII, as a header can carry it: everything else can only be inside a text, and
/// there it is escaped.
fn ascii_json(value: &Value) -> String {
    let mut ascii = String::new();
    for character in value.to_string().chars() {
        if matches!(character, ' '..='~') {
            ascii.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            write!(ascii, "\\u{unit:04x}").expect("a String takes all that is written");
        }
    }
    ascii
}

/// The broker's words on a refusal, as far as they are read.
async fn words_of(mut response: reqwest::Response) -> Result<String, reqwest::Error> {
    let mut words = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        words.extend_from_slice(&chunk[..chunk.len().min(REFUSAL_BYTES_MAX - words.len())]);
        if words.len() >= REFUSAL_BYTES_MAX {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&words).into_owned())
}

/// What the broker's answer means. 403 stands for no right, for an entity that is full, and for a
/// message that is too large: only its words tell them apart.
fn fault(doing: String, status: u16, pause: Option<Duration>, words: &str) -> Fault {
    let detail = detail_of(words);
    let lower = words.to_ascii_lowercase();
    let too_large = ["larger than", "message size", "messagesizeexceeded", "too large"];
    let full = ["quota", "maximum entity size", "entity is full"];
    let says = |any: &[&str]| any.iter().any(|word| lower.contains(word));
    let code = match status {
        408 | 429 | 500..=599 => None,
        413 => Some("MessageTooLarge"),
        403 if says(&too_large) => Some("MessageTooLarge"),
        403 if says(&full) => None,
        403 => Some("Forbidden"),
        401 => Some("Unauthorized"),
        404 | 410 => Some("EntityNotFound"),
        400..=499 => Some("Refused"),
        _ => Some("Unexpected"),
    };
    match code {
        Some(code) => {
            Fault::Rejected { doing, code: code.to_owned(), detail: format!("{detail} (HTTP {status})") }
        }
        None => {
            let source: Box<dyn Error + Send + Sync> =
                format!("Service Bus answered {status}: {detail}").into();
            Fault::Transient { doing, retry_after: pause, source }
        }
    }
}

/// The sentence within the broker's words, which are XML, JSON or neither.
fn detail_of(words: &str) -> String {
    let between = words.split_once("<Detail>").and_then(|(_, rest)| rest.split_once("</Detail>"));
    let json = || {
        let value: Value = serde_json::from_str(words).ok()?;
        let text =
            value.pointer("/error/message").or_else(|| value.get("message")).or_else(|| value.get("detail"));
        Some(text?.as_str()?.to_owned())
    };
    let text = between.map(|(text, _)| text.to_owned()).or_else(json).unwrap_or_else(|| words.to_owned());
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() {
        return "it says nothing more".to_owned();
    }
    text.chars().take(DETAIL_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Outgoing {
        Outgoing {
            entity: "runtime.deployment".to_owned(),
            message_id: "3a6e1f0c-6f0b-4f5e-9d0e-2f6b7a1c9e11".to_owned(),
            content_type: "application/json".to_owned(),
            body: b"{}".to_vec(),
            properties: [("cs-tenant-id".to_owned(), "connectsoft".to_owned())].into(),
            session_id: None,
            correlation_id: None,
            subject: None,
            scheduled_at: None,
            time_to_live: None,
        }
    }

    fn code_of(fault: &Fault) -> String {
        match fault {
            Fault::Rejected { code, .. } => code.clone(),
            Fault::Transient { retry_after, .. } => format!("transient {retry_after:?}"),
            other @ (Fault::Conflict { .. } | Fault::Unreadable { .. }) => format!("{other:?}"),
        }
    }

    #[test]
    fn a_schedule_is_rounded_up_to_whole_seconds() {
        let at = |text: &str| http_date(text.parse().unwrap());
        assert_eq!(at("2026-11-05T07:08:09Z"), "Thu, 05 Nov 2026 07:08:09 GMT");
        assert_eq!(at("2026-11-05T07:08:09.001Z"), "Thu, 05 Nov 2026 07:08:10 GMT");
    }

    #[test]
    fn what_a_header_cannot_carry_is_escaped_and_comes_back() {
        for text in ["plain", "quote \" and \\", "Grüße\n\u{7f}", "🚀 émigré\t"] {
            let ascii = ascii_json(&json!(text));
            assert!(ascii.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{ascii}");
            assert_eq!(serde_json::from_str::<String>(&ascii).unwrap(), text);
        }
        assert_eq!(ascii_json(&json!("é🚀")), r#""\u00e9\ud83d\ude80""#);
    }

    #[test]
    fn a_property_that_would_not_arrive_is_refused() {
        for name in ["Upper", "with space", "", "content-type", "brokerproperties", "host"] {
            let mut message = message();
            message.properties.insert(name.to_owned(), "x".to_owned());
            assert_eq!(code_of(&headers_of(&message, "sending").unwrap_err()), "InvalidProperty", "{name}");
        }
        let mut message = message();
        message.properties.insert("cs-original".to_owned(), "x".repeat(PROPERTIES_BYTES_MAX));
        assert_eq!(code_of(&headers_of(&message, "sending").unwrap_err()), "PropertiesTooLarge");
    }

    #[test]
    fn each_answer_of_the_broker_has_one_meaning() {
        let xml = |detail: &str| format!("<Error><Code>403</Code><Detail>{detail}</Detail></Error>");
        let pause = Some(Duration::from_secs(4));
        for (status, words, meaning) in [
            (400, String::new(), "Refused"),
            (401, String::new(), "Unauthorized"),
            (403, xml("Put token failed."), "Forbidden"),
            (
                403,
                xml("The message (size: 300000 bytes) is larger than is currently allowed."),
                "MessageTooLarge",
            ),
            (403, xml("The maximum entity size has been reached or exceeded."), "transient Some(4s)"),
            (403, xml("Quota exceeded for topic."), "transient Some(4s)"),
            (404, String::new(), "EntityNotFound"),
            (410, String::new(), "EntityNotFound"),
            (408, String::new(), "transient Some(4s)"),
            (413, String::new(), "MessageTooLarge"),
            (429, String::new(), "transient Some(4s)"),
            (500, String::new(), "transient Some(4s)"),
            (503, String::new(), "transient Some(4s)"),
            (302, String::new(), "Unexpected"),
        ] {
            assert_eq!(
                code_of(&fault("sending".to_owned(), status, pause, &words)),
                meaning,
                "{status} {words}"
            );
        }
        let told = fault("sending".to_owned(), 403, None, &xml("Put\n token failed."));
        assert_eq!(told.to_string(), "sending: Put token failed. (HTTP 403) (Forbidden)");
    }
}

#[cfg(all(test, feature = "local"))]
mod over_the_wire {
    use super::*;
    use crate::azure::testing::{Issuer, Server, reply};

    const AUDIENCE: &str = "https://servicebus.azure.net";

    fn publisher(server: &Server) -> ServiceBusPublisher {
        ServiceBusPublisher::new(&server.endpoint, server.client(), Arc::new(Issuer)).unwrap()
    }

    fn whole() -> Outgoing {
        Outgoing {
            entity: "runtime.deployment".to_owned(),
            message_id: "m-1".to_owned(),
            content_type: "application/vnd.masstransit+json".to_owned(),
            body: b"{\"a\":1}".to_vec(),
            properties: [
                ("cs-event-type".to_owned(), "RuntimeDeploymentCompleted".to_owned()),
                ("cs-note".to_owned(), "né \"x\"".to_owned()),
            ]
            .into(),
            session_id: Some("svc-1".to_owned()),
            correlation_id: Some("corr-1".to_owned()),
            subject: Some("RuntimeDeploymentCompleted".to_owned()),
            scheduled_at: Some("2026-11-05T07:08:09.5Z".parse().unwrap()),
            time_to_live: Some(Duration::from_millis(1500)),
        }
    }

    #[tokio::test]
    async fn a_message_is_one_post_with_its_properties_as_headers() {
        let server = Server::start(AUDIENCE, |_| reply(201, &[], &Value::Null)).await;
        publisher(&server).send(&whole()).await.unwrap();
        let seen = server.seen();
        assert_eq!(server.lines(), ["POST /runtime.deployment/messages"]);
        assert_eq!(seen[0].body, b"{\"a\":1}");
        let ours = seen[0].headers.iter().filter(|(name, _)| {
            name.as_str().starts_with("cs-") || ["content-type", "brokerproperties"].contains(&name.as_str())
        });
        let mut ours = ours.map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect::<Vec<_>>();
        ours.sort_unstable();
        assert_eq!(
            ours,
            [
                (
                    "brokerproperties",
                    r#"{"MessageId":"m-1","SessionId":"svc-1","Label":"RuntimeDeploymentCompleted","CorrelationId":"corr-1","TimeToLive":2,"ScheduledEnqueueTimeUtc":"Thu, 05 Nov 2026 07:08:10 GMT"}"#
                ),
                ("content-type", "application/vnd.masstransit+json"),
                ("cs-event-type", r#""RuntimeDeploymentCompleted""#),
                ("cs-note", r#""n\u00e9 \"x\"""#),
            ]
        );
    }

    #[tokio::test]
    async fn a_bus_that_is_not_there_is_transient_and_says_why() {
        let server = Server::start(AUDIENCE, |_| reply(201, &[], &Value::Null)).await;
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let endpoint = format!("https://server.localhost:{free}");
        let publisher = ServiceBusPublisher::new(&endpoint, server.client(), Arc::new(Issuer)).unwrap();
        let fault = publisher.send(&whole()).await.unwrap_err();
        assert!(matches!(fault, Fault::Transient { .. }));
        let chain = fault.chain();
        assert!(
            chain.starts_with("sending message `m-1` to `runtime.deployment`: Connection refused"),
            "{chain}"
        );
        assert_eq!(server.lines(), [""; 0]);
    }

    #[tokio::test]
    async fn a_busy_broker_names_its_pause() {
        let server =
            Server::start(AUDIENCE, |_| reply(503, &[("retry-after", "9".to_owned())], &Value::Null)).await;
        let fault = publisher(&server).send(&whole()).await.unwrap_err();
        assert!(
            matches!(fault, Fault::Transient { retry_after: Some(pause), .. } if pause == Duration::from_secs(9))
        );
    }

    #[test]
    fn a_namespace_in_the_clear_is_refused() {
        crate::azure::http_client::install_tls_provider();
        let client = reqwest::Client::new();
        let refused = ServiceBusPublisher::new("http://bus.localhost", client, Arc::new(Issuer)).err();
        assert_eq!(refused, Some(NamespaceError { endpoint: "http://bus.localhost".to_owned() }));
    }
}
