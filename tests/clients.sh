#!/usr/bin/env bash
# The second suite: psql 15, psycopg 3, promtool, PostgreSQL 15 as the oracle, and a full disk. A missing tool fails;
# `.ci/run` installs them (apt: postgresql-15 prometheus python3-venv).
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}

venv="$target/clients-venv"
if ! "$venv/bin/python" -c 'import psycopg' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'psycopg[binary]>=3.2,<4'
fi
CHRONOS_TEST_PYTHON=$(realpath -s "$venv/bin/python")
export CHRONOS_TEST_PYTHON

cargo build --package chronos-server
cargo test --package chronos-tests --features clients --test clients "$@"
