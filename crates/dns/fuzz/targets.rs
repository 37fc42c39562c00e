//! What is fuzzed. `cargo fuzz` runs it without end, the crate's tests over the corpus and some
//! mutations of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use dns::corefile::{self, NoSources};
use dns::query::{Answer, Outcome, Query, Transport};
use dns::serve::{Answers, Respond, Site};
use dns::wire::{Data, Message, Name, Record};
use futures::FutureExt;

/// A message that is understood can be written, and says the same then.
pub fn message(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else {
        return;
    };
    let written = message.to_bytes();
    let again = Message::parse(&written).expect("what was written is understood");
    // Without compression it may be too long for one message, and is cut.
    if !again.header.truncated || message.header.truncated {
        assert_eq!(again, message);
    }
    let mut short = Vec::new();
    message.write(512, &mut short);
    let opt = message.edns.map_or(0, |edns| {
        edns.options
            .iter()
            .map(|option| 4 + option.data.len())
            .sum::<usize>()
    });
    assert!(short.len() <= 512 + opt, "{} bytes", short.len());
    Message::parse(&short).expect("what was cut is understood");
}

/// Answers everything, with as many addresses as the name has bytes.
struct Everything;

impl Answers for Everything {
    fn sites(&self) -> Vec<Site> {
        vec![Site {
            zone: Name::root(),
            view: String::new(),
            plugins: vec!["prometheus"],
        }]
    }

    fn route(&self, query: &Query) -> Option<usize> {
        (query.question.name.as_bytes().len() % 7 != 6).then_some(0)
    }

    async fn answer(self: &Arc<Self>, _site: usize, query: &mut Query) -> Outcome {
        let name = &query.question.name;
        let address = |number: usize| Data::A(Ipv4Addr::from(number as u32));
        let records = (0..name.as_bytes().len()).map(|n| Record::new(name.clone(), 5, address(n)));
        Outcome::Answer(Answer {
            answers: records.collect(),
            by: "everything",
            ..Answer::default()
        })
    }
}

/// Whatever comes in, what goes out is a response to it, and no longer than was asked for.
pub fn request(bytes: &[u8]) {
    let server = Respond::new(Arc::new(Everything));
    let peers: [SocketAddr; 2] = [([10, 0, 0, 1], 1234).into(), ([10, 0, 0, 2], 53).into()];
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut out = Vec::new();
        let answer = server.respond(bytes, peers[0], peers[1], transport, &mut out);
        answer.now_or_never().expect("nothing is waited for");
        if out.is_empty() {
            continue;
        }
        let response = match transport {
            Transport::Udp => &out[..],
            _ => {
                let length = usize::from(u16::from_be_bytes([out[0], out[1]]));
                assert_eq!(out.len(), 2 + length);
                &out[2..]
            }
        };
        let response = Message::parse(response).expect("a response is understood");
        assert!(response.header.response);
        assert_eq!(bytes[..2], response.header.id.to_be_bytes());
        assert_eq!(bytes[2] & 0x80, 0, "a response is not answered");
        if let Ok(asked) = Message::parse(bytes)
            && let Some(question) = response.question
        {
            let asked_question = asked.question.expect("what is repeated was asked");
            assert!(question.name.is_exactly(&asked_question.name));
            let room = asked.edns.map_or(512, |edns| edns.udp_size.max(512));
            if transport == Transport::Udp {
                assert!(out.len() <= usize::from(room), "{} bytes", out.len());
            }
        }
    }
}

/// Any text is a Corefile or is told what is wrong with it.
pub fn corefile(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Err(errors) = corefile::parse("Corefile", text, 53, &NoSources)
    {
        assert!(!errors.is_empty());
    }
}
