//! Loopback addresses.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// How long a server may take until it listens: real ones need milliseconds, a busy machine more.
pub const START_MAX: Duration = Duration::from_secs(30);

/// A port of 127.0.0.1 that was free a moment ago; somebody else may take it meanwhile.
///
/// Better bind port 0, or use [`free_addr`].
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// A loopback address that was free a moment ago, for programs that can't bind port 0 themselves.
///
/// Its host is one of the 16 million that nobody else thinks of, so that nobody takes the port in
/// between.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn free_addr() -> SocketAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    // Not 127.0.0.1, whatever the process id.
    let host = Ipv4Addr::new(127, high | 128, middle, low);
    let listener = TcpListener::bind((host, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// Waits until something listens at `addr`.
///
/// # Errors
///
/// The last refusal, when it took longer than [`START_MAX`].
pub fn wait_for_listener(addr: SocketAddr) -> std::io::Result<()> {
    let begun = Instant::now();
    loop {
        match TcpStream::connect_timeout(&addr, START_MAX) {
            Ok(_) => return Ok(()),
            Err(error) if begun.elapsed() > START_MAX => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
