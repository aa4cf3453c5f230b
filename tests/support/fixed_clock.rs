//! A clock that stands still until it is moved.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use runtime_platform::ports::clock::Clock;

/// A clock that stands still until it is moved. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct FixedClock(Arc<Mutex<Timestamp>>);

impl FixedClock {
    pub fn at(now: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(now)))
    }

    pub fn set(&self, now: Timestamp) {
        *self.0.lock().unwrap() = now;
    }

    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock().unwrap();
        *now = now.checked_add(by).unwrap();
    }
}

/// The morning of the events page's samples.
impl Default for FixedClock {
    fn default() -> Self {
        Self::at("2026-03-02T10:15:00Z".parse().unwrap())
    }
}

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

#[test]
fn a_clock_is_moved_for_all_that_hold_it() {
    let clock = FixedClock::default();
    let other = clock.clone();
    clock.advance(Duration::from_secs(90));
    assert_eq!(other.now().to_string(), "2026-03-02T10:16:30Z");
    other.set(Timestamp::UNIX_EPOCH);
    assert_eq!(clock.now(), Timestamp::UNIX_EPOCH);
}
