//! Registries in memory: every tag is there and stands for an image of its own, until a test says
//! otherwise.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use runtime_platform::{
    outcome::Fault,
    ports::registry::{ImageReference, ImageVersion, Registry},
};
use sha2::{Digest, Sha256};

use crate::support::faulty::Trouble;

/// Registries in memory. Clones are the same.
#[derive(Clone)]
pub struct FakeRegistry {
    trouble: Trouble,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// How often each tag was moved.
    moved: BTreeMap<String, u32>,
    missing: BTreeSet<String>,
    /// Images by their digests, and the tags that were asked for.
    named: BTreeMap<String, String>,
    /// What was asked for, in order.
    asked: Vec<String>,
}

impl FakeRegistry {
    pub fn new(trouble: Trouble) -> Self {
        Self { trouble, state: Arc::default() }
    }

    /// Somebody pushes another image under the same tag.
    pub fn move_tag(&self, image: &str) {
        *self.state().moved.entry(image.to_owned()).or_default() += 1;
    }

    /// There is no such tag.
    pub fn remove(&self, image: &str) {
        self.state().missing.insert(image.to_owned());
    }

    /// The tag is there (again).
    pub fn push(&self, image: &str) {
        self.state().missing.remove(image);
    }

    /// References that were asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    /// The digest of what a tag stands for now.
    pub fn digest(&self, image: &str) -> String {
        digest_of(image, self.state().moved.get(image).copied().unwrap_or_default())
    }

    /// The tag by which an image was asked for; the image itself where none was.
    pub fn named(&self, image: &str) -> String {
        self.state().named.get(image).cloned().unwrap_or_else(|| image.to_owned())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn look(&self, reference: &ImageReference) -> Result<String, Fault> {
        let tag = match &reference.version {
            ImageVersion::Digest(digest) => return Ok(digest.clone()),
            ImageVersion::Tag(tag) => tag,
        };
        // As it was written: only names with their registry are used in tests.
        let image = format!("{}/{}:{tag}", reference.registry, reference.repository);
        self.state().asked.push(image.clone());
        if self.state().missing.contains(&image) {
            return Err(Fault::Rejected {
                doing: format!("asking `{}`", reference.registry),
                code: "ImageNotFound".to_owned(),
                detail: format!("`{}` has no image `{}:{tag}`", reference.registry, reference.repository),
            });
        }
        let digest = self.digest(&image);
        self.state().named.insert(reference.at(&digest), image);
        Ok(digest)
    }
}

fn digest_of(image: &str, moved: u32) -> String {
    let digits = Sha256::digest(format!("{image}#{moved}"));
    digits.iter().fold("sha256:".to_owned(), |digest, byte| format!("{digest}{byte:02x}"))
}

#[async_trait]
impl Registry for FakeRegistry {
    async fn resolve(&self, image: &ImageReference) -> Result<String, Fault> {
        let look = async { self.look(image) };
        let fault = |why| Fault::transient(format!("asking `{}`", image.registry), why);
        self.trouble.around("registry.resolve", look, fault).await
    }
}
