//! An HTTP request, in the form for handlers that are not forwarded to.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, header};
use serde_json::{Map, Value, json};

use crate::local::host::wire::{Metadata, Net, Occasion, body_members, invocation};

/// Names that Azure's server writes in these letters, however they came.
const KNOWN_HEADERS: &[&str] = &[
    "Accept",
    "Accept-Charset",
    "Accept-Encoding",
    "Accept-Language",
    "Authorization",
    "Cache-Control",
    "Connection",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "Cookie",
    "Date",
    "Expect",
    "Host",
    "If-Match",
    "If-Modified-Since",
    "If-None-Match",
    "Origin",
    "Pragma",
    "Range",
    "Referer",
    "Transfer-Encoding",
    "Upgrade",
    "User-Agent",
    "Via",
];
const CLAIM_LEVEL: &str = "http://schemas.microsoft.com/2017/07/functions/claims/authlevel";
const CLAIM_KEY: &str = "http://schemas.microsoft.com/2017/07/functions/claims/keyid";

/// A request that a function is to answer.
#[derive(Clone, Debug)]
pub struct HttpCall {
    pub url: String,
    pub method: String,
    /// Decoded, in the order of the query; names may repeat.
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    /// The route's parameters.
    pub parameters: Vec<(String, String)>,
    /// Present only where the request named a length above zero.
    pub body: Option<Vec<u8>>,
    /// The level and the name of the key that let it in; none where anyone may come in.
    pub key: Option<(&'static str, String)>,
}

/// The body of the request.
pub fn http(function: &str, binding: &str, call: &HttpCall, occasion: Occasion) -> String {
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in &call.headers {
        headers
            .entry(header_name(name.as_str()))
            .or_default()
            .push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    let mut query = Map::new();
    for (name, value) in &call.query {
        let joined = match query.get(name).and_then(Value::as_str) {
            Some(earlier) => format!("{earlier},{value}"),
            None => value.clone(),
        };
        query.insert(name.clone(), Value::String(joined));
    }
    let parameters: Map<String, Value> =
        call.parameters.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let mut request = Map::new();
    request.insert("Url".to_owned(), json!(call.url));
    request.insert("Method".to_owned(), json!(call.method));
    request.insert("Query".to_owned(), Value::Object(query.clone()));
    request.insert("Headers".to_owned(), json!(headers));
    request.insert("Params".to_owned(), Value::Object(parameters));
    request.insert("Identities".to_owned(), json!([identity(call)]));
    let text = call.body.as_deref().map(|body| body_text(&call.headers, body));
    if let Some(text) = &text {
        request.insert("Body".to_owned(), json!(text));
    }
    let joined: Map<String, Value> =
        headers.into_iter().map(|(name, values)| (name, json!(values.join(",")))).collect();
    let mut metadata = Metadata::default();
    metadata.put("Query", Net::Object(Value::Object(query.clone())));
    metadata.put("Headers", Net::Object(Value::Object(joined)));
    for (name, value) in query {
        metadata.put_new(&name, Net::Text(value.as_str().unwrap_or_default().to_owned()));
    }
    for (name, value) in &call.parameters {
        metadata.put_new(name, Net::Text(value.clone()));
    }
    for (name, value) in body_members(text.as_deref().unwrap_or_default()) {
        metadata.put_new(&name, value);
    }
    metadata.put_sys(function, occasion);
    invocation(binding, Net::Object(Value::Object(request)), metadata)
}

fn header_name(name: &str) -> String {
    let known = KNOWN_HEADERS.iter().find(|known| known.eq_ignore_ascii_case(name));
    known.map_or_else(|| name.to_owned(), |known| (*known).to_owned())
}

/// Text, unless the type says that it is none.
fn body_text(headers: &HeaderMap, body: &[u8]) -> String {
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = content_type.to_ascii_lowercase();
    if content_type.starts_with("application/octet-stream") || content_type.starts_with("multipart/") {
        return BASE64_STANDARD.encode(body);
    }
    String::from_utf8_lossy(body).into_owned()
}

fn identity(call: &HttpCall) -> Value {
    let claim = |kind: &str, value: &str| {
        json!({
            "Issuer": "LOCAL AUTHORITY",
            "OriginalIssuer": "LOCAL AUTHORITY",
            "Properties": {},
            "Type": kind,
            "Value": value,
            "ValueType": "http://www.w3.org/2001/XMLSchema#string",
        })
    };
    let claims: Vec<Value> = call
        .key
        .iter()
        .flat_map(|(level, name)| [claim(CLAIM_LEVEL, level), claim(CLAIM_KEY, name)])
        .collect();
    json!({
        "AuthenticationType": call.key.as_ref().map(|_| "WebJobsAuthLevel"),
        "IsAuthenticated": call.key.is_some(),
        "Actor": null,
        "BootstrapContext": null,
        "Claims": claims,
        "Label": null,
        "Name": null,
        "NameClaimType": "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name",
        "RoleClaimType": "http://schemas.microsoft.com/ws/2008/06/identity/claims/role",
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::local::host::payloads::golden;

    fn occasion() -> Occasion {
        Occasion {
            now: "2024-05-14T15:14:15.128919Z".parse().unwrap(),
            random: "7a85f722-f6ba-4add-9a45-7ed862be02ae".parse().unwrap(),
        }
    }

    fn call() -> HttpCall {
        let headers = [("accept", "*/*"), ("host", "localhost:7071")];
        let header = |(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value));
        HttpCall {
            url: "http://localhost:7071/api/SimpleHttpTrigger".into(),
            method: "GET".into(),
            query: Vec::new(),
            headers: headers.map(header).into_iter().collect(),
            parameters: Vec::new(),
            body: None,
            key: None,
        }
    }

    #[test]
    fn a_plain_get_looks_as_a_real_host_wrote_it() {
        golden::compare("http_get", &http("SimpleHttpTrigger", "req", &call(), occasion()));
    }

    #[test]
    fn query_parameters_and_body_are_flattened_into_metadata() {
        let mut call = call();
        call.method = "POST".into();
        call.url = "http://localhost:7071/api/things/7?a=1&a=2".into();
        call.query =
            [("a", "1"), ("a", "2")].map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        call.parameters = vec![("id".into(), "7".into())];
        call.headers.insert("content-type", HeaderValue::from_static("application/json"));
        call.headers.insert("x-functions-key", HeaderValue::from_static("k"));
        call.body = Some(br#"{"name":"n","count":2}"#.to_vec());
        call.key = Some(("Function", "local".into()));
        golden::compare("http_post", &http("Things", "req", &call, occasion()));
    }

    #[test]
    fn bytes_of_no_text_are_base64() {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/octet-stream"));
        assert_eq!(body_text(&headers, &[0xff]), "/w==");
        assert_eq!(body_text(&HeaderMap::new(), b"hi"), "hi");
    }
}
