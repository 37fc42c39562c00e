//! What the data of each type is made of.

use crate::wire::Type;

/// A part of a record's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Name,
    U8,
    U16,
    U32,
    /// A time span: seconds or `1h30m`.
    Span,
    /// A point in time: `YYYYMMDDHHmmSS` or seconds since 1970.
    Time,
    /// A type's word.
    Type,
    V4,
    V6,
    /// A character string with its length.
    Text,
    /// Character strings up to the end, one at least.
    Texts,
    /// The same, where there may be none.
    MoreTexts,
    /// A character string up to the end, without a length.
    Rest,
    /// A hexadecimal number up to the end; white space may be in it.
    Hex,
    /// Base 64 up to the end; white space may be in it.
    Base64,
    /// A hexadecimal number with its length, `-` for none.
    Salt,
    /// Base 32 with its length.
    Hash,
    /// Types up to the end.
    Types,
    /// Parameters of a service up to the end.
    Params,
}

/// The parts of a type's data; none for types that have only the form of unknown types.
pub(super) fn of(kind: Type) -> Option<&'static [Part]> {
    use Part::{
        Base64, Hash, Hex, MoreTexts, Name, Params, Rest, Salt, Span, Text, Texts, Time, U8, U16,
        U32, V4, V6,
    };
    Some(match kind {
        Type::A => &[V4],
        Type::AAAA => &[V6],
        Type::NS | Type::CNAME | Type::PTR | Type::DNAME => &[Name],
        Type::MD | Type::MF | Type::MB | Type::MG | Type::MR => &[Name],
        Type::MINFO | Type::RP => &[Name, Name],
        Type::SOA => &[Name, Name, U32, Span, Span, Span, Span],
        Type::MX | Type::AFSDB | Type::RT | Type::KX => &[U16, Name],
        Type::PX => &[U16, Name, Name],
        Type::TXT | Type::SPF => &[Texts],
        Type::HINFO => &[Text, Text],
        Type::X25 => &[Text],
        Type::ISDN => &[Text, MoreTexts],
        Type::SRV => &[U16, U16, U16, Name],
        Type::NAPTR => &[U16, U16, Text, Text, Text, Name],
        Type::CERT => &[U16, U16, U8, Base64],
        Type::DS | Type::CDS => &[U16, U8, U8, Hex],
        Type::SSHFP => &[U8, U8, Hex],
        Type::TLSA | Type::SMIMEA => &[U8, U8, U8, Hex],
        Type::DNSKEY | Type::CDNSKEY | Type::KEY => &[U16, U8, U8, Base64],
        Type::RRSIG | Type::SIG => &[Part::Type, U8, U8, U32, Time, Time, U16, Name, Base64],
        Type::NSEC => &[Name, Part::Types],
        Type::NSEC3 => &[U8, U8, U16, Salt, Hash, Part::Types],
        Type::NSEC3PARAM => &[U8, U8, U16, Salt],
        Type::OPENPGPKEY | Type::DHCID => &[Base64],
        Type::CSYNC => &[U32, U16, Part::Types],
        Type::ZONEMD => &[U32, U8, U8, Hex],
        Type::URI => &[U16, U16, Rest],
        Type::CAA => &[U8, Text, Rest],
        Type::SVCB | Type::HTTPS => &[U16, Name, Params],
        _ => return None,
    })
}
