//! Queries of a node and its pods, and who answers them: with real packets.

mod fall;
mod lab;
mod led;
