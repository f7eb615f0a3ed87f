"""Counters, histograms and the Prometheus text."""

from hypothesis import given
from hypothesis import strategies as st

from actors.metrics import HELP, LATENCY_BOUNDS_S, GatewayMetrics, format_metrics, merge_samples


def test_messages_are_counted_by_operation_and_result():
    metrics = GatewayMetrics("mqtt")
    metrics.count("INSERT", "ok")
    metrics.count("INSERT", "ok", 0.004)
    metrics.count("INSERT", "access.denied")
    metrics.count_malformed()
    samples = metrics.samples()
    of = {dict(labels)["operation"] + " " + dict(labels)["result"]: value for (name, labels), value in samples.items()
          if name == "sofia2_messages_total"}  # fmt: skip
    assert of == {"INSERT ok": 2, "INSERT access.denied": 1, "NONE ssap.malformed": 1}


def test_buckets_are_cumulative():
    metrics = GatewayMetrics("mqtt")
    for seconds in (0.0005, 0.003, 0.003, 99):
        metrics.count("QUERY", "ok", seconds)
    samples = metrics.samples()
    buckets = {dict(labels)["le"]: value for (name, labels), value in samples.items() if name.endswith("_bucket")}
    assert (buckets["0.001"], buckets["0.0025"], buckets["0.005"], buckets["10.0"], buckets["+Inf"]) == (1, 1, 3, 3, 4)
    labels = (("gateway", "mqtt"), ("operation", "QUERY"))
    assert samples["sofia2_request_seconds_count", labels] == 4
    assert samples["sofia2_request_seconds_sum", labels] == 99.0065


def test_the_text_has_help_and_type_once_and_buckets_in_the_order_of_their_bounds():
    metrics = GatewayMetrics("mqtt")
    metrics.count("QUERY", "ok", 0.1)
    metrics.count("JOIN", "ok", 0.1)
    text = format_metrics(metrics.samples())
    lines = text.splitlines()
    assert lines.count("# TYPE sofia2_request_seconds histogram") == 1
    assert lines.count("# TYPE sofia2_messages_total counter") == 1
    bounds = [line.partition('le="')[2].partition('"')[0] for line in lines if "_bucket" in line and "QUERY" in line]
    assert bounds == [*map(str, LATENCY_BOUNDS_S), "+Inf"]
    assert text.endswith("\n")


def test_every_digit_of_a_counter_is_kept():
    text = format_metrics({("sofia2_joins_total", ()): 123_456_789_012, ("sofia2_sessions", ()): 0.125})
    assert "sofia2_joins_total 123456789012\n" in text
    assert "sofia2_sessions 0.125\n" in text


def test_labels_are_escaped():
    text = format_metrics({("sofia2_leases", (("gateway", 'a"b\\c\nd'),)): 1})
    assert 'sofia2_leases{gateway="a\\"b\\\\c\\nd"} 1' in text


def test_what_gateways_count_has_a_help_text():
    for name, _ in GatewayMetrics("mqtt").samples():
        assert name in HELP


keys = st.tuples(st.sampled_from(["a_total", "b"]), st.sampled_from([(), (("x", "1"),)]))


@given(st.lists(st.dictionaries(keys, st.integers(0, 9)), max_size=4))
def test_merging_adds_up(parts):
    merged = merge_samples(parts)
    assert merged == {key: sum(part.get(key, 0) for part in parts) for part in parts for key in part}
