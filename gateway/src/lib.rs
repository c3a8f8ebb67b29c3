//! The gateway: serves openshell.v1, authenticates, stores, pushes configuration and relays.
#![forbid(unsafe_code)]
