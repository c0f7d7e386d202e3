#!/usr/bin/env bash
# Runs each fuzz target, or those that are named, for SECONDS from its seeds; says how many executions a second
# there were. Fails if a tool is missing, a target does not build, or an input is found that breaks something: it is then
# in the folder that is printed. With FUZZ_SEED it does what it did last time, as far as it comes: it draws from that, and
# leaves what earlier runs kept.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:?usage: fuzz/run.sh SECONDS [TARGET...]}
shift
for tool in cargo rustc c++; do
    command -v "$tool" >/dev/null || {
        echo "fuzz: $tool is missing"
        exit 1
    }
done
if [ $# -gt 0 ]; then targets=("$@"); else
    targets=()
    for file in fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

# What `cargo fuzz run --sanitizer none` sets: coverage that a stable compiler can do. With --target, so that build
# scripts go without it.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/../target}/fuzz
triple=$(rustc -vV | sed -n 's/^host: //p')
cargo build --quiet --release --target "$triple" --bins

work=$CARGO_TARGET_DIR/work
corpus=$work/corpus
if [ -n "${FUZZ_SEED:-}" ]; then
    corpus=$work/repeated
    rm -rf "$corpus"
fi
failed=0
for target in "${targets[@]}"; do
    mkdir -p "$corpus/$target" "$work/found/$target"
    folders=("$corpus/$target")
    [ ! -d "seeds/$target" ] || folders+=("seeds/$target")
    code=0
    "$CARGO_TARGET_DIR/$triple/release/$target" -max_total_time="$seconds" -timeout=20 \
        -rss_limit_mb=2048 -seed="${FUZZ_SEED:-0}" \
        -print_final_stats=1 -verbosity=0 -artifact_prefix="$work/found/$target/" \
        "${folders[@]}" >"$work/$target.log" 2>&1 || code=$?
    stat() { sed -n "s/^stat::$1: *//p" "$work/$target.log"; }
    if [ "$code" -eq 0 ]; then
        printf '%-14s %10s executions, %7s a second, %5s inputs kept\n' "$target" "$(stat number_of_executed_units)" \
            "$(stat average_exec_per_sec)" "$(find "$corpus/$target" -type f | wc -l)"
    else
        failed=1
        echo "$target FAILED with $code; what broke it is in $work/found/$target:"
        tail -n 25 "$work/$target.log"
    fi
done
exit $failed
