-- A session as psql 15 has it. The answers in session.out are PostgreSQL 15's own.
\set VERBOSITY sqlstate
\pset null '(null)'
CREATE TABLE plants (id BIGINT PRIMARY KEY, name TEXT NOT NULL, height DOUBLE PRECISION DEFAULT 1.5, planted TIMESTAMPTZ);
CREATE INDEX plants_name ON plants (name);
CREATE TABLE waterings (plant BIGINT NOT NULL, litres DOUBLE PRECISION NOT NULL, at TIMESTAMPTZ NOT NULL, PRIMARY KEY (plant, at));
INSERT INTO plants (id, name, planted) VALUES (1, 'fern', '2026-03-01T08:00:00Z'), (2, 'fig', NULL), (3, 'it''s a "rose"', '2026-03-01 09:30:00.250+01');
INSERT INTO plants (id, name, height) VALUES (4, 'fern', NULL), (5, 'Palme äöü', -0.125);
INSERT INTO waterings VALUES (1, 0.5, '2026-04-01T00:00:00Z'), (1, 0.25, '2026-04-02T00:00:00Z'), (2, 1, '2026-04-01T12:00:00Z');
SELECT * FROM plants ORDER BY id;
SELECT name, count(*), sum(height), min(id), max(id) FROM plants GROUP BY name HAVING count(*) > 1 ORDER BY name;
SELECT p.name, count(*) AS times, sum(w.litres) AS litres FROM plants p JOIN waterings w ON w.plant = p.id GROUP BY p.name ORDER BY litres DESC;
SELECT id, name FROM plants WHERE name = 'fern' AND height IS NOT NULL;
SELECT id, height * 2 + 1 AS h FROM plants WHERE height > 0 ORDER BY h DESC, id LIMIT 2;
SELECT count(*), avg(height), count(height) FROM plants;
UPDATE plants SET height = height + 1 WHERE name = 'fern';
DELETE FROM waterings WHERE plant = 2;
INSERT INTO plants (id, name) VALUES (1, 'another') ON CONFLICT DO NOTHING;
-- Errors leave the connection usable.
INSERT INTO plants (id, name) VALUES (1, 'another');
INSERT INTO plants (id) VALUES (9);
SELECT * FROM nowhere;
SELECT colour FROM plants;
SELEC 1;
SELECT 1 / 0;
INSERT INTO plants (id, name) VALUES ('many', 'x');
SELECT count(*) FROM plants;
-- A transaction rolled back, and one that failed.
BEGIN;
DELETE FROM plants;
SELECT count(*) FROM plants;
ROLLBACK;
SELECT count(*) FROM plants;
BEGIN;
INSERT INTO plants (id, name) VALUES (6, 'moss');
SELECT * FROM nowhere;
SELECT 1;
COMMIT;
SELECT count(*) FROM plants WHERE id = 6;
BEGIN;
INSERT INTO plants (id, name) VALUES (7, 'ivy');
UPDATE plants SET name = 'old ivy' WHERE id = 7;
SELECT name FROM plants WHERE id = 7;
COMMIT;
SELECT name FROM plants WHERE id = 7;
COMMIT;
SELECT 'two' AS one\; SELECT 'statements' AS line;
SELECT true AS t, false AS f, NULL AS n, 1.5::float8 AS x, 'text' AS s, '2026-11-22T12:00:00Z'::timestamptz AS at;
-- What psql asks of the catalogue.
\d plants
\d waterings
\dt
\di
\dv
\d nowhere
DROP TABLE waterings;
DROP TABLE plants;
SELECT * FROM plants;
