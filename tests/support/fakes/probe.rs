//! Probes that are answered by what runs in [`FakeCompute`].

use std::{
    convert::identity,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use runtime_platform::ports::{
    clock::Clock,
    probe::{Answer, Probe, ProbeTarget, Sample},
};

use super::compute::FakeCompute;
use crate::support::{faulty::Trouble, fixed_clock::FixedClock};

/// How long every answer takes, in milliseconds.
const LATENCY_MS: u64 = 5;

/// Asks the revisions of a [`FakeCompute`]. A call that is told to fail reaches nobody.
#[derive(Clone)]
pub struct FakeProbe {
    clock: FixedClock,
    compute: FakeCompute,
    trouble: Trouble,
    /// Whether anything can be reached from here.
    reaches: Arc<AtomicBool>,
}

impl FakeProbe {
    pub fn new(clock: FixedClock, compute: FakeCompute, trouble: Trouble) -> Self {
        Self { clock, compute, trouble, reaches: Arc::new(AtomicBool::new(true)) }
    }

    /// Whether probes get anywhere from now on.
    pub fn reach(&self, reaches: bool) {
        self.reaches.store(reaches, Ordering::SeqCst);
    }
}

#[async_trait]
impl Probe for FakeProbe {
    async fn probe(&self, target: &ProbeTarget) -> Sample {
        // Nobody has the canary's host, and the ingress says so.
        let answer = match target.host.starts_with("cs--canary.") {
            _ if !self.reaches.load(Ordering::SeqCst) => {
                Answer::Unreachable { reason: "the network is down".into() }
            }
            true => Answer::Status { status: 404, retry_after: false },
            false => self.compute.request(&target.host),
        };
        let ask = async { Ok(answer) };
        let lost = |why: &'static str| Answer::Unreachable { reason: why.into() };
        let answer = self.trouble.around("probe", ask, lost).await.unwrap_or_else(identity);
        Sample { at: self.clock.now(), latency_ms: LATENCY_MS, answer }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::support::faulty::When;

    #[tokio::test]
    async fn nobody_answers_where_nothing_runs_or_the_call_fails() {
        let (clock, trouble) = (FixedClock::default(), Trouble::default());
        let compute = FakeCompute::new(clock.clone(), trouble.clone());
        let probe = FakeProbe::new(clock.clone(), compute, trouble.clone());
        trouble.fail_call(1, When::Before);
        let target = ProbeTarget {
            host: "api--d1.fake.localhost".into(),
            path: "/health".into(),
            timeout: Duration::from_secs(1),
        };
        for reason in ["this call was told to fail", "there is no such revision"] {
            let answer = Answer::Unreachable { reason: reason.into() };
            assert_eq!(
                probe.probe(&target).await,
                Sample { at: clock.now(), latency_ms: LATENCY_MS, answer }
            );
        }
    }
}
