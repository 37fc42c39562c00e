//! Bytes as digits: hexadecimal, base 32 and base 64.

/// Digits that stand for so many bits each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Digits {
    bits: u32,
    alphabet: &'static [u8],
    any_case: bool,
}

pub(super) const HEX: Digits = Digits {
    bits: 4,
    alphabet: b"0123456789ABCDEF",
    any_case: true,
};
/// With the extended hexadecimal alphabet (RFC 4648, section 7), without padding.
pub(super) const BASE32: Digits = Digits {
    bits: 5,
    alphabet: b"0123456789ABCDEFGHIJKLMNOPQRSTUV",
    any_case: true,
};
/// With padding.
pub(super) const BASE64: Digits = Digits {
    bits: 6,
    alphabet: b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    any_case: false,
};

impl Digits {
    /// The bytes; none where something is no digit or bits are left over.
    pub fn decode(self, text: &str) -> Option<Vec<u8>> {
        let digits = if self.bits == 6 {
            unpadded(text)?
        } else {
            text
        };
        let (mut bits, mut have) = (0_u32, 0);
        let mut bytes = Vec::with_capacity(digits.len() * self.bits as usize / 8);
        for digit in digits.bytes() {
            let digit = if self.any_case {
                digit.to_ascii_uppercase()
            } else {
                digit
            };
            let value = self.alphabet.iter().position(|&known| known == digit)?;
            bits = bits << self.bits | value as u32;
            have += self.bits;
            if have >= 8 {
                have -= 8;
                bytes.push((bits >> have) as u8);
                bits &= (1 << have) - 1;
            }
        }
        (have < self.bits && bits == 0).then_some(bytes)
    }

    /// The digits.
    pub fn encode(self, bytes: &[u8]) -> String {
        let (mut bits, mut have) = (0_u32, 0);
        let mut text = String::with_capacity(bytes.len() * 8 / self.bits as usize + 4);
        let mut digit = |bits: u32| text.push(char::from(self.alphabet[bits as usize]));
        for &byte in bytes {
            bits = bits << 8 | u32::from(byte);
            have += 8;
            while have >= self.bits {
                have -= self.bits;
                digit(bits >> have);
                bits &= (1 << have) - 1;
            }
        }
        if have > 0 {
            digit(bits << (self.bits - have));
        }
        if self.bits == 6 {
            while !text.len().is_multiple_of(4) {
                text.push('=');
            }
        }
        text
    }
}

/// Base 64 without its padding; none where the padding is not what it has to be.
fn unpadded(text: &str) -> Option<&str> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    (text.len().is_multiple_of(4) && padding <= 2).then_some(digits)
}
