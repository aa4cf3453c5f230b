//! Where images come from: what a name of one stands for at this moment.
//!
//! A tag can be moved by whoever pushes; a digest is one image for ever. So a tag is asked for once,
//! before anything else is done, and what it stood for then is what is rolled out, gated, kept out and
//! gone back to.

use async_trait::async_trait;

use crate::outcome::Fault;

/// The registry of an image that names none.
const DOCKER_HUB: &str = "docker.io";
/// The longest reference, in bytes.
const REFERENCE_BYTES_MAX: usize = 512;
/// The longest tag, in bytes.
const TAG_BYTES_MAX: usize = 128;
/// What a digest begins with; 64 hexadecimal digits follow.
const SHA256: &str = "sha256:";

/// The name of an image: a registry, a repository in it, and which of its images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReference {
    /// Host, and a port where one is named, e.g. `acr.azurecr.io`.
    pub registry: String,
    /// e.g. `reservations-api`, `team/api`; on Docker Hub `library/nginx`.
    pub repository: String,
    pub version: ImageVersion,
    /// Registry and repository as they were written.
    name: String,
}

/// Which image of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageVersion {
    Tag(String),
    /// `sha256:` and 64 hexadecimal digits.
    Digest(String),
}

impl ImageReference {
    /// Reads a reference as it is written in a command, e.g. `acr.azurecr.io/reservations-api:1.4.2`.
    ///
    /// # Errors
    /// What is wrong with it, and what it should be, as a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_text = text.len() <= REFERENCE_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.is_empty() || !is_text {
            return Err(
                "it must be an image reference, e.g. `acr.azurecr.io/reservations-api:1.4.2`".to_owned()
            );
        }
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash is that of a port.
        let slash = named.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match named[slash..].split_once(':') {
            Some((last, tag)) => (&named[..slash + last.len()], Some(tag)),
            None => (named, None),
        };
        let version = match (digest, tag.filter(|tag| !tag.is_empty())) {
            (Some(digest), _) if is_digest(digest) => ImageVersion::Digest(digest.to_owned()),
            (Some(digest), _) => {
                return Err(format!(
                    "`{digest}` is no digest; it is `{SHA256}` and 64 hexadecimal digits, as the registry tells it"
                ));
            }
            (None, Some(tag)) if is_tag(tag) => ImageVersion::Tag(tag.to_owned()),
            (None, Some(tag)) => {
                return Err(format!(
                    "`{tag}` is no tag; it is at most {TAG_BYTES_MAX} letters, digits, `.`, `_` and `-`, e.g. `1.4.2`"
                ));
            }
            (None, None) => {
                return Err(format!("`{text}` has no tag; add the version, e.g. `{name}:1.4.2`"));
            }
        };
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (first.to_owned(), rest.to_owned())
            }
            Some(_) => (DOCKER_HUB.to_owned(), name.to_owned()),
            None => (DOCKER_HUB.to_owned(), format!("library/{name}")),
        };
        if !is_host(&registry) {
            return Err(format!("`{registry}` is no registry; it is a host's name, e.g. `acr.azurecr.io`"));
        }
        if !repository.split('/').all(is_path_part) {
            return Err(format!(
                "`{repository}` is no repository; it is lower-case letters, digits, `.`, `_` and `-` between slashes, e.g. `team/reservations-api`"
            ));
        }
        Ok(Self { registry, repository, version, name: name.to_owned() })
    }

    /// The image of this repository that has a digest: one and the same for ever.
    pub fn at(&self, digest: &str) -> String {
        format!("{}@{digest}", self.name)
    }
}

/// Whether a text is a digest.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix(SHA256).is_some_and(|digits| {
        digits.len() == 64 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn is_tag(tag: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    tag.len() <= TAG_BYTES_MAX && tag.bytes().all(plain) && !tag.starts_with(['.', '-'])
}

/// With these characters alone a host cannot smuggle a user, a path or a query into a URL.
fn is_host(registry: &str) -> bool {
    let (host, port) = registry.split_once(':').map_or((registry, None), |(host, port)| (host, Some(port)));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    host.starts_with(|first: char| first.is_ascii_alphanumeric())
        && host.bytes().all(plain)
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_path_part(part: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
    let bytes = part.as_bytes();
    edge(bytes.first().copied()) && edge(bytes.last().copied()) && part.bytes().all(plain)
}

#[async_trait]
pub trait Registry: Send + Sync {
    /// The digest of what a reference stands for right now. A reference that has a digest already is
    /// not asked for.
    ///
    /// # Errors
    /// [`Fault::Rejected`] where there is no such image (`ImageNotFound`) or it may not be pulled
    /// (`ImageForbidden`), each with what to do; [`Fault::Transient`] where the registry is away.
    async fn resolve(&self, image: &ImageReference) -> Result<String, Fault>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, String) {
        let ImageReference { registry, repository, version, .. } = ImageReference::parse(text).unwrap();
        let (ImageVersion::Tag(version) | ImageVersion::Digest(version)) = version;
        (registry, repository, version)
    }

    #[test]
    fn a_reference_names_a_registry_a_repository_and_a_version() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (text, registry, repository, version) in [
            ("acr.azurecr.io/reservations-api:1.4.2", "acr.azurecr.io", "reservations-api", "1.4.2"),
            ("acr.azurecr.io/team/api:latest", "acr.azurecr.io", "team/api", "latest"),
            ("localhost:5000/api:1", "localhost:5000", "api", "1"),
            ("localhost/api:1", "localhost", "api", "1"),
            ("nginx:1.27", "docker.io", "library/nginx", "1.27"),
            ("team/api:1", "docker.io", "team/api", "1"),
            (&format!("acr.azurecr.io/api@{digest}"), "acr.azurecr.io", "api", &digest),
            (&format!("acr.azurecr.io/api:1.4@{digest}"), "acr.azurecr.io", "api", &digest),
        ] {
            let expected = (registry.to_owned(), repository.to_owned(), version.to_owned());
            assert_eq!(parts(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_is_refused_with_what_it_should_be() {
        for (text, problem) in [
            ("", "it must be an image reference"),
            ("a b:1", "it must be an image reference"),
            (
                "acr.azurecr.io/api",
                "`acr.azurecr.io/api` has no tag; add the version, e.g. `acr.azurecr.io/api:1.4.2`",
            ),
            ("localhost:5000/api", "has no tag; add the version, e.g. `localhost:5000/api:1.4.2`"),
            ("api:", "`api:` has no tag; add the version, e.g. `api:1.4.2`"),
            ("acr.azurecr.io/api@sha256:ab", "`sha256:ab` is no digest"),
            ("acr.azurecr.io/api:1/2", "has no tag"),
            ("acr.azurecr.io/api:1.4?x", "`1.4?x` is no tag"),
            ("acr.azurecr.io/API:1", "`API` is no repository"),
            ("acr.azurecr.io/../api:1", "is no repository"),
            ("acr.azurecr.io//api:1", "is no repository"),
            ("a.b#c/api:1", "`a.b#c` is no registry"),
            ("a.b:99999/api:1", "`a.b:99999` is no registry"),
        ] {
            let told = ImageReference::parse(text).unwrap_err();
            assert!(told.contains(problem), "{text}: {told}");
        }
    }

    #[test]
    fn an_image_by_its_digest_has_no_tag_any_more() {
        let digest = format!("sha256:{}", "0c".repeat(32));
        for text in ["nginx:1.27", &format!("nginx@{digest}")] {
            assert_eq!(ImageReference::parse(text).unwrap().at(&digest), format!("nginx@{digest}"));
        }
        let reference = ImageReference::parse("localhost:5000/team/api:1").unwrap();
        assert_eq!(reference.at(&digest), format!("localhost:5000/team/api@{digest}"));
    }
}
