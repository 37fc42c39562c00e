//! The steps a packet takes, from the plan alone.
