"""The page of the benchmarks is what their results say, and the results hold nothing of the machine but its kind."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import results  # noqa: E402

NAMES = sorted(path.stem for path in (ROOT / "benchmarks" / "results").glob("*.json"))


def load(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def test_the_page_is_made_from_the_results():
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert page == results.render({name: load(name) for name in NAMES})


@pytest.mark.parametrize("name", NAMES)
def test_a_result_names_a_script_that_is_there_machine_versions_and_commit(name: str):
    result = load(name)
    (script,) = re.findall(r"python (benchmarks/\w+\.py)", result["command"])
    assert (ROOT / script).exists()
    assert result["machine"].keys() == {"cpu", "cores", "load_average"}
    assert {"python", "numpy"} <= result["versions"].keys()
    assert re.fullmatch(r"[0-9a-f]{7,}", result["commit"])
    assert not re.search(r"/(tmp|home|root|work|Users)/", json.dumps(result))


def test_a_ratio_above_one_means_that_ours_is_faster_and_rounds_are_compared_with_themselves():
    cost = results.Cost
    costs = {"mousai": [cost(1.0, 2.0), cost(2.0, 2.0)], "peer": [cost(3.0, 2.0), cost(2.0, 1.0)]}
    assert results.compare(costs, "peer", "wall", goal=1.0)["ratios"] == [3.0, 1.0]
    assert results.compare(costs, "peer", "cpu", goal=1.0)["ratios"] == [1.0, 0.5]


def test_contestants_take_turns_and_another_begins_each_round(capsys: Any):
    order: list[str] = []

    def contestant(name: str) -> Any:
        return lambda: order.append(name) or results.Cost(1.0, 1.0)

    costs = results.take_turns({name: contestant(name) for name in "abc"}, 3)
    assert "".join(order) == "abcbcacab"
    assert {name: len(each) for name, each in costs.items()} == {"a": 3, "b": 3, "c": 3}


@pytest.mark.parametrize(("ratios", "verdict"), [([2.9, 3.1, 3.2], "met"), ([2.0, 2.9, 9.0], "**missed**")])
def test_a_goal_is_met_by_the_median(ratios: list[float], verdict: str):
    comparison = {"ours": "mousai", "peer": "peer", "clock": "cpu", "goal": 3.0, "ratios": ratios}
    about = {key: "x" for key in ("title", "work", "command", "date", "commit")}
    machine = {"cpu": "x", "cores": 2, "load_average": 1.0}
    page = results.render({"x": about | {"machine": machine, "versions": {}, "comparisons": [comparison]}})
    assert f"(CPU) | {verdict} |" in page
