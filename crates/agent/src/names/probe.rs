//! Whether the node's own server answers, asked as everybody on the node asks it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

/// Between two questions.
pub(super) const EVERY: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(2);
/// So many in a row without an answer, and the server is deaf.
const MISSED: u32 = 3;

/// Asks until it is deaf, which it says then.
pub(super) async fn run(addresses: Vec<IpAddr>, deaf: Arc<AtomicBool>) {
    let mut missed = 0;
    while missed < MISSED {
        sleep(EVERY).await;
        missed = match all_answer(&addresses).await {
            true => 0,
            false => missed + 1,
        };
    }
    deaf.store(true, Ordering::Relaxed);
}

async fn all_answer(addresses: &[IpAddr]) -> bool {
    for ip in addresses {
        let answered = timeout(PATIENCE, answers(*ip)).await;
        // A node without a way to an address cannot ask there, and nobody on it can.
        if !matches!(answered, Ok(Ok(true) | Err(_))) {
            return false;
        }
    }
    true
}

/// A question of no kind that is ever asked on: `version.bind` of class CHAOS.
async fn answers(ip: IpAddr) -> std::io::Result<bool> {
    const QUESTION: [u8; 30] =
        *b"\x46\x4e\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07version\x04bind\x00\x00\x10\x00\x03";
    let any = match ip {
        IpAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        IpAddr::V6(_) => SocketAddr::from(([0_u16; 8], 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(SocketAddr::new(ip, 53)).await?;
    socket.send(&QUESTION).await?;
    let mut answer = [0; 512];
    let len = socket.recv(&mut answer).await?;
    Ok(len >= 12 && answer[..2] == QUESTION[..2])
}
