#!/usr/bin/env python3
"""Asks PostgreSQL what the statements of `*.test` answer: writes it down, or (--check) compares with what is there.

Blocks are separated by blank lines. A block's head is one of

    query [rowsort]        rows follow behind ----, columns separated by |, NULL as NULL, an empty line as (empty)
    statement ok
    statement error CODE   the SQLSTATE
    known WHY              (before one of these) ChronosDB's answer is another, for this reason

and a block without a head, bare SQL, is given one. psql is found in PATH and connects as PGHOST, PGPORT, PGUSER and
PGDATABASE say. Each file begins in a schema of its own.
"""
import pathlib
import subprocess
import sys

HEADS = ("query", "statement", "known", "#")


def blocks(text):
    """(comment and known lines, head or None, sql) for each block."""
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line]
        before = []
        while lines and lines[0].split(" ")[0].startswith(("#", "known")):
            before.append(lines.pop(0))
        head = lines.pop(0) if lines and lines[0].split(" ")[0] in HEADS else None
        if "----" in lines:
            lines = lines[: lines.index("----")]
        if before or lines:
            yield before, head, "\n".join(lines)


def ask(name, statements):
    """What PostgreSQL answers to each: ("error", code), ("rows", lines) or ("ok",)."""
    script = [
        "\\set VERBOSITY sqlstate", "\\pset null NULL", "\\pset format unaligned", "\\pset tuples_only on",
        "\\pset recordsep '\\036'", "SET client_min_messages = error;", f"DROP SCHEMA IF EXISTS t_{name} CASCADE;",
        f"CREATE SCHEMA t_{name}; SET search_path = t_{name};", "SET TimeZone = 'UTC';",
        "\\echo", "\\echo @@@@",
    ]
    for sql in statements:
        script += [sql.rstrip().rstrip(";") + "\n;", "\\echo", "\\echo @@@@"]
    script.append(f"DROP SCHEMA t_{name} CASCADE;")
    out = subprocess.run(["psql", "-XqA"], input="\n".join(script), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         text=True, check=False).stdout
    parts = out.split("\n@@@@\n")[1:]
    if len(parts) != len(statements) + 1:
        sys.exit(f"{name}: {len(statements)} statements, {len(parts) - 1} answers: {out[-300:]}")
    for part in parts[:-1]:
        errors = [line for line in part.split("\n") if line.startswith("ERROR:")]
        if errors:
            yield ("error", errors[0].split()[1])
        elif part == "":
            yield ("ok",)
        else:
            rows = part.removesuffix("\n").split("\x1e") if part != "\n" else [""]
            yield ("rows", [row.replace("\n", "\\n") or "(empty)" for row in rows])


def main():
    check = "--check" in sys.argv
    here = pathlib.Path(__file__).parent
    files = [pathlib.Path(a) for a in sys.argv[1:] if not a.startswith("--")] or sorted(here.glob("*.test"))
    differing = 0
    for file in files:
        text = file.read_text()
        given = list(blocks(text))
        asked = [(before, head, sql) for before, head, sql in given if sql]
        answers = iter(ask(file.stem, [sql for _, _, sql in asked]))
        out = []
        for before, head, sql in given:
            lines = list(before)
            if sql:
                answer = next(answers)
                query = head is not None and head.startswith("query")
                if answer[0] == "error":
                    lines += [f"statement error {answer[1]}", sql]
                elif answer[0] == "ok" and not query and not sql.lower().startswith(("select", "with", "values")):
                    lines += ["statement ok", sql]
                else:
                    rows = answer[1] if answer[0] == "rows" else []
                    if head == "query rowsort":
                        rows = sorted(rows)
                    lines += [head if query else "query", sql, "----", *rows]
            out.append("\n".join(lines))
        written = "\n\n".join(out) + "\n"
        if not check:
            file.write_text(written)
        elif written != text:
            differing += 1
            for was, now in zip(text.split("\n\n"), written.split("\n\n")):
                if was.strip() != now.strip():
                    print(f"{file.name}: written\n{was}\nPostgreSQL says\n{now}\n")
        print(f"{file.name}: {len(asked)} statements")
    sys.exit(1 if differing else 0)


main()
