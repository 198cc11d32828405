-- Lists, structs, maps, unions, arrays, lambdas, unnest.
SELECT [1, 2, 3][2], [1, 2, 3][-1], [1, 2, 3][2:], [1, 2, 3][:2], [1, 2, 3, 4, 5][1:5:2], ['a', NULL][2]
SELECT tags, tags[1], list_extract(tags, 2), list_element(tags, 1), array_extract(tags, 1) FROM orders WHERE id < 10
SELECT list_concat([1], [2, 3]), list_cat([1], [2]), array_concat([1], [2]), [1] || [2], list_append([1], 2), list_prepend(0, [1]), array_push_back([1], 2), array_push_front([1], 0), array_pop_back([1, 2]), array_pop_front([1, 2])
SELECT list_contains(tags, 2), array_has(tags, 2), list_has(tags, 0), list_has_all(tags, [1]), list_has_any(tags, [1, 2]), tags && [1], tags @> [1], [1] <@ tags FROM orders WHERE id < 12
SELECT list_distinct(tags), list_unique(tags), list_position(tags, 2), list_indexof(tags, 1), list_count([1, NULL]), len(tags), length(tags), array_length(tags) FROM orders WHERE id < 12
SELECT list_sort([3, 1, 2]), list_sort([3, NULL, 1], 'DESC', 'NULLS LAST'), list_reverse_sort([3, 1, 2]), list_reverse([1, 2]), array_sort([2, 1]), list_grade_up([3, 1, 2])
SELECT list_sum([1, 2]), list_avg([1, 2]), list_min([1, 2]), list_max([1, 2]), list_product([2, 3]), list_any_value([NULL, 1]), list_first([1, 2]), list_last([1, 2]), list_mode([1, 1, 2]), list_median([1, 2, 3]), list_stddev_pop([1, 3]), list_var_pop([1, 3]), list_approx_count_distinct([1, 1]) >= 1, list_entropy([1, 1, 2]), list_histogram([1, 1, 2]), list_string_agg(['a', 'b'])
SELECT list_aggregate([1, 2, 3], 'max'), list_aggr([1, 2, 3], 'string_agg', '-'), array_aggregate([1, 2], 'sum')
SELECT list_transform([1, 2, 3], lambda x: x * 2), list_apply([1, 2], lambda x: x + 1), apply([1], lambda x: -x), array_transform([1], lambda x: x)
SELECT list_filter([1, 2, 3, 4], lambda x: x % 2 = 0), filter([1, 2], lambda x: x > 1), array_filter([1, 2], lambda x, i: i > 1)
SELECT list_reduce([1, 2, 3], lambda a, x: a + x), list_reduce([1, 2, 3], lambda a, x: a * x, 10), reduce(['a', 'b'], lambda a, x: a || x), list_reduce([1, 2], lambda a, x, i: a + x * i)
SELECT list_transform(tags, lambda t: t + a) FROM orders WHERE id < 6
SELECT [x + 1 for x in tags], [x for x in tags if x > 1], [[y * 2 for y in x] for x in [[1, 2], [3]]], [x + i for x, i in [10, 20]] FROM orders WHERE id < 4
SELECT list_zip([1, 2], ['a', 'b']), list_zip([1], [2, 3], true), array_zip([1], ['x'])
SELECT flatten([[1, 2], [3]]), list_resize([1], 3, 0), array_resize([1, 2], 1), list_slice([1, 2, 3], 2, 3), array_slice([1, 2, 3], 1, -1), list_where([1, 2, 3], [true, false, true]), list_select(['a', 'b', 'c'], [3, 1])
SELECT range(5), range(1, 5), range(5, 1, -2), generate_series(1, 5, 2), range(DATE '2024-01-01', DATE '2024-01-04', INTERVAL 1 DAY)
SELECT list_value(1, 2), list_pack(1, 2), array_agg(a ORDER BY id), list(a ORDER BY id) FILTER (a > 2) FROM orders WHERE id < 8
SELECT list_cosine_similarity([1.0, 2.0], [2.0, 4.0]), list_distance([1.0, 2.0], [3.0, 4.0]), list_inner_product([1.0, 2.0], [3.0, 4.0]), list_dot_product([1.0], [2.0]), list_cosine_distance([1.0, 0.0], [0.0, 1.0]), list_negative_dot_product([1.0], [1.0])
SELECT array_value(1.0, 2.0)::FLOAT[2], [1, 2, 3]::INT[3], array_cosine_similarity([1, 2]::FLOAT[2], [2, 1]::FLOAT[2]), array_distance([1, 2]::FLOAT[2], [2, 1]::FLOAT[2]), array_cross_product([1, 2, 3]::FLOAT[3], [3, 2, 1]::FLOAT[3]), array_inner_product([1]::FLOAT[1], [1]::FLOAT[1])
SELECT array_to_string([1, 2, NULL], ','), array_to_string_comma_default(['a', 'b'])
SELECT [1, 2] = [1, 2], [1] < [2], [1, NULL] IS NULL, [] = [], [[1], []] <> [[1]], [1, 2] IS DISTINCT FROM [1]
SELECT repeat([1], 3), list_intersect([1, 2], [2, 3]), array_intersect([1], [1]), unpivot_list(1, 2)
SELECT address, address.city, address['city'], struct_extract(address, 'zip'), struct_extract_at(address, 1) FROM orders WHERE id < 5
SELECT address.* FROM orders WHERE id < 5
SELECT unnest(address), id FROM orders WHERE id < 5
SELECT struct_pack(a := 1, b := 'x'), row(1, 'x'), {'k': [{'n': 2}]}, struct_insert({'a': 1}, b := 2), struct_concat({'a': 1}, {'b': 2}), struct_update({'a': 1}, a := 3)
SELECT {'a': 1} = {'a': 1}, {'a': 1} < {'a': 2}, row(1, 2) IN ((1, 2), (3, 4)), (id, a) = (1, 1) FROM orders WHERE id < 3
SELECT struct_keys({'a': 1, 'b': 2}), struct_values({'a': 1, 'b': 2}), struct_contains(row(1, 2), 2), struct_position(row(1, 2), 2)
SELECT {'yes': 'duck', 'maybe': 'goose', 'huh': NULL}.yes, ({'a': {'b': 7}}).a.b, {'x y': 1}['x y']
SELECT o.address.city, o.address.zip + 1 FROM orders o WHERE o.address.zip > 7
SELECT address.city AS city, list(DISTINCT address.zip ORDER BY address.zip) FROM orders GROUP BY address.city
SELECT {'a': 42}::STRUCT(a BIGINT), {'a': '1', 'b': 2}::STRUCT(a INT, b VARCHAR), row('1', 2)::STRUCT(x INT, y INT)
SELECT MAP {'a': 1, 'b': 2}, MAP(['k'], [1]), map_from_entries([('a', 1), ('b', 2)]), map_concat(MAP {'a': 1}, MAP {'b': 2}), map()
SELECT m['a'], m.map_extract('b'), map_extract_value(m, 'b'), element_at(m, 'a'), map_keys(m), map_values(m), map_entries(m), map_contains(m, 'a'), map_contains_value(m, 2), cardinality(m) FROM (SELECT MAP {'a': 1, 'b': 2} AS m)
SELECT MAP {1: 'x'}[1], MAP {['a']: 1}, MAP {'a': NULL}['zz'], map_to_pg_nothing FROM (SELECT 1 AS map_to_pg_nothing)
SELECT histogram(a), map_keys(histogram(customer)) FROM orders
SELECT histogram(amount, [100, 200, 300]), histogram_exact(a, [0, 1, 2]), equi_width_bins(0, 10, 2, true) FROM orders
SELECT union_value(k := 1), union_value(k := 1).k, union_tag(union_value(s := 'x')), union_extract(union_value(n := 2), 'n'), 1::UNION(i INT, s VARCHAR), ('x'::UNION(i INT, s VARCHAR)).s
SELECT u, union_tag(u) FROM (VALUES (1::UNION(num INT, str VARCHAR)), ('a'::UNION(num INT, str VARCHAR))) AS t(u)
SELECT unnest([1, 2, 3]) AS n, 'x' AS c
SELECT unnest([{'a': 1, 'b': 2}, {'a': 3, 'b': 4}], recursive := true)
SELECT unnest([[[1], [2]], [[3]]], max_depth := 2)
SELECT unnest(map_entries(MAP {'a': 1, 'b': 2}))
SELECT id, unnest(tags) AS tag, generate_subscripts(tags, 1) AS i FROM orders WHERE id < 5
SELECT o.id, t.tag FROM orders o CROSS JOIN unnest(o.tags) AS t(tag) WHERE o.id < 6
SELECT o.id, t.tag FROM orders o LEFT JOIN LATERAL unnest(o.tags) AS t(tag) ON t.tag > 1 WHERE o.id < 6
SELECT * FROM unnest([{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'y'}]) AS t(s)
SELECT s.a, s.b FROM (SELECT unnest([{'a': 1, 'b': 'x'}]) AS s)
SELECT n, i FROM unnest([10, 20]) WITH ORDINALITY AS t(n, i)
SELECT 2 IN [1, 2], 2 NOT IN [1], 'a' IN ('a', 'b'), 3 = ANY([1, 3]), 3 > ALL([1, 2]), 1 IN tags FROM orders WHERE id < 4
SELECT list(list_sort(tags) ORDER BY id)[:3] FROM orders
SELECT count(*), tags FROM orders GROUP BY tags
SELECT count(*), address FROM orders GROUP BY address
SELECT DISTINCT tags || [9] FROM orders
SELECT list_transform(range(3), lambda i: list_transform(range(i), lambda j: i * j))
SELECT x.y.z FROM (SELECT {'y': {'z': 5}} AS x)
SELECT list_transform([{'a': 1}, {'a': 2}], lambda s: s.a), list_filter([{'a': 1}], lambda s: s['a'] > 0)
SELECT min(tags), max(tags), min(address), any_value(tags) IS NOT NULL FROM orders
SELECT array_agg(address ORDER BY id) FROM orders WHERE id < 4
SELECT list_contains(list(customer), 'c1') FROM orders
SELECT tags::VARCHAR, address::VARCHAR, '[1, 2]'::INT[], '{a: 1}'::STRUCT(a INT), '{x=1}'::MAP(VARCHAR, INT) FROM orders WHERE id < 3
SELECT tags::JSON, address::JSON, to_json(tags) FROM orders WHERE id < 3
SELECT list_transform(list_zip([1, 2], [3, 4]), lambda z: z[1] * z[2]).list_sum()
SELECT COLUMNS(c -> c IN ('tags', 'id')) FROM orders WHERE id < 3
SELECT (SELECT list(x ORDER BY x) FROM unnest(o.tags) AS u(x)) AS sorted FROM orders o WHERE id < 5
SELECT ARRAY[1, 2], ARRAY[[1], [2]], ARRAY(SELECT a FROM orders WHERE id < 3 ORDER BY id)
SELECT struct_extract({'a': 1, 'b': 2}, 'b'), array_extract({'a': 1}, 'a'), list_extract('abc', 2)
SELECT variant_typeof(1::VARIANT), {'a': 1}::VARIANT::VARCHAR
