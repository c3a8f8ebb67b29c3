//! Entry point: parses, wires and exits.
fn main() {}
