"""A psycopg 3 session: `session.py HOST PORT`. Runs alike on PostgreSQL 15 and on ChronosDB."""

import sys
from datetime import datetime, timezone

import psycopg
from psycopg import errors


def connect(**more):
    host, port = sys.argv[1], sys.argv[2]
    return psycopg.connect(host=host, port=port, user="chronos", dbname="chronos", **more)


def check(what, got, expected):
    assert got == expected, f"{what}: {got!r}, and not {expected!r}"
    print(f"ok: {what}")


def fails(what, kind, act):
    try:
        act()
    except kind as error:
        print(f"ok: {what}: {error.sqlstate}")
        return
    raise AssertionError(f"{what}: accepted")


one = connect(autocommit=True)
check("server version", one.info.server_version >= 150000, True)
one.execute("CREATE TABLE plants (id BIGINT PRIMARY KEY, name TEXT NOT NULL, height DOUBLE PRECISION,"
            " alive BOOLEAN, leaf BYTEA, planted TIMESTAMPTZ)")

# Prepared inserts, and every type there and back, as text and as binary.
noon = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=timezone.utc)
rows = [(i, f"plant {i}", i / 4, i % 2 == 0, bytes([i, 0, 255]), noon) for i in range(100)]
rows.append((100, "nothing known", None, None, None, None))
for row in rows:
    one.execute("INSERT INTO plants VALUES (%s, %s, %s, %s, %s, %s)", row, prepare=True)
for binary in (False, True):
    got = one.cursor(binary=binary).execute("SELECT * FROM plants ORDER BY id").fetchall()
    check(f"rows there and back, binary={binary}", got, rows)
got = one.execute("SELECT name FROM plants WHERE id = %b AND height < %b", (3, 2.5)).fetchall()
check("binary parameters", got, [("plant 3",)])
with one.cursor() as cursor:
    cursor.executemany("INSERT INTO plants (id, name) VALUES (%s, %s)", [(i, "many") for i in range(200, 250)])
    check("executemany", cursor.rowcount, 50)

# An aggregate.
got = one.execute("SELECT alive, count(*), sum(height) FROM plants WHERE id < 100 GROUP BY alive ORDER BY alive").fetchall()
check("an aggregate", got, [(False, 50, 625.0), (True, 50, 612.5)])

# A transaction rolled back.
try:
    with one.transaction():
        one.execute("DELETE FROM plants")
        check("inside", one.execute("SELECT count(*) FROM plants").fetchone(), (0,))
        raise KeyboardInterrupt
except KeyboardInterrupt:
    pass
check("rolled back", one.execute("SELECT count(*) FROM plants").fetchone(), (151,))

# Two transactions that conflict.
two, three = connect(), connect()
for session in (two, three):
    session.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    session.execute("SELECT height FROM plants WHERE id = 1").fetchone()
two.execute("UPDATE plants SET height = 10 WHERE id = 1")
two.commit()


def second():
    three.execute("UPDATE plants SET height = 20 WHERE id = 1")
    three.commit()


fails("the second of two that conflict", errors.SerializationFailure, second)
three.rollback()
check("the first one's value", three.execute("SELECT height FROM plants WHERE id = 1").fetchone(), (10.0,))
three.commit()

# Errors leave the connection usable.
fails("no such table", errors.UndefinedTable, lambda: one.execute("SELECT * FROM nowhere"))
fails("no such column", errors.UndefinedColumn, lambda: one.execute("SELECT colour FROM plants"))
fails("a key twice", errors.UniqueViolation, lambda: one.execute("INSERT INTO plants (id, name) VALUES (1, 'x')"))
fails("no value", errors.NotNullViolation, lambda: one.execute("INSERT INTO plants (id) VALUES (999)"))
fails("no number", errors.InvalidTextRepresentation, lambda: one.execute("SELECT * FROM plants WHERE id = %s::bigint", ("x",)))
check("still usable", one.execute("SELECT 1").fetchone(), (1,))
fails("an error inside", errors.UndefinedTable, lambda: two.execute("SELECT * FROM nowhere"))
fails("and after it", errors.InFailedSqlTransaction, lambda: two.execute("SELECT 1"))
two.rollback()
check("usable after a rollback", two.execute("SELECT 1").fetchone(), (1,))
two.commit()

# Pipelining: many statements to one answer, and one that fails aborts those behind it.
with one.pipeline() as pipeline:
    cursors = [one.execute("SELECT name FROM plants WHERE id = %s", (i,)) for i in range(20)]
    pipeline.sync()
    check("a pipeline", [c.fetchone() for c in cursors], [(f"plant {i}",) for i in range(20)])


def broken_pipeline():
    with one.pipeline() as pipeline:
        one.execute("INSERT INTO plants (id, name) VALUES (1000, 'ahead')")
        one.execute("SELECT * FROM nowhere")
        one.execute("INSERT INTO plants (id, name) VALUES (1001, 'behind')")
        pipeline.sync()


fails("an error in a pipeline", errors.UndefinedTable, broken_pipeline)
check("nothing of it is there", one.execute("SELECT count(*) FROM plants WHERE id >= 1000").fetchone(), (0,))

one.execute("DROP TABLE plants")
print("done")
