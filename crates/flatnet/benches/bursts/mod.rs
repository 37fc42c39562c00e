//! What a server does when nobody else needs the processors: questions wait at a server that is
//! stopped; it goes on, and the kernel's times of its answers tell how long it took. A load
//! generator at the same time would take what a second worker needs.

use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt::ReceiveTimestampns,
};
use nix::sys::time::TimeSpec;

use crate::resolvers::{Resolver, question};

/// So many that workers get about the same.
const CLIENTS: usize = 256;
/// Of each client; all of them have room at one worker's socket.
const QUESTIONS: usize = 8;

/// The first has one worker, the other one two.
pub fn compare(servers: &[Resolver; 2], names: &[String], rounds: usize) {
    let questions: Vec<Vec<u8>> = names.iter().map(|name| question(name)).collect();
    let mut each = [Vec::new(), Vec::new()];
    let before = servers.each_ref().map(Resolver::spent);
    for _ in 0..rounds {
        for (server, rounds) in servers.iter().zip(&mut each) {
            rounds.push(burst(server, &questions));
        }
    }
    let all = (CLIENTS * QUESTIONS * rounds) as f64;
    let mut costs = [0.0; 2];
    for (index, server) in servers.iter().enumerate() {
        costs[index] = (server.spent() - before[index]).as_secs_f64() / all * 1e6;
    }
    let [one, two] = each.map(|mut rounds| {
        rounds.sort_by(f64::total_cmp);
        (rounds[rounds.len() / 2], rounds[rounds.len() - 1])
    });
    println!(
        "bursts of {} questions at one worker, and at two (target 1.8 times):",
        CLIENTS * QUESTIONS
    );
    for (what, one, two) in [("median", one.0, two.0), ("best", one.1, two.1)] {
        println!(
            "  {what:6} {one:.0} and {two:.0} answers a second: {:.2} times",
            two / one
        );
    }
    println!(
        "  processor time a question {:.2} us and {:.2} us",
        costs[0], costs[1]
    );
}

/// Answers a second.
fn burst(server: &Resolver, questions: &[Vec<u8>]) -> f64 {
    let clients: Vec<UdpSocket> = (0..CLIENTS).map(|_| server.client()).collect();
    for client in &clients {
        setsockopt(client, ReceiveTimestampns, &true).unwrap();
    }
    server.signal(Signal::SIGSTOP);
    for (at, client) in clients.iter().enumerate() {
        for number in 0..QUESTIONS {
            let question = &questions[(at * QUESTIONS + number) % questions.len()];
            client.send(question).unwrap();
        }
    }
    server.signal(Signal::SIGCONT);
    // This thread takes no time of the server's.
    std::thread::sleep(Duration::from_millis(50));
    let mut times: Vec<Duration> = Vec::with_capacity(CLIENTS * QUESTIONS);
    for client in &clients {
        times.extend((0..QUESTIONS).map(|_| received(client)));
    }
    let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    times.len() as f64 / (*last - *first).as_secs_f64()
}

/// When the next datagram came.
fn received(client: &UdpSocket) -> Duration {
    let mut bytes = [0; 512];
    let mut space = [IoSliceMut::new(&mut bytes)];
    let mut control = nix::cmsg_space!(TimeSpec);
    let message = recvmsg::<()>(
        client.as_raw_fd(),
        &mut space,
        Some(&mut control),
        MsgFlags::empty(),
    )
    .expect("an answer to each question");
    let time = message.cmsgs().unwrap().find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(time) => Some(time),
        _ => None,
    });
    time.expect("the kernel tells the time").into()
}
