//! Tests of policies from outside.
