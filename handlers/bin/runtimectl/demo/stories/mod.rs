//! The stories of the demo, in the order in which the whole is told. Each is a file of its own, and
//! says what must have been told before it.

mod configuration;
mod crash;
mod decommission;
mod drift;
mod health;
mod nowhere;
mod poison;
mod policy;
mod provisioning;
mod release;
mod rollback;
mod rotation;
mod scaling;
mod secrets;
mod sync;
mod tenants;

use std::pin::Pin;

use clap::builder::{PossibleValue, PossibleValuesParser};

use super::teller::Teller;
use crate::failure::Failure;

/// A story being told.
pub type Telling<'t> = Pin<Box<dyn Future<Output = Result<(), Failure>> + 't>>;

/// One story.
pub struct Story {
    /// What `--only` calls it.
    pub name: &'static str,
    /// What it tells, in one line.
    pub title: &'static str,
    /// The stories whose ends it begins with.
    pub needs: &'static [&'static str],
    /// Nothing is left to look at after it.
    pub takes_down: bool,
    pub tell: for<'t> fn(&'t mut Teller) -> Telling<'t>,
}

/// All stories; what one needs comes before it.
pub static STORIES: &[Story] = &[
    provisioning::STORY,
    tenants::STORY,
    configuration::STORY,
    secrets::STORY,
    release::STORY,
    rollback::STORY,
    policy::STORY,
    crash::STORY,
    sync::STORY,
    health::STORY,
    rotation::STORY,
    scaling::STORY,
    drift::STORY,
    poison::STORY,
    nowhere::STORY,
    decommission::STORY,
];

/// The story of that name.
pub fn named(name: &str) -> Option<&'static Story> {
    STORIES.iter().find(|story| story.name == name)
}

/// Where a story stands in the whole, from 1 on.
pub fn number(story: &Story) -> usize {
    STORIES.iter().position(|other| other.name == story.name).map_or(0, |at| at + 1)
}

/// A story, after all that it needs, in the order of the whole.
pub fn with_needs(story: &'static Story) -> Vec<&'static Story> {
    let mut wanted = vec![story.name];
    // What a story needs stands before it, so that one pass from the end finds everything.
    for other in STORIES.iter().rev() {
        if wanted.contains(&other.name) {
            wanted.extend(other.needs);
        }
    }
    STORIES.iter().filter(|other| wanted.contains(&other.name)).collect()
}

/// The values of `--only`, with what each tells.
pub fn only_values() -> PossibleValuesParser {
    PossibleValuesParser::new(STORIES.iter().map(|story| PossibleValue::new(story.name).help(story.title)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_story_needs_is_told_before_it() {
        for (at, story) in STORIES.iter().enumerate() {
            for need in story.needs {
                let before = STORIES[..at].iter().any(|other| other.name == *need);
                assert!(before, "`{}` needs `{need}`, which is not told before it", story.name);
            }
            assert_eq!(STORIES.iter().filter(|other| other.name == story.name).count(), 1, "{}", story.name);
        }
    }

    #[test]
    fn one_story_comes_after_all_that_its_needs_need() {
        let names =
            |name| with_needs(named(name).unwrap()).iter().map(|story| story.name).collect::<Vec<_>>();
        assert_eq!(names("provisioning"), ["provisioning"]);
        assert_eq!(names("release"), ["provisioning", "release"]);
        assert_eq!(names("rollback"), ["provisioning", "release", "rollback"]);
    }
}
