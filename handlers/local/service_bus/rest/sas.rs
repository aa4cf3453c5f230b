//! Shared access signatures: a resource, an expiry, and a signature over both under a named key.

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, Mac};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::Sha256;

/// What stands for itself in a token.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A named key that signs tokens.
#[derive(Clone)]
pub struct SasKey {
    pub name: String,
    pub key: String,
}

/// Makes the value of an `Authorization` header that is good for `resource` (an entity's URI, or its
/// namespace's) until `expires`, in whole seconds.
pub fn sign(resource: &str, key: &SasKey, expires: Timestamp) -> String {
    let resource = utf8_percent_encode(resource, ENCODED).to_string();
    let expiry = expires.as_second().to_string();
    let signature = BASE64_STANDARD.encode(mac(&resource, &expiry, key).finalize().into_bytes());
    let signature = utf8_percent_encode(&signature, ENCODED);
    let name = utf8_percent_encode(&key.name, ENCODED);
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={name}")
}

/// Why a signature is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SasRefused {
    #[error("the shared access signature must have sr, sig, se and skn, once each")]
    Malformed,
    #[error("there is no key named '{0}'")]
    UnknownKey(String),
    #[error("the signature does not match its key, resource and expiry")]
    Forged,
    #[error("the shared access signature has expired")]
    Expired,
    #[error("the shared access signature is for '{0}', not for what was asked")]
    Elsewhere(String),
}

/// Checks the value of an `Authorization` header for a request to `path` (decoded).
pub(super) fn check(authorization: &str, path: &str, key: &SasKey, now: Timestamp) -> Result<(), SasRefused> {
    let fields = authorization.trim_start_matches("SharedAccessSignature").trim();
    let field = |name: &str| {
        let mut values =
            fields.split('&').filter_map(|field| field.split_once('=')).filter(|(key, _)| *key == name);
        match (values.next(), values.next()) {
            (Some((_, value)), None) => Ok(value),
            _ => Err(SasRefused::Malformed),
        }
    };
    let (resource, signature, expiry, name) = (field("sr")?, field("sig")?, field("se")?, field("skn")?);
    let name = decoded(name)?;
    if name != key.name {
        return Err(SasRefused::UnknownKey(name));
    }
    let signature = BASE64_STANDARD.decode(decoded(signature)?).map_err(|_| SasRefused::Malformed)?;
    mac(resource, expiry, key).verify_slice(&signature).map_err(|_| SasRefused::Forged)?;
    if expiry.parse::<i64>().map_err(|_| SasRefused::Malformed)? <= now.as_second() {
        return Err(SasRefused::Expired);
    }
    let resource = decoded(resource)?;
    if covers(&resource, path) { Ok(()) } else { Err(SasRefused::Elsewhere(resource)) }
}

fn decoded(text: &str) -> Result<String, SasRefused> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| SasRefused::Malformed)?;
    Ok(text.into_owned())
}

/// Whether `path` is the resource's path or lies below it.
fn covers(resource: &str, path: &str) -> bool {
    let rest = resource.split_once("://").map_or(resource, |(_, rest)| rest);
    let resource = rest.split_once('/').map_or("", |(_, path)| path).to_ascii_lowercase();
    let path = path.to_ascii_lowercase();
    let mut asked = path.split('/').filter(|segment| !segment.is_empty());
    resource.split('/').filter(|segment| !segment.is_empty()).all(|segment| asked.next() == Some(segment))
}

fn mac(resource: &str, expiry: &str, key: &SasKey) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.key.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(resource.as_bytes());
    mac.update(b"\n");
    mac.update(expiry.as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SasKey {
        SasKey { name: "Root Key".into(), key: "c2VjcmV0+/=".into() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_signature_has_the_documented_form() {
        // The signature was computed with Python's hmac over `https%3A%2F%2Fbus.localhost%2Fdeploy\n1000`.
        assert_eq!(
            sign("https://bus.localhost/deploy", &key(), at(1000)),
            "SharedAccessSignature sr=https%3A%2F%2Fbus.localhost%2Fdeploy&sig=Te6pRNbEC404BNtugZIOFJXugWB4UGUt5YhICfThjBg%3D&se=1000&skn=Root%20Key"
        );
    }

    #[test]
    fn a_signature_is_good_for_its_resource_until_it_expires() {
        let token = |resource| sign(resource, &key(), at(1000));
        let elsewhere = |resource: &str| Err(SasRefused::Elsewhere(resource.into()));
        let table = [
            ("https://bus.localhost/", "/deploy/messages", 999, Ok(())),
            ("sb://bus.localhost", "/deploy/messages", 999, Ok(())),
            ("https://bus.localhost/Deploy", "/deploy/messages/head", 999, Ok(())),
            (
                "https://bus.localhost/deploy",
                "/deployment/messages",
                999,
                elsewhere("https://bus.localhost/deploy"),
            ),
            (
                "https://bus.localhost/sweep",
                "/deploy/messages",
                999,
                elsewhere("https://bus.localhost/sweep"),
            ),
            ("https://bus.localhost/", "/deploy/messages", 1000, Err(SasRefused::Expired)),
        ];
        for (resource, path, now, expected) in table {
            assert_eq!(check(&token(resource), path, &key(), at(now)), expected, "{resource} {path} {now}");
        }
    }

    #[test]
    fn a_signature_that_was_tampered_with_is_refused() {
        let good = sign("https://bus.localhost/", &key(), at(1000));
        let check = |token: &str| check(token, "/deploy", &key(), at(1));
        assert_eq!(check(&good), Ok(()));
        assert_eq!(check(&good.replace("se=1000", "se=9000")), Err(SasRefused::Forged));
        assert_eq!(check(&good.replace("bus.localhost", "bus.elsewhere")), Err(SasRefused::Forged));
        assert_eq!(check(&good.replace("Root%20Key", "Other")), Err(SasRefused::UnknownKey("Other".into())));
        assert_eq!(check(&good.replace("&se=1000", "")), Err(SasRefused::Malformed));
        assert_eq!(check(&format!("{good}&se=1000")), Err(SasRefused::Malformed));
        assert_eq!(check("SharedAccessSignature"), Err(SasRefused::Malformed));
    }
}
