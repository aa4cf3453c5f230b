//! The identity endpoint of App Service's managed identity protocol (api-version 2019-08-01), and
//! the tokens it issues, which the other stand-ins check.
//!
//! A token is `local.<audience, base64url>.<expiry, seconds>.<HMAC-SHA256>` under a key of this
//! machine: enough to tell whether it was issued here, for this audience, and is still good.

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use serde::Deserialize;
use serde_json::json;
use sha2::Sha256;

/// Seconds for which a token is good; managed identities' are good for a day.
pub(crate) const TOKEN_SECONDS: i64 = 24 * 60 * 60;

/// Why a bearer token is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    #[error("there is no bearer token")]
    Missing,
    #[error("the token was not issued by this machine's identity endpoint")]
    Foreign,
    #[error("the token is for `{found}`, this service takes tokens for `{wanted}`")]
    Audience { found: String, wanted: String },
    #[error("the token has expired")]
    Expired,
}

/// Issues tokens and checks them. Cheap to clone.
#[derive(Clone)]
pub struct Tokens {
    key: [u8; 32],
    header: String,
}

impl Tokens {
    /// `key` signs tokens; `header` is what callers of the identity endpoint must send as
    /// `x-identity-header`.
    pub fn new(key: [u8; 32], header: String) -> Self {
        Self { key, header }
    }

    pub fn issue(&self, audience: &str, now_seconds: i64) -> String {
        let audience = BASE64_URL_SAFE_NO_PAD.encode(audience.trim_end_matches('/'));
        let expiry = now_seconds + TOKEN_SECONDS;
        let signature =
            BASE64_URL_SAFE_NO_PAD.encode(self.mac(&audience, &expiry.to_string()).finalize().into_bytes());
        format!("local.{audience}.{expiry}.{signature}")
    }

    /// Checks the value of an `Authorization` header.
    ///
    /// # Errors
    /// Why the token is not good here.
    pub fn check(
        &self,
        authorization: Option<&str>,
        audience: &str,
        now_seconds: i64,
    ) -> Result<(), TokenRefused> {
        let token =
            authorization.and_then(|value| value.strip_prefix("Bearer ")).ok_or(TokenRefused::Missing)?;
        let mut parts = token.trim().split('.');
        let (Some("local"), Some(found), Some(expiry), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenRefused::Foreign);
        };
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenRefused::Foreign)?;
        self.mac(found, expiry).verify_slice(&signature).map_err(|_| TokenRefused::Foreign)?;
        if expiry.parse::<i64>().map_err(|_| TokenRefused::Foreign)? < now_seconds {
            return Err(TokenRefused::Expired);
        }
        let found = BASE64_URL_SAFE_NO_PAD.decode(found).map_err(|_| TokenRefused::Foreign)?;
        let found = String::from_utf8(found).map_err(|_| TokenRefused::Foreign)?;
        let wanted = audience.trim_end_matches('/');
        if found != wanted {
            return Err(TokenRefused::Audience { found, wanted: wanted.to_owned() });
        }
        Ok(())
    }

    fn mac(&self, audience: &str, expiry: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        mac.update(audience.as_bytes());
        mac.update(b".");
        mac.update(expiry.as_bytes());
        mac
    }
}

#[derive(Deserialize)]
struct TokenRequest {
    resource: Option<String>,
    #[serde(rename = "api-version")]
    api_version: Option<String>,
}

/// `GET /msi/token?api-version=2019-08-01&resource=...` with `x-identity-header`, over plain HTTP as
/// on App Service.
pub fn router(tokens: Tokens) -> Router {
    Router::new().route("/msi/token", get(token)).with_state(tokens)
}

async fn token(
    State(tokens): State<Tokens>,
    headers: HeaderMap,
    Query(request): Query<TokenRequest>,
) -> Response {
    let refuse = |status: StatusCode, message: &str| {
        (status, Json(json!({ "statusCode": status.as_u16(), "message": message }))).into_response()
    };
    if headers.get("x-identity-header").and_then(|value| value.to_str().ok()) != Some(tokens.header.as_str())
    {
        return refuse(
            StatusCode::UNAUTHORIZED,
            "The header x-identity-header is missing or is not this machine's.",
        );
    }
    if request.api_version.as_deref() != Some("2019-08-01") {
        return refuse(StatusCode::BAD_REQUEST, "The query must have api-version=2019-08-01.");
    }
    let Some(resource) = request.resource.filter(|resource| !resource.is_empty()) else {
        return refuse(StatusCode::BAD_REQUEST, "The query must name a resource.");
    };
    let now = jiff::Timestamp::now().as_second();
    Json(json!({
        "access_token": tokens.issue(&resource, now),
        "expires_on": (now + TOKEN_SECONDS).to_string(),
        "resource": resource,
        "token_type": "Bearer",
        "client_id": "00000000-0000-0000-0000-000000000001",
    }))
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_audience_until_it_expires() {
        let tokens = Tokens::new([7; 32], "h".into());
        let bearer = format!("Bearer {}", tokens.issue("https://management.azure.com/", 100));
        let check = |audience, now| tokens.check(Some(&bearer), audience, now);
        assert_eq!(check("https://management.azure.com", 100), Ok(()));
        assert_eq!(
            check("https://vault.azure.net", 100),
            Err(TokenRefused::Audience {
                found: "https://management.azure.com".into(),
                wanted: "https://vault.azure.net".into()
            })
        );
        assert_eq!(check("https://management.azure.com", 101 + TOKEN_SECONDS), Err(TokenRefused::Expired));
        assert_eq!(tokens.check(None, "a", 0), Err(TokenRefused::Missing));
        assert_eq!(tokens.check(Some("Bearer x.y"), "a", 0), Err(TokenRefused::Foreign));
        let other = Tokens::new([8; 32], "h".into());
        assert_eq!(
            other.check(Some(&bearer), "https://management.azure.com", 100),
            Err(TokenRefused::Foreign)
        );
    }
}
