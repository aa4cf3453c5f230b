//! Manifests: made from the image catalogue when a tag is first asked for, and kept, so that a digest
//! goes on to stand for what its tag stood for then. Moving a tag, by staging another behaviour under
//! it, is another digest.

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::MEDIA_TYPE;
use crate::local::azure::{images::StandIn, refusals::ArmError};

/// Manifests that are kept; the oldest go first.
const MANIFESTS_MAX: i64 = 10_000;
/// Behaviours that may be staged.
const STAGED_MAX: i64 = 200;

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// `sha256:...`, of the text.
    pub digest: String,
    pub text: String,
}

fn sha256(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// The manifest of a tag that behaves so. The same tag and behaviour are always the same manifest.
pub(super) fn make(repository: &str, tag: &str, stand_in: &StandIn) -> Manifest {
    let behaviour = serde_json::to_value(stand_in).unwrap_or_default();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Labels": { "org.opencontainers.image.version": tag, "stand-in": behaviour.to_string() } },
        "rootfs": { "type": "layers", "diff_ids": [] },
    })
    .to_string();
    let layer = format!("{repository}:{tag}");
    let text = json!({
        "schemaVersion": 2,
        "mediaType": MEDIA_TYPE,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": sha256(config.as_bytes()),
            "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": sha256(layer.as_bytes()),
            "size": layer.len(),
        }],
        "annotations": { "org.opencontainers.image.ref.name": tag },
    })
    .to_string();
    Manifest { digest: sha256(text.as_bytes()), text }
}

/// Keeps a manifest, and what stands in for containers of it.
pub(super) fn keep(
    connection: &Connection,
    repository: &str,
    manifest: &Manifest,
    stand_in: &StandIn,
) -> Result<(), ArmError> {
    let stand_in = serde_json::to_string(stand_in).map_err(|error| ArmError::internal(error.to_string()))?;
    let kept = connection
        .prepare_cached("INSERT OR IGNORE INTO manifests VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![repository, manifest.digest, manifest.text, stand_in])?;
    if kept > 0 {
        connection
            .prepare_cached("DELETE FROM manifests WHERE rowid <= (SELECT max(rowid) FROM manifests) - ?1")?
            .execute([MANIFESTS_MAX])?;
    }
    Ok(())
}

/// The manifest of that digest, and what stands in for containers of it, as JSON.
pub(super) fn find(
    connection: &Connection,
    repository: &str,
    digest: &str,
) -> Result<Option<(String, String)>, ArmError> {
    let mut statement = connection
        .prepare_cached("SELECT manifest, stand_in FROM manifests WHERE repository = ?1 AND digest = ?2")?;
    Ok(statement.query_row([repository, digest], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

/// What stands in for a container of an image that is named by a digest which was given out here.
pub(in crate::local::azure) fn pulled(
    connection: &Connection,
    image: &str,
) -> Result<Option<StandIn>, ArmError> {
    let Some((named, digest)) = image.split_once('@') else { return Ok(None) };
    // A tag beside a digest says nothing; a port is before a slash.
    let repository = match named.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => named,
    };
    let found = find(connection, repository, digest)?;
    Ok(found.and_then(|(_, stand_in)| serde_json::from_str(&stand_in).ok()))
}

/// A behaviour that somebody staged while the stand-in ran: a pattern, and what stands in.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::local::azure) struct Staged {
    pub pattern: String,
    pub stand_in: StandIn,
}

/// What was staged, the newest first.
pub(in crate::local::azure) fn staged(connection: &Connection) -> Result<Vec<Staged>, ArmError> {
    let mut statement =
        connection.prepare_cached("SELECT pattern, stand_in FROM staged_images ORDER BY ordinal DESC")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let mut found = Vec::new();
    for row in rows {
        let (pattern, stand_in) = row?;
        let stand_in =
            serde_json::from_str(&stand_in).map_err(|error| ArmError::internal(error.to_string()))?;
        found.push(Staged { pattern, stand_in });
    }
    Ok(found)
}

/// Stages a behaviour: it comes before all others, and takes the place of one under the same pattern.
pub(in crate::local::azure) fn stage(connection: &Connection, staged: &Staged) -> Result<(), ArmError> {
    connection.execute("DELETE FROM staged_images WHERE pattern = ?1", [&staged.pattern])?;
    let count: i64 = connection.query_row("SELECT count(*) FROM staged_images", [], |row| row.get(0))?;
    if count >= STAGED_MAX {
        let message = format!("At most {STAGED_MAX} images can be staged: put them into an image catalogue.");
        return Err(ArmError::bad_request("TooManyImages", message));
    }
    let stand_in: Value =
        serde_json::to_value(&staged.stand_in).map_err(|error| ArmError::internal(error.to_string()))?;
    connection.execute(
        "INSERT INTO staged_images (pattern, stand_in) VALUES (?1, ?2)",
        params![staged.pattern, stand_in.to_string()],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::azure::images::Behaviour;

    #[test]
    fn a_digest_is_of_the_tag_and_of_what_it_does() {
        let healthy = StandIn::Behaviour(Behaviour::Healthy);
        let broken = StandIn::Behaviour(Behaviour::Errors { share: 1.0 });
        let digest = |tag, stand_in| make("acr.azurecr.io/api", tag, stand_in).digest;
        assert_eq!(digest("1", &healthy), digest("1", &healthy));
        assert_ne!(digest("1", &healthy), digest("2", &healthy));
        assert_ne!(digest("1", &healthy), digest("1", &broken));
        let made = make("acr.azurecr.io/api", "1", &healthy);
        assert_eq!(made.digest, sha256(made.text.as_bytes()));
    }
}
