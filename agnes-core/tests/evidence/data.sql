CREATE TABLE orders AS
  SELECT i AS id, 'c' || (i % 7) AS customer, (i * 1.25)::DECIMAL(12,2) AS amount,
         TIMESTAMP '2024-01-01' + INTERVAL (i) HOUR AS created_at, i % 5 AS a, i % 11 AS b, i % 3 AS salaries,
         CASE i % 4 WHEN 0 THEN 'new' WHEN 1 THEN 'paid' WHEN 2 THEN 'sent' END AS status,
         [i % 3, i % 4] AS tags, {'city': 'x' || (i % 2), 'zip': i % 10} AS address
  FROM range(400) t(i);
CREATE TABLE events AS
  SELECT i AS id, 'https://site/' || (i % 9) || '/page' AS url,
         '{"import from": ' || (i % 4) || ', "k": ["a", "b"]}' AS payload,
         TIMESTAMP '2024-01-01' + INTERVAL (i * 7) MINUTE AS last_update,
         'kind' || (i % 3) AS kind, (i % 17) / 4.0 AS value, i % 100 AS order_id
  FROM range(600) t(i);
CREATE TABLE customers AS
  SELECT i AS id, ' name;' || i || ' ' AS name, DATE '2020-01-01' + i::INT AS d, ['CZ', 'DE', 'US'][1 + i % 3] AS country,
         'c' || i AS customer
  FROM range(10) t(i);
CREATE TABLE model_scores AS SELECT i AS id, (i % 10) / 10.0 AS recall FROM range(20) t(i);
CREATE TABLE issues AS SELECT 'P-' || i AS key, CASE WHEN i % 2 = 0 THEN 'please install x' ELSE 'other' END AS summary FROM range(12) t(i);
