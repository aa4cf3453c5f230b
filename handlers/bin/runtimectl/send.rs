//! `send`: one command to its queue, and with `--wait` what becomes of it.

use std::{
    fs,
    io::{self, Read},
    path::Path,
    process::ExitCode,
};

use jiff::Timestamp;
use runtime_platform::masstransit::PUBLISHED_BYTES_MAX;

use crate::{
    bus::Bus,
    cli::{Connection, SendArgs},
    client::Client,
    commands,
    context::Context,
    failure::{Exit, Failure},
    follow::{self, Ended},
    message::{self, Tenant},
    output::{Out, Tint},
};

/// Longer input is not read, in bytes: room for white space around the longest message.
const INPUT_BYTES_MAX: u64 = 4 * PUBLISHED_BYTES_MAX as u64;

/// Runs `send`.
///
/// # Errors
/// When the message is wrong, or the platform cannot be reached.
pub async fn run(connection: &Connection, args: &SendArgs, out: &Out) -> Result<ExitCode, Failure> {
    let command = commands::named(&args.command)?;
    let text = read(&args.file).await?;
    let context = Context::open(connection, out)?;
    let tenant = Tenant {
        asked: connection.tenant.as_deref().filter(|tenant| !tenant.is_empty()),
        usual: context.tenant.as_deref().filter(|tenant| !tenant.is_empty()),
    };
    let bus = Bus::new(&context).await?;
    let message = message::compose(command, &text, args, tenant, bus.host(), Timestamp::now())?;
    let (envelope, queue) = (message.envelope, message.mail.queue.clone());
    bus.send(message.mail).await?;

    out.line(envelope.event_id.as_str())?;
    out.note(&format!("{command} is in the queue `{queue}`, in the workflow {}.", envelope.correlation_id));
    if !args.wait {
        out.note(&format!(
            "See what becomes of it: runtimectl explain {} --tenant {}",
            envelope.event_id, envelope.tenant_id
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let client = Client::new(&context, envelope.tenant_id.as_str()).await?;
    let ended = follow::to_the_end(&client, envelope.event_id.as_str(), args.timeout, out).await?;
    conclude(&ended, out)
}

/// Says how it ended: the event to standard output, its meaning in the exit code.
///
/// # Errors
/// When the output cannot be written.
pub fn conclude(ended: &Ended, out: &Out) -> Result<ExitCode, Failure> {
    if let Some(outcome) = &ended.outcome {
        if out.terminal { out.json(outcome)? } else { out.line(&outcome.to_string())? }
    }
    let (tint, code) =
        if ended.succeeded { (Tint::Green, ExitCode::SUCCESS) } else { (Tint::Red, Exit::Failed.into()) };
    out.note(&format!("{} {}", out.paint_note(tint, &ended.status), ended.sentence));
    Ok(code)
}

async fn read(file: &Path) -> Result<String, Failure> {
    let standard = file.as_os_str() == "-";
    let path = file.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        let input: Box<dyn Read> =
            if standard { Box::new(io::stdin()) } else { Box::new(fs::File::open(path)?) };
        input.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes).map(|_| bytes)
    });
    let read = reading.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    let name = if standard { "standard input".to_owned() } else { format!("`{}`", file.display()) };
    let bytes = read.map_err(|error| {
        Failure::unusable(format!("Cannot read {name}"))
            .because(&error)
            .advice("name the file that holds the message, or - for standard input")
    })?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        return Err(Failure::unusable(format!("What {name} holds is longer than {INPUT_BYTES_MAX} bytes"))
            .advice(format!("a message has at most {PUBLISHED_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        Failure::unusable(format!("What {name} holds is no UTF-8 text"))
            .because(&error)
            .advice("save it as UTF-8")
    })
}
