"""A real Prometheus: it accepts the rules, scrapes a real control plane, and evaluates them."""

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from kit.ports import free_port
from kit.processes import ControlPlane, Process
from kit.waiting import until

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
TOKEN = "a-token-for-the-metrics-of-the-tests"


@pytest.mark.parametrize("check", ["rules alerts.yml", "config --syntax-only prometheus.yml"])
def test_promtool_accepts(check):
    """The rules, and the example of a configuration."""
    run = subprocess.run(
        ["promtool", "check", *check.split()],
        cwd=DEPLOY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


class Prometheus(Process):
    """A Prometheus on a free port that scrapes one target every second."""

    def __init__(self, folder, target):
        self.port = free_port()
        folder.mkdir()
        written = (DEPLOY / "prometheus.yml").read_text(encoding="utf-8")
        shutil.copy(DEPLOY / "alerts.yml", folder)
        (folder / "metrics_token").write_text(TOKEN)
        config = folder / "prometheus.yml"
        config.write_text(written.replace("15s", "1s").replace("127.0.0.1:8080", target))
        command = [
            *("prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"),
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        super().__init__(command, {}, folder)

    def get(self, path, **query):
        """Ask its API; None while it does not answer."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)["data"]
        except OSError:
            return None

    def value(self, expression):
        """Return the first value of an expression, once there is one."""
        found = self.get("query", query=expression)
        return float(found["result"][0]["value"][1]) if found and found["result"] else None


def test_prometheus_scrapes_a_control_plane_and_evaluates_the_rules(tmp_path):
    """With the token from a file; every rule is healthy, and only what is true fires."""
    control = ControlPlane(tmp_path / "control", {"METRICS_TOKEN": TOKEN}).up()
    prometheus = Prometheus(tmp_path / "prometheus", f"127.0.0.1:{control.port}")
    try:
        prometheus.start()
        until(lambda: prometheus.value('up{job="edgeplane"}') == 1, 30, "it is scraped")
        assert prometheus.value("edgeplane_build_info") == 1
        assert prometheus.value("sum(edgeplane_oldest_pending_age_seconds)") == 0

        def evaluated():
            groups = (prometheus.get("rules") or {}).get("groups", ())
            rules = [rule for group in groups for rule in group["rules"]]
            return rules if rules and all(rule["health"] != "unknown" for rule in rules) else None

        rules = until(evaluated, 30, "every rule is evaluated")
        written = (DEPLOY / "alerts.yml").read_text(encoding="utf-8")
        assert len(rules) == written.count("- alert:")
        assert {rule["health"] for rule in rules} == {"ok"}, rules
        control.kill()
        pending = 'ALERTS{alertname="EdgeplaneScrapeDown"}'
        until(lambda: prometheus.value(pending) == 1, 30, "it is told that nobody answers")
        others = 'count(ALERTS{alertname!="EdgeplaneScrapeDown"})'
        assert prometheus.value(others) is None
    finally:
        prometheus.kill()
        control.kill()
