//! A store that counts what is asked of it, around any other.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use runtime_platform::ports::store::{
    Etag, Filter, Key, Listing, Page, Partition, Store, StoreFault, Stored, Write, is_indexed,
};

/// What was asked of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Documents asked for by their key.
    pub reads: usize,
    /// Pages of listings.
    pub pages: usize,
    /// Documents that those pages had.
    pub listed: usize,
    /// The most documents of one page.
    pub largest_page: usize,
    pub commits: usize,
    /// Filters that no index helps with, as `kind by member`.
    pub gone_through: Vec<String>,
}

/// Counts. Clones count together.
#[derive(Clone)]
pub struct CountingStore {
    inner: Arc<dyn Store>,
    counts: Arc<Mutex<Counts>>,
}

impl CountingStore {
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, counts: Arc::default() }
    }

    /// What was counted since the last call.
    pub fn take(&self) -> Counts {
        std::mem::take(&mut self.counts.lock().unwrap())
    }

    fn page(&self, kind: &str, filter: &Filter, listing: &Listing) {
        let mut counts = self.counts.lock().unwrap();
        counts.pages += 1;
        counts.listed += listing.items.len();
        counts.largest_page = counts.largest_page.max(listing.items.len());
        if !filter.equal.is_empty() && !filter.equal.iter().any(|(member, _)| is_indexed(member)) {
            counts.gone_through.push(format!("{kind} by {}", filter.equal[0].0));
        }
    }
}

#[async_trait]
impl Store for CountingStore {
    async fn read(&self, key: &Key) -> Result<Option<Stored>, StoreFault> {
        self.counts.lock().unwrap().reads += 1;
        self.inner.read(key).await
    }

    async fn commit(&self, partition: &Partition, writes: Vec<Write>) -> Result<Vec<Etag>, StoreFault> {
        self.counts.lock().unwrap().commits += 1;
        self.inner.commit(partition, writes).await
    }

    async fn query(
        &self,
        partition: &Partition,
        kind: &str,
        filter: &Filter,
        page: &Page,
    ) -> Result<Listing, StoreFault> {
        let listing = self.inner.query(partition, kind, filter, page).await?;
        self.page(kind, filter, &listing);
        Ok(listing)
    }

    async fn due(&self, kind: &str, until: Timestamp, page: &Page) -> Result<Listing, StoreFault> {
        let listing = self.inner.due(kind, until, page).await?;
        self.page(kind, &Filter::default(), &listing);
        Ok(listing)
    }

    async fn list(
        &self,
        tenant: &str,
        kind: &str,
        filter: &Filter,
        page: &Page,
    ) -> Result<Listing, StoreFault> {
        let listing = self.inner.list(tenant, kind, filter, page).await?;
        self.page(kind, filter, &listing);
        Ok(listing)
    }
}
