//! Command line and wiring only.

fn main() {}
