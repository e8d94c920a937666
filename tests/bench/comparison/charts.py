"""PNG charts of a run's JSON, by matplotlib. Where that is missing there are no charts, and nothing else changes."""
import servers
import workloads

GROUPS = (
    ("iops-4k", "4 KiB requests", "iops", "I/Os per second",
     lambda name: name.startswith("4k ")),
    ("throughput-large", "large requests and copies", "mb_per_s", "MB/s",
     lambda name: name.startswith(("256k", "1m", "copy"))),
    ("ceilings", "no disk in the way", "iops", "I/Os per second",
     lambda name: name.startswith(("null", "tmpfs 4k", "simple 4k", "structured 4k"))),
    ("cpu", "what a 4 KiB request costs the server", "cpu_us_per_io", "processor time, us per I/O",
     lambda name: name.startswith("4k ")),
    ("cpu-large", "what a large request costs the server", "cpu_us_per_io", "processor time, us per I/O",
     lambda name: name.startswith(("256k", "1m"))),
    ("latency", "the slowest of a hundred 4 KiB requests", "p99_us", "p99 latency, us",
     lambda name: name.startswith("4k ")),
    ("tls", "over TLS", "mb_per_s", "MB/s",
     lambda name: name.startswith("tls ")),
    ("file-systems", "4 KiB requests on ext4 and on XFS", "iops", "I/Os per second",
     lambda name: name.startswith(("ext4 4k", "xfs 4k")) and "depth 1" not in name),
    ("beside-commits", "the slowest of a hundred 4 KiB reads, alone and beside writes into holes", "p99_us",
     "p99 latency, us", lambda name: "4k read depth 1" in name and name.startswith(("ext4", "xfs"))),
)
COLOURS = {"aionbd": "#c0392b", "qemu-native": "#2e5e8c", "qemu": "#8fb4d9", "nbdkit": "#3c7a3c",
           "nbdkit-nocache": "#9ccb9c", "nbd-server": "#8a6d3b", "nbd-server-sync": "#d9c08f", "raw": "#777777"}
COLOUR_OF_OTHERS = "#e8a29a"  # aionbd with more threads
APART = "///"  # the hatch of bars that are not to be compared with those that have none


def have_a_place(names):
    """Whether any of these workloads is in a chart."""
    return any(belongs(name) for *_, belongs in GROUPS for name in names)


def draw(result, folder):
    """The paths of the charts that were drawn. Raises ImportError without matplotlib."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    drawn = []
    for file_name, title, metric, axis, belongs in GROUPS:
        rows = {name: {server: cell[metric] for server, cell in row.items() if cell.get(metric)}
                for name, row in result["cells"].items() if belongs(name)}
        rows = {name: row for name, row in rows.items() if row}
        if rows:
            path = folder / f"{file_name}.png"
            figure = figure_of(pyplot, rows, title, axis)
            figure.savefig(path, dpi=110)
            pyplot.close(figure)
            drawn.append(path)
    return drawn


def figure_of(pyplot, rows, title, axis):
    """Bars: a group for each workload, a colour for each server, whiskers from the least to the greatest round. Those
    of a server that answers these writes from the page cache are hatched: it does less."""
    by_name = {workload.name: workload for workload in workloads.EVERY}
    named = [server for row in rows.values() for server in row]
    present = [server for server in dict.fromkeys([*COLOURS, *named]) if server in named]
    width = 0.8 / len(present)
    figure, plot = pyplot.subplots(figsize=(max(7, 1.7 * len(rows)), 4.5))
    for index, server in enumerate(present):
        places = [at + index * width for at, row in enumerate(rows.values()) if server in row]
        values = [row[server] for row in rows.values() if server in row]
        heights = [value["median"] for value in values]
        whiskers = [[value["median"] - value["least"] for value in values],
                    [value["greatest"] - value["median"] for value in values]]
        bars = plot.bar(places, heights, width, label=server, color=COLOURS.get(server, COLOUR_OF_OTHERS),
                        yerr=whiskers, error_kw={"linewidth": 0.7})
        for bar, name in zip(bars, [name for name, row in rows.items() if server in row]):
            if servers.is_apart(server, by_name[name]):
                bar.set(hatch=APART, edgecolor="white", linewidth=0)
    plot.set_xticks([at + 0.4 - width / 2 for at in range(len(rows))], rows, rotation=20, ha="right")
    plot.set_ylabel(axis)
    plot.set_title(title)
    plot.grid(axis="y", linewidth=0.3)
    plot.legend(handles=_legend(plot, rows, by_name), fontsize="small", ncol=2)
    figure.tight_layout()
    return figure


def _legend(plot, rows, by_name):
    from matplotlib.patches import Patch
    handles = [Patch(facecolor=bars[0].get_facecolor(), label=bars.get_label()) for bars in plot.containers
               if hasattr(bars, "patches")]
    if any(servers.is_apart(server, by_name[name]) for name, row in rows.items() for server in row):
        handles.append(Patch(facecolor="#777777", edgecolor="white", hatch=APART, linewidth=0,
                             label="answers writes from the page cache"))
    return handles
