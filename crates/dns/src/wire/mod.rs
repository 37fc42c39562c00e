//! The wire format of DNS (RFC 1035, RFC 6891).
