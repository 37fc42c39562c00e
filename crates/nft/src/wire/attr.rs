//! Netlink attributes as all of netfilter has them: numbers in network order, nests marked as
//! such.

const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// Writes attributes behind each other.
#[derive(Debug, Default)]
pub struct Writer {
    /// What is written so far.
    pub bytes: Vec<u8>,
}

impl Writer {
    /// An attribute of bytes.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        self.header(kind, value.len());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// A number.
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// Text with its end.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.header(kind, value.len() + 1);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    /// Attributes within one.
    pub fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.header(kind | NESTED, 0);
        write(self);
        let len = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    }

    fn header(&mut self, kind: u16, len: usize) {
        self.bytes
            .extend_from_slice(&((len + 4) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Reads attributes; ends at the first that does not fit.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Iterator for Reader<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(u16::from_ne_bytes(self.0.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

impl<'a> Reader<'a> {
    /// The bytes of the first attribute of a kind.
    pub fn get(self, wanted: u16) -> Option<&'a [u8]> {
        let mut attributes = self;
        attributes
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, value)| value)
    }

    /// The attributes within one; none where it is not there.
    pub fn nest(self, wanted: u16) -> Reader<'a> {
        Reader(self.get(wanted).unwrap_or_default())
    }

    /// A number.
    pub fn u32(self, wanted: u16) -> Option<u32> {
        Some(u32::from_be_bytes(
            self.get(wanted)?.get(..4)?.try_into().ok()?,
        ))
    }

    /// A long number.
    pub fn u64(self, wanted: u16) -> Option<u64> {
        Some(u64::from_be_bytes(
            self.get(wanted)?.get(..8)?.try_into().ok()?,
        ))
    }

    /// Text without its end.
    pub fn text(self, wanted: u16) -> Option<String> {
        let bytes = self.get(wanted)?;
        let end = bytes
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(bytes.len());
        String::from_utf8(bytes[..end].to_vec()).ok()
    }
}
