-- Text functions, patterns, collations, formatting. One statement a line.
SELECT ascii(customer), chr(65), unicode('é'), ord('a') FROM orders WHERE id < 3
SELECT bar(a, 0, 5, 10) FROM orders WHERE id < 5
SELECT concat(customer, '/', status), concat_ws(', ', NULL, customer, status) FROM orders
SELECT customer || '-' || a AS joined, count(*) FROM orders GROUP BY ALL
SELECT contains(url, 'site'), prefix(url, 'https'), suffix(url, 'page'), starts_with(url, 'http'), ends_with(url, 'x') FROM events
SELECT url ^@ 'https' AS https FROM events WHERE id < 4
SELECT instr(url, '//'), position('site' IN url), strpos(url, 'page') FROM events WHERE id < 4
SELECT left(url, 5), right(url, 4), left(url, -4), right(url, -4), left_grapheme('🤦🏼‍♂️x', 1), right_grapheme('x🤦🏼‍♂️', 1) FROM events WHERE id = 1
SELECT length('žluťoučký'), strlen('žluťoučký'), length_grapheme('🤦🏼‍♂️'), bit_length('ab'), octet_length('ab'::BLOB)
SELECT lower('ŽLUŤ'), upper('žluť'), lcase('A'), ucase('a'), 'x' FROM orders WHERE id = 0
SELECT lpad(customer, 6, '*'), rpad(customer, 6, '-'), repeat(customer, 2) FROM orders WHERE id < 8
SELECT ltrim('xxhixx', 'x'), rtrim('xxhixx', 'x'), trim('xxhixx', 'x'), trim(BOTH 'x' FROM 'xhix'), trim(LEADING FROM '  a'), trim(TRAILING 'a' FROM 'baa')
SELECT md5(customer), sha1(customer), sha256(customer), md5_number(customer) FROM orders WHERE id < 3
SELECT nfc_normalize('ardèch'), strip_accents('mühleisen'), ('hello').upper().lower()
SELECT parse_dirname('path/to/file.csv', 'system'), parse_dirpath('/path/to/file.csv'), parse_filename('path/to/file.csv', true), parse_path('path/to/file.csv')
SELECT regexp_extract(url, '(\d)/(\w+)', ['n', 'p']) FROM events WHERE id < 3
SELECT regexp_extract_all(payload, '"(\w+)"', 1) FROM events WHERE id < 3
SELECT regexp_full_match(customer, 'c[0-3]'), regexp_matches(customer, 'C', 'i') FROM orders WHERE id < 6
SELECT regexp_replace(url, '(\d)', 'n\1', 'g'), regexp_escape('a.b*c') FROM events WHERE id < 3
SELECT regexp_split_to_array(url, '[/:]+'), regexp_split_to_table('a b', ' ') FROM events WHERE id = 2
SELECT id FROM events WHERE url SIMILAR TO 'https://site/[0-4]/.*' AND NOT url SIMILAR TO '.*3.*'
SELECT id FROM events WHERE url ~ 'https://site/[0-4]/page'
SELECT id FROM events WHERE url !~ '.*[0-4].*'
SELECT id FROM orders WHERE status ~~ 'p%' OR status ~~* 'N%' OR status !~~ '%t' LIMIT 400
SELECT id FROM events WHERE url GLOB 'https://site/[1-3]/*'
SELECT id FROM orders WHERE customer LIKE 'c!_%' ESCAPE '!' OR customer NOT ILIKE 'C1%'
SELECT id FROM orders WHERE like_escape(customer, 'c$%', '$') OR ilike_escape(customer, 'C1', '$') OR not_like_escape(customer, 'c_', '$')
SELECT replace(url, 'https', 'http'), translate(url, '/:', '__'), reverse(url) FROM events WHERE id < 3
SELECT split(url, '/'), str_split(url, '/'), string_to_array(url, '/'), str_split_regex(url, '\d'), split_part(url, '/', -1) FROM events WHERE id < 3
SELECT url[1], url[1:5], url[-4:], url[:5], url[9:-6] FROM events WHERE id < 3
SELECT substring(url FROM 9), substring(url FROM 9 FOR 4), substr(url, 9, 4), substring(url, -4), substring_grapheme('🤦🏼‍♂️ab', 2, 1) FROM events WHERE id < 3
SELECT format('{} has {:.2f} of {:,}', customer, amount, 1234567), format('{:>8}|{:<8}|{:^8}', 'a', 'b', 'c'), format('{0} {1} {0}', 'x', 'y') FROM orders WHERE id < 4
SELECT printf('%05d|%-6s|%x|%e', id, customer, id, amount::DOUBLE) FROM orders WHERE id < 5
SELECT format_bytes(123456789), formatReadableSize(16000), formatReadableDecimalSize(16000), to_base(255, 16), to_base(5, 2, 8)
SELECT bin(5), hex(255), to_hex('a'), unhex('41'), to_binary(6), from_binary('110'), from_hex('4142')
SELECT to_base64('abc'::BLOB), from_base64('YWJj'), base64('x'::BLOB), encode('é'), decode(encode('é'))
SELECT url_encode('a b&c=/'), url_decode('a%20b')
SELECT levenshtein('kitten', 'sitting'), damerau_levenshtein('ab', 'ba'), jaccard('duck', 'luck'), jaro_similarity('duck', 'duckdb'), jaro_winkler_similarity('duck', 'duckdb'), hamming('duck', 'luck'), editdist3('a', 'b'), mismatches('duck', 'luck')
SELECT greatest('a', 'b'), least('a', 'b'), 'a' < 'B', 'a' COLLATE NOCASE = 'A', 'é' COLLATE NOACCENT.NOCASE = 'E'
SELECT customer FROM orders GROUP BY customer ORDER BY customer COLLATE de DESC
SELECT name COLLATE NOCASE AS n FROM customers WHERE name COLLATE NOCASE LIKE '% NAME%'
SELECT string_agg(customer, ', ' ORDER BY id DESC), group_concat(DISTINCT status ORDER BY status), listagg(status, '/' ORDER BY id) FROM orders WHERE id < 12
SELECT txt, count(*) FROM (SELECT unnest(string_split(url, '/')) AS txt FROM events) GROUP BY txt
SELECT E'tab\tnew\nline\\ \'quote\' \x41', 'doubled''quote', $$ $x$ $$, $tag$ it's $$ $tag$
SELECT concat_ws('|', *COLUMNS(['id', 'customer', 'status'])) FROM orders WHERE id < 3
SELECT list_string_agg(string_split('a,b', ',')), array_to_string(['a', 'b'], '-')
SELECT id, CASE WHEN customer ~ 'c[12]' THEN upper(customer) ELSE coalesce(status, '?') END AS label FROM orders WHERE id < 9
SELECT 'update orders set x = 1; drop table y' AS text, 'attach' || ' ' || 'load' AS "install", 'copy' AS pragma
SELECT max(status), min(status), arg_max(customer, amount), mode(customer) FROM orders
SELECT bool_or(customer LIKE '%1'), bool_and(length(customer) = 2) FROM orders
SELECT text.string_split(' ').list_transform(w -> w.upper()).array_to_string('_') FROM (SELECT 'the quick fox' AS text)
SELECT read, write, export, import FROM (SELECT 1 AS read, 2 AS write, 3 AS export, 4 AS import)
SELECT "select", "from", "load " FROM (SELECT 1 AS "select", 2 AS "from", 3 AS "load ")
SELECT 'http://x/' || id || '.csv' AS link, 'file.parquet' AS f FROM orders WHERE id < 3
SELECT ('ﬀ').length(), ('İ').lower(), unicode('🦆'), chr(129414)
SELECT word, word.length() AS n FROM (VALUES ('a'), ('bb'), (NULL)) AS w(word) ORDER BY ALL NULLS FIRST

SELECT o.customer.upper(), customer.length() + 1 FROM orders o WHERE o.customer.starts_with('c1')
SELECT orders.status.upper().reverse() FROM orders GROUP BY ALL
SELECT amount.round(1), tags.list_sort().list_transform(t -> t.add(1)) FROM orders WHERE id < 5
SELECT created_at.strftime('%Y').concat('x') AS y, sum(amount).round() FROM orders GROUP BY y
