//! Benchmarks. `cargo bench -p chronos-benches` measures single steps; `cargo run --release -p chronos-benches --bin
//! compare` measures the real binary beside PostgreSQL 15 on the same disk in the same run, and prints ratios.
