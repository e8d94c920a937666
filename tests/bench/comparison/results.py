"""What a run leaves behind: DIR/compare.json with everything, compare.txt for people, and charts. What the JSON has is
enough to write the rest again, as when system calls are counted later."""
import json

import charts
import goals
import machine
import measure
import report
import servers
import workloads

JSON_NAME, TEXT_NAME = "compare.json", "compare.txt"


def _unnamed(reasons):
    """The opposite of report.named(): no workload has a comma in its name."""
    return {tuple(where.split(", ", 1)): why for where, why in reasons.items()}


def lacking_of(result):
    """{(workload, server): why} of what was not measured."""
    return _unnamed({**result["not_available"], **result["failed"]})


def workloads_of(result):
    """Those of its cells, of whatever kind they are."""
    return [workload for workload in workloads.EVERY if workload.name in result["cells"]]


def judge(result):
    """Everything that follows from the cells."""
    cells = result["cells"]
    result["goals"] = goals.judge(cells)
    result["behind"], result["behind_the_page_cache"] = goals.behind(cells, workloads_of(result), servers.SERVERS)
    return result


def of(machine_facts, settings, plan, done):
    return judge({
        "machine": machine_facts, "settings": settings,
        "a_write_is_answered_when_it_is_in": {name: servers.SERVERS[name].durability for name in plan.programs},
        "cells": done.cells(), "not_available": report.named(done.lacking), "failed": report.named(done.failed)})


def add_system_calls(result, counted):
    """{(workload, server): (per I/O, by name)}, of another run than the cells."""
    for (workload, server), calls in counted.items():
        if server in result["cells"].get(workload, {}):
            measure.add_system_calls(result["cells"][workload][server], calls)


def text_of(result, judged=True):
    """With `judged`, also who was fast: of no meaning in a smoke test."""
    text = machine.head(result["machine"], result["settings"]) + "\n" + report.table(
        workloads_of(result), result["cells"], result["goals"] if judged else [], lacking_of(result))
    if judged:
        text += "\n" + report.verdict(result["goals"], result["behind"], result["behind_the_page_cache"])
        text += report.warning_of_load(result["settings"]["load_average_before_rounds"],
                                       result["machine"]["processors"])
    return text


def load(folder):
    result = json.loads((folder / JSON_NAME).read_text(encoding="utf-8"))
    # Earlier ones may have the folders in which the programs lay.
    result["machine"]["versions"] = {name: machine.without_paths(line)
                                     for name, line in result["machine"]["versions"].items()}
    servers.remember(result["settings"]["servers"])
    return result


def write(folder, result, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JSON_NAME).write_text(report.as_json(result), encoding="utf-8")
    (folder / TEXT_NAME).write_text(text + "\n", encoding="utf-8")


def draw(folder, result):
    """The charts that were drawn; None where nobody can draw."""
    try:
        return charts.draw(result, folder)
    except ImportError:
        return None


def in_words(drawn):
    return "and no charts, for python3-matplotlib is not installed" if drawn is None else f"and {len(drawn)} charts"
