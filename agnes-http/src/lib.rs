//! agnes-http
