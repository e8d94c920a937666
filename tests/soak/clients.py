"""Clients: those that work and know what must be there, the tools of others, and those that misbehave."""
import errno
import functools
import random
import socket
import struct
import subprocess
import threading
import time

import disk
import raw_client

WORKERS, TOOL_USERS, VANDALS = 4, 1, 2
LIFE_S = 6  # of one client, about
COMMAND_PATIENCE_S = 60


def warm_up(server):
    """Fills the server's pool of buffers and its spare large ones to their bounds: what comes on top is growth."""
    held = [raw_client.RawClient.in_transmission(server) for _ in range(2)]
    for client in held:
        client.send(b"".join(raw_client.request(raw_client.READ, cookie=n, length=1 << 20) for n in range(64)))
        client.send(b"".join(raw_client.request(raw_client.READ, cookie=n, length=32 << 20) for n in range(2)))
    threads = [threading.Thread(target=client.receive, args=(64 * (16 + (1 << 20)) + 2 * (16 + (32 << 20)),)) for client in held]
    for thread in threads:
        thread.start()
    for client, thread in zip(held, threads):
        thread.join()
        client.close()


class Crowd:
    """Threads, each one client after another until the deadline."""

    def __init__(self, server, image, seed, deadline, complaints):
        self._server, self._image, self._deadline, self._complaints = server, image, deadline, complaints
        self._threads = []
        self.counts = {}
        self._counting = threading.Lock()
        for number in range(WORKERS):
            self._threads.append(threading.Thread(target=self._repeat, args=(self._work, random.Random(f"{seed} w{number}"))))
        for number in range(TOOL_USERS):
            self._threads.append(threading.Thread(target=self._repeat, args=(self._use_a_tool, random.Random(f"{seed} t{number}"))))
        for number in range(VANDALS):
            self._threads.append(threading.Thread(target=self._repeat, args=(self._misbehave, random.Random(f"{seed} v{number}"))))

    def start(self):
        for each in self._threads:
            each.start()

    def join(self):
        for each in self._threads:
            each.join()

    def summary(self):
        return ", ".join(f"{count} x {what}" for what, count in sorted(self.counts.items()))

    def _repeat(self, action, chance):
        while time.monotonic() < self._deadline and not self._complaints.any():
            try:
                what = action(chance)
            except Exception as failure:  # Whatever it is, the run has failed and must say by what.
                self._complaints.add(f"{action.__name__}: {type(failure).__name__}: {failure}")
                return
            with self._counting:
                self.counts[what] = self.counts.get(what, 0) + 1

    # --- Those that work ---

    def _work(self, chance):
        slot = chance.choice(self._image.slots)
        if not slot.taken.acquire(blocking=False):
            time.sleep(0.01)
            return "look for work"
        try:
            worker = Worker(self._server, self._image, slot, chance)
            until = min(self._deadline, time.monotonic() + chance.uniform(0.2, 2 * LIFE_S))
            while time.monotonic() < until:
                worker.step()
            worker.verify_all()
            worker.leave()
        finally:
            slot.taken.release()
        return "worker"

    # --- The tools of others ---

    def _use_a_tool(self, chance):
        uri = self._server.uri
        fio = ["fio", "--name=soak", "--ioengine=nbd", f"--uri={uri}", "--rw=randrw", "--bsrange=512-64k", "--iodepth=16",
               f"--offset={disk.FIO_OFFSET}", f"--size={disk.FIO_SIZE}", "--io_size=8m", "--verify=crc32c", "--verify_fatal=1",
               "--bs_unaligned=1", "--output-format=terse"]
        name, command = chance.choice((("fio", fio), ("nbdcopy", ["nbdcopy", uri, "null:"]), ("nbdinfo", ["nbdinfo", "--map", uri]),
                                       ("qemu-img", ["qemu-img", "map", "--output=json", uri])))
        with self._image.tools:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, check=False, timeout=COMMAND_PATIENCE_S, cwd=self._image.path.parent)
        if done.returncode != 0:
            raise RuntimeError(f"{name} failed with {done.returncode}: {done.stdout[-500:]}")
        time.sleep(chance.uniform(0, 2))
        return name

    # --- Those that misbehave ---

    def _misbehave(self, chance):
        name, deed = chance.choice((
            ("silent client", self._stay_silent), ("babbler", self._babble), ("writer that is cut off", self._be_cut_off),
            ("reader that does not read", self._not_read), ("client that asks for nonsense", self._ask_for_nonsense)))
        try:
            deed(chance)
        except (ConnectionError, EOFError, TimeoutError):
            pass  # It has been shown the door.
        return name

    def _stay_silent(self, chance):
        with raw_client.RawClient(self._server, flags=None):
            time.sleep(chance.uniform(0, 2))

    def _babble(self, chance):
        with raw_client.RawClient(self._server, flags=chance.choice((None, 3, 3, 0xFFFF))) as client:
            client.send(chance.randbytes(chance.randrange(1, 4096)))
            client.socket.settimeout(1)
            client.receive_rest()

    def _be_cut_off(self, chance):
        with raw_client.RawClient.in_transmission(self._server) as client:
            data = b"".join(raw_client.write(chance.randbytes(chance.randrange(1, 1 << 18)), offset=self._bad_place(chance))
                            for _ in range(4))
            client.send(data[:chance.randrange(len(data))])
            if chance.random() < 0.5:  # A reset instead of an end.
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _bad_place(self, chance):
        return disk.BAD_OFFSET + chance.randrange(disk.BAD_SIZE - (1 << 18))

    def _not_read(self, chance):
        with raw_client.RawClient.in_transmission(self._server) as client:
            client.socket.setblocking(False)
            asked = b"".join(raw_client.request(raw_client.READ, cookie=n, offset=0, length=1 << 20) for n in range(100))
            client.socket.send(asked)
            time.sleep(chance.uniform(0, 3))

    def _ask_for_nonsense(self, chance):
        with raw_client.RawClient.in_transmission(self._server) as client:
            for number in range(20):
                client.send(raw_client.request(chance.choice((0, 4, 5, 6, 9, 77)), cookie=number,
                                               offset=chance.randrange(disk.IMAGE_SIZE, 1 << 62),
                                               length=chance.randrange(1, 1 << 32), flags=chance.randrange(1 << 16)))
                _, error, _ = client.reply()
                if error == 0:
                    raise RuntimeError("nonsense was answered with success")


class Worker:
    """Changes its slot at random, and knows every byte of it."""

    def __init__(self, server, image, slot, chance):
        self._image, self._slot, self._chance = image, slot, chance
        self._handle = server.connect()
        # Requests of any alignment and length are what is to be tested.
        self._handle.set_strict_mode(0)

    def step(self):
        action = self._chance.choices((self._write, self._read, self._zero, self._trim, self._flush), (8, 8, 2, 2, 1))[0]
        action()

    def _range(self):
        length = min(int(self._chance.expovariate(1 / 40000)) + 1, 1 << 20)
        begin = self._chance.randrange(disk.SLOT_SIZE - length)
        if self._chance.random() < 0.5:
            begin, length = begin & ~4095, (length + 4095) & ~4095
            length = min(length, disk.SLOT_SIZE - begin)
        return begin, begin + length

    def _change(self, begin, end, content, call):
        """The model follows only what was acknowledged; what failed for want of room is unknown until written anew."""
        import nbd
        was_full = self._image.is_full.is_set()
        try:
            call(self._slot.offset + begin)
        except nbd.Error as failure:
            if failure.errnum != errno.ENOSPC or not (was_full or self._image.is_full.is_set()):
                raise
            self._slot.unknown.append((begin, end))
            return
        if content is not None:
            self._slot.content[begin:end] = content

    def _write(self):
        import nbd
        begin, end = self._range()
        data = self._chance.randbytes(end - begin)
        flags = nbd.CMD_FLAG_FUA if self._chance.random() < 0.1 else 0
        self._change(begin, end, data, lambda offset: self._handle.pwrite(data, offset, flags))

    def _zero(self):
        import nbd
        begin, end = self._range()
        flags = nbd.CMD_FLAG_NO_HOLE if self._chance.random() < 0.5 else 0
        self._change(begin, end, bytes(end - begin), lambda offset: self._handle.zero(end - begin, offset, flags))

    def _trim(self):
        """What is trimmed reads as zeroes or as it was: it is read to know."""
        begin, end = self._range()
        self._change(begin, end, None, lambda offset: self._handle.trim(end - begin, offset))
        now = self._handle.pread(end - begin, self._slot.offset + begin)
        before = self._slot.content[begin:end]
        if not self._touches_unknown(begin, end) and any(new not in (0, old) for new, old in zip(now, before)):
            raise RuntimeError(f"after a trim at {self._slot.offset + begin} there is what never was there")
        self._slot.content[begin:end] = now

    def _flush(self):
        self._handle.flush()

    def _touches_unknown(self, begin, end):
        return any(begin < until and first < end for first, until in self._slot.unknown)

    def _read(self):
        begin, end = self._range()
        self._check(begin, end)

    def _check(self, begin, end):
        if self._touches_unknown(begin, end):
            return
        data = self._handle.pread(end - begin, self._slot.offset + begin)
        if data != self._slot.content[begin:end]:
            at = next(i for i, (new, old) in enumerate(zip(data, self._slot.content[begin:end])) if new != old)
            raise RuntimeError(f"wrong byte at {self._slot.offset + begin + at}")

    def verify_all(self):
        refused, self._slot.unknown = self._slot.unknown, []
        for begin, end in refused:
            data = self._chance.randbytes(end - begin)
            self._change(begin, end, data, functools.partial(self._handle.pwrite, data))
        for begin in range(0, disk.SLOT_SIZE, 1 << 20):
            self._check(begin, begin + (1 << 20))

    def leave(self):
        if self._chance.random() < 0.8:
            self._handle.shutdown()
        self._handle = None  # closes it


def verify_file(image, complaints):
    """After the end: what was acknowledged is in the file itself."""
    with open(image.path, "rb") as opened:
        for slot in image.slots:
            opened.seek(slot.offset)
            content = bytearray(opened.read(disk.SLOT_SIZE))
            for begin, end in slot.unknown:
                content[begin:end] = slot.content[begin:end]
            if content != slot.content:
                complaints.add(f"the file is not what was acknowledged in the slot at {slot.offset}")
