"""What growth found: a table, a JSON file, and where matplotlib is there a chart."""
import goals
import machine
import report

JSON_NAME, TEXT_NAME, CHART_NAME = "growth.json", "growth.txt", "growth.png"
COLUMNS = 3  # of the chart
UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def in_words(place, curve):
    if not curve.unit.startswith("bytes"):
        return str(place)
    for unit, name in UNITS:
        if place >= unit:
            return f"{round(place / unit)} {name}"
    return f"{place} B"


def falls(curve, points):
    """The places where the median rate is below the best of a smaller place by more than noise, with that place. Rounds
    that differ widely are no reason to say nothing: fall_in_words() tells how far apart they were."""
    found, best = [], None
    for place, cell in points.items():
        median = cell[curve.metric]["median"]
        if best is not None and median < points[best][curve.metric]["median"] * (1 - goals.NOISE):
            found.append((place, best))
        if best is None or median > points[best][curve.metric]["median"]:
            best = place
    return found


def fall_in_words(curve, points, place, best):
    here, before = points[place][curve.metric], points[best][curve.metric]
    spreads = " and ".join(f"{50 * (rate['greatest'] - rate['least']) / rate['median']:.0f} %"
                           for rate in (here, before))
    overlap = "; the rounds overlap" if here["greatest"] >= before["least"] else ""
    return (f"falls at {in_words(place, curve)}: {here['median'] / before['median']:.2f} of the best before, at "
            f"{in_words(best, curve)} (+- {spreads}{overlap})")


def above_the_ceiling(points):
    """The places where a round took more memory than README allows, with what it took and what it might, in MiB."""
    return [(place, cell["peak_mib"]["greatest"], cell["ceiling_mib"]) for place, cell in points.items()
            if "ceiling_mib" in cell and cell["peak_mib"]["greatest"] > cell["ceiling_mib"]]


def heading(curve):
    return f"{curve.name}  ({curve.unit})"


def _lines(curve, by_server):
    title = "IOPS" if curve.metric == "iops" else "MB/s"
    yield f"\n{heading(curve)}"
    yield f"  {'':18}{'':>9}{title:>10}{'p99 us':>10}{'CPU us':>9}{'switch':>9}{'MiB':>7}{'of':>6}"
    for server, points in by_server.items():
        for place, cell in points.items():
            values = (f"{cell[metric]['median']:,.{digits}f}" if cell[metric] else "-"
                      for metric, digits in ((curve.metric, 0), ("p99_us", 0), ("cpu_us_per_io", 1),
                                             ("switches_per_io", 2), ("peak_mib", 0)))
            words = [f"{value:>{width}}" for value, width in zip(values, (10, 10, 9, 9, 7))]
            ceiling = f"{cell['ceiling_mib']:>6.0f}" if "ceiling_mib" in cell else ""
            yield f"  {server:18}{in_words(place, curve):>9}{''.join(words)}{ceiling}"
        if server == "aionbd" and curve.rate_must_hold:
            for place, best in falls(curve, points):
                yield f"    {fall_in_words(curve, points, place, best)}"
        for place, peak, ceiling in above_the_ceiling(points):
            yield f"    TOO MUCH MEMORY at {in_words(place, curve)}: {peak:.0f} MiB of at most {ceiling:.0f}"


LEGEND = """\
MiB: peak memory; of: the most that it may be for this load by what README says under "Limits". falls: the median, by
more than noise; +-: half the distance between the slowest and the fastest round, here and there."""


def table(facts, settings, curves, found, lacking, idle):
    lines = [machine.head(facts, settings).rstrip("\n")]
    for curve in curves:
        lines += _lines(curve, found.get(curve.name, {}))
    if idle:
        lines += ["", f"{idle['connections']} idle connections: {idle['bytes_each']:,.0f} bytes each, "
                      f"{idle['cpu_ns'] / 1000:.0f} us of processor time and {idle['context_switches']} context "
                      f"switches in {idle['seconds']} s"]
    lines += ["", LEGEND]
    if lacking:
        lines += ["", "Not measured:", *(f"  {where}: {why}" for where, why in report.named(lacking).items())]
    return "\n".join(lines) + report.warning_of_load(settings["load_average_before_rounds"], facts["processors"])


def write(folder, result, curves, text):
    """The charts that were drawn; None where nobody can draw."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JSON_NAME).write_text(report.as_json(result), encoding="utf-8")
    (folder / TEXT_NAME).write_text(text + "\n", encoding="utf-8")
    try:
        import matplotlib
    except ImportError:
        print("no chart, for python3-matplotlib is not installed")
        return None
    matplotlib.use("Agg")
    return _draw([curve for curve in curves if result["curves"].get(curve.name)], result["curves"], folder / CHART_NAME)


def group_of(curve):
    return curve.name.partition(":")[0]


def _draw(curves, found, path):
    """For each group of curves the rate, and below it what a request costs. A list of the path, if there was any."""
    from matplotlib import pyplot
    groups = list(dict.fromkeys(map(group_of, curves)))
    if not groups:
        return []
    columns = min(COLUMNS, len(groups))
    rows = -(-len(groups) // columns)
    figure, plots = pyplot.subplots(2 * rows, columns, figsize=(4.2 * columns, 6.4 * rows), squeeze=False)
    for index in range(rows * columns):
        above, below = (plots[2 * (index // columns) + part][index % columns] for part in (0, 1))
        if index < len(groups):
            of_group = [curve for curve in curves if group_of(curve) == groups[index]]
            (_draw_one if len(of_group) == 1 else _draw_together)(of_group, found, above, below)
            above.set_title(groups[index], fontsize="medium")
            # Where many share a chart, their names stand below it.
            (above if len(of_group) == 1 else below).legend(fontsize="x-small", loc="lower right")
            _finish(above, below)
        else:
            above.axis("off")
            below.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    return [path]


def _draw_one(curves, found, above, below):
    curve, = curves
    for server, points in found[curve.name].items():
        names = [in_words(place, curve) for place in points]
        above.plot(names, [cell[curve.metric]["median"] for cell in points.values()], marker=".", label=server)
        below.plot(names, [cell["cpu_us_per_io"]["median"] for cell in points.values()], marker=".")
    above.set_ylabel("I/Os per second" if curve.metric == "iops" else "MB/s", fontsize="small")
    below.set_ylabel("processor time, us per I/O", fontsize="small")
    below.set_xlabel(curve.unit, fontsize="x-small")
    if curve.unit.startswith("bytes of each"):
        below.set_yscale("log")  # What a request costs follows its size, over several powers of ten.
    else:
        below.set_ylim(bottom=0)


def _draw_together(curves, found, above, below):
    """Loads of different kinds, each beside its own first point."""
    for curve in curves:
        points = found[curve.name].get("aionbd", {})
        names = [in_words(place, curve) for place in points]
        for plot, metric in ((above, curve.metric), (below, "cpu_us_per_io")):
            values = [cell[metric]["median"] for cell in points.values()]
            plot.plot(names, [value / values[0] for value in values], marker=".", label=curve.name.partition(": ")[2])
    above.set_ylabel("rate, of that of the first", fontsize="small")
    below.set_ylabel("processor time per I/O, of that of the first", fontsize="small")
    below.set_xlabel(group_of(curves[0]), fontsize="x-small")
    below.set_ylim(bottom=0)


def _finish(above, below):
    above.set_ylim(bottom=0)
    for plot in (above, below):
        plot.tick_params(labelsize="x-small")
        plot.tick_params(axis="x", rotation=60)
        plot.grid(linewidth=0.3)
