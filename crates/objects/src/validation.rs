//! Validation of the built-in kinds, with Kubernetes' field paths and sentences.
