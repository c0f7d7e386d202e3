#!/usr/bin/env bash
# The purity of proto, engine and engine/sql: their dependency trees hold no runtime, socket, store or randomness of
# the operating system, nor does the simulator's hold a runtime, and clippy refuses a clock, a thread, a socket and a
# hash map in each of the three, which is shown on a copy that gets one.
set -euo pipefail
cd "$(dirname "$0")/.."

rooms=(chronos-proto:proto chronos-engine:engine chronos-sql:engine/sql)
never='tokio|mio|async-std|smol|futures-executor|quinn|rustls|ring|socket2|hyper|axum|tonic|reqwest|heed|lmdb-master-sys|memmap2|tempfile|crossbeam-channel|rayon|parking_lot|uuid|chrono|time|instant|ahash|hashbrown'
randomness='rand|getrandom|fastrand'
passed=0
failed=0

say() {
    if [ "$1" = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    echo "$1: $2"
}

for room in "${rooms[@]}"; do
    package=${room%%:*}
    tree=$(cargo tree --locked --package "$package" --edges normal --prefix none --format '{p}' | awk '{print $1}' | sort -u)
    if found=$(grep -xE "$never" <<<"$tree"); then
        say FAILED "$package depends on $(tr '\n' ' ' <<<"$found")"
    else
        say ok "$package: $(wc -l <<<"$tree") packages, none of them a runtime, a socket or a store"
    fi
    # uhlc's types bring rand along; nothing else may, and clippy.toml refuses the calls that would draw from it.
    direct=$(cargo tree --locked --package "$package" --edges normal --depth 1 --prefix none --format '{p}' | awk '{print $1}')
    through=$(cargo tree --locked --package "$package" --edges normal --prefix depth --format ' {p}' |
        awk '{depth = $1; name[depth] = $2; if ($2 == "getrandom") { under = 0; for (d = 0; d < depth; d++) if (name[d] == "uhlc") under = 1; if (!under) print name[depth - 1] }}')
    if grep -qxE "$randomness" <<<"$direct" || [ -n "$through" ]; then
        say FAILED "$package can draw from the operating system's randomness: $through"
    else
        say ok "$package: no randomness of the operating system but what uhlc's types bring along"
    fi
done

# What runs in the simulator is the engine: it brings no runtime along, though it may bring a command line's crates.
tree=$(cargo tree --locked --package chronos-sim --edges normal --prefix none --format '{p}' | awk '{print $1}' | sort -u)
if found=$(grep -xE 'tokio|mio|quinn|rustls|socket2|hyper|tonic|heed|tempfile' <<<"$tree"); then
    say FAILED "chronos-sim depends on $(tr '\n' ' ' <<<"$found")"
else
    say ok "chronos-sim: $(wc -l <<<"$tree") packages, none of them a runtime, a socket or a store"
fi

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --create --ignore-failed-read | tar --extract --directory "$copy"

# Dependencies within the workspace are not the matter here: only this room is linted.
clippy() {
    (cd "$copy" && cargo clippy --quiet --locked --package "$1" --lib --no-deps -- -D warnings) >"$copy/clippy.out" 2>&1
}

offences=(
    'std::time::Instant::now|pub fn offence() -> u128 { std::time::Instant::now().elapsed().as_nanos() }'
    'std::thread::spawn|pub fn offence() { let _ = std::thread::spawn(|| ()); }'
    'std::net::TcpStream|pub fn offence(stream: &std::net::TcpStream) -> bool { stream.nodelay().is_ok() }'
    'std::collections::HashMap|pub fn offence() -> usize { std::collections::HashMap::<u8, u8>::new().len() }'
)
for room in "${rooms[@]}"; do
    package=${room%%:*} folder=${room#*:}
    lib="$copy/$folder/src/lib.rs"
    if clippy "$package"; then
        say ok "$package: clippy has nothing to say of it as it is"
    else
        say FAILED "$package: clippy complains of it as it is:"
        tail -n 40 "$copy/clippy.out"
        continue
    fi
    cp "$lib" "$copy/lib.rs"
    for offence in "${offences[@]}"; do
        path=${offence%%|*} code=${offence#*|}
        printf '\n/// An offence.\n%s\n' "$code" >>"$lib"
        if clippy "$package"; then
            say FAILED "$package: clippy lets $path in"
        elif grep -q "disallowed .*\`$path\`" "$copy/clippy.out"; then
            say ok "$package: clippy refuses $path"
        else
            say FAILED "$package: clippy fails for another reason than $path:"
            tail -n 40 "$copy/clippy.out"
        fi
        cp "$copy/lib.rs" "$lib"
    done
done

echo "purity: $passed held, $failed did not"
[ "$failed" -eq 0 ]
