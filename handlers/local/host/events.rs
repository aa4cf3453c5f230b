//! What the host tells whoever started it.

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
pub(super) struct Events(pub mpsc::Sender<HostEvent>);

impl Events {
    /// Sends an event, and waits while the listener is behind. One who listens no more misses it.
    pub async fn send(&self, event: HostEvent) {
        // The listener may have left first; nobody is there to be told.
        let _ = self.0.send(event).await;
    }

    pub async fn tell(&self, level: &'static str, text: impl Into<String>) {
        self.send(HostEvent::Told { level, text: text.into() }).await;
    }
}
