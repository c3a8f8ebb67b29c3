//! What is recorded, and the bounded queue that carries it to the session.
