//! Harness and suites: escape, SDK, programs, faults, benchmarks.
#![forbid(unsafe_code)]
