//! Suppressions: which drifts are left alone, by whom, and until when.

use jiff::Timestamp;

use super::{
    policy,
    state::{Match, Suppression},
    workload::Sighting,
};
use crate::{
    ledger::{Commit, Ledger},
    outcome::Fault,
    ports::store::{Filter, Page, Partition},
};

/// Suppressions of one partition that are looked at, newest first.
pub const SUPPRESSIONS_MAX: usize = 100;

/// The suppressions that are in force.
///
/// # Errors
/// When the store is away.
pub async fn in_force(
    ledger: &Ledger,
    partition: &Partition,
    now: Timestamp,
) -> Result<Vec<Suppression>, Fault> {
    let filter = Filter { newest_first: true, ..Filter::default() };
    let page = ledger.query::<Suppression>(partition, &filter, &Page::first(SUPPRESSIONS_MAX)).await?;
    let all = page.items.into_iter().map(|(_, suppression)| suppression);
    Ok(all.filter(|suppression| now < suppression.expires_at).collect())
}

/// Adds a suppression to a decision. None where there are as many as are looked at already.
///
/// # Errors
/// When the store is away.
pub async fn add(ledger: &Ledger, commit: &mut Commit, suppression: &Suppression) -> Result<bool, Fault> {
    if in_force(ledger, &commit.partition, commit.now).await?.len() >= SUPPRESSIONS_MAX {
        return Ok(false);
    }
    commit.put(&Ledger::absent(&suppression.suppression_id), suppression)?;
    Ok(true)
}

/// The suppression that a sighting falls under.
pub fn of<'a>(suppressions: &'a [Suppression], sighting: &Sighting) -> Option<&'a Suppression> {
    if !policy::may_be_suppressed(sighting.severity) {
        return None;
    }
    suppressions.iter().find(|suppression| suppression.matches.takes(sighting))
}

impl Match {
    fn takes(&self, sighting: &Sighting) -> bool {
        let like = |glob: &Option<String>, text: &str| glob.as_ref().is_none_or(|glob| is_like(glob, text));
        self.kind.is_none_or(|kind| kind == sighting.kind)
            && like(&self.resource, &sighting.resource)
            && like(&self.path, &sighting.path)
    }
}

/// Whether a text is as a glob says, in any case; `*` stands for any characters.
fn is_like(glob: &str, text: &str) -> bool {
    let (glob, text) = (glob.to_ascii_lowercase(), text.to_ascii_lowercase());
    let mut parts = glob.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(place) => rest = &rest[place + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (glob, text, like) in [
            ("/env/*", "/env/LOG_LEVEL", true),
            ("/env/*", "/image", false),
            ("*/containerApps/api", "/subscriptions/s/providers/Microsoft.App/containerapps/API", true),
            ("*api*", "an-api-1", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
            ("", "", true),
            ("*", "", true),
            ("ab*b", "ab", false),
        ] {
            assert_eq!(is_like(glob, text), like, "{glob} {text}");
        }
    }
}
