-- Numbers, bits, blobs, casts, enums, conditional and other expressions, aggregates.
SELECT 7 / 2, 7 // 2, 7 % 2, -7 // 2, 2 ^ 10, 2 ** 3, 4!
SELECT 7 / 2, 7 // 2, 7 % 2, -7 // 2, 2 ^ 10, 2 ** 3, @ -5, 5 & 3, 5 | 3, ~5, 1 << 4, 16 >> 2, xor(5, 3)
SELECT abs(-1.5), sign(-3), ceil(1.2), ceiling(1.2), floor(-1.2), round(2.567, 2), round_even(2.5, 0), roundbankers(3.5, 0), trunc(1.9), even(2.1), fmod(5.5, 2), fdiv(5, 2), mod(7, 3), divide(7, 2), multiply(2, 3), add(1, 2), subtract(3, 1)
SELECT sqrt(2), cbrt(27), exp(1), ln(2), log(100), log10(100), log2(8), log(2, 8), pow(2, 3), power(2, 0.5), gamma(5), lgamma(5), factorial(5)
SELECT sin(1), cos(1), tan(1), cot(1), asin(0.5), acos(0.5), atan(1), atan2(1, 2), sinh(1), cosh(1), tanh(1), asinh(1), acosh(2), atanh(0.5), degrees(pi()), radians(180)
SELECT gcd(12, 18), lcm(4, 6), greatest_common_divisor(8, 12), least_common_multiple(2, 3), isnan('nan'::DOUBLE), isinf('inf'::DOUBLE), isfinite(1.0), nextafter(1.0, 2.0), signbit(-1.0), bit_count(7)
SELECT 1::TINYINT, 1::UTINYINT, 1::SMALLINT, 1::USMALLINT, 1::INTEGER, 1::UINTEGER, 1::BIGINT, 1::UBIGINT, 1::HUGEINT, 1::UHUGEINT, 1.5::FLOAT, 1.5::DOUBLE, 1.5::DECIMAL(5, 2), 1.5::REAL, 1::INT8, 1::INT4, 1::INT2, 1::INT1
SELECT 170141183460469231731687303715884105727, 0.1 + 0.2, 1.1 * 1.1, 1 / 3, 1.0 / 3, 10::DECIMAL(18, 3) / 3, 1e308 * 10
SELECT '12'::INT, '1.5'::DOUBLE, 'true'::BOOLEAN, 't'::BOOL, 1::BOOLEAN, true::INT, 3.7::INT, '0x1F'::VARCHAR, 'NaN'::FLOAT, CAST('1e3' AS DOUBLE)
SELECT TRY_CAST('x' AS INT), TRY_CAST(300 AS TINYINT), TRY(ln(-1)), TRY('x'::INT), TRY(1 // 0), try_cast('2024-13-01' AS DATE)
SELECT TRY(customer::INT), TRY(status::ENUM('new', 'paid')) FROM orders WHERE id < 5
SELECT CASE WHEN a > 3 THEN 'big' WHEN a > 1 THEN 'mid' END, CASE a WHEN 0 THEN 'zero' WHEN 1 THEN 'one' ELSE 'many' END, if(a > 2, 'x', 'y'), iff_note FROM orders, (SELECT 1 AS iff_note) WHERE id < 8
SELECT coalesce(status, 'none'), ifnull(status, '-'), nullif(a, 0), nvl_note FROM orders, (SELECT 1 AS nvl_note)
SELECT constant_or_null(1, NULL), greatest(1, NULL, 3), least(2, 1), typeof(1 + 1.5), error_note FROM (SELECT 1 AS error_note)
SELECT a BETWEEN 1 AND 3, a NOT BETWEEN 1 AND 3, a IS NULL, a IS NOT NULL, status ISNULL, status NOTNULL, a IS DISTINCT FROM b, a IS NOT DISTINCT FROM b, NOT (a = 1 OR b = 2), a <> b, a != b, a == b FROM orders
SELECT true AND NULL, false AND NULL, true OR NULL, NOT NULL, (a > 1) IS TRUE, (a > 1) IS NOT FALSE, (NULL::BOOL) IS UNKNOWN FROM orders WHERE id < 3
SELECT 'happy'::ENUM('sad', 'happy'), enum_range(NULL::ENUM('a', 'b')), enum_first(NULL::ENUM('a', 'b')), enum_last(NULL::ENUM('a', 'b')), enum_code('b'::ENUM('a', 'b')), enum_range_boundary('a'::ENUM('a', 'b', 'c'), 'b'::ENUM('a', 'b', 'c'))
SELECT status::ENUM('new', 'paid', 'sent') AS s, count(*) FROM orders GROUP BY s
SELECT '0101'::BIT, '0101'::BIT & '0011'::BIT, bit_count('0101'::BIT), get_bit('0101'::BIT, 1), set_bit('0101'::BIT, 0, 1), bit_position('1'::BIT, '0101'::BIT), bitstring('1', 4), '01'::BIT || '10'::BIT, ~'01'::BIT, '0110'::BIT << 1
SELECT bitstring_agg(a, 0, 4), bit_and(a), bit_or(a), bit_xor(a) FROM orders
SELECT '\xAA\x00'::BLOB, 'abc'::BLOB || 'd'::BLOB, octet_length('\xFF'::BLOB), hex('\x0F'::BLOB), unhex('FF'), encode('ü'), decode('\x61'::BLOB), blob_note FROM (SELECT 1 AS blob_note)
SELECT '9c2a4f6e-1d2b-4c3d-8e4f-5a6b7c8d9e0f'::UUID, uuid_extract_version('9c2a4f6e-1d2b-4c3d-8e4f-5a6b7c8d9e0f'::UUID), '9c2a4f6e-1d2b-4c3d-8e4f-5a6b7c8d9e0f'::UUID::VARCHAR
SELECT hash(1) = hash(1), hash('a') <> hash('b'), hash(id, customer) IS NOT NULL FROM orders WHERE id < 3
SELECT typeof(a), typeof([1]), typeof({'a': 1}), pg_typeof(1), can_cast_implicitly(1, 1.5), cast_to_type('1', 1) FROM orders WHERE id < 2
SELECT version() LIKE 'v%', pi(), e_note FROM (SELECT 1 AS e_note)
SELECT alias(id + 1) FROM orders WHERE id < 2
SELECT width_bucket_note, equi_width_bins(0, 100, 5, false) FROM (SELECT 1 AS width_bucket_note)
SELECT count(), count(*), count(1), count(status), count_if(a > 2), countif(a > 2), sum(a), avg(a), mean(a), min(a), max(a), median(a), product(b + 1) FROM orders WHERE id < 20
SELECT stddev(a), stddev_pop(a), stddev_samp(a), var_pop(a), var_samp(a), variance(a), sem(a), skewness(a), kurtosis(a), kurtosis_pop(a), entropy(a), mad(a), geomean(a + 1), geometric_mean(a + 1) FROM orders
SELECT corr(a, b), covar_pop(a, b), covar_samp(a, b), regr_slope(a, b), regr_intercept(a, b), regr_r2(a, b), regr_count(a, b), regr_avgx(a, b), regr_avgy(a, b), regr_sxx(a, b), regr_sxy(a, b), regr_syy(a, b) FROM orders
SELECT quantile(a, 0.5), quantile_cont(amount, [0.25, 0.75]), quantile_disc(amount, 0.1), percentile_cont(0.5) WITHIN GROUP (ORDER BY amount), percentile_disc(0.9) WITHIN GROUP (ORDER BY amount DESC), mode() WITHIN GROUP (ORDER BY a) FROM orders
SELECT approx_count_distinct(a) BETWEEN 3 AND 7, approx_quantile(a, 0.5) IS NOT NULL, approx_top_k(a, 1) IS NOT NULL, reservoir_quantile(a, 0.5) IS NOT NULL FROM orders
SELECT arg_max(id, amount), arg_min(id, amount), argmax(id, amount), argmin(id, amount), max_by(id, amount), min_by(id, amount), arg_max(id, amount, 3), min_by(id, amount, 2), arg_min_null(status, id), arg_max_null(status, id) FROM orders
SELECT bool_and(a < 9), bool_or(a = 9), every_note, favg(a), fsum(a), kahan_sum(a), sumkahan(a) FROM orders, (SELECT true AS every_note) GROUP BY every_note
SELECT max(a, 2), min(id, 3), weighted_avg(a, b), list(DISTINCT a ORDER BY a DESC), first(id ORDER BY id DESC), any_value(customer ORDER BY id), last(customer ORDER BY id) FROM orders
SELECT customer, max(amount) - min(amount) AS spread, round(stddev(amount), 4) AS sd FROM orders GROUP BY customer
SELECT sum(CASE WHEN status = 'paid' THEN amount ELSE 0 END) / sum(amount) AS paid_share FROM orders
SELECT count(*) FILTER (WHERE status = 'paid') * 100.0 / count(*) AS pct FROM orders
SELECT customer, sum(amount) FROM orders WHERE status IN ('paid', 'sent') GROUP BY customer HAVING sum(amount) > 100 ORDER BY 2 DESC
SELECT id, a + b * 2 - -a, (a + b) * 2, a % 3 = 0 AND b > 1 OR a = 4 FROM orders
SELECT greatest(a, b, salaries), least(a, b) FROM orders
SELECT sum(x) FROM (SELECT unnest(range(1000)) AS x)
SELECT i, i * i AS sq, sum(i) OVER (ORDER BY i) AS tri FROM range(20) t(i)
SELECT avg(i), max(i) FROM generate_series(1, 1000) g(i) WHERE i % 7 = 0
SELECT * FROM generate_series(1, 10, 3)
SELECT * FROM range(0, 10, 3) WITH ORDINALITY
SELECT * FROM repeat(7, 2)
SELECT x, y FROM range(3) a(x) JOIN range(3) b(y) ON x < y
SELECT row_number() OVER () AS n, * FROM (VALUES ('a')) t(v)
SELECT id, amount::INT % 10 AS d, d * 2 AS dd FROM orders WHERE d > 7
SELECT bucket, count(*) FROM (SELECT floor(amount / 100) * 100 AS bucket FROM orders) GROUP BY bucket
SELECT corr(x, y), regr_slope(y, x) FROM (SELECT id AS x, id * 2.0 + 1 AS y FROM orders)
SELECT a, list(id ORDER BY id)[:3] AS sample_ids, count(*) AS n FROM orders GROUP BY a HAVING n > 1 ORDER BY a
SELECT customer, amount, ntile(4) OVER (ORDER BY amount, id) AS quartile FROM orders QUALIFY quartile = 4
SELECT country, count(DISTINCT o.customer) AS buyers, sum(o.amount) AS revenue, revenue / buyers AS per_buyer FROM customers c LEFT JOIN orders o USING (customer) GROUP BY country
WITH monthly AS (SELECT date_trunc('month', created_at) AS m, sum(amount) AS s FROM orders GROUP BY m) SELECT m, s, lag(s) OVER (ORDER BY m) AS prev, round(100 * (s - prev) / prev, 2) AS growth FROM monthly
WITH firsts AS (SELECT customer, min(created_at) AS first FROM orders GROUP BY customer) SELECT date_trunc('day', first) AS cohort, count(*) FROM firsts GROUP BY cohort
SELECT kind, quantile_cont(value, 0.5) AS p50, quantile_cont(value, 0.95) AS p95 FROM events GROUP BY kind
SELECT e.kind, o.status, count(*) AS n, sum(count(*)) OVER (PARTITION BY e.kind) AS total FROM events e JOIN orders o ON e.order_id = o.id GROUP BY 1, 2
SELECT id, sum(value) OVER (PARTITION BY kind ORDER BY last_update RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW) AS hourly FROM events
SELECT session, count(*) FROM (SELECT *, sum(new) OVER (PARTITION BY kind ORDER BY last_update) AS session FROM (SELECT *, CASE WHEN last_update - lag(last_update) OVER (PARTITION BY kind ORDER BY last_update) > INTERVAL 30 MINUTE THEN 1 ELSE 0 END AS new FROM events)) GROUP BY session
