//! Function keys: the host knows their names and their hashes, never the keys.

use std::fmt;

use sha2::{Digest, Sha256};

use super::app::AuthLevel;

/// The key of this name opens what asks for `admin`.
const MASTER: &str = "_master";

/// A key that lets callers in.
#[derive(Clone, PartialEq, Eq)]
pub struct FunctionKey {
    pub name: String,
    hash: [u8; 32],
}

impl FunctionKey {
    /// Keeps the name and the hash of a key; the key of the name `_master` opens everything.
    pub fn new(name: &str, key: &str) -> Self {
        Self { name: name.to_owned(), hash: hash(key) }
    }

    /// A key of which only the SHA-256 hash is known.
    pub fn of_hash(name: &str, hash: [u8; 32]) -> Self {
        Self { name: name.to_owned(), hash }
    }
}

impl fmt::Debug for FunctionKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FunctionKey").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Whether a caller may come in, and by which level and key; the inner none is anyone.
pub(super) fn admit(
    keys: &[FunctionKey],
    level: AuthLevel,
    given: Option<&str>,
) -> Option<Option<(&'static str, String)>> {
    let hash = given.filter(|given| !given.is_empty()).map(hash);
    let key = hash.and_then(|hash| of_hash(keys, &hash));
    let found = key.map(|key| (if key.name == MASTER { "Admin" } else { "Function" }, key.name.clone()));
    match level {
        AuthLevel::Anonymous => Some(found),
        AuthLevel::Function => found.map(Some),
        AuthLevel::Admin => found.filter(|(level, _)| *level == "Admin").map(Some),
    }
}

/// The key of a hash. It takes as long whichever key it is, and if it is none.
fn of_hash<'a>(keys: &'a [FunctionKey], hash: &[u8; 32]) -> Option<&'a FunctionKey> {
    keys.iter().fold(None, |found, key| if same(&key.hash, hash) { Some(key) } else { found })
}

fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let different = one.iter().zip(other).fold(0, |different, (one, other)| different | (one ^ other));
    std::hint::black_box(different) == 0
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_asks_for_its_key() {
        let keys = [FunctionKey::new("local", "k"), FunctionKey::new("_master", "m")];
        let (local, master) = (Some(("Function", "local".to_owned())), Some(("Admin", "_master".to_owned())));
        let cases = [
            (AuthLevel::Anonymous, None, Some(None)),
            (AuthLevel::Anonymous, Some("k"), Some(local.clone())),
            (AuthLevel::Anonymous, Some("wrong"), Some(None)),
            (AuthLevel::Function, None, None),
            (AuthLevel::Function, Some(""), None),
            (AuthLevel::Function, Some("wrong"), None),
            (AuthLevel::Function, Some("k"), Some(local)),
            (AuthLevel::Function, Some("m"), Some(master.clone())),
            (AuthLevel::Admin, Some("k"), None),
            (AuthLevel::Admin, Some("m"), Some(master)),
        ];
        for (level, given, expected) in cases {
            assert_eq!(admit(&keys, level, given), expected, "{level:?} {given:?}");
        }
        assert_eq!(format!("{:?}", keys[0]), "FunctionKey { name: \"local\", .. }");
    }
}
