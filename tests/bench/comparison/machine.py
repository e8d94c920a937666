"""The machine that was measured: what a reader needs to judge the numbers, and nothing that tells whose it was."""
import os
import platform
import re
import subprocess
from pathlib import Path

GIB = 1 << 30


def _read(path):
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _first_line(*command):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip().split("\n")[0]


def _version(program, option):
    """Some programs say where they lie."""
    line = _first_line(program, option).replace(str(program), Path(program).name)
    return without_paths(line)


def without_paths(line):
    """A line that names programs, without the folders they lie in: those are nobody's business."""
    return re.sub(r"(?<!\S)/\S*/", "", line)


def without_folders(text, folders):
    """A reason as it may be published: with the names of `folders`, {path: name}, in the place of their paths."""
    for path in sorted(folders, key=len, reverse=True):
        text = re.sub(rf"(?<![\w.-]){re.escape(path)}(?![\w.-])", folders[path], text)
    return text


def folders_to_hide(file, temporary, programs, mounted=None):
    """{path: name} of all that a reason could name. `mounted`: {kind: folder} of file systems that are there."""
    aionbd = str(Path(__file__).resolve().parents[3])
    named = {os.path.expanduser("~"): "HOME", os.getcwd(): "CURRENT", aionbd: "AIONBD"}
    named |= {str(Path(path).resolve().parent): "PROGRAMS" for path in programs.values()}
    named |= {str(Path(folder).resolve()): kind.upper() for kind, folder in (mounted or {}).items() if folder}
    named |= {str(Path(file).resolve().parent): "FOLDER", str(temporary): "TEMPORARY"}
    return {path: name for path, name in named.items() if path.startswith("/") and path != "/"}


def _disk_below(folder):
    """The kernel's folder of the whole disk; None where there is none, as below a network's file system. By number,
    for what a volume is called, or where it comes from, may name a host."""
    number = os.stat(folder).st_dev
    found = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not found.exists():
        return None
    found = found.resolve()
    return found if (found / "queue").exists() else found.parent


def facts(file, programs):
    folder = Path(file).resolve().parent
    processor = _read("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.*)", processor)
    disk = _disk_below(folder)
    queue = disk / "queue" if disk else Path("/nonexistent")
    return {"processor": model.group(1) if model else platform.machine(), "processors": os.cpu_count(),
            "is_virtual": bool(re.search(r"(?m)^flags\s*:.*\bhypervisor\b", processor)),
            "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
            "kernel": platform.release(),
            "file_system": _first_line("findmnt", "-no", "FSTYPE", "-T", str(folder)) or "unknown",
            "disk": disk.name if disk else "", "disk_model": _read(disk / "device/model") if disk else "",
            "scheduler": _read(queue / "scheduler"), "rotational": _read(queue / "rotational"),
            "huge_pages": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
            "fio": _first_line("fio", "--version"),
            "versions": {name: _version(path, "-V" if "nbd-server" in name else "--version")
                         for name, path in programs.items() if path}}


def _chosen(text):
    """Of "always [madvise] never" the one in brackets."""
    found = re.search(r"\[(.*?)\]", text)
    return found.group(1) if found else text or "unknown"


def _in_gib(size):
    return f"{size / GIB:g} GiB" if size >= GIB else f"{size >> 20} MiB"


def _versions(machine):
    """Each once."""
    lines = dict.fromkeys(filter(None, [*machine["versions"].values(), machine["fio"]]))
    return "; ".join(line.removeprefix("This is ") for line in lines)


def _disk_line(machine):
    if not machine["disk"]:
        return f"{machine['file_system']}, on no block device"
    words = [machine["disk"], machine.get("disk_model", ""),
             "calls itself rotational" if machine["rotational"] == "1" else "",
             f"scheduler {_chosen(machine['scheduler'])}"]
    return ", ".join(filter(None, words)) + f"; {machine['file_system']}"


def _run_line(settings):
    rounds = f"{settings['rounds']} rounds"
    if settings.get("interrupted"):
        rounds = f"INTERRUPTED, {settings['rounds']} of {settings['rounds_wanted']} rounds were whole, each"
    words = [f"{rounds} of {settings['runtime_s']:g} s, a file of {_in_gib(settings['size'])}"]
    if settings["as_root"]:
        words.append("as root")
    if settings["load_average_before_rounds"]:
        words.append(f"load average before the first round {settings['load_average_before_rounds'][0]:.2f}")
    words += [f"{name}: {about}" for name, about in settings.get("about_files", {}).items()]
    return "; ".join(words)


def head(machine, settings):
    """A few lines for the top of a table."""
    virtual = ", virtual" if machine.get("is_virtual") else ""
    lines = {"Processors": f"{machine['processors']} x {machine['processor']}{virtual}",
             "Memory": f"{machine['memory_mib']:,} MiB; huge pages: {_chosen(machine['huge_pages'])}",
             "Kernel": f"Linux {machine['kernel']}", "Disk": _disk_line(machine),
             "Programs": _versions(machine), "Run": _run_line(settings)}
    return "\n".join(f"{title + ':':12}{text}" for title, text in lines.items()) + "\n"


def completed(earlier, now):
    """The facts of an earlier run, and where they lack one, what the same machine says now."""
    if (earlier["processor"], earlier["kernel"]) != (now["processor"], now["kernel"]):
        return earlier
    return {**now, **{name: fact for name, fact in earlier.items() if fact not in ("", "unknown")}}
