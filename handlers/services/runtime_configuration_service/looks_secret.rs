//! Whether a setting looks like a secret, by its name or by its value.
//!
//! It errs on the side of asking: a setting that is refused can be bound as a secret or renamed, one
//! that slips through is in every version, for a year.

/// What names of secrets end in, as words.
const ENDINGS: &[&[&str]] = &[
    &["password"],
    &["passwd"],
    &["pwd"],
    &["passphrase"],
    &["secret"],
    &["token"],
    &["credential"],
    &["credentials"],
    &["apikey"],
    &["api", "key"],
    &["access", "key"],
    &["account", "key"],
    &["private", "key"],
    &["signing", "key"],
    &["shared", "key"],
    &["encryption", "key"],
];
/// What values of well-known kinds of secrets begin with.
const BEGINNINGS: &[&str] = &[
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "sk_live_",
    "rk_live_",
    "AKIA",
    "AIza",
];
/// Members of connection strings that hold a secret.
const MEMBERS: &[&str] = &["accountkey", "sharedaccesskey", "sharedaccesssignature", "password", "pwd"];
/// The shortest text that is taken for a random key, in characters.
const RANDOM_LENGTH_MIN: usize = 32;
/// Bits in a character from which a text is taken for random; words in any language stay below.
const RANDOM_BITS_MIN: f64 = 4.3;

/// Why a setting looks like a secret; none where it does not. The answer never holds the value.
pub(super) fn looks_secret(name: &str, value: &str) -> Option<&'static str> {
    let value = value.trim();
    if value.is_empty() || matches!(value, "true" | "false") {
        return None;
    }
    if named_like_one(name) {
        return Some("its name says that it is one");
    }
    if value.contains("PRIVATE KEY-----") {
        return Some("its value is a private key");
    }
    if has_secret_member(value) {
        return Some("its value is a connection string with a key or a password");
    }
    if has_user_and_password(value) {
        return Some("its value is an address with a password in it");
    }
    if BEGINNINGS.iter().any(|beginning| value.starts_with(beginning) && value.len() > beginning.len() + 8)
        || is_jwt(value)
    {
        return Some("its value has the form of a token");
    }
    is_random(value).then_some("its value looks like a random key")
}

fn named_like_one(name: &str) -> bool {
    let words = words(name);
    ENDINGS
        .iter()
        .any(|ending| words.len() >= ending.len() && words[words.len() - ending.len()..] == **ending)
}

/// `dbPassword` and `DB_PASSWORD` are the same two words.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut splits = false;
    for character in name.chars() {
        let parts = !character.is_ascii_alphanumeric();
        if (parts || (splits && character.is_ascii_uppercase()))
            && words.last().is_some_and(|word| !word.is_empty())
        {
            words.push(String::new());
        }
        splits = character.is_ascii_lowercase() || character.is_ascii_digit();
        if !parts && let Some(word) = words.last_mut() {
            word.push(character.to_ascii_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn has_secret_member(value: &str) -> bool {
    value.split([';', '&', '?']).filter_map(|part| part.split_once('=')).any(|(name, member)| {
        let name: String =
            name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
        let signed = name == "sig" && value.contains("se=");
        !member.trim().is_empty() && (signed || MEMBERS.contains(&name.as_str()))
    })
}

fn has_user_and_password(value: &str) -> bool {
    let Some((_, rest)) = value.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    user.and_then(|user| user.split_once(':')).is_some_and(|(_, password)| !password.is_empty())
}

fn is_jwt(value: &str) -> bool {
    let parts: Vec<_> = value.split('.').collect();
    parts.len() == 3 && value.starts_with("eyJ") && parts.iter().take(2).all(|part| part.len() > 8)
}

/// One long word of mixed letters and digits in which hardly anything repeats. Hexadecimal digests
/// and UUIDs stay below: sixteen digits have four bits each.
fn is_random(value: &str) -> bool {
    let of_base64 = |character: char| {
        character.is_ascii_alphanumeric() || matches!(character, '+' | '/' | '=' | '_' | '-')
    };
    let mixed = value.chars().any(|c| c.is_ascii_lowercase())
        && value.chars().any(|c| c.is_ascii_uppercase())
        && value.chars().any(|c| c.is_ascii_digit());
    value.len() >= RANDOM_LENGTH_MIN
        && mixed
        && value.chars().all(of_base64)
        && bits_in_a_character(value) >= RANDOM_BITS_MIN
}

/// Shannon's entropy.
fn bits_in_a_character(value: &str) -> f64 {
    let mut counts = std::collections::BTreeMap::<char, u32>::new();
    for character in value.chars() {
        *counts.entry(character).or_default() += 1;
    }
    let total = f64::from(counts.values().sum::<u32>());
    counts.values().map(|count| f64::from(*count) / total).map(|share| -share * share.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_told_by_name_or_value() {
        for (name, value) in [
            ("DB_PASSWORD", "1234"),
            ("dbPassword", "1234"),
            ("AUTH_TOKEN", "abc"),
            ("STRIPE_API_KEY", "abc"),
            ("apiKey", "abc"),
            ("TLS", "-----BEGIN RSA PRIVATE KEY-----\nMII"),
            ("STORAGE", "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=b==;EndpointSuffix=core"),
            ("DB", "Server=db;User Id=app;Password=hunter2"),
            ("BUS", "Endpoint=sb://n/;SharedAccessKeyName=x;SharedAccessKey=y"),
            ("BLOB", "https://a.blob.core.windows.net/c?sv=1&se=2026&sig=abc"),
            ("REDIS_URL", "redis://:hunter2@cache:6379/0"),
            ("CI", "ghp_0123456789abcdef"),
            ("BEARER", "eyJhbGciOiJI.eyJzdWIiOiIx.c2ln"),
            ("SEED", "q7Zp2LxV9mKt4RbW8nYc3HsD6fGj1TqA"),
        ] {
            assert!(looks_secret(name, value).is_some(), "{name}");
        }
    }

    #[test]
    fn an_ordinary_setting_does_not() {
        for (name, value) in [
            ("LOG_LEVEL", "debug"),
            ("TOKEN_LIFETIME_SECONDS", "3600"),
            ("PASSWORD_MIN_LENGTH", "12"),
            ("TOKEN_URL", "https://login.example.org/token?tenant=a"),
            ("REQUIRE_PASSWORD", "true"),
            ("DB_PASSWORD", ""),
            ("PARTITION_KEY", "/tenantId"),
            ("DB", "Server=db;Authentication=Active Directory Default"),
            ("COMMIT", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
            ("TENANT", "7d1f0c42-3b51-4b7e-9a44-5f0ac1d8e2b7"),
            ("WELCOME", "Welcome to the reservations of 2026, dear guest of the house"),
            ("HOSTS", "reservations-api.internal.westeurope.azurecontainerapps.io"),
        ] {
            assert_eq!(looks_secret(name, value), None, "{name}");
        }
    }
}
