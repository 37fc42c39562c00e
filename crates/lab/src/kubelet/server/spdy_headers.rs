//! SPDY/3 header blocks: names and values, compressed with zlib and a dictionary both
//! sides know.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use flate2::{Decompress, FlushDecompress, Status};

/// Words of the dictionary that carry their length before them.
const WORDS: [&str; 65] = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];

/// The rest of the dictionary.
const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414\
415416417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad \
Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 \
Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, \
Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/\
xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=\
iso-8859-1,utf-,*,enq=0.";

/// Header blocks larger than this are refused.
const MAX_BLOCK: usize = 64 << 10;
/// The zlib header's flag for a dictionary.
const WITH_DICTIONARY: u8 = 0x20;

fn dictionary() -> &'static [u8] {
    static DICTIONARY: OnceLock<Vec<u8>> = OnceLock::new();
    DICTIONARY.get_or_init(|| {
        let mut bytes = Vec::new();
        for word in WORDS {
            bytes.extend_from_slice(&u32::try_from(word.len()).unwrap_or(0).to_be_bytes());
            bytes.extend_from_slice(word.as_bytes());
        }
        bytes.extend_from_slice(TEXT.as_bytes());
        bytes
    })
}

/// A deflate block that holds its bytes as they are.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut block = Vec::with_capacity(bytes.len() + 5);
    for part in bytes.chunks(usize::from(u16::MAX)) {
        let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
        block.push(0);
        block.extend_from_slice(&length.to_le_bytes());
        block.extend_from_slice(&(!length).to_le_bytes());
        block.extend_from_slice(part);
    }
    block
}

/// Reads the header blocks of one direction, which share their compression.
pub struct Decoder {
    inflate: Decompress,
    begun: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            inflate: Decompress::new(false),
            begun: false,
        }
    }
}

impl Decoder {
    /// The names and values of a block; names are lower case.
    pub fn decode(&mut self, mut block: &[u8]) -> Result<BTreeMap<String, String>, &'static str> {
        if !std::mem::replace(&mut self.begun, true) {
            let flags = *block.get(1).ok_or("header block too short")?;
            block = block.get(2..).unwrap_or_default();
            if flags & WITH_DICTIONARY != 0 {
                block = block.get(4..).ok_or("header block too short")?;
                // The dictionary is what a stored block would have put into the window.
                self.inflate(&stored(dictionary()))?;
            }
        }
        pairs(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut input: &[u8]) -> Result<Vec<u8>, &'static str> {
        let mut out = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(input, &mut chunk, FlushDecompress::Sync)
                .map_err(|_| "header block is not zlib data")?;
            let read = usize::try_from(self.inflate.total_in() - read).unwrap_or(0);
            let written = usize::try_from(self.inflate.total_out() - written).unwrap_or(0);
            input = &input[read..];
            out.extend_from_slice(&chunk[..written]);
            if out.len() > MAX_BLOCK {
                return Err("header block too large");
            }
            let stuck = read == 0 && written == 0;
            if stuck || status == Status::StreamEnd || (input.is_empty() && written < chunk.len()) {
                return Ok(out);
            }
        }
    }
}

fn pairs(block: &[u8]) -> Result<BTreeMap<String, String>, &'static str> {
    let mut rest = block;
    let count = number(&mut rest)?;
    let mut headers = BTreeMap::new();
    for _ in 0..count {
        let name = string(&mut rest)?.to_lowercase();
        let value = string(&mut rest)?;
        // Several values are kept apart by a zero byte; one is enough here.
        let value = value.split('\0').next().unwrap_or_default().to_owned();
        headers.insert(name, value);
    }
    Ok(headers)
}

fn number(rest: &mut &[u8]) -> Result<usize, &'static str> {
    let (bytes, after) = rest
        .split_first_chunk::<4>()
        .ok_or("header block ends early")?;
    *rest = after;
    Ok(u32::from_be_bytes(*bytes) as usize)
}

fn string(rest: &mut &[u8]) -> Result<String, &'static str> {
    let length = number(rest)?;
    let (text, after) = rest
        .split_at_checked(length)
        .ok_or("header block ends early")?;
    *rest = after;
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Writes header blocks, without compressing them.
#[derive(Default)]
pub struct Encoder {
    begun: bool,
}

impl Encoder {
    /// A block of these names and values.
    pub fn encode(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let length = |n: usize| u32::try_from(n).unwrap_or(0).to_be_bytes();
        let mut plain = length(headers.len()).to_vec();
        for (name, value) in headers {
            for text in [name, value] {
                plain.extend_from_slice(&length(text.len()));
                plain.extend_from_slice(text.as_bytes());
            }
        }
        let mut block = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            block.extend_from_slice(&[0x78, 0x01]);
        }
        block.extend(stored(&plain));
        // An empty block at the end, as a flush writes it: Go's reader gives out what it
        // has only then, and otherwise takes the end of the frame for a fault.
        block.extend_from_slice(&[0, 0, 0, 0xff, 0xff]);
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_one_of_the_specification() {
        let (mut a, mut b) = (1u32, 0u32);
        for byte in dictionary() {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!(dictionary().len(), 1423);
        assert_eq!((b << 16) | a, 0xe3c6_a7c2, "its Adler-32 sum");
    }

    /// Two blocks of zlib 1.2.13 with the dictionary, best compression, flushed.
    const FROM_PEER: [&str; 2] = [
        "78f9e3c6a7c202253a703a2b294a4dcc851625aca9a0808614cb45e01c6061606100a4398b20d198094ade8c0600000000ffff",
        "c2aa19540e2512d60b000000ffff",
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap())
            .collect()
    }

    #[test]
    fn blocks_of_another_implementation_are_read_one_after_another() {
        let mut decoder = Decoder::default();
        let first = decoder.decode(&bytes(FROM_PEER[0])).unwrap();
        assert_eq!(first["streamtype"], "error");
        assert_eq!(first["port"], "8080");
        assert_eq!(first["requestid"], "0");
        let second = decoder.decode(&bytes(FROM_PEER[1])).unwrap();
        assert_eq!(second["streamtype"], "data");
        assert_eq!(second["requestid"], "0");
    }

    #[test]
    fn what_is_written_can_be_read() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for value in ["a", "b"] {
            let block = encoder.encode(&[("name", value)]);
            assert_eq!(decoder.decode(&block).unwrap()["name"], value);
        }
        assert!(Decoder::default().decode(b"\x78").is_err());
        assert!(
            Decoder::default()
                .decode(&[0x78, 1, 0, 4, 0, 0xfb, 0xff, 0, 0, 0, 9])
                .is_err()
        );
    }
}
