"""The last look at a statement before it runs: what DuckDB itself reads in it must be harmless.

``sql`` reads a statement in one dialect and prints it in another. Whatever slips through there, here DuckDB's own parser is
asked what it understood: tables are the statement's own sources and views, and functions are computations on values, from
a list. So no file, setting, catalogue or network can be reached from the text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

import duckdb
import orjson

from sib.errors import SqlSyntaxError

_TABLES = frozenset({"EMPTY", "BASE_TABLE", "SUBQUERY", "JOIN", "EXPRESSION_LIST", "TABLE_FUNCTION"})
_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_TABLE_FUNCTIONS = frozenset({"unnest"})
_VIEW = re.compile(r"[A-Za-z_]\w{0,62}", re.ASCII)
_CATALOGUE = ("duckdb_", "pg_", "pragma_", "sqlite_")
_NAMES = """
    abs acos asin atan atan2 cbrt ceil ceiling cos cosh cot degrees exp factorial fdiv floor fmod gamma gcd greatest
    greatest_common_divisor isfinite isinf isnan lcm least least_common_multiple lgamma ln log log10 log2 mod
    multiply nextafter pi pow power radians round round_even roundbankers sign signbit sin sinh sqrt subtract tan
    tanh trunc add divide even bit_count xor bin hex unhex to_hex from_hex to_binary from_binary to_base any_value
    approx_count_distinct approx_quantile arbitrary arg_max arg_max_null arg_min arg_min_null argmax argmin
    array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count count_if count_star countif covar_pop
    covar_samp entropy favg first fsum geomean geometric_mean group_concat histogram kahan_sum kurtosis kurtosis_pop
    last list listagg mad max max_by mean median min min_by mode product quantile quantile_cont quantile_disc
    regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy reservoir_quantile
    sem skewness stddev stddev_pop stddev_samp string_agg sum sum_no_overflow sumkahan var_pop var_samp variance
    wavg weighted_avg cume_dist dense_rank fill first_value lag last_value lead nth_value ntile percent_rank rank
    rank_dense row_number array_to_string ascii bit_length char_length character_length chr concat concat_ws
    contains ends_with hamming hash ilike_escape instr jaccard jaro_similarity
    jaro_winkler_similarity lcase left left_grapheme len length length_grapheme like_escape lower ltrim
    md5 md5_number mismatches nfc_normalize not_ilike_escape not_like_escape octet_length ord overlay position
    prefix regexp_escape regexp_extract regexp_extract_all regexp_full_match regexp_matches
    regexp_split_to_array reverse right right_grapheme rtrim sha1 sha256 split split_part starts_with
    str_split str_split_regex string_split string_split_regex string_to_array strip_accents strlen strpos substr
    substring substring_grapheme suffix translate trim ucase unicode upper url_decode url_encode base64 from_base64
    to_base64 encode decode try_strptime age century current_date date_add date_diff date_part date_sub date_trunc
    datediff datepart datesub datetrunc day dayname dayofmonth dayofweek dayofyear days_in_month decade epoch
    epoch_ms epoch_ns epoch_us era get_current_timestamp current_localtimestamp hour isodow isoyear julian last_day
    make_date make_time make_timestamp make_timestamp_ms microsecond millennium millisecond minute month monthname
    nanosecond now quarter second strftime strptime time_bucket timezone to_centuries to_days to_decades to_hours
    to_microseconds to_milliseconds to_minutes to_months to_quarters to_seconds to_timestamp to_weeks to_years today
    transaction_timestamp week weekday weekofyear year yearweek apply array_append array_cat array_concat
    array_contains array_cosine_distance array_cosine_similarity array_cross_product array_distance array_distinct
    array_extract array_filter array_has array_has_all array_has_any array_indexof array_inner_product
    array_intersect array_length array_pop_back array_pop_front array_position array_prepend array_push_back
    array_push_front array_reduce array_reverse array_reverse_sort array_slice array_sort array_to_json
    array_transform array_unique array_value array_where array_zip cardinality element_at flatten
    generate_subscripts grade_up list_aggr list_aggregate list_any_value list_append list_apply list_avg list_cat
    list_concat list_contains list_cosine_similarity list_count list_distance list_distinct list_dot_product
    list_element list_extract list_filter list_first list_grade_up list_has list_has_all list_has_any list_indexof
    list_inner_product list_intersect list_last list_max list_median list_min list_mode list_pack list_position
    list_prepend list_product list_reduce list_reverse list_reverse_sort list_select list_slice list_sort
    list_stddev_pop list_stddev_samp list_string_agg list_sum list_transform list_unique list_value list_var_pop
    list_var_samp list_where list_zip unnest map map_concat map_contains map_entries map_extract map_extract_value
    map_from_entries map_keys map_values row struct_concat struct_contains struct_extract struct_extract_at
    struct_insert struct_keys struct_pack struct_values json json_array json_array_length json_contains json_exists
    json_extract json_extract_path json_extract_path_text json_extract_string json_group_array json_group_object
    json_keys json_object json_quote json_structure json_type json_valid json_value row_to_json to_json
    constant_or_null error if nullif typeof uuid gen_random_uuid random
"""
FUNCTIONS = frozenset(_NAMES.split())
"""Computations on values. What reads or changes anything else (settings, the catalogue, files, sleeping) is not here."""


def check(connection: duckdb.DuckDBPyConnection, statement: str, sources: Collection[str]) -> None:
    """Refuse a statement that does more than compute on its sources.

    Args:
        connection: any; nothing is run but DuckDB's parser.
        statement: DuckDB's SQL.
        sources: the tables that it may name beside those that it defines.

    Raises:
        SqlSyntaxError: DuckDB cannot read it, or it names a table or function that is not accepted.
    """
    (text,) = connection.execute("SELECT json_serialize_sql($1)", [statement]).fetchall()[0]
    tree = orjson.loads(text)
    if tree["error"] or len(tree["statements"]) != 1:
        raise SqlSyntaxError(f"The query cannot be carried out: {str(tree.get('error_message'))[:200]}")
    views = {entry["key"] for node in _dicts(tree) if "cte_map" in node for entry in node["cte_map"]["map"]}
    for view in views:
        # Out of its scope the name of a view would be looked up elsewhere: a path as a file, these as the catalogue.
        if not _VIEW.fullmatch(view) or view.lower().startswith(_CATALOGUE):
            raise SqlSyntaxError(f"A view cannot be called {view[:100]!r}: use letters, digits and _.")
    for node in _dicts(tree):
        _check_node(node, views.union(sources))


def _check_node(node: dict[str, Any], tables: Collection[str]) -> None:
    is_of_tables = node.get("type") == "JOIN" or node.get("type") in _NODES
    for name in ("from_table", "left", "right"):
        inner = node.get(name) if is_of_tables else None
        if isinstance(inner, dict) and inner.get("type") not in _TABLES | _NODES:
            raise SqlSyntaxError(f"A query on the history cannot read {inner.get('type')}.")
    if "table_name" in node and (node["table_name"] not in tables or node.get("schema_name")):
        raise SqlSyntaxError(
            f"There is no table {node['table_name'][:100]!r}: a query on the history reads ontologies."
        )
    if node.get("type") == "TABLE_FUNCTION" and _function(node.get("function", {})) not in _TABLE_FUNCTIONS:
        raise SqlSyntaxError("A query on the history reads ontologies only, no functions as tables.")
    name = _function(node)
    if name and name not in FUNCTIONS and any(letter.isalnum() for letter in name):
        raise SqlSyntaxError(f"The function {name[:100]!r} is not one of those that a query on the history may use.")
    if node.get("schema") or node.get("catalog"):
        raise SqlSyntaxError("Functions and types are named without a schema in a query on the history.")


def _function(node: dict[str, Any]) -> str:
    return str(node.get("function_name") or "").lower()


def _dicts(tree: Any) -> Iterator[dict[str, Any]]:
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield node
            pending += node.values()
        elif isinstance(node, list):
            pending += node
