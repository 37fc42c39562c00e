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
//! What packets see of a transaction: one on its way keeps to the rules that were in force when it
//! came to the hook, but finds the elements that are in force when it looks them up. So a chain
//! that a verdict map shall lead to is made, with its rules, by a transaction before: else the
//! packet finds it empty, and goes on as if nothing had been said. An element that is deleted and
//! added in one transaction is never missing, and the rules of a chain are replaced at once.
//!
//! A rule that has a verdict, a lookup, an address's translation or `fib`, and an element that
//! leads to a chain, have the kernel walk the whole table when they are added: every chain as
//! often as something leads to it, for each hook. Elements of other sets do not, nor does a rule
//! of [`Statement::SetCtMark`] alone, nor anything that is deleted.
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
