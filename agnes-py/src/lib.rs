//! agnes-py
