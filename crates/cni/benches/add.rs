//! ADD and DEL as a runtime sees them, beside Debian's bridge and host-local plugins.

fn main() {}
