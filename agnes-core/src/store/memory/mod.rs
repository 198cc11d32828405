//! State in memory, for tests, examples and throw-away engines.
