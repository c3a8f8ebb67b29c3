//! The openshell command.
#![forbid(unsafe_code)]
