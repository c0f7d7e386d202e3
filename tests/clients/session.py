"""A psycopg 3 session: `session.py HOST PORT`. Runs alike on PostgreSQL 15 and on ChronosDB."""

import sys
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal

import psycopg
from psycopg import errors
from psycopg.types.json import Json, Jsonb


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

# The other types: how they are described, and there and back, as text and as binary.
one.execute("CREATE TABLE kinds (id INTEGER PRIMARY KEY, s SMALLINT, b BIGINT, r REAL, n NUMERIC, m NUMERIC(8,3), v VARCHAR(10),"
            " c CHAR(4), d DATE, t TIME, ts TIMESTAMP, i INTERVAL, j JSON, jb JSONB, xs INTEGER[], names TEXT[], ns NUMERIC[])")
numbers = [23, 21, 20, 700, 1700, 1700, 1043, 1042, 1082, 1083, 1114, 1186, 114, 3802, 1007, 1009, 1231]
described = one.execute("SELECT * FROM kinds").description
check("numbers of types", [c.type_code for c in described], numbers)
check("precision and length", [(c.precision, c.scale, c.display_size) for c in described[5:8]],
      [(8, 3, None), (None, None, 10), (None, None, 4)])
big = Decimal("-12345678901234567890.123450")
kinds = [(1, -32768, 2**63 - 1, 1.5, big, Decimal("99999.999"), "zehn Ümlau", "ab  ", date(2024, 2, 29), time(23, 59, 59, 999999),
          datetime(2024, 7, 15, 10, 30, 0, 5), timedelta(days=-3, hours=2, microseconds=7), {"a": [1, 2.5]}, {"b": None},
          [1, None, -3], ["a", 'b "c"', None, ""], [Decimal("1.50"), Decimal("0")]),
         (2, 0, 0, -0.25, Decimal("0.000001"), Decimal("0.000"), "", "    ", date(1, 1, 1), time(0), datetime(1999, 12, 31), timedelta(0),
          [], 1.5, [], [], []),
         (3, *[None] * 16)]
for way in ("%s", "%b"):
    one.execute("DELETE FROM kinds")
    for row in kinds:
        row = list(row)
        if row[12] is not None:
            row[12], row[13] = Json(row[12]), Jsonb(row[13])
        one.execute(f"INSERT INTO kinds VALUES ({', '.join([way] * 17)})", row)
    for binary in (False, True):
        got = one.cursor(binary=binary).execute("SELECT * FROM kinds ORDER BY id").fetchall()
        check(f"every type there and back by {way}, binary={binary}", got, kinds)
        check("digits behind the point", [str(got[0][4]), str(got[1][5]), str(got[0][16][0])], [str(big), "0.000", "1.50"])
check("by a number", one.execute("SELECT id FROM kinds WHERE n = %b AND m > %s", (big, 1)).fetchall(), [(1,)])
check("by a list", one.execute("SELECT id FROM kinds WHERE id = ANY(%s) ORDER BY id", ([1, 3, 5],)).fetchall(), [(1,), (3,)])
check("exact sums", one.execute("SELECT 0.1 + 0.2, sum(x), avg(x) FROM (VALUES (1), (2)) v(x)").fetchone(),
      (Decimal("0.3"), 3, Decimal("1.5")))
fails("out of range", errors.NumericValueOutOfRange, lambda: one.execute("INSERT INTO kinds (id, s) VALUES (9, %s)", (40000,)))
fails("too long", errors.StringDataRightTruncation, lambda: one.execute("INSERT INTO kinds (id, v) VALUES (9, %s)", ("x" * 11,)))
one.execute("DROP TABLE kinds")

# COPY, in and out: as text, as CSV and as binary.
one.execute("CREATE TABLE copied (id INTEGER PRIMARY KEY, name TEXT, n NUMERIC(8,2), at TIMESTAMPTZ, ok BOOLEAN DEFAULT true)")
lines = [(1, "tab\tand\nline", Decimal("1.50"), noon), (2, "\\N", None, None), (3, "", Decimal("0.00"), noon), (4, None, None, noon)]
for form in ("text", "csv", "binary"):
    with one.cursor() as cursor:
        with cursor.copy(f"COPY copied (id, name, n, at) FROM STDIN (FORMAT {form})") as copy:
            copy.set_types(["int4", "text", "numeric", "timestamptz"])
            if form == "csv":
                copy.write('1,"tab\tand\nline",1.5,2026-11-22 12:00:00.123456+00\r\n2,\\N,,\r\n3,"",0,')
                copy.write("2026-11-22T12:00:00.123456Z\r\n4,,,2026-11-22 12:00:00.123456+00\r\n")
            else:
                for line in lines:
                    copy.write_row(line)
        check(f"COPY FROM as {form}", (cursor.rowcount, cursor.statusmessage), (4, "COPY 4"))
        got = cursor.execute("SELECT id, name, n, at FROM copied WHERE ok ORDER BY id").fetchall()
        check(f"rows of COPY as {form}", got, lines)
    with one.cursor() as cursor, cursor.copy(f"COPY (SELECT id, name, n, at FROM copied ORDER BY id) TO STDOUT (FORMAT {form})") as copy:
        copy.set_types(["int4", "text", "numeric", "timestamptz"])
        if form == "csv":
            text = b"".join(copy).decode()
            check("COPY TO as csv", text, '1,"tab\tand\nline",1.50,2026-11-22 12:00:00.123456+00\n2,\\N,,\n'
                  '3,"",0.00,2026-11-22 12:00:00.123456+00\n4,,,2026-11-22 12:00:00.123456+00\n')
        else:
            check(f"COPY TO as {form}", list(copy.rows()), lines)
    one.execute("DELETE FROM copied")


def copies(data, how=""):
    with one.cursor() as cursor, cursor.copy(f"COPY copied FROM STDIN {how}") as copy:
        copy.write(data)


fails("too few columns", errors.BadCopyFileFormat, lambda: copies("1\ta\n"))
fails("too many columns", errors.BadCopyFileFormat, lambda: copies("1\ta\t1\t\\N\tt\tx\n"))
fails("no number in COPY", errors.InvalidTextRepresentation, lambda: copies("1\ta\t1\t\\N\tt\nx\ta\t1\t\\N\tt\n"))
fails("a key twice in COPY", errors.UniqueViolation, lambda: copies("1\ta\t1\t\\N\tt\n1\ta\t1\t\\N\tt\n"))
fails("out of range in COPY", errors.NumericValueOutOfRange, lambda: copies("1\ta\t1234567\t\\N\tt\n"))
fails("no binary data", errors.BadCopyFileFormat, lambda: copies(b"nonsense, and long enough", "BINARY"))
fails("an open quote", errors.BadCopyFileFormat, lambda: copies('1,"a\n', "CSV"))
check("nothing of a COPY that failed", one.execute("SELECT count(*) FROM copied").fetchone(), (0,))
try:
    with one.cursor() as cursor, cursor.copy("COPY copied (id) FROM STDIN") as copy:
        copy.write("1\n")
        raise KeyboardInterrupt
except KeyboardInterrupt:
    pass
check("nothing of a COPY given up", one.execute("SELECT count(*) FROM copied").fetchone(), (0,))
with one.cursor() as cursor:
    with cursor.copy("COPY copied FROM STDIN WITH (FORMAT csv, HEADER match, NULL 'none', DELIMITER ';')") as copy:
        copy.write("id;name;n;at;ok\n7;none;1;none;f\n8;\"none\";;none;\"t\"\n".replace(";;", ";none;"))
check("options of COPY", one.execute("SELECT id, name, n, ok FROM copied ORDER BY id").fetchall(),
      [(7, None, Decimal("1.00"), False), (8, "none", None, True)])
with one.transaction():
    copies("9\tx\t\\N\t\\N\t\\N\n\\.\n")
    check("COPY in a transaction", one.execute("SELECT count(*) FROM copied").fetchone(), (3,))
with one.cursor() as cursor, cursor.copy("COPY copied (id, name) TO STDOUT CSV HEADER FORCE QUOTE name") as copy:
    check("COPY TO with a header", b"".join(copy), b'id,name\n7,\n8,"none"\n9,"x"\n')
big_copy = 20_000
with one.cursor() as cursor, cursor.copy("COPY copied (id, name) FROM STDIN") as copy:
    for i in range(big_copy):
        copy.write_row((i + 100, f"row {i}"))
check("a long COPY", one.execute("SELECT count(*), max(name) FROM copied WHERE id >= 100").fetchone(), (big_copy, "row 9999"))
one.execute("DROP TABLE copied")

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
