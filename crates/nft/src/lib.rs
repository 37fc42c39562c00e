//! nftables as typed values.
//!
//! ```text
//! Table ──compile──▶ Compiled ──diff (against what is there)──▶ Transaction ──encode──▶ bytes for the kernel
//!   │                    └──eval: a packet through it
//!   └──Display: the words of `nft list table`
//! ```
//!
//! A [`Table`] is what a function wants, in the terms of the `nft` language. [`Compiled`] is the
//! same in the kernel's expressions; it is also what reading a table back gives
//! ([`wire::read`]), so wanted and present are compared exactly, and a change by anyone else is
//! seen. Several functions share one table: each owns the chains and sets it names
//! ([`diff`] takes the test of ownership) and never touches the others'.
//!
//! Who knows what changed needs no difference: a [`Transaction`] is made of [`Op`]s by hand, with
//! single parts compiled by [`Rule::compile`], [`Set::compile`], [`ElementKey::of`] and
//! [`Datum::of`]. [`apply`] refuses what the kernel would refuse.
//!
//! There are no anonymous sets: their cost in a transaction is quadratic. Everything that
//! scales with the cluster goes into elements of named sets and maps.

mod apply;
mod compile;
mod diff;
pub mod eval;
mod expr;
mod model;
mod text;
mod value;
pub mod wire;

pub use apply::apply;
pub use compile::{
    Compiled, CompiledChain, CompiledRule, CompiledSet, Datum, ElementKey, VERDICT_TYPE,
};
pub use diff::{Op, Transaction, diff};
pub use expr::{CmpOp, Expr};
pub use model::{
    Base, Chain, ChainKind, CtField, CtState, Direction, Family, Hook, Key, Limit, Log, Looked,
    MapDatum, MapTarget, NatKind, NatTo, Policy, Reject, Rule, Set, SetData, Statement, Table,
    Update, Verdict,
};
pub use value::{IpFamily, Type, Value};
