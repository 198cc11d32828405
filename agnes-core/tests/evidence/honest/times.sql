-- Dates, times, intervals, time zones.
SELECT DATE '2024-02-29', TIME '12:34:56.789', TIMESTAMP '2024-01-01 00:00:00', TIMESTAMPTZ '2024-01-01 00:00:00+05', TIMETZ '12:00:00+02', INTERVAL '1 year 2 months 3 days 04:05:06'
SELECT TIMESTAMP_S '2024-01-01 00:00:00', TIMESTAMP_MS '2024-01-01 00:00:00.123', TIMESTAMP_NS '2024-01-01 00:00:00.123456789', 'infinity'::DATE, '-infinity'::TIMESTAMP, 'epoch'::DATE
SELECT d + 1, d - 1, d + INTERVAL 1 MONTH, d - INTERVAL '1' YEAR, d - DATE '2020-01-01', d + TIME '01:00' FROM customers
SELECT d + INTERVAL (id) DAY, d + to_days(id::INT), d + to_months(1), to_years(1), to_weeks(1), to_hours(2), to_minutes(3), to_seconds(4.5), to_milliseconds(5), to_microseconds(6), to_quarters(1), to_decades(1), to_centuries(1), to_millennia(1) FROM customers WHERE id < 3
SELECT date_part('year', created_at), date_part(['year', 'month'], created_at), datepart('dow', created_at), extract(epoch FROM created_at), extract(isodow FROM created_at), extract(week FROM created_at), extract(doy FROM created_at), extract(quarter FROM created_at) FROM orders WHERE id % 50 = 0
SELECT year(created_at), month(created_at), day(created_at), hour(created_at), minute(created_at), second(created_at), millisecond(created_at), microsecond(created_at), quarter(created_at), week(created_at), weekday(created_at), dayofweek(created_at), isodow(created_at), dayofmonth(created_at), dayofyear(created_at), weekofyear(created_at), yearweek(created_at), isoyear(created_at), century(created_at), decade(created_at), millennium(created_at), era(created_at), julian(created_at) FROM orders WHERE id % 100 = 0
SELECT date_trunc('week', created_at), date_trunc('month', d), datetrunc('quarter', created_at), date_trunc('hour', INTERVAL '1 day 5 hours 7 minutes') FROM orders JOIN customers ON orders.id = customers.id
SELECT date_diff('month', DATE '2024-01-31', DATE '2024-03-01'), datediff('hour', TIMESTAMP '2024-01-01', TIMESTAMP '2024-01-02'), date_sub('month', DATE '2024-01-31', DATE '2024-03-01'), datesub('day', DATE '2024-01-01', DATE '2024-01-03')
SELECT date_add(DATE '2024-01-31', INTERVAL 1 MONTH), last_day(DATE '2024-02-10'), monthname(DATE '2024-02-10'), dayname(DATE '2024-02-10'), greatest(DATE '2024-01-01', DATE '2024-02-01')
SELECT make_date(2024, 2, 29), make_date({'year': 2024, 'month': 1, 'day': 2}), make_time(12, 34, 56.5), make_timestamp(2024, 1, 2, 3, 4, 5.5), make_timestamp(1700000000000000), make_timestamptz(2024, 1, 2, 3, 4, 5.0), make_timestamp_ns(1), make_timestamptz(2024, 1, 2, 3, 4, 5.0, 'Europe/Prague')
SELECT epoch(created_at), epoch_ms(created_at), epoch_us(created_at), epoch_ns(created_at), epoch_ms(1700000000000), to_timestamp(1700000000), epoch(INTERVAL 1 DAY) FROM orders WHERE id < 3
SELECT strftime(created_at, '%A %d %B %Y %H:%M:%S.%f %j %U %y %p %I'), strftime('%Y-%m', d), strftime(d, ['%x', '%c'][1]) FROM orders JOIN customers USING (id)
SELECT strptime('1/2/2024 3:04 PM', '%-d/%-m/%Y %-I:%M %p'), strptime('2024-01-02', ['%d.%m.%Y', '%Y-%m-%d']), try_strptime('nonsense', '%Y'), strptime('2024-01-02 +0200', '%Y-%m-%d %z')
SELECT created_at::DATE, created_at::TIME, d::TIMESTAMP, '2024-01-02'::TIMESTAMP, CAST('12:30' AS TIME), TRY_CAST('31.2.2024' AS DATE), created_at::VARCHAR FROM orders JOIN customers USING (id) WHERE id < 4
SELECT time_bucket(INTERVAL '2 weeks', created_at), time_bucket(INTERVAL 1 MONTH, d, DATE '2020-01-15'), time_bucket(INTERVAL 1 DAY, created_at, INTERVAL 6 HOUR) FROM orders JOIN customers USING (id)
SELECT age(TIMESTAMP '2024-03-01', TIMESTAMP '2023-01-31'), age(created_at, d::TIMESTAMP) FROM orders JOIN customers USING (id)
SELECT created_at AT TIME ZONE 'America/New_York', timezone('Asia/Tokyo', created_at), (created_at AT TIME ZONE 'Europe/Prague') AT TIME ZONE 'UTC' FROM orders WHERE id < 4
SELECT TIMESTAMPTZ '2024-03-31 00:30:00+00' AT TIME ZONE 'Europe/Prague', TIMESTAMPTZ '2024-06-01 12:00:00 America/Los_Angeles', extract(timezone FROM TIMESTAMPTZ '2024-01-01 00:00:00+00'), timezone_hour(TIMESTAMPTZ '2024-01-01 00:00:00+00')
SELECT date_trunc('day', TIMESTAMPTZ '2024-06-01 23:30:00+00'), TIMESTAMPTZ '2024-01-31 12:00:00+00' + INTERVAL 1 MONTH, age(TIMESTAMPTZ '2024-03-01 00:00:00+00', TIMESTAMPTZ '2024-01-01 00:00:00+00'), strftime(TIMESTAMPTZ '2024-01-01 00:00:00+00', '%Y-%m-%d %Z')
SELECT time_bucket(INTERVAL 1 DAY, TIMESTAMPTZ '2024-06-01 23:30:00+00', 'Europe/Prague'), date_diff('day', TIMESTAMPTZ '2024-01-01 00:00:00+00', TIMESTAMPTZ '2024-01-03 00:00:00+00'), last_day(TIMESTAMPTZ '2024-02-01 00:00:00+00')
SELECT INTERVAL 1 DAY + INTERVAL 2 HOUR, INTERVAL 3 MONTH * 2, INTERVAL '1 month' = INTERVAL '30 days', -INTERVAL 1 DAY, INTERVAL 1 YEAR > INTERVAL 11 MONTH, INTERVAL '2' DAY
SELECT extract(day FROM INTERVAL '3 days 4 hours'), date_part('month', INTERVAL 14 MONTH), justify_note FROM (SELECT 1 AS justify_note)
SELECT max(created_at) - min(created_at), avg(created_at), median(created_at), quantile_disc(created_at, 0.9), min(created_at::TIME) FROM orders
SELECT count(*) FROM orders WHERE created_at BETWEEN '2024-01-02' AND '2024-01-05' AND created_at::DATE <> DATE '2024-01-03'
SELECT created_at::DATE AS day, count(*) AS n, sum(n) OVER (ORDER BY day) AS running FROM orders GROUP BY day
SELECT g::DATE AS day, count(o.id) FROM generate_series(DATE '2024-01-01', DATE '2024-01-10', INTERVAL 1 DAY) AS s(g) LEFT JOIN orders o ON o.created_at::DATE = g::DATE GROUP BY day
SELECT * FROM range(TIMESTAMP '2024-01-01', TIMESTAMP '2024-01-02', INTERVAL 6 HOUR)
SELECT * FROM generate_series(TIMESTAMPTZ '2024-01-01 00:00:00+00', TIMESTAMPTZ '2024-01-02 00:00:00+00', INTERVAL 6 HOUR)
/*volatile*/ SELECT now(), current_timestamp, current_date, current_time, localtime, localtimestamp, today(), get_current_timestamp(), get_current_time(), transaction_timestamp()
/*volatile*/ SELECT count(*) FROM orders WHERE created_at > now() - INTERVAL 7 DAY OR created_at::DATE >= current_date - 7
SELECT isfinite(DATE '2024-01-01'), isinf('infinity'::TIMESTAMP), DATE '2024-01-01' < TIMESTAMP '2024-01-01 00:00:01'
SELECT date_part('epoch', TIME '01:00:00'), TIME '23:00' + INTERVAL 2 HOUR, TIMETZ '12:00:00+00' < TIMETZ '12:00:00+01', time_tz_note FROM (SELECT 1 AS time_tz_note)
SELECT dayname(created_at) AS day, hour(created_at) // 6 AS part, round(avg(amount), 2) FROM orders GROUP BY ALL
SELECT created_at, lag(created_at) OVER (ORDER BY created_at) AS before, created_at - before AS gap FROM orders QUALIFY gap IS NULL OR gap <> INTERVAL 1 HOUR
SELECT nanosecond(TIMESTAMP_NS '2024-01-01 00:00:00.123456789'), timestamp_ns_note FROM (SELECT 1 AS timestamp_ns_note)
SELECT DATE '2024-01-05' - INTERVAL 1 DAY, DATE '0044-03-15 (BC)', '5881580-07-10'::DATE, date '1992-09-20' + 365
SELECT strftime(make_date(2024, m, 1), '%b') AS month, count(o.id) FROM range(1, 13) r(m) LEFT JOIN orders o ON month(o.created_at) = m GROUP BY ALL
