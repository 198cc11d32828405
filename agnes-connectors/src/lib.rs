//! agnes-connectors
