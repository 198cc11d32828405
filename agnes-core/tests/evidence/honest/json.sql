-- JSON.
SELECT payload->'$.k', payload->>'$.k[0]', payload->'k'->1, payload->>'import from', payload->'$."import from"' FROM events WHERE id < 6
SELECT json_extract(payload, '$.k'), json_extract(payload, ['$.k[0]', '$.k[1]']), json_extract_string(payload, '$.k[0]'), json_extract_path(payload, 'k'), json_extract_path_text(payload, 'k') FROM events WHERE id < 4
SELECT json_value(payload, '$.k[0]'), json_exists(payload, '$.k'), json_exists(payload, '$.none'), json_contains(payload, '"a"'), json_keys(payload) FROM events WHERE id < 4
SELECT json_type(payload), json_type(payload, '$.k'), json_array_length(payload, '$.k'), json_valid(payload), json_valid('{'), json_structure(payload) FROM events WHERE id < 4
SELECT json(payload)::VARCHAR, json_pretty('{"a":1}'), json_quote('x"y'), json_merge_patch('{"a":1}', '{"b":2}') FROM events WHERE id < 2
SELECT json_transform(payload, '{"import from": "INTEGER", "k": ["VARCHAR"]}'), from_json(payload, '{"k": ["VARCHAR"]}'), json_transform_strict('{"a": 1}', '{"a": "INTEGER"}') FROM events WHERE id < 4
SELECT (payload::JSON).k[0], CAST(payload AS JSON)->'k' FROM events WHERE id < 3
SELECT ('{"a": [1, 2, {"b": 3}]}'::JSON)->'a'->2->>'b', ('{"a": 1}'::JSON).a
SELECT '{"species": ["duck", "goose"]}'::JSON->'$.species[*]', '[1,2,3]'::JSON->'$[#-1]', json_extract('{"a":{"b":1}}', '$..b')
SELECT to_json({'a': [1, NULL], 'd': DATE '2024-01-01'}), json_object('k', 1, 'l', [1, 2]), json_array(1, 'x', NULL), array_to_json([1, 2]), row_to_json({'a': 1})
SELECT json_group_array(kind), json_group_object(kind, n) FROM (SELECT kind, count(*) AS n FROM events GROUP BY kind ORDER BY kind)
SELECT json_group_structure(payload) FROM events
SELECT key, value, type, atom, parent, fullkey, path FROM json_each('{"a": 1, "b": [1, {"c": null}]}')
SELECT key, type, atom, fullkey FROM json_tree('{"a": 1, "b": [1, {"c": null}]}')
SELECT e.id, j.key, j.value FROM events e, json_each(e.payload, '$.k') AS j WHERE e.id < 4
SELECT e.id, j.fullkey FROM events e, LATERAL json_tree(e.payload) AS j WHERE e.id < 3
SELECT j.* FROM json_each('[1, 2]') AS j
SELECT (payload->>'import from')::INT AS n, count(*) FROM events GROUP BY n HAVING n > 0
SELECT unnest(from_json('[{"a": 1}, {"a": 2}]', '[{"a": "INTEGER"}]'), recursive := true)
SELECT '[1, 2]'::JSON::INT[], '{"a": 1}'::JSON::STRUCT(a INT), '"x"'::JSON::VARCHAR, 'null'::JSON IS NULL, TRY_CAST('{' AS JSON)
SELECT json_extract('[{"a": 1}, {"a": 2}]', '$[*].a'), json_extract_string('{"a.b": 1}', '"a.b"'), '{"a": {"b": 2}}'->'/a/b'
SELECT (payload->'k') = '["a","b"]', typeof(payload->'k') FROM events WHERE id < 2
SELECT json_serialize_note FROM (SELECT 'json_serialize_sql' AS json_serialize_note)
SELECT list_transform(CAST(payload->'$.k' AS VARCHAR[]), lambda x: upper(x)) FROM events WHERE id < 3
SELECT json_object(*COLUMNS(['url', 'kind'])) FROM events WHERE id < 0
SELECT to_json(o) FROM (SELECT id, status FROM orders WHERE id < 3) o
SELECT o FROM (SELECT id, status FROM orders WHERE id < 3) o
SELECT json_array_length('[]'), json_array_length('[1,[2]]', '$[1]'), '{"d": 1.5e3}'->>'d', '{"é": "ü"}'->>'é'
