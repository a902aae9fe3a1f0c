"""docs/observability.md and the dashboard: their tables are those of the code, and their metrics are real ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

from prometheus_client import CollectorRegistry

import streambatch._events as events
import streambatch.instrumentation._otel as otel
from streambatch.instrumentation import PrometheusListener
from streambatch.instrumentation._prometheus import METRICS
from tests.docs.book import ROOT

PAGE = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
BOARD = (ROOT / "docs" / "grafana-dashboard.json").read_text(encoding="utf-8")


def event_rows() -> str:
    """The table of the module's docstring, as the page has it."""
    rows: list[list[str]] = []
    for line in (events.__doc__ or "").split("===\n")[2].splitlines():
        if line.startswith("="):
            break
        if line[:1].strip():
            rows.append(line.split(maxsplit=1))
        elif line.strip():
            rows[-1][1] += f" {line.strip()}"
    return "".join(f"| `{name}` | {' '.join(when.split()).replace('``', '`')} |\n" for name, when in rows)


def metric_rows() -> str:
    """The metrics, as the page has them."""
    return "".join(
        f"| `{m.name}` | {m.type} | {', '.join(f'`{label}`' for label in m.labels)} | {m.meaning} |\n" for m in METRICS
    )


def test_the_page_has_every_event() -> None:
    """One source: the docstring of _events.py, which names every class of events."""
    rows = event_rows()
    assert rows in PAGE, f"docs/observability.md must have:\n\n{rows}"
    defined = {
        name for name, value in vars(events).items() if isinstance(value, type) and events.Event in value.__mro__
    }
    assert set(re.findall(r"^\| `(\w+)` \|", rows, re.MULTILINE)) == defined - {"Event"}


def test_the_page_has_every_metric() -> None:
    """Name, type, labels and meaning, as the registry has them."""
    rows = metric_rows()
    assert rows in PAGE, f"docs/observability.md must have:\n\n{rows}"
    registry = CollectorRegistry()
    PrometheusListener(registry=registry)
    families = {family.name: family for family in registry.collect()}
    for metric in METRICS:
        family = families.pop(metric.name.removesuffix("_total"))
        assert (family.type, family.documentation) == (metric.type, metric.meaning)
    assert not families


def test_the_page_has_every_attribute_of_a_span() -> None:
    """All that _otel.py writes out, and nothing else."""
    source = Path(str(otel.__file__)).read_text(encoding="utf-8")
    names = r"(?:messaging|gen_ai|streambatch|error)\.[a-z_.]+"
    table = PAGE.partition("## Spans")[2].partition("\n## ")[0]
    assert set(re.findall(rf"^\| `({names})` \|", table, re.MULTILINE)) == set(re.findall(rf'"({names})"', source))


def sample_names() -> set[str]:
    """Everything that can stand in an expression."""
    parts = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    return {f"{metric.name}{part}" for metric in METRICS for part in parts[metric.type]}


def expressions() -> list[str]:
    """All PromQL of the dashboard and of the alerts."""
    board = json.loads(BOARD)
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    found += [variable["query"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    return found + alerts()


def alerts() -> list[str]:
    """The PromQL of the alerts."""
    section = PAGE.partition("## Alerts")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]*streambatch_[^`]*)` \|", section, re.MULTILINE)
    assert len(rows) >= 8
    return rows


def test_every_expression_names_metrics_that_exist() -> None:
    """And labels that they have; a renamed metric would leave an alert silent for ever."""
    labels = {
        f"{m.name}{part}": {"queue", "le", *m.labels} for m in METRICS for part in ("", "_bucket", "_sum", "_count")
    }
    assert len(expressions()) > 25
    for expression in expressions():
        used = re.findall(r"\bstreambatch_\w+", expression)
        assert used, expression
        assert set(used) <= sample_names(), expression
        for name, selector in re.findall(r"\b(streambatch_\w+)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)\s*[!=~]+", re.sub(r'"[^"]*"', "", selector))) <= labels[name], expression
        grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
        assert grouped <= set().union(*(labels[name] for name in used)) | {"instance"}, expression
        assert expression.count("(") == expression.count(")"), expression


def test_an_alert_on_an_increase_sees_the_first_one() -> None:
    """A counter that begins with 1 has no increase: each series must be there with 0 before anything happened."""
    registry, found = CollectorRegistry(), 0
    PrometheusListener(registry=registry)
    samples = [sample for family in registry.collect() for sample in family.samples]
    for name, selector in re.findall(r"increase\((\w+)(?:\{([^}]*)\})?\[", "\n".join(alerts())):
        wanted = dict(re.findall(r'(\w+)=~"([^"]*)"', selector))
        there = [s for s in samples if s.name == name and all(re.fullmatch(p, s.labels[n]) for n, p in wanted.items())]
        assert [sample.value for sample in there], name
        assert not any(sample.value for sample in there), name
        found += 1
    assert found >= 4


def test_the_alert_on_a_fault_of_ours_fires_for_no_other_warning() -> None:
    """`blocked` is a fault of the bot's, and has its own line in the runbook."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "streambatch").glob("_*.py"))
    codes = set(re.findall(r'Warned\("([\w-]+)"', sources))
    assert {"bug", "broken", "blocked"} <= codes
    (pattern,) = re.findall(r'warnings_total\{code=~"([^"]+)"\}', "\n".join(alerts()))
    assert {code for code in codes if re.fullmatch(pattern, code)} == {"bug", "broken"}


def test_an_alert_fires_for_a_small_bot_and_for_a_dead_one() -> None:
    """No rate is compared with a number, which one chat alone never reaches; and one row is about what is gone."""
    for expression in alerts():
        assert "histogram_quantile" in expression or not re.search(r"rate\(.*[<>] [\d.]+$", expression), expression
    assert [expression for expression in alerts() if expression.startswith("absent(")]


def test_every_other_metric_of_the_page_exists() -> None:
    """In the prose, too."""
    assert set(re.findall(r"\bstreambatch_\w+", PAGE)) <= sample_names() | {metric.name for metric in METRICS}
