-- Shapes of queries: joins, grouping, windows, sets, pivots, samples, subqueries, CTEs, star expressions, names.
FROM orders
FROM orders WHERE id < 3
FROM orders o SELECT o.id, o.a ORDER BY id LIMIT 3
FROM orders SELECT count(*) GROUP BY a
FROM (FROM orders SELECT id) SELECT max(id)
FROM (VALUES (1, 'a'), (2, 'b')) v(n, t) SELECT t WHERE n > 1
FROM range(3) SELECT *
FROM orders JOIN customers USING (customer) SELECT country, sum(amount) GROUP BY country
WITH x AS (FROM orders SELECT id WHERE a = 1) FROM x
TABLE customers
(TABLE customers) UNION ALL (TABLE customers)
VALUES (1, NULL, 'x'), (2, 3.5, 'y')
SELECT * FROM (TABLE model_scores) t WHERE recall > 0.5
SELECT * FROM orders o INNER JOIN events e ON o.id = e.order_id AND e.value > 2 WHERE o.a < 3
SELECT o.id, e.id FROM orders o LEFT OUTER JOIN events e ON o.id = e.order_id WHERE e.id IS NULL
SELECT o.id, e.id FROM orders o FULL JOIN events e ON o.id = e.order_id AND o.a = 0
SELECT c.id, m.id FROM customers c CROSS JOIN model_scores m WHERE c.id = m.id
SELECT c.id, o.id FROM customers c JOIN orders o ON c.id < o.id AND o.id < 5
SELECT * FROM customers c SEMI JOIN orders o ON c.customer = o.customer
SELECT * FROM customers c ANTI JOIN orders o ON c.customer = o.customer
SELECT * FROM customers c LEFT JOIN (orders o JOIN events e ON o.id = e.order_id) ON c.id = o.id
SELECT * FROM customers NATURAL LEFT JOIN (SELECT DISTINCT customer, a FROM orders)
SELECT * FROM (SELECT id FROM customers ORDER BY id) POSITIONAL JOIN (SELECT id AS other FROM model_scores ORDER BY id)
SELECT e.id, o.id FROM events e ASOF JOIN orders o USING (id)
SELECT e.id, o.created_at FROM events e ASOF LEFT JOIN orders o ON e.order_id = o.id AND e.last_update > o.created_at
SELECT a.id, b.id FROM orders a, orders b WHERE a.id = b.id + 1 AND a.customer = 'c1'
SELECT * FROM customers c, LATERAL (SELECT max(id) AS m FROM orders o WHERE o.customer = c.customer) x
SELECT c.id, t.x FROM customers c LEFT JOIN LATERAL (SELECT o.id AS x FROM orders o WHERE o.a = c.id ORDER BY o.id LIMIT 2) t ON true
SELECT * FROM customers c, (SELECT c.id + 1 AS next)
SELECT c.id, i FROM customers c, range(c.id) r(i)
SELECT c.id, i FROM customers c, LATERAL generate_series(0, c.id, 3) r(i)
SELECT customer, sum(amount) FROM orders GROUP BY customer HAVING count(*) > 57 AND sum(amount) > (SELECT avg(amount) FROM orders)
SELECT a, b, count(*), grouping(a), grouping(b), grouping_id(a, b) FROM orders GROUP BY CUBE (a, b)
SELECT a, status, sum(amount) FROM orders GROUP BY GROUPING SETS ((a, status), (a), ())
SELECT a, status, b, count(*) FROM orders GROUP BY a, ROLLUP (status, b)
SELECT a, status, count(*) FROM orders GROUP BY GROUPING SETS (ROLLUP (a), CUBE (status))
SELECT year(created_at) AS y, month(created_at) AS m, sum(amount) FROM orders GROUP BY ROLLUP (y, m)
SELECT a % 2 AS odd, count(*) FROM orders GROUP BY odd HAVING odd = 1
SELECT a, b, sum(amount) AS total FROM orders GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 10
SELECT count(*) AS n, count(status), count(DISTINCT status), sum(a) FILTER (status = 'new'), avg(DISTINCT a) FROM orders
SELECT * FROM (SELECT a, count(*) n FROM orders GROUP BY ALL) WHERE n > 10
SELECT sum(amount) OVER (), sum(amount) OVER (PARTITION BY a), sum(amount) OVER (PARTITION BY a ORDER BY id), sum(amount) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) FROM orders
SELECT id, row_number() OVER (ORDER BY amount DESC, id), rank() OVER (ORDER BY a), dense_rank() OVER (ORDER BY a), rank_dense() OVER (ORDER BY a), percent_rank() OVER (ORDER BY a), cume_dist() OVER (ORDER BY a), ntile(3) OVER (ORDER BY id) FROM orders
SELECT id, lag(a, 2, -1) OVER w, lead(a) OVER w, first_value(a) OVER w, last_value(a) OVER w, nth_value(a, 2) OVER w, first(a) OVER w FROM orders WINDOW w AS (PARTITION BY customer ORDER BY id)
SELECT id, max(amount) OVER (w7 ORDER BY id ROWS 6 PRECEDING) FROM orders WINDOW w7 AS (PARTITION BY a)
SELECT id, sum(a) OVER (ORDER BY id ROWS BETWEEN 1 FOLLOWING AND 3 FOLLOWING), sum(a) OVER (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE CURRENT ROW) FROM orders
SELECT id, sum(a) OVER (ORDER BY b RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING), sum(a) OVER (ORDER BY b GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW EXCLUDE TIES), count(*) OVER (ORDER BY b RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING EXCLUDE GROUP) FROM orders
SELECT id, count(DISTINCT a) OVER (PARTITION BY customer), quantile_cont(amount, 0.5) OVER (PARTITION BY a), max(a) OVER (PARTITION BY status), string_agg(status, ',' ORDER BY id) OVER (PARTITION BY a) FROM orders WHERE id < 30
SELECT id, lag(status IGNORE NULLS) OVER (ORDER BY id), last_value(status ORDER BY id IGNORE NULLS) OVER (ORDER BY id), lead(a RESPECT NULLS) OVER (ORDER BY id) FROM orders
SELECT id, fill(CASE WHEN id % 3 = 0 THEN NULL ELSE amount::DOUBLE END) OVER (ORDER BY id) FROM orders
SELECT customer, amount, amount / sum(amount) OVER (PARTITION BY customer) AS share FROM orders QUALIFY share > 0.02
SELECT * FROM orders QUALIFY rank() OVER (PARTITION BY customer ORDER BY amount DESC) <= 2
SELECT customer, count(*) AS n, rank() OVER (ORDER BY count(*) DESC, customer) AS r FROM orders GROUP BY customer QUALIFY r < 4
SELECT id FROM orders UNION SELECT id FROM events EXCEPT SELECT id FROM customers
SELECT id FROM orders INTERSECT ALL SELECT order_id FROM events
SELECT a FROM orders EXCEPT ALL SELECT id FROM customers
(SELECT a FROM orders ORDER BY id LIMIT 3) UNION ALL (SELECT b FROM orders ORDER BY id DESC LIMIT 3)
SELECT id, name FROM customers UNION ALL BY NAME SELECT id, customer, status FROM orders
SELECT 1 AS x UNION BY NAME SELECT 2 AS y, 3 AS x
SELECT * FROM (SELECT 1 AS a UNION ALL SELECT 2 UNION ALL SELECT NULL) ORDER BY a DESC NULLS LAST
SELECT * FROM orders UNION ALL SELECT * FROM orders WHERE false
PIVOT orders ON status
PIVOT orders ON status USING sum(amount)
PIVOT orders ON status USING sum(amount) AS total, max(id) AS m GROUP BY customer
PIVOT orders ON a, status USING count(*) GROUP BY customer
PIVOT orders ON year(created_at) USING sum(amount) GROUP BY customer
PIVOT orders ON dayname(created_at) || '' USING count(*) GROUP BY customer, a
PIVOT (SELECT customer, a FROM orders WHERE id < 50) ON a GROUP BY customer ORDER BY customer LIMIT 3
PIVOT (FROM orders JOIN customers USING (customer)) ON country USING sum(amount) GROUP BY status
SELECT customer, new, paid FROM (PIVOT orders ON status USING sum(amount) GROUP BY customer)
WITH p AS (PIVOT orders ON status USING count(*) GROUP BY customer) SELECT p.*, c.country FROM p JOIN customers c USING (customer)
WITH o AS (SELECT customer, status, a FROM orders) SELECT * FROM o PIVOT (sum(a) AS s, count(*) AS n FOR status IN ('new', 'paid') GROUP BY customer)
SELECT * FROM (SELECT customer, a, b, amount FROM orders) PIVOT (sum(amount) FOR a IN (0, 1) b IN (2, 3) GROUP BY customer)
UNPIVOT (SELECT id, a, b FROM orders) ON a, b
UNPIVOT (SELECT id, a, b, salaries FROM orders) ON (a, b) AS pair, (salaries, id) AS other INTO NAME which VALUE x, y
UNPIVOT (SELECT id, a, b FROM orders) ON COLUMNS(c -> c <> 'id') INTO NAME n VALUE v
UNPIVOT (SELECT id, a::DOUBLE AS a, nullif(b, 2)::DOUBLE AS b FROM orders) ON a, b
SELECT * FROM (SELECT id, nullif(a, 1) AS a, b FROM orders) UNPIVOT INCLUDE NULLS (v FOR n IN (a, b))
SELECT id, n, v FROM (SELECT id, a, b FROM orders) UNPIVOT (v FOR n IN (a AS 'first', b AS 'second')) WHERE v > 2
FROM (UNPIVOT (SELECT id, a, b FROM orders) ON a, b) SELECT name, sum(value) GROUP BY name
/*sample*/ SELECT * FROM orders USING SAMPLE 10
/*sample*/ SELECT * FROM orders USING SAMPLE 10%
/*sample*/ SELECT * FROM orders USING SAMPLE 20 PERCENT (bernoulli)
/*sample*/ SELECT * FROM orders USING SAMPLE reservoir(50 ROWS) REPEATABLE (42)
/*sample*/ SELECT * FROM orders TABLESAMPLE 5%
/*sample*/ SELECT * FROM orders o TABLESAMPLE system(50%) JOIN customers c USING (customer)
/*sample*/ SELECT count(*) FROM (SELECT * FROM orders USING SAMPLE 50%) s
/*sample*/ SELECT * FROM orders TABLESAMPLE bernoulli(10 PERCENT) REPEATABLE (7)
/*unordered*/ SELECT * FROM orders LIMIT 5
/*unordered*/ SELECT customer, a FROM orders LIMIT 5 OFFSET 10
/*unordered*/ SELECT DISTINCT ON (customer) customer, id FROM orders
/*unordered*/ SELECT first(id), last(id), any_value(id), arbitrary(id), list(id)[1] FROM orders
/*volatile*/ SELECT random(), setseed(0.5), uuid(), uuidv4(), uuidv7(), gen_random_uuid()
/*volatile*/ SELECT id FROM orders ORDER BY random() LIMIT 3
/*volatile*/ EXPLAIN SELECT customer, sum(amount) FROM orders JOIN customers USING (customer) GROUP BY ALL
/*volatile*/ EXPLAIN FROM orders
SELECT id FROM orders ORDER BY id DESC LIMIT 3 OFFSET 5
SELECT id FROM orders ORDER BY id OFFSET 395 ROWS FETCH FIRST 2 ROWS ONLY
SELECT id FROM orders ORDER BY id FETCH NEXT 2 ROWS ONLY
SELECT id FROM orders ORDER BY id LIMIT (SELECT count(*) FROM customers)
SELECT id FROM orders ORDER BY id LIMIT 1 + 2
SELECT id FROM orders ORDER BY id LIMIT 25%
SELECT * FROM customers ORDER BY ALL DESC
SELECT * FROM customers ORDER BY 2, 1
SELECT status FROM orders ORDER BY CASE status WHEN 'paid' THEN 0 ELSE 1 END, id LIMIT 5
SELECT id FROM orders WHERE amount > (SELECT avg(amount) FROM orders)
SELECT id FROM orders WHERE id IN (SELECT order_id FROM events WHERE kind = 'kind1')
SELECT id FROM orders WHERE id NOT IN (SELECT order_id FROM events WHERE order_id IS NOT NULL)
SELECT id FROM orders o WHERE NOT EXISTS (FROM events e WHERE e.order_id = o.id)
SELECT id FROM orders WHERE amount >= ALL (SELECT amount FROM orders)
SELECT id FROM orders WHERE (a, b) = (SELECT (a, b) FROM orders WHERE id = 7)
SELECT c.customer, (SELECT sum(o.amount) FROM orders o WHERE o.customer = c.customer) AS total FROM customers c
SELECT (SELECT {'n': count(*), 'm': max(id)} FROM orders).n
SELECT o.id, (SELECT count(*) FROM events e WHERE e.order_id = o.id AND e.value > (SELECT avg(value) FROM events x WHERE x.kind = e.kind)) AS n FROM orders o WHERE o.id < 9
SELECT EXISTS (SELECT 1 FROM orders WHERE id < 0), 3 IN (SELECT id FROM customers), NOT EXISTS (FROM customers)
WITH a AS (SELECT 1 AS x), b AS (SELECT x + 1 AS x FROM a), c AS (FROM a UNION ALL FROM b) SELECT sum(x) FROM c
WITH t(n, m) AS (VALUES (1, 2), (3, 4)) SELECT n + m FROM t
WITH a AS MATERIALIZED (SELECT customer, count(*) n FROM orders GROUP BY 1) SELECT x.n FROM a x JOIN a y USING (customer)
WITH RECURSIVE tree AS (SELECT 0 AS id, 0 AS depth UNION ALL SELECT t.id * 2 + 1, depth + 1 FROM tree t WHERE depth < 4) SELECT * FROM tree
WITH RECURSIVE path(a, b, route) AS (SELECT 1, 2, [1, 2] UNION ALL SELECT b, b + 1, list_append(route, b + 1) FROM path WHERE b < 6) SELECT route FROM path
WITH RECURSIVE collatz(n, step) AS (SELECT 27, 0 UNION ALL SELECT CASE n % 2 WHEN 0 THEN n // 2 ELSE 3 * n + 1 END, step + 1 FROM collatz WHERE n <> 1) SELECT max(step), max(n) FROM collatz
WITH RECURSIVE chain AS (SELECT id, customer FROM customers WHERE id = 0 UNION SELECT c.id, c.customer FROM customers c JOIN chain ON c.id = chain.id + 2) FROM chain
WITH RECURSIVE k(i, v) USING KEY (i) AS (SELECT 1, 10 UNION SELECT i, v - 1 FROM k WHERE v > 5) FROM k
SELECT * FROM (WITH inner_cte AS (SELECT max(id) AS m FROM orders) SELECT m FROM inner_cte) q
WITH orders AS (SELECT id FROM customers) SELECT count(*) FROM orders
WITH x AS (WITH y AS (SELECT 5 AS v) SELECT v FROM y) SELECT v, (WITH z AS (SELECT v * 2 AS w FROM x) SELECT w FROM z) FROM x
SELECT * EXCLUDE (tags, address) FROM orders WHERE id < 3
SELECT * EXCLUDE id FROM customers
SELECT o.* EXCLUDE (o.id, tags), c.name FROM orders o JOIN customers c USING (customer)
SELECT * REPLACE (amount * 2 AS amount, upper(status) AS status) FROM orders
SELECT * RENAME (id AS key, a AS alpha) FROM orders
SELECT * EXCLUDE (tags) REPLACE (a + 1 AS a) RENAME (b AS beta) FROM orders
SELECT * LIKE '%a%' FROM customers
SELECT * NOT LIKE '%a%' FROM customers
SELECT * ILIKE 'ID' FROM customers
SELECT * SIMILAR TO '(id|name)' FROM customers
SELECT * GLOB 'c*' FROM customers
SELECT COLUMNS(*) FROM customers
SELECT COLUMNS(* EXCLUDE (id)) FROM customers
SELECT COLUMNS('(.)d') AS '\1_x' FROM customers
SELECT max(COLUMNS(['a', 'b'])) AS 'max_of', min(COLUMNS('^a$')) FROM orders
SELECT COLUMNS(lambda c: length(c) = 1) + 1 FROM orders
SELECT round(avg(COLUMNS('^(a|b|amount)$')), 3) FROM orders
SELECT * FROM orders WHERE COLUMNS(['a', 'b']) > 2
SELECT coalesce(*COLUMNS(['status', 'customer'])) FROM orders
SELECT orders.* FROM orders
SELECT main.orders.id FROM main.orders WHERE main.orders.a = 1
SELECT ID, "Id", oRdErS.Customer FROM ORDERS WHERE iD < 3
SELECT x: id, y: a + b FROM orders WHERE id < 3
FROM z: customers SELECT n: z.name
SELECT id, a AS total, total + 1 AS more, more * 2 AS most FROM orders WHERE most > 8
SELECT 42 AS "weird ""name""", 1 AS "ünïcödé", 2 AS "🦆"
SELECT DISTINCT a, b FROM orders
SELECT DISTINCT ON (a) a, b, id FROM orders ORDER BY a, id
SELECT ALL a FROM orders
SELECT ALL customer, count(*) FROM orders GROUP BY ALL HAVING count(*) > 1
SUMMARIZE orders
SUMMARIZE SELECT a, b FROM orders
SELECT column_name, column_type, count FROM (SUMMARIZE customers)
DESCRIBE orders
DESC customers
SHOW events
DESCRIBE SELECT sum(amount) AS s, list(a) AS l, {'x': 1} AS st FROM orders
DESCRIBE TABLE orders
SELECT column_name FROM (DESCRIBE SELECT * FROM orders) WHERE column_type = 'BIGINT'
DESCRIBE WITH x AS (SELECT 1 AS a) FROM x
DESCRIBE (PIVOT orders ON a IN (0, 1) USING count(*) GROUP BY b)
SHOW TABLES
SELECT name FROM (SHOW TABLES) WHERE name LIKE 'o%'
SELECT table_name FROM information_schema.tables
SELECT table_name, column_name, ordinal_position, data_type FROM information_schema.columns
SELECT t.table_name, count(*) FROM information_schema.tables t JOIN information_schema.columns c USING (table_name) GROUP BY ALL
SELECT 1; -- trailing
SELECT 1 -- no newline
((SELECT 1))
(SELECT 1 UNION SELECT 2) ORDER BY 1 DESC
SELECT (((1)))
SELECT * FROM (((SELECT * FROM orders))) WHERE id < 3
SELECT * FROM ((orders o JOIN customers c USING (customer)) JOIN events e ON e.order_id = o.id)
SELECT id, FROM customers
SELECT 1_000_000, 0xFF, 0b101, 1e-3, .5, 5., 1E5::INT
/*params: [3, "c3"]*/ SELECT * FROM orders WHERE a = ? AND customer = ?
/*params: [5, 2]*/ SELECT $2 + $1 + 0::BIGINT, $1 * 10::BIGINT
/*params: {"lo": 5, "hi": 9}*/ SELECT id FROM orders WHERE id BETWEEN $lo AND $hi
/*params: {"name": "%c1%"}*/ SELECT count(*) FROM orders WHERE customer LIKE $name OR $name IS NULL
/*params: [[1, 2, 3]]*/ SELECT * FROM customers WHERE id IN (SELECT unnest(?))
/*params: {"n": 4}*/ SELECT id FROM orders ORDER BY id LIMIT $n
/*params: {"day": "2024-01-02"}*/ SELECT count(*) FROM orders WHERE created_at::DATE = $day::DATE
/*params: [null]*/ SELECT ?::INT IS NULL
