//! The wire format of DNS (RFC 1035, RFC 3597, RFC 6891), for what this server reads and writes.
//!
//! Nothing here panics or grows beyond the message whatever the bytes are: compression pointers
//! lead strictly backwards, names end at 255 bytes, and what a message may hold is bounded by
//! its 65,535 bytes.

mod edns;
mod message;
mod name;
mod reader;
mod record;
mod writer;

pub use edns::{Edns, EdnsOption};
pub use message::{Header, Message, Opcode, Question, Rcode};
pub use name::{Name, NameError};
pub use reader::{Reader, WireError};
pub use record::{Class, Data, Record, Soa, Type};
pub use writer::{OptOut, Writer};
