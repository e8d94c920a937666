"""Trees of files.

    file_tree.py write FOLDER COUNT      files of many sizes, empty and odd ones among them, in a few levels of folders;
                                         the content follows from the count, so that equal counts make equal trees
    file_tree.py commit FOLDER TREES COMMITS
                                         so many trees at once, each written by a process of its own in the way of
                                         version control: small objects, each fsynced and renamed into place, and an
                                         index that is replaced with every commit
"""
import hashlib
import os
import random
import sys
from pathlib import Path

SIZES = [0, 1, 511, 512, 513, 4095, 4096, 4097, 10_000, 65_536, 65_537, 200_000]
OBJECTS_PER_COMMIT = 6


def write(folder, count):
    chance = random.Random(count)
    for number in range(int(count)):
        parent = Path(folder, f"{number % 7}", f"{number % 3}")
        parent.mkdir(parents=True, exist_ok=True)
        (parent / f"file {number}").write_bytes(chance.randbytes(SIZES[number % len(SIZES)]))


def replace(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".lock")
    with open(temporary, "xb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    temporary.rename(path)


def commit(folder, trees, commits):
    workers = []
    for tree in range(int(trees)):
        worker = os.fork()
        if worker == 0:
            root, chance, index = Path(folder, f"tree {tree}"), random.Random(tree), []
            for _ in range(int(commits)):
                for _ in range(OBJECTS_PER_COMMIT):
                    content = chance.randbytes(chance.randrange(1, 6000))
                    name = hashlib.sha1(content).hexdigest()
                    replace(root / "objects" / name[:2] / name[2:], content)
                    index.append(name)
                replace(root / "index", "\n".join(index).encode())
            os._exit(0)
        workers.append(worker)
    failed = [worker for worker in workers if os.waitpid(worker, 0)[1] != 0]
    if failed:
        sys.exit(f"{len(failed)} of the trees were not written")


if __name__ == "__main__":
    {"write": write, "commit": commit}[sys.argv[1]](*sys.argv[2:])
