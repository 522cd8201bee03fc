"""The list of metrics, the object that counts them, and whoever names one elsewhere."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgeplane.observe.metrics import METRICS, Kind, Metrics, Unit

ROOT = Path(__file__).parents[3]
DECLARED = {metric.name: metric for metric in METRICS}
#: What Prometheus itself adds to every target.
FOREIGN = {"up"}


def samples(metrics):
    """Return every sample by name and labels."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_names_say_what_they_are():
    """Our prefix; ``_total`` on counters alone; base units in the name; words for a person."""
    assert len(DECLARED) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"edgeplane_[a-z_]+", metric.name), metric.name
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER), metric.name
        bare = metric.name.removesuffix("_total")
        assert bare.endswith("_seconds") == (metric.unit is Unit.SECONDS), metric.name
        assert bare.endswith("_bytes") == (metric.unit is Unit.BYTES), metric.name
        assert metric.help.endswith("."), metric.name
        assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM), metric.name
        assert list(metric.buckets) == sorted(metric.buckets), metric.name


def test_an_unknown_name_or_kind_is_an_error_at_once():
    """Whoever misspells a metric learns of it when it is built, not from an empty graph."""
    metrics = Metrics()
    with pytest.raises(KeyError):
        metrics.counter("edgeplane_no_such_total")
    with pytest.raises(AssertionError):
        metrics.counter("edgeplane_deliveries_out")


def test_every_declared_metric_is_served_under_its_name():
    """Those without labels from the start, and nothing that is not declared."""
    families = text_string_to_metric_families(Metrics().text().decode())
    served = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert served == set(DECLARED)


def test_two_objects_count_for_themselves():
    """Nothing is global."""
    one, other = Metrics(), Metrics()
    one.counter("edgeplane_results_late_total").inc(3)
    assert samples(one)["edgeplane_results_late_total",] == 3
    assert samples(other)["edgeplane_results_late_total",] == 0


def test_what_is_followed_is_read_when_somebody_looks():
    """A gauge says what is now; a counter takes over what was added, and never falls."""
    metrics, source = Metrics(), {"out": 0, "made": 0}
    metrics.follow("edgeplane_deliveries_out", lambda: source["out"])
    metrics.follow("edgeplane_connections_made_total", lambda: source["made"])
    seen = []
    for source["out"], source["made"] in ((2, 5), (1, 5), (0, 9), (0, 2)):
        now = samples(metrics)
        seen.append((now["edgeplane_deliveries_out",], now["edgeplane_connections_made_total",]))
    assert seen == [(2, 5), (1, 5), (0, 9), (0, 9)]


def expressions():
    """Yield every expression of the rules and the dashboard, and where it stands."""
    rules = (ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8")
    for line in rules.splitlines():
        if line.strip().startswith("expr:"):
            yield "alerts.yml", line.split("expr:", 1)[1]
    dashboard = json.loads((ROOT / "deploy/grafana/edgeplane.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["definition"]


def named(expression):
    """Return the metrics an expression reads, with their selectors."""
    return re.findall(r"\b(edgeplane_[a-z_]+|up)\b(?:\{([^}]*)\})?", expression)


def test_rules_and_dashboard_name_only_metrics_that_are_there():
    """With the series their kind has, and labels it knows."""
    seen = set()
    for place, expression in expressions():
        for name, selector in named(expression):
            if name in FOREIGN:
                continue
            bare = re.sub(r"_(bucket|sum|count)$", "", name)
            metric = DECLARED.get(name) or DECLARED.get(bare)
            assert metric is not None, (place, name)
            assert (name != metric.name) == (metric.kind is Kind.HISTOGRAM), (place, name)
            labels = set(re.findall(r"(\w+)\s*[=!]", selector))
            assert labels <= {"job", "instance", *metric.labels}, (place, name, labels)
            grouped = re.findall(r"by \(([^)]*)\)", expression)
            words = {word.strip() for group in grouped for word in group.split(",")}
            assert words <= {"instance", "le", *metric.labels}, (place, words)
            seen.add(metric.name)
    missing = set(DECLARED) - seen
    assert not missing, f"nobody looks at {missing}"


def test_the_dashboard_has_its_rows():
    """One for each part of the house, every panel with words and a place of its own."""
    text = (ROOT / "deploy/grafana/edgeplane.json").read_text(encoding="utf-8")
    panels = json.loads(text)["panels"]
    rows = [panel["title"] for panel in panels if panel["type"] == "row"]
    assert rows == ["Journey", "Engine", "Operations", "Store", "Process"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
    assert all(panel["description"] for panel in panels if panel["type"] != "row")


def test_the_pages_name_only_metrics_that_are_there():
    """What operations.md tells to look at exists."""
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    for name in re.findall(r"`(edgeplane_[a-z_]+)`", page):
        assert name in DECLARED, name
