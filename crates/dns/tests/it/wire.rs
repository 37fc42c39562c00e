//! The wire format, held against another implementation of it.

use dns::wire::{
    Class, Data, Edns, EdnsOption, Header, Message, Name, Opcode, Question, Rcode, Record, Soa,
    Type, WireError,
};
use hickory_proto::op::Message as Theirs;
use proptest::collection::vec;
use proptest::prelude::*;

fn label() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => "[a-zA-Z0-9_-]{1,12}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 1..=63),
    ]
}

/// Names share labels, so that there is something to compress.
fn name() -> impl Strategy<Value = Name> {
    let suffix = prop_oneof![
        Just("svc.cluster.local"),
        Just("example.org"),
        Just("EXAMPLE.org"),
        Just(""),
    ];
    (vec(label(), 0..3), suffix).prop_map(|(labels, suffix)| {
        let front = Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap();
        front.join(&suffix.parse().unwrap()).unwrap()
    })
}

fn data() -> impl Strategy<Value = Data> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|ip| Data::A(ip.into())),
        any::<[u8; 16]>().prop_map(|ip| Data::Aaaa(ip.into())),
        name().prop_map(Data::Cname),
        name().prop_map(Data::Ns),
        name().prop_map(Data::Ptr),
        (any::<u16>(), name()).prop_map(|(preference, name)| Data::Mx(preference, name)),
        (any::<[u16; 3]>(), name()).prop_map(|([priority, weight, port], target)| Data::Srv {
            priority,
            weight,
            port,
            target,
        }),
        "[ -~]{0,300}".prop_map(|text| Data::text(&text)),
        (name(), name(), any::<[u32; 5]>()).prop_map(|(primary, mailbox, numbers)| {
            // Their numbers are signed.
            let [serial, refresh, retry, expire, minimum] = numbers.map(|n| n & 0x7fff_ffff);
            Data::Soa(Box::new(Soa {
                primary,
                mailbox,
                serial,
                refresh,
                retry,
                expire,
                minimum,
            }))
        }),
        vec(any::<u8>(), 1..40).prop_map(|bytes| Data::Other(Type(65_280), bytes.into())),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    (name(), 0..0x7fff_ffff_u32, data()).prop_map(|(name, ttl, data)| Record::new(name, ttl, data))
}

fn edns() -> impl Strategy<Value = Edns> {
    let option =
        (65_001..65_500_u16, vec(any::<u8>(), 0..20)).prop_map(|(code, data)| EdnsOption {
            code,
            data: data.into(),
        });
    (512..u16::MAX, any::<bool>(), vec(option, 0..2)).prop_map(|(udp_size, dnssec_ok, options)| {
        Edns {
            udp_size,
            version: 0,
            dnssec_ok,
            options,
        }
    })
}

fn message() -> impl Strategy<Value = Message> {
    let header = (any::<u16>(), any::<[bool; 6]>(), 0..11_u16);
    let question = (
        name(),
        prop_oneof![Just(Type::A), Just(Type::SRV), Just(Type::ANY)],
    );
    let sections = [
        vec(record(), 0..6),
        vec(record(), 0..3),
        vec(record(), 0..6),
    ];
    (header, question, sections, proptest::option::of(edns())).prop_map(
        |((id, flags, rcode), (name, kind), [answers, authorities, additionals], edns)| Message {
            header: Header {
                id,
                response: true,
                opcode: Opcode::QUERY,
                authoritative: flags[0],
                truncated: flags[1],
                recursion_desired: flags[2],
                recursion_available: flags[3],
                authentic: flags[4],
                checking_disabled: flags[5],
                rcode: Rcode(rcode),
            },
            question: Some(Question {
                name,
                kind,
                class: Class::IN,
            }),
            answers,
            authorities,
            additionals,
            edns,
        },
    )
}

/// Letters too: names are the same without regard to case.
fn exactly(message: &Message) -> String {
    format!("{message:?}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_written_they_read_and_write_back(message in message()) {
        let bytes = message.to_bytes();
        prop_assert_eq!(exactly(&Message::parse(&bytes).unwrap()), exactly(&message));
        let theirs = Theirs::from_vec(&bytes).unwrap();
        let back = Message::parse(&theirs.to_vec().unwrap()).unwrap();
        prop_assert_eq!(exactly(&back), exactly(&message));
    }

    #[test]
    fn what_is_cut_is_the_beginning(message in message(), limit in 512_usize..1500) {
        let mut bytes = Vec::new();
        message.write(limit, &mut bytes);
        prop_assert!(bytes.len() <= limit);
        let cut = Message::parse(&bytes).unwrap();
        let sections = |message: &Message| {
            [&message.answers, &message.authorities, &message.additionals]
                .map(Vec::clone)
                .concat()
        };
        let (kept, all) = (sections(&cut), sections(&message));
        prop_assert_eq!(&kept[..], &all[..kept.len()]);
        prop_assert_eq!(cut.header.truncated, message.header.truncated || kept.len() < all.len());
        prop_assert_eq!(cut.edns, message.edns);
        prop_assert!(Theirs::from_vec(&bytes).is_ok());
    }

    #[test]
    fn damaged_messages_are_judged_alike(
        message in message(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        end in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = message.to_bytes();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cut {
            bytes.truncate(end.index(bytes.len() + 1));
        }
        alike(&bytes)?;
    }

    #[test]
    fn noise_is_judged_alike(
        noise in vec(prop_oneof![3 => Just(0_u8), 1 => Just(0xc0), 1 => Just(1), 2 => any::<u8>()], 0..200),
    ) {
        alike(&noise)?;
        let mut bytes = vec![0, 1, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 1];
        bytes.extend(noise);
        alike(&bytes)?;
    }
}

/// Both take a message and say the same, or both refuse it, but for what is listed here.
fn alike(bytes: &[u8]) -> Result<(), TestCaseError> {
    match (Message::parse(bytes), Theirs::from_vec(bytes)) {
        (Ok(ours), Ok(theirs)) => {
            prop_assert_eq!(ours.header.id, theirs.metadata.id);
            prop_assert_eq!(ours.answers.len(), theirs.answers.len());
            for (ours, theirs) in ours.answers.iter().zip(&theirs.answers) {
                prop_assert_eq!(ours.ttl, theirs.ttl);
            }
        }
        (Err(_), Err(_)) => {}
        (Ok(ours), Err(error)) => {
            let overlap = error.to_string().contains("overlapping labels");
            prop_assert!(overlap || stricter(&ours), "{error}: {ours:?}");
        }
        (Err(error), Ok(theirs)) => {
            prop_assert!(laxer(error, &theirs), "{error}: {theirs:?}");
        }
    }
    Ok(())
}

/// What they do not take, and this server does, beside names whose pointers lead into labels: they
/// look into types and options that are passed on here as they are, and know OPT, SIG and TSIG in
/// one section only.
fn stricter(ours: &Message) -> bool {
    let sections = [&ours.answers, &ours.authorities, &ours.additionals];
    let mut records = sections.into_iter().flatten();
    let options = ours.edns.as_ref().map_or(0, |edns| edns.options.len());
    options > 0 || records.any(|record| matches!(record.data, Data::Other(..)))
}

/// What they take, and this server does not: bytes behind the end, several questions, and what is
/// damaged inside types whose names this server makes whole (RFC 3597, section 4), where they
/// look at the length only; and options of EDNS that are cut off, which they leave out.
fn laxer(error: WireError, theirs: &Theirs) -> bool {
    let sections = [&theirs.answers, &theirs.authorities, &theirs.additionals];
    let mut records = sections.into_iter().flatten();
    matches!(error, WireError::Trailing | WireError::Questions)
        || theirs.edns.is_some()
        || records.any(|record| MADE_WHOLE.contains(&Type(record.record_type().into())))
}

const MADE_WHOLE: [Type; 13] = [
    Type::MD,
    Type::MF,
    Type::MB,
    Type::MG,
    Type::MR,
    Type::MINFO,
    Type::RP,
    Type::AFSDB,
    Type::RT,
    Type::SIG,
    Type::PX,
    Type::NXT,
    Type::NAPTR,
];
