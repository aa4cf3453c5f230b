//! The adapters that are put under the suite.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use runtime_platform::{local::store::SqliteStore, ports::store::Store};

use crate::support::{fixed_clock::FixedClock, memory_store::MemoryStore};

/// An adapter under the suite, with data of its own that begins empty.
#[async_trait]
pub trait Subject: Sync {
    /// Another handle on the same data, as another process would have.
    fn open(&self) -> Arc<dyn Store>;

    /// Lets this much time pass, as the store sees it.
    async fn wait(&self, seconds: u64);
}

/// The adapter of this machine.
pub struct Sqlite {
    directory: tempfile::TempDir,
    clock: FixedClock,
}

impl Sqlite {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), clock: FixedClock::default() }
    }
}

#[async_trait]
impl Subject for Sqlite {
    fn open(&self) -> Arc<dyn Store> {
        let path = self.directory.path().join("store.db");
        Arc::new(SqliteStore::open(&path, Arc::new(self.clock.clone())).unwrap())
    }

    async fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

/// The store of tests that run the platform many times.
pub struct Memory {
    clock: FixedClock,
    store: MemoryStore,
}

impl Memory {
    pub fn new() -> Self {
        let clock = FixedClock::default();
        Self { store: MemoryStore::new(clock.clone()), clock }
    }
}

#[async_trait]
impl Subject for Memory {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    async fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}
