#!/usr/bin/env python3
"""Writes generated.test: statements by chance in the style of SQLite's own sqllogictest files (its are in no package
registry): expressions, CASE, BETWEEN, ABS, subqueries and ORDER BY by position over small tables, and the same for
joins, indexes, groups, set operations and windows. Then record.py asks PostgreSQL for the answers."""
import pathlib
import random
random.seed(20)
out=[]
def emit(s): out.append(s)
emit("CREATE TABLE t1 (a BIGINT, b BIGINT, c BIGINT, d BIGINT, e BIGINT)")
vals=list(range(100,250)); random.shuffle(vals)
for i in range(30):
    row=vals[i*5:i*5+5]
    row=[str(v) if random.random()>0.08 else 'NULL' for v in row]
    emit("INSERT INTO t1 (e, c, b, d, a) VALUES (%s)"%", ".join(row))
emit("CREATE TABLE t2 (x BIGINT PRIMARY KEY, y BIGINT, z TEXT)")
emit("CREATE INDEX t2y ON t2 (y)")
emit("INSERT INTO t2 SELECT g, (g * 37) % 11, 'z' || (g % 5) FROM generate_series(1, 40) AS g")
emit("CREATE TABLE t3 (k BIGINT, p BIGINT, PRIMARY KEY (k, p))")
emit("INSERT INTO t3 SELECT g % 7, g FROM generate_series(1, 25) AS g")
col=lambda: random.choice("abcde")
def num(d=0):
    r=random.random()
    if d>2 or r<0.4: return col()
    if r<0.5: return str(random.randint(1,300))
    if r<0.6: return "(%s %s %s)"%(num(d+1),random.choice("+-*"),num(d+1)) if d<2 else col()
    if r<0.68: return "abs(%s - %s)"%(col(),random.choice([col(),str(random.randint(100,250))]))
    if r<0.76: return "CASE WHEN %s THEN %s ELSE %s END"%(cond(d+1),num(d+1),num(d+1))
    if r<0.82: return "coalesce(%s, %s)"%(col(),num(d+1))
    if r<0.88: return "(SELECT count(*) FROM t1 AS x WHERE x.%s < t1.%s)"%(col(),col())
    if r<0.92: return "CASE %s WHEN %s THEN %d WHEN %s THEN %d ELSE %d END"%(num(d+1),num(d+1),random.randint(1,9)*111,num(d+1),random.randint(1,9)*111,random.randint(1,9)*111)
    if r<0.96: return "(SELECT max(y) FROM t2 WHERE x < t1.%s - %d)"%(col(),random.randint(90,240))
    return "nullif(%s, %s)"%(col(),num(d+1))
def cond(d=0):
    r=random.random()
    c=col
    if r<0.15: return "%s > %s"%(num(d+1),num(d+1))
    if r<0.28: return "%s BETWEEN %s AND %s"%(c(),random.randint(100,180),random.randint(150,250))
    if r<0.34: return "%s NOT BETWEEN %s AND %s"%(c(),num(d+1),num(d+1))
    if r<0.44: return "%s > (SELECT avg(%s) FROM t1)"%(c(),c())
    if r<0.54: return "EXISTS (SELECT 1 FROM t1 AS x WHERE x.%s < t1.%s)"%(c(),c())
    if r<0.60: return "%s IS %sNULL"%(c(),random.choice(["","NOT "]))
    if r<0.66: return "%s %sIN (%s)"%(c(),random.choice(["","NOT "]),", ".join(str(random.randint(100,250)) for _ in range(6)))
    if r<0.72: return "%s %sIN (SELECT x.%s FROM t1 AS x WHERE x.%s > %d)"%(c(),random.choice(["","NOT "]),c(),c(),random.randint(150,240))
    if r<0.78: return "NOT (%s)"%cond(d+1) if d<2 else "%s < %s"%(c(),c())
    if r<0.88: return "(%s %s %s)"%(cond(d+1),random.choice(["AND","OR"]),cond(d+1)) if d<2 else "%s <> %s"%(c(),c())
    if r<0.93: return "%s %s %s (SELECT y * 20 FROM t2 WHERE x < %d)"%(c(),random.choice(["<",">","<=",">=","=","<>"]),random.choice(["ANY","ALL"]),random.randint(1,20))
    return "%s IS %sDISTINCT FROM %s"%(c(),random.choice(["","NOT "]),c())
# select1-like
for _ in range(260):
    n=random.randint(1,5)
    items=[num() for _ in range(n)]
    where=""
    if random.random()<0.75: where=" WHERE "+random.choice([" AND "," OR "]).join(cond() for _ in range(random.randint(1,3)))
    order=list(range(1,n+1)); random.shuffle(order)
    emit("SELECT %s FROM t1%s ORDER BY %s"%(", ".join(items),where,", ".join(str(o)+random.choice([""," DESC"," NULLS FIRST"]) for o in order)))
# aggregates
aggs=["count(*)","count(a)","sum(b)","min(c)","max(d)","count(DISTINCT b % 7)","sum(DISTINCT c % 5)","min(a + b)","max(abs(a - c))","count(CASE WHEN a > b THEN 1 END)","bool_and(a > 100)","bool_or(b < 110)","sum(e) FILTER (WHERE e % 2 = 0)"]
for _ in range(80):
    g=random.choice(["a % 3","b % 4","(c + d) % 5","CASE WHEN a > 170 THEN 'hi' ELSE 'lo' END","a > b"])
    k=random.sample(aggs,random.randint(1,3))
    hav=random.choice([""," HAVING count(*) > %d"%random.randint(1,6)," HAVING max(d) > %d"%random.randint(150,240)])
    wh=random.choice([""," WHERE "+cond()])
    emit("SELECT %s, %s FROM t1%s GROUP BY %s%s ORDER BY 1 NULLS FIRST"%(g,", ".join(k),wh,random.choice(["1",g]),hav))
for _ in range(25):
    emit("SELECT %s FROM t1 WHERE %s"%(", ".join(random.sample(aggs,3)),cond()))
# joins
js=["JOIN","LEFT JOIN","RIGHT JOIN","FULL JOIN"]
for _ in range(90):
    j=random.choice(js)
    on=random.choice(["t2.y = t3.k","t2.x = t3.p","t2.x = t3.p AND t2.y > t3.k","t2.y = t3.k AND t3.p > %d"%random.randint(3,20),"t2.x = t3.p AND t2.z <> 'z1'"])
    wh=random.choice([""," WHERE t2.x < %d"%random.randint(3,30)," WHERE t3.p IS NULL"," WHERE t2.x IS NULL OR t3.k = 3"," WHERE t2.z = 'z%d'"%random.randint(0,4), " WHERE coalesce(t2.x, 0) + coalesce(t3.p, 0) > %d"%random.randint(10,40)])
    emit("SELECT t2.x, t2.y, t3.k, t3.p FROM t2 %s t3 ON %s%s ORDER BY 1, 2, 3, 4"%(j,on,wh))
for _ in range(40):
    emit("SELECT p.x, q.x, r.k FROM t2 p, t2 q, t3 r WHERE p.y = q.y AND q.x = r.p AND p.x %s q.x AND r.k %s %d ORDER BY 1, 2, 3"%(random.choice(["<",">","<>","="]),random.choice(["<",">","="]),random.randint(0,6)))
# index access
for _ in range(80):
    c=random.choice(["x = %d","x > %d","x <= %d","x BETWEEN %d AND 30","y = %d","y IN (%d, 3, 9)","y > %d AND x < 30","x IN (%d, 5, 50)","y = %d AND z = 'z2'","NOT (x > %d)","x < %d OR y = 4","y < %d ORDER BY y, x --"])%random.randint(0,20)
    if c.endswith("--"):
        emit("SELECT x, y FROM t2 WHERE %s"%c[:-3]); continue
    emit("SELECT x, y, z FROM t2 WHERE %s ORDER BY %s"%(c,random.choice(["x","y, x","z, x DESC","y DESC, x"])))
# set ops
def branch(): return random.choice(["SELECT a FROM t1 WHERE %s"%cond(),"SELECT x * 6 FROM t2 WHERE x > %d"%random.randint(10,35),"SELECT k FROM t3","SELECT y FROM t2","SELECT b FROM t1 WHERE b < %d"%random.randint(120,200)])
for _ in range(60):
    ops=[random.choice(["UNION","UNION ALL","INTERSECT","EXCEPT","EXCEPT ALL","INTERSECT ALL"]) for _ in range(random.randint(1,3))]
    s=branch()
    for o in ops: s+=" %s %s"%(o,branch())
    emit(s+" ORDER BY 1")
# windows
for _ in range(70):
    f=random.choice(["row_number()","rank()","dense_rank()","sum(y)","count(*)","min(y)","max(x)","lag(x)","lead(x, 2)","first_value(x)","last_value(x)","nth_value(x, 2)","ntile(4)","lag(y, 1, -1)"])
    part=random.choice(["","PARTITION BY z ","PARTITION BY y % 3 "])
    order=random.choice(["ORDER BY x","ORDER BY y, x","ORDER BY x DESC","ORDER BY y DESC, x"])
    fr=""
    if f.split("(")[0] in ("sum","count","min","max","first_value","last_value","nth_value"):
        fr=random.choice([""," ROWS BETWEEN 2 PRECEDING AND CURRENT ROW"," ROWS BETWEEN 1 PRECEDING AND 2 FOLLOWING"," ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING"," GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW"," ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING"," ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING"])
        if not fr and random.random()<0.4:
            order=random.choice(["ORDER BY y","ORDER BY x"]); fr=random.choice([" RANGE BETWEEN 2 PRECEDING AND CURRENT ROW"," RANGE BETWEEN 1 PRECEDING AND 3 FOLLOWING"," RANGE BETWEEN CURRENT ROW AND 2 FOLLOWING"])
            if f.split("(")[0] in ("first_value","last_value","nth_value"): order="ORDER BY x"
    emit("SELECT x, %s OVER (%s%s%s) FROM t2 ORDER BY x"%(f,part,order,fr))
(pathlib.Path(__file__).parent / "generated.test").write_text("\n\n".join(out) + "\n")
