//! What goes through the ingress to one revision: how many requests are on their way, on average
//! between two looks, and how many have been answered.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};

#[derive(Debug)]
struct Inner {
    in_flight: u32,
    answered: u64,
    /// When `in_flight` last changed, or was looked at.
    since: Instant,
    /// Requests times seconds since the last look.
    area: f64,
    looked: Instant,
}

impl Inner {
    fn advance(&mut self, now: Instant) {
        self.area += f64::from(self.in_flight) * now.duration_since(self.since).as_secs_f64();
        self.since = now;
    }
}

/// The load of a revision.
#[derive(Debug)]
pub(super) struct Load(Mutex<Inner>);

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Looked {
    /// Requests on their way at a time, on average since the last look.
    pub in_flight: f64,
    pub answered: u64,
    pub seconds: f64,
}

impl Load {
    pub(super) fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner { in_flight: 0, answered: 0, since: now, area: 0.0, looked: now })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nobody panics while holding a load")
    }

    fn enter(&self, now: Instant) {
        let mut inner = self.inner();
        inner.advance(now);
        inner.in_flight += 1;
    }

    fn leave(&self, now: Instant) {
        let mut inner = self.inner();
        inner.advance(now);
        inner.in_flight -= 1;
        inner.answered += 1;
    }

    /// What there was since the last look.
    pub(super) fn look(&self, now: Instant) -> Looked {
        let mut inner = self.inner();
        inner.advance(now);
        let seconds = now.duration_since(inner.looked).as_secs_f64();
        let in_flight = if seconds > 0.0 { inner.area / seconds } else { f64::from(inner.in_flight) };
        let looked = Looked { in_flight, answered: inner.answered, seconds };
        (inner.area, inner.answered, inner.looked) = (0.0, 0, now);
        looked
    }
}

/// A request on its way; it is answered when this is dropped.
#[derive(Debug)]
pub(in crate::local::azure) struct Flight(Arc<Load>);

impl Flight {
    pub(super) fn of(load: &Arc<Load>) -> Self {
        load.enter(Instant::now());
        Self(load.clone())
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.leave(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_look_tells_the_average_since_the_last_one() {
        let began = Instant::now();
        let at = |milliseconds| began + Duration::from_millis(milliseconds);
        let load = Load::new(began);
        load.enter(at(0));
        load.enter(at(500));
        load.leave(at(1000));
        assert_eq!(load.look(at(1000)), Looked { in_flight: 1.5, answered: 1, seconds: 1.0 });
        load.leave(at(1250));
        assert_eq!(load.look(at(2000)), Looked { in_flight: 0.25, answered: 1, seconds: 1.0 });
        assert_eq!(load.look(at(3000)), Looked { in_flight: 0.0, answered: 0, seconds: 1.0 });
    }
}
