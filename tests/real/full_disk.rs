//! A full disk: the platform refuses what it cannot keep, keeps what it acknowledged, and goes on once
//! there is room. The disk is a small one of its own where this process may mount one; elsewhere no
//! file may grow beyond a size, which is as full to whoever writes.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    client::{Client, Mail, noise},
    orders,
    up::Place,
};

/// Bytes of the small disk, and of the larger one that it becomes.
const SMALL_BYTES: u64 = 24 * 1024 * 1024;
const LARGE_BYTES: u64 = 512 * 1024 * 1024;
/// Blocks of 512 bytes that a file may have where no disk can be mounted.
const FILE_BLOCKS: u64 = 8 * 1024 * 1024 / 512;
/// Bytes of one message.
const MESSAGE_BYTES: usize = 200 * 1024;
/// Messages that fill the disk, at most.
const MESSAGES_MAX: usize = 1000;
/// Where messages go that no function reads, so that what is sent stays: another platform's subscription,
/// whose rules ask for this event alone of those that are sent here.
const TOPIC: &str = "runtime.deployment";
const SUBSCRIPTION: &str = "runtime.deployment/subscriptions/control-plane";
const EVENT: &str = "RuntimeDeploymentRolledBack";
/// How long a command may take to its end.
const END: Duration = Duration::from_secs(40);

pub fn run() -> Result<(), String> {
    crate::block_on(async {
        let place = Place::new();
        let data = place.data();
        fs::create_dir(&data).unwrap();
        let disk = Disk::mount(&data);
        let mut command = match &disk {
            Some(_) => place.command(&[]),
            None => limited(&place),
        };
        command.args(["up", "--data"]).arg(&data);
        let mut up = place.spawn(command);
        let client = up.ready().await;
        let provisioned = client.carry_out(&orders::provision("full"), END).await;

        let mut kept = Vec::new();
        let refusal = loop {
            assert!(kept.len() < MESSAGES_MAX, "the disk does not get full");
            let id = Uuid::new_v4().to_string();
            match send(&client, &id).await {
                (201, _) => kept.push(id),
                refused => break refused,
            }
        };
        assert_eq!(refusal.0, 503, "{}", refusal.1);
        assert!(refusal.1.contains("full") || disk.is_none(), "it says why: {}", refusal.1);
        // What is there can still be read.
        let id = provisioned["eventId"].as_str().unwrap();
        assert_eq!(client.get(&format!("commands/{id}")).await.unwrap().1, provisioned);
        up.kill();
        place.is_empty_within(Duration::from_secs(2)).await;

        if let Some(disk) = &disk {
            disk.enlarge();
        }
        let mut up = place.up(&[]);
        let client = up.ready().await;
        let mut found = Vec::new();
        while let Some(taken) = client.take(SUBSCRIPTION).await {
            assert_eq!(taken.body.len(), MESSAGE_BYTES);
            found.push(taken.broker["MessageId"].as_str().unwrap().to_owned());
        }
        // The refused one may be there: its answer, not its commit, may be what had no room.
        found.retain(|id| kept.contains(id));
        assert_eq!(found, kept, "what was acknowledged is there, in order");
        let again = client.carry_out(&orders::provision("full"), END).await;
        assert_eq!(again["status"], "Completed", "{again}");
        assert!(up.interrupt().await.success());
        let how = if disk.is_some() { "a disk of its own" } else { "a limit on the size of files" };
        println!("  full after {} messages ({how}); all of them were there afterwards", kept.len());
    })
}

async fn send(client: &Client, message_id: &str) -> (u16, String) {
    let broker: Value = json!({});
    let body = noise(MESSAGE_BYTES).into_bytes();
    let properties = &[("cs-event-type", EVENT)];
    let mail = Mail { queue: TOPIC, message_id, content_type: "text/plain", properties, broker, body };
    client.post(mail).await.unwrap()
}

/// `runtimectl` that may write no large file, and is told so by an error rather than a signal.
fn limited(place: &Place) -> Command {
    let mut command = Command::new("sh");
    place.prepare(&mut command);
    command.args(["-c", &format!("trap '' XFSZ; ulimit -f {FILE_BLOCKS}; exec \"$0\" \"$@\"")]);
    command.arg(env!("CARGO_BIN_EXE_runtimectl"));
    command
}

/// A small disk in memory. Unmounted when it is dropped.
struct Disk<'p>(&'p Path);

impl<'p> Disk<'p> {
    /// None where this process may not mount anything.
    fn mount(at: &'p Path) -> Option<Self> {
        mount(&["-t", "tmpfs", "-o", &format!("size={SMALL_BYTES}"), "tmpfs"], at).then(|| Self(at))
    }

    fn enlarge(&self) {
        assert!(mount(&["-o", &format!("remount,size={LARGE_BYTES}")], self.0));
    }
}

fn mount(arguments: &[&str], at: &Path) -> bool {
    let mut command = Command::new("mount");
    command.args(arguments).arg(at).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        // Lazily: whoever was killed may not have let go of it yet.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}
