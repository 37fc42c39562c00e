//! Rulesets as values: bytes, differences, and packets through them. What the kernel makes of
//! the bytes is tested in the crate `linux`, which can send them.

#![expect(clippy::unwrap_used, reason = "a test's failure is a panic")]

mod connections;
mod difference;
mod packets;
mod services;
mod wire;

use nft::{Base, ChainKind, Hook, Policy};

pub(crate) fn base(kind: ChainKind, hook: Hook) -> Option<Base> {
    Some(Base {
        kind,
        hook,
        priority: 0,
        policy: Policy::Accept,
    })
}
