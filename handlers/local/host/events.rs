//! What the host tells whoever started it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::mpsc;

/// Something that happened. Message bodies and secrets are never part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostEvent {
    /// The handler's process runs; it is asked for its first answer on `port`.
    HandlerStarting { pid: u32, port: u16 },
    /// The handler answered for the first time.
    Ready { milliseconds: u64 },
    /// The process has ended. `how` is e.g. `exit code 1` or `signal 9`.
    HandlerExited { pid: u32, how: String, restarting: bool },
    /// The handler failed too often: this host does nothing more and wants to be replaced.
    GaveUp { reason: String },
    /// A line that the handler wrote.
    HandlerLine { stream: Stream, line: String },
    /// An invocation failed: refused by the handler, or by the protocol, or out of time.
    InvocationFailed { function: String, invocation_id: String, reason: String },
    /// A sentence for the log; `level` is `INFO`, `WARN` or `ERROR`.
    Told { level: &'static str, text: String },
}

/// Which of its streams the handler wrote to. Azure files the second under errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

/// Where events go. Cheap to clone.
#[derive(Clone)]
pub(super) struct Events {
    sender: mpsc::Sender<HostEvent>,
    /// Events that nobody had room for.
    lost: Arc<AtomicU64>,
}

impl Events {
    pub fn new(sender: mpsc::Sender<HostEvent>) -> Self {
        Self { sender, lost: Arc::new(AtomicU64::new(0)) }
    }

    /// Sends what must not be lost, and waits while the listener is behind.
    pub async fn send(&self, event: HostEvent) {
        // The listener may have left first; nobody is there to be told.
        let _ = self.sender.send(event).await;
    }

    /// Sends what must not hold up an invocation: where the listener is behind it is counted instead,
    /// and the count is told as soon as there is room.
    pub fn post(&self, event: HostEvent) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let text = format!("{lost} events of the host were lost, because nobody read them");
            if self.sender.try_send(HostEvent::Told { level: "WARN", text }).is_err() {
                self.lost.fetch_add(lost, Ordering::Relaxed);
            }
        }
        if self.sender.try_send(event).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn tell(&self, level: &'static str, text: impl Into<String>) {
        self.post(HostEvent::Told { level, text: text.into() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_nobody_reads_is_counted_and_the_count_is_told() {
        let (sender, mut receiver) = mpsc::channel(2);
        let events = Events::new(sender);
        for text in ["one", "two", "three", "four"] {
            events.tell("INFO", text);
        }
        let mut next = async || match receiver.recv().await {
            Some(HostEvent::Told { text, .. }) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!([next().await, next().await], ["one", "two"]);
        events.tell("INFO", "five");
        assert_eq!(
            [next().await, next().await],
            ["2 events of the host were lost, because nobody read them", "five"]
        );
    }
}
