//! Ports on loopback: the one wanted, or another where it is taken.

use std::net::Ipv4Addr;

use tokio::net::TcpListener;

use crate::failure::Failure;

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
