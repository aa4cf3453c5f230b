//! Values are encrypted at rest: AES-256-GCM under a key in a file that only its owner reads.
//!
//! A sealed value is bound to the place that it was sealed for, so that a value which somebody moved
//! within the file does not open in its new place.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};

/// Bytes of the key.
const KEY_BYTES: usize = 32;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read or write the key file `{path}`")]
    File { path: PathBuf, source: io::Error },
    #[error(
        "`{path}` holds {found} bytes and not the {KEY_BYTES} of a key: put back the file that belongs to these data"
    )]
    Length { path: PathBuf, found: usize },
    #[error("the system gave no random numbers for a key")]
    NoRandom,
}

/// A value could not be sealed or opened. What it was is not said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored value does not open with this key")]
pub struct Unsealable;

/// The key.
pub struct Seal {
    key: LessSafeKey,
    random: SystemRandom,
}

impl Seal {
    /// Reads the key of `path`, or makes one there.
    ///
    /// # Errors
    /// When the file cannot be used, or holds no key.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let file = |source| KeyError::File { path: path.to_owned(), source };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(path, &random)?,
            Err(error) => return Err(file(error)),
        };
        let length = || KeyError::Length { path: path.to_owned(), found: bytes.len() };
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| length())?;
        Ok(Self { key: LessSafeKey::new(key), random })
    }

    /// Encrypts a value for `place`: the nonce, then the text and its tag.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn seal(&self, place: &str, value: &str) -> Result<Vec<u8>, Unsealable> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| Unsealable)?;
        let mut text = value.as_bytes().to_vec();
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce_used, Aad::from(place), &mut text).map_err(|_| Unsealable)?;
        Ok([&nonce[..], &text].concat())
    }

    /// Decrypts what was sealed for `place`.
    ///
    /// # Errors
    /// When it was sealed for another place, under another key, or was changed.
    pub fn open_sealed(&self, place: &str, sealed: &[u8]) -> Result<String, Unsealable> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN).ok_or(Unsealable)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unsealable)?;
        let mut text = text.to_vec();
        let value = self.key.open_in_place(nonce, Aad::from(place), &mut text).map_err(|_| Unsealable)?;
        String::from_utf8(value.to_vec()).map_err(|_| Unsealable)
    }
}

/// Makes a key and has it on disk, whole, before it is used: a crash leaves no half of one.
fn make(path: &Path, random: &SystemRandom) -> Result<Vec<u8>, KeyError> {
    let file = |source| KeyError::File { path: path.to_owned(), source };
    let mut key = [0; KEY_BYTES];
    random.fill(&mut key).map_err(|_| KeyError::NoRandom)?;
    let draft = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&key)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(file)?;
    Ok(key.to_vec())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_value_opens_in_its_place_under_its_key_and_nowhere_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vault.key");
        let seal = Seal::open(&path).unwrap();
        let sealed = seal.seal("kv/a/1", "canary").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"canary"));
        assert_eq!(Seal::open(&path).unwrap().open_sealed("kv/a/1", &sealed), Ok("canary".to_owned()));
        assert_eq!(seal.open_sealed("kv/a/2", &sealed), Err(Unsealable));
        assert_eq!(seal.open_sealed("kv/a/1", &sealed[1..]), Err(Unsealable));
        assert_eq!(seal.open_sealed("kv/a/1", &[]), Err(Unsealable));
        let other = Seal::open(&directory.path().join("other.key")).unwrap();
        assert_eq!(other.open_sealed("kv/a/1", &sealed), Err(Unsealable));
        assert_ne!(seal.seal("kv/a/1", "canary").unwrap(), sealed);
    }

    #[test]
    fn the_key_is_its_owners_alone_and_a_damaged_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vault.key");
        Seal::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, b"short").unwrap();
        let refused = Seal::open(&path).err().unwrap();
        assert!(matches!(refused, KeyError::Length { found: 5, .. }), "{refused}");
    }
}
