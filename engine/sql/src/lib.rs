//! engine/sql
