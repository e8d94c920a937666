"""report.py FOLDER: the table of FOLDER/result.json on standard output, and FOLDER/chart.png where matplotlib is there.

Medians over the rounds. I/Os per second are told as ratios to the buffered loop driver.
"""
import json
import statistics
import sys
from pathlib import Path

REFERENCE = "loop"
METRICS = (
    ("I/Os per second, buffered loop = 1", "iops", "{:.2f}"),
    ("Context switches of the server or loop's workers, per request at the device", "server_switches_per_request", "{:.2f}"),
    ("Context switches of the whole machine, per request at the device", "machine_switches_per_request", "{:.2f}"),
    ("Processor time of the server or loop's workers, us per request", "server_cpu_us_per_request", "{:.0f}"),
    ("Pages of the image in the page cache, MiB", "image_cached_mib", "{:.1f}"),
    ("Buffers of /proc/meminfo, MiB", "buffers_mib", "{:.0f}"),
    ("Cached of /proc/meminfo, MiB", "cached_mib", "{:.0f}"),
)
PEERS = ("nbd-server", "nbdkit-file", "qemu-nbd-native")


def medians(result, metric):
    """{way: {workload: median}}, for those that were measured."""
    found = {}
    for way in result["ways"]:
        for workload in result["workloads"]:
            values = [run[metric] for run in result["runs"] if run["way"] == way and run["workload"] == workload]
            if values:
                found.setdefault(way, {})[workload] = statistics.median(values)
    return found


def ratios(table):
    reference = table.get(REFERENCE) or next(iter(table.values()))
    return {way: {workload: value / reference[workload] for workload, value in row.items() if reference.get(workload)}
            for way, row in table.items()}


def print_table(title, table, workloads, how):
    print(f"\n{title}\n")
    print("| |" + "|".join(f" {workload} " for workload in workloads) + "|")
    print("|---|" + "---:|" * len(workloads))
    for way, row in table.items():
        print(f"| {way} |" + "|".join(f" {how.format(row[each])} " if each in row else " - " for each in workloads) + "|")


def goals(result):
    """Each goal in words, and whether it was met, workload by workload."""
    iops, switches = medians(result, "iops"), medians(result, "server_switches_per_request")
    cached = medians(result, "image_cached_mib")
    for workload in result["workloads"]:
        if all(workload in iops.get(way, {}) for way in ("aionbd", "aionbd-buffered")):
            yield (f"{workload}: direct has at most half of buffered's context switches",
                   switches["aionbd"][workload] / max(switches["aionbd-buffered"][workload], 1e-9), "<=", 0.5)
            yield (f"{workload}: direct leaves nothing of the image in the page cache, MiB", cached["aionbd"][workload], "<=", 0)
            yield (f"{workload}: direct has at least buffered's I/Os per second",
                   iops["aionbd"][workload] / iops["aionbd-buffered"][workload], ">=", 1)
        for peer in PEERS:
            if workload in iops.get(peer, {}) and workload in iops.get("aionbd", {}):
                yield (f"{workload}: at least the I/Os per second of {peer}",
                       iops["aionbd"][workload] / iops[peer][workload], ">=", 1)


def draw(result, path):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    panels = (("I/Os per second, buffered loop = 1", ratios(medians(result, "iops"))),
              ("context switches of who serves, per request", medians(result, "server_switches_per_request")),
              ("pages of the image in the page cache, MiB", medians(result, "image_cached_mib")))
    figure, plots = pyplot.subplots(1, len(panels), figsize=(15, 4.5))
    for plot, (title, table) in zip(plots, panels):
        width = 0.8 / len(table)
        for index, (way, row) in enumerate(table.items()):
            plot.bar([at + index * width for at in range(len(row))], list(row.values()), width, label=way)
        plot.set_xticks([at + 0.4 - width / 2 for at in range(len(result["workloads"]))], result["workloads"])
        plot.set_title(title, fontsize="medium")
        plot.grid(axis="y", linewidth=0.3)
    plots[1].set_yscale("log")  # Loop's workers do write-back as well.
    figure.legend(*plots[0].get_legend_handles_labels(), fontsize="small", loc="lower center", ncol=len(result["ways"]))
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=100)


def main(folder):
    result = json.loads((folder / "result.json").read_text())
    rounds = 1 + max(run["round"] for run in result["runs"])
    print(f"ext4 over the device, fio psync 4k, {result['jobs']} jobs on one file of {result['file_mib']} MiB, "
          f"{result['seconds']} s, {rounds} rounds;\nguest with {result['memory_mib']} MiB, Linux {result['kernel']}")
    for title, metric, how in METRICS:
        table = medians(result, metric)
        print_table(title, ratios(table) if metric == "iops" else table, result["workloads"], how)
    print("\nGoals\n")
    for words, found, relation, wanted in goals(result):
        met = found <= wanted if relation == "<=" else found >= wanted
        print(f"{'met   ' if met else 'MISSED'} {words}: {found:.2f} (wanted {relation} {wanted})")
    try:
        draw(result, folder / "chart.png")
    except ImportError:
        print("\n(no chart: python3-matplotlib is not installed)")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
