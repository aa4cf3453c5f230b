//! Ports on loopback: the one wanted, or another where it is taken.

use std::{net::Ipv4Addr, time::Duration};

use tokio::{net::TcpListener, time::Instant};

use crate::failure::Failure;

/// How long a port may take to be free after its listener was closed, and the pause between two tries.
const AGAIN_TIMEOUT: Duration = Duration::from_secs(10);
const AGAIN_PAUSE: Duration = Duration::from_millis(50);

/// Listens on the first of `wanted` that is free, or on any port.
pub async fn listen(wanted: &[u16]) -> Result<(TcpListener, u16), Failure> {
    for port in wanted {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).await {
            return with_port(listener);
        }
    }
    let any = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    with_port(any.map_err(|error| Failure::unusable("No port of 127.0.0.1 can be listened on").because(&error))?)
}

/// Listens once more on a port that was ours a moment ago: others know us by it.
pub async fn listen_again(port: u16) -> Result<TcpListener, Failure> {
    let give_up = Instant::now() + AGAIN_TIMEOUT;
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => return Ok(listener),
            Err(_) if Instant::now() < give_up => tokio::time::sleep(AGAIN_PAUSE).await,
            Err(error) => {
                return Err(Failure::unusable(format!("Port {port} was ours and cannot be listened on any more"))
                    .because(&error)
                    .advice("Start `runtimectl up` again: it takes another port."));
            }
        }
    }
}

fn with_port(listener: TcpListener) -> Result<(TcpListener, u16), Failure> {
    let address = listener
        .local_addr()
        .map_err(|error| Failure::unusable("The system does not tell a port that is listened on").because(&error))?;
    Ok((listener, address.port()))
}

/// The port in an address such as `https://localhost:8443`.
pub fn of(address: &str) -> Option<u16> {
    url::Url::parse(address).ok()?.port()
}
