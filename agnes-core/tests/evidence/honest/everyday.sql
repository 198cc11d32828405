SELECT count(*), min(id), max(id), sum(amount), avg(amount) FROM orders
SELECT DISTINCT status FROM orders ORDER BY status NULLS FIRST
SELECT status, count(*) AS n FROM orders GROUP BY status ORDER BY n DESC, status
SELECT status, sum(amount) FROM orders GROUP BY ALL ORDER BY ALL
SELECT customer, status, count(*) FROM orders GROUP BY ROLLUP (customer, status) ORDER BY ALL
SELECT customer, status, count(*) FROM orders GROUP BY CUBE (customer, status) ORDER BY ALL
SELECT customer, status, count(*), grouping(customer, status) FROM orders GROUP BY GROUPING SETS ((customer), (status), ()) ORDER BY ALL
SELECT customer, sum(amount) s FROM orders GROUP BY customer HAVING sum(amount) > 10 ORDER BY s
SELECT * FROM orders WHERE id BETWEEN 10 AND 20 ORDER BY id
SELECT id FROM orders WHERE status IN ('new', 'paid') AND customer NOT LIKE 'c1%' ORDER BY id LIMIT 10
SELECT id FROM orders WHERE status IS NULL ORDER BY id DESC LIMIT 3 OFFSET 2
SELECT id FROM orders ORDER BY amount DESC LIMIT 10%
SELECT o.id, c.country FROM orders o JOIN customers c USING (customer) ORDER BY o.id LIMIT 50
SELECT o.id, c.country FROM orders o LEFT JOIN customers c ON o.customer = c.customer AND c.id < 3 ORDER BY o.id, c.country
SELECT c.id, o.id FROM orders o RIGHT JOIN customers c ON o.id = c.id ORDER BY ALL
SELECT c.id, m.id FROM customers c FULL OUTER JOIN model_scores m ON c.id = m.id + 5 ORDER BY ALL
SELECT count(*) FROM customers CROSS JOIN model_scores
SELECT id FROM customers SEMI JOIN orders USING (customer) ORDER BY id
SELECT id FROM customers ANTI JOIN orders USING (customer) ORDER BY id
SELECT * FROM (SELECT id FROM customers ORDER BY id) POSITIONAL JOIN (SELECT recall FROM model_scores ORDER BY id LIMIT 10)
SELECT e.id, o.id FROM events e ASOF JOIN orders o ON e.order_id = o.b AND e.last_update >= o.created_at ORDER BY ALL
SELECT e.id, o.id FROM events e ASOF LEFT JOIN orders o ON e.last_update >= o.created_at ORDER BY ALL LIMIT 20
SELECT count(*) FROM orders NATURAL JOIN customers
SELECT o.id, x.m FROM orders o, LATERAL (SELECT max(value) AS m FROM events e WHERE e.order_id = o.id) x WHERE o.id < 20 ORDER BY 1
SELECT id, (SELECT count(*) FROM events e WHERE e.order_id = o.id) AS n FROM orders o WHERE id < 10 ORDER BY id
SELECT id FROM orders o WHERE EXISTS (SELECT 1 FROM events e WHERE e.order_id = o.id AND e.kind = 'kind1') ORDER BY id
SELECT id FROM orders WHERE id > ALL (SELECT id FROM customers) AND id < 15 ORDER BY id
SELECT id FROM orders WHERE id = ANY (SELECT id FROM customers) ORDER BY id
SELECT id FROM orders WHERE (customer, a) IN (SELECT customer, id FROM customers) ORDER BY id
WITH a AS (SELECT id FROM orders WHERE id < 5), b AS (SELECT id + 1 AS id FROM a) SELECT * FROM a JOIN b USING (id) ORDER BY id
WITH a AS MATERIALIZED (SELECT * FROM orders) SELECT count(*) FROM a x, a y WHERE x.id = y.id
WITH a AS NOT MATERIALIZED (SELECT * FROM orders) SELECT count(*) FROM a
WITH a(x, y) AS (SELECT id, customer FROM orders) SELECT x, y FROM a ORDER BY x LIMIT 3
WITH RECURSIVE t(n, f) AS (SELECT 1, 1 UNION ALL SELECT n + 1, f * (n + 1) FROM t WHERE n < 10) SELECT * FROM t ORDER BY n
WITH RECURSIVE t AS (SELECT id, a FROM orders WHERE id = 1 UNION SELECT o.id, o.a FROM orders o JOIN t ON o.id = t.id + 7 WHERE o.id < 100) SELECT * FROM t ORDER BY id
WITH RECURSIVE fib(n, x, y) USING KEY (n) AS (SELECT 1, 0, 1 UNION ALL SELECT n, y, x + y FROM fib WHERE x < 100) FROM fib
WITH orders AS (SELECT 42 AS id) SELECT * FROM orders
WITH o AS (WITH p AS (SELECT id FROM orders) SELECT * FROM p WHERE id < 3) SELECT sum(id) FROM o
SELECT * FROM (WITH x AS (SELECT 1 AS a) SELECT * FROM x) JOIN (SELECT 1 AS a) USING (a)
SELECT id FROM orders WHERE id < 3 UNION SELECT id FROM customers WHERE id < 5 ORDER BY id
SELECT id FROM orders WHERE id < 3 UNION ALL SELECT id FROM customers WHERE id < 5 ORDER BY id
SELECT id FROM orders INTERSECT SELECT id FROM customers ORDER BY id
SELECT id FROM customers EXCEPT SELECT id FROM customers WHERE id > 4 ORDER BY id
SELECT id FROM customers EXCEPT ALL SELECT id FROM model_scores WHERE id < 4 ORDER BY id
(SELECT id, customer FROM orders WHERE id = 1) UNION ALL BY NAME (SELECT customer, id FROM customers WHERE id = 2) ORDER BY id
(SELECT 1 AS a) UNION BY NAME (SELECT 2 AS b) ORDER BY ALL
SELECT id, row_number() OVER (PARTITION BY customer ORDER BY amount DESC) AS r FROM orders ORDER BY id
SELECT id, rank() OVER w, dense_rank() OVER w, ntile(4) OVER w FROM orders WINDOW w AS (ORDER BY a, id) ORDER BY id
SELECT id, lag(amount) OVER (ORDER BY id), lead(amount, 2, 0) OVER (ORDER BY id) FROM orders ORDER BY id LIMIT 20
SELECT id, sum(amount) OVER (ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) FROM orders ORDER BY id LIMIT 20
SELECT id, avg(amount) OVER (ORDER BY created_at RANGE BETWEEN INTERVAL 3 HOUR PRECEDING AND INTERVAL 1 HOUR FOLLOWING) FROM orders ORDER BY id LIMIT 20
SELECT id, first_value(id IGNORE NULLS) OVER (PARTITION BY a ORDER BY id GROUPS BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE CURRENT ROW) FROM orders ORDER BY id LIMIT 20
SELECT id, count(*) FILTER (WHERE a > 2) OVER (PARTITION BY customer) FROM orders ORDER BY id LIMIT 10
SELECT id, percent_rank() OVER (ORDER BY amount), cume_dist() OVER (ORDER BY amount) FROM orders ORDER BY id LIMIT 10
SELECT id FROM orders QUALIFY row_number() OVER (PARTITION BY customer ORDER BY id) = 1 ORDER BY id
SELECT customer, max(amount) AS m FROM orders GROUP BY customer QUALIFY rank() OVER (ORDER BY max(amount) DESC) <= 3 ORDER BY m
PIVOT orders ON status IN ('new', 'paid', 'sent') USING sum(amount) GROUP BY customer ORDER BY customer
PIVOT (SELECT customer, status, a FROM orders) ON status IN ('new', 'paid') USING count(*) AS n, sum(a) AS s GROUP BY customer ORDER BY customer
SELECT * FROM (PIVOT orders ON a IN (0, 1, 2) USING count(*) GROUP BY b) ORDER BY b
SELECT * FROM (SELECT customer, status, amount FROM orders) PIVOT (sum(amount) FOR status IN ('new', 'paid')) ORDER BY customer
UNPIVOT (SELECT id, a, b FROM orders WHERE id < 5) ON a, b INTO NAME n VALUE v ORDER BY id, n
SELECT * FROM (SELECT id, a, b FROM orders WHERE id < 5) UNPIVOT (v FOR n IN (a, b)) ORDER BY id, n
UNPIVOT (SELECT id, a, b FROM orders WHERE id < 5) ON COLUMNS(* EXCLUDE (id)) ORDER BY ALL
SELECT * EXCLUDE (payload, url) FROM events ORDER BY id LIMIT 5
SELECT * REPLACE (upper(customer) AS customer) FROM orders ORDER BY id LIMIT 5
SELECT * RENAME (id AS order_id) FROM orders ORDER BY order_id LIMIT 2
SELECT COLUMNS('^(id|a|b)$') FROM orders ORDER BY id LIMIT 5
SELECT COLUMNS(c -> c LIKE '%a%') FROM orders ORDER BY id LIMIT 5
SELECT min(COLUMNS(['id', 'a'])), max(COLUMNS(['id', 'a'])) FROM orders
SELECT o.* FROM orders o WHERE o.id = 3
SELECT orders.id, main.orders.a FROM main.orders ORDER BY id LIMIT 3
FROM orders ORDER BY id LIMIT 2
FROM orders SELECT id, a WHERE a = 1 ORDER BY id LIMIT 4
TABLE model_scores ORDER BY id
VALUES (1, 'a'), (2, 'b') ORDER BY 1
SELECT * FROM (VALUES (1, 'x'), (2, 'y')) AS t(a, b) ORDER BY a
DESCRIBE orders
DESCRIBE SELECT id, amount * 2 AS twice FROM orders
SELECT column_name, column_type FROM (DESCRIBE events)
SHOW customers
SUMMARIZE model_scores
SELECT column_name, min, max FROM (SUMMARIZE SELECT id, a FROM orders)
SELECT list_transform(tags, x -> x + 1), list_filter(tags, x -> x > 1) FROM orders ORDER BY id LIMIT 5
SELECT list_transform([1, 2, 3], lambda x, i: x * i), list_reduce([1, 2, 3], lambda a, b: a + b)
SELECT [x * 2 FOR x IN tags IF x > 0] FROM orders ORDER BY id LIMIT 5
SELECT t, count(*) FROM (SELECT unnest(tags) AS t FROM orders) GROUP BY t ORDER BY t
SELECT id, t FROM orders, unnest(tags) AS u(t) WHERE id < 5 ORDER BY ALL
SELECT unnest(address) FROM orders WHERE id = 4
SELECT address.city, address['zip'], struct_extract(address, 'city') FROM orders WHERE id < 4 ORDER BY id
SELECT tags[1], tags[-1], tags[1:1], len(tags), list_sort(tags), list_contains(tags, 2) FROM orders ORDER BY id LIMIT 6
SELECT map {'a': 1, 'b': 2}['a'], map_keys(map {'k': 1}), MAP([1, 2], ['x', 'y'])
SELECT {'a': 1, 'b': {'c': 2}}.b.c, row(1, 'x'), struct_pack(x := 1)
SELECT [1, 2] || [3], list_value(1, 2), array_value(1, 2), [1, NULL]
SELECT payload->>'$.import from', payload->'k'->>0, json_extract_string(payload, '$.k[1]') FROM events ORDER BY id LIMIT 5
SELECT json_object('a', 1), json_array(1, 'x'), json_array_length('[1,2]'), to_json({'a': [1]}), json_type('{"a":1}')
SELECT key, value, type FROM json_each('{"a": 1, "b": [true]}')
SELECT fullkey, atom FROM json_tree('{"a": {"b": 1}}') WHERE atom IS NOT NULL
SELECT json_group_array(id), json_group_object(id::VARCHAR, name) FROM customers
SELECT sum(i), count(*) FROM range(1, 100, 3) t(i)
SELECT * FROM generate_series(TIMESTAMP '2024-01-01', TIMESTAMP '2024-01-03', INTERVAL 12 HOUR)
SELECT * FROM repeat('x', 3)
SELECT * FROM unnest([1, 2, 3]) WITH ORDINALITY
SELECT unnest(generate_series(1, 3)), unnest(['a', 'b', 'c'])
SELECT CASE WHEN a > 2 THEN 'hi' WHEN a = 0 THEN 'zero' ELSE 'lo' END AS c, count(*) FROM orders GROUP BY c ORDER BY c
SELECT CASE a WHEN 1 THEN 'one' ELSE 'many' END, if(a = 1, 1, 2), coalesce(NULL, a), nullif(a, 1), ifnull(NULL, 2) FROM orders ORDER BY id LIMIT 5
SELECT amount::DOUBLE, CAST(id AS VARCHAR), TRY_CAST(customer AS INTEGER), '2024-02-30'::VARCHAR FROM orders ORDER BY id LIMIT 4
SELECT amount::DECIMAL(18, 4), id::TINYINT, '1 day'::INTERVAL, 'a'::ENUM('a', 'b')::VARCHAR, [1, 2]::INT[2] FROM orders WHERE id = 7
SELECT date_trunc('day', created_at) AS d, count(*) FROM orders GROUP BY d ORDER BY d
SELECT extract(hour FROM created_at), date_part('month', created_at), strftime(created_at, '%Y/%m'), dayname(created_at) FROM orders ORDER BY id LIMIT 5
SELECT created_at + INTERVAL 1 MONTH, created_at - INTERVAL '2 hours', age(created_at, TIMESTAMP '2023-01-01'), datediff('day', DATE '2024-01-01', created_at::DATE) FROM orders ORDER BY id LIMIT 5
SELECT time_bucket(INTERVAL 6 HOUR, created_at) AS t, sum(amount) FROM orders GROUP BY t ORDER BY t
SELECT created_at AT TIME ZONE 'Europe/Prague', TIMESTAMPTZ '2024-06-01 12:00:00+02' FROM orders WHERE id = 0
SELECT DATE '2024-03-01' - DATE '2024-02-01', last_day(DATE '2024-02-01'), make_date(2024, 2, 3), epoch(TIMESTAMP '2024-01-01'), to_timestamp(0)
SELECT strptime('2024-01-02', '%Y-%m-%d'), try_strptime('x', '%Y'), TIME '12:30:00', INTERVAL (a) DAY FROM orders WHERE id = 3
SELECT today() - today(), now() IS NOT NULL, current_date IS NOT NULL, current_timestamp IS NOT NULL
SELECT upper(customer), substring(customer, 2, 1), customer[1], left(customer, 1), concat_ws('-', customer, a), lpad(a::VARCHAR, 3, '0') FROM orders ORDER BY id LIMIT 3
SELECT regexp_matches(url, '^https'), regexp_extract(url, '/(\d)/', 1), regexp_replace(url, 'site', 'x'), regexp_split_to_array('a,b', ',') FROM events ORDER BY id LIMIT 3
SELECT string_split(url, '/'), split_part(url, '/', 4), string_agg(DISTINCT kind, ',' ORDER BY kind) OVER () FROM events ORDER BY id LIMIT 2
SELECT trim(name), ltrim(name), length(name), reverse(name), strpos(name, ';'), name LIKE '%;%', name ILIKE '%NAME%', name SIMILAR TO '.*' FROM customers ORDER BY id
SELECT 'a' || 'b', 'x' LIKE 'X' ESCAPE '!', starts_with('abc', 'a'), contains('abc', 'b'), 'ä' COLLATE NOACCENT = 'a', format('{}-{}', 1, 'x'), printf('%d', 3)
SELECT md5('x'), sha256('x'), hash('x') IS NOT NULL, encode('x'), base64('x'::BLOB), hex('x'), url_encode('a b'), levenshtein('a', 'b')
SELECT round(3.14159, 2), floor(1.5), ceil(1.2), abs(-1), power(2, 3), sqrt(16), ln(1), mod(5, 3), 5 // 2, 5 % 3, 2 ** 3, 5 & 3, 5 | 3, xor(5, 3), 1 << 3, ~1, greatest(1, 2), least(1, 2), sign(-2), pi() > 3
SELECT 1 + 2.5, 1e3, 0x1F, 1_000, .5, -1, +1, NOT true, true AND false OR true, 1 IS DISTINCT FROM NULL
SELECT quantile_cont(amount, 0.5), median(a), mode(a), stddev(a), var_pop(b), corr(a, b), approx_count_distinct(a) > 0, entropy(a) FROM orders
SELECT arg_max(id, amount), arg_min(id, amount), first(id ORDER BY id), last(id ORDER BY id), any_value(1), bool_and(a >= 0), bit_or(a), product(1) FROM orders
SELECT list(id ORDER BY id DESC)[1:3], array_agg(DISTINCT a ORDER BY a), histogram(a), string_agg(a::VARCHAR, '|' ORDER BY id)[1:5], max_by(id, amount) FROM orders
SELECT count(DISTINCT customer), count(*) FILTER (WHERE a = 1), sum(DISTINCT a), max(amount, 3), min(id, 2) FROM orders
SELECT customer FROM orders GROUP BY 1 ORDER BY 1
SELECT DISTINCT ON (customer) customer, id FROM orders ORDER BY customer, id DESC
SELECT id AS "Weird Name", a AS "select" FROM orders ORDER BY "Weird Name" LIMIT 2
SELECT "id", "ORDERS"."A" FROM "Orders" ORDER BY ID LIMIT 2
SELECT id alias_without_as, x.a FROM orders AS x(id, customer, amount, created_at, a) ORDER BY 1 LIMIT 2
SELECT id AS n, n * 2 AS twice FROM orders WHERE n < 3 ORDER BY twice
SELECT a, a, id FROM orders ORDER BY id LIMIT 1
SELECT (SELECT 1), (SELECT max(id) FROM orders), ARRAY(SELECT id FROM customers ORDER BY id)
SELECT #1, #2 FROM (SELECT 1, 2) LIMIT 1
SELECT * FROM orders WHERE id = (SELECT min(id) FROM orders)
SELECT typeof(amount), typeof(tags), pg_typeof(id) FROM orders LIMIT 1
SELECT TRY(1 / 0), 1 / 0, error('x') FROM orders WHERE false
SELECT x.b[2] FROM (SELECT {'b': [1, 2]} AS x)
SELECT 'it''s', E'a\nb', $$dollar 'quoted'$$, $t$ $$ $t$, '/* not a comment */', '-- nor this', '; or this'
SELECT 1 /* inline */ + /* nested /* twice */ */ 2
SELECT count(*) FROM orders USING SAMPLE 100%
SELECT count(*) FROM orders TABLESAMPLE reservoir(400 ROWS)
SELECT count(*) FROM (SELECT * FROM orders USING SAMPLE 10 ROWS)
SELECT i, j FROM range(3) a(i), range(2) b(j) ORDER BY ALL
SELECT o.id FROM orders o, events e WHERE o.id = e.order_id AND e.id < 3 ORDER BY 1
SELECT sum(n) FROM (SELECT count(*) n FROM orders GROUP BY customer)
SELECT uuid() IS NOT NULL, random() < 1, gen_random_uuid() IS NOT NULL
SELECT union_value(num := 2)::VARCHAR, bitstring('0101', 6)::VARCHAR, 'ab'::BLOB, 12345678901234567890123::HUGEINT
SELECT icu_sort_key('a', 'de') IS NOT NULL, 'b' COLLATE de > 'a', strip_accents('é'), translate('abc', 'a', 'x')
SELECT reduce([1, 2], (x, y) -> x + y), list_aggregate([1, 2], 'sum'), apply([1], x -> x), list_zip([1], [2]), flatten([[1], [2]])
SELECT created_at::DATE AS day, status, sum(amount) FROM orders GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL LIMIT 20
SELECT date_trunc('month', created_at)::DATE AS m, sum(amount) AS revenue, revenue / sum(sum(amount)) OVER () AS share FROM orders GROUP BY m ORDER BY m
