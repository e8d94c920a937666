"""Clients: those that work and know what must be there, the tools of others, and those that misbehave."""
import collections
import errno
import functools
import random
import socket
import struct
import subprocess
import threading
import time

import disk
import provoked
import raw_client
import tls_keys

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


class Killed(Exception):
    """The server was killed, as intended, and took this client's connection along."""


class Crowd:
    """Threads, each one client after another until the deadline, or until the server is killed."""

    def __init__(self, server, image, keys, seed, deadline, complaints):
        self._server, self._image, self._keys = server, image, keys
        self._deadline, self._complaints = deadline, complaints
        self._threads = []
        self.counts = collections.Counter()
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

    def _repeat(self, action, chance):
        import nbd
        killed = self._image.is_killed
        while time.monotonic() < self._deadline and not self._complaints.any() and not killed.is_set():
            try:
                what = action(chance)
            except Exception as failure:  # Whatever it is, the run has failed and must say by what.
                if not killed.is_set() or not isinstance(failure, (Killed, nbd.Error, OSError, EOFError)):
                    self._complaints.add(f"{action.__name__}: {type(failure).__name__}: {failure}")
                return
            with self._counting:
                self.counts[what] += 1

    # --- Those that work ---

    def _work(self, chance):
        slot = chance.choice(self._image.slots)
        if not slot.taken.acquire(blocking=False):
            time.sleep(0.01)
            return "look for work"
        try:
            worker = Worker(self._keys, self._image, slot, chance)
            until = min(self._deadline, time.monotonic() + chance.uniform(0.2, 2 * LIFE_S))
            while time.monotonic() < until and not self._complaints.any():
                worker.step()
            worker.verify_all()
            worker.leave()
        finally:
            slot.taken.release()
        return "worker"

    # --- The tools of others ---

    def _use_a_tool(self, chance):
        uri = self._keys.plain_uri()
        fio = ["fio", "--name=soak", "--ioengine=nbd", f"--uri={uri}", "--rw=randrw", "--bsrange=512-64k", "--iodepth=16",
               f"--offset={disk.FIO_OFFSET}", f"--size={disk.FIO_SIZE}", "--io_size=8m", "--verify=crc32c", "--verify_fatal=1",
               "--bs_unaligned=1", "--output-format=terse"]
        with self._image.tools:
            # The keys are exchanged by one who holds this as well.
            any_uri = chance.choice([uri, *self._keys.right_uris()])
            name, command = chance.choice((("fio", fio), ("nbdcopy", ["nbdcopy", any_uri, "null:"]),
                                           ("nbdinfo", ["nbdinfo", "--map", any_uri]),
                                           ("qemu-img", ["qemu-img", "map", "--output=json", uri])))
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, check=False, timeout=COMMAND_PATIENCE_S, cwd=self._image.path.parent)
        if done.returncode != 0 and self._image.is_killed.is_set():
            raise Killed
        if done.returncode != 0:
            raise RuntimeError(f"{name} failed with {done.returncode}: {done.stdout[-500:]}")
        time.sleep(chance.uniform(0, 2))
        return name

    # --- Those that misbehave ---

    def _misbehave(self, chance):
        name, deed = chance.choice((
            ("silent client", self._stay_silent), ("babbler", self._babble), ("writer that is cut off", self._be_cut_off),
            ("reader that does not read", self._not_read), ("client that asks for nonsense", self._ask_for_nonsense),
            ("client with a wrong key", self._keys.knock_with_wrong_keys), ("babbler at the door of TLS", self._babble_for_tls),
            ("writer over TLS that is cut off", self._be_cut_off_in_tls)))
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

    def _babble_for_tls(self, chance):
        with raw_client.RawClient(self._server) as client:
            client.send(raw_client.option(raw_client.STARTTLS))
            client.option_reply()
            client.send(chance.randbytes(chance.randrange(1, 4096)))
            client.socket.settimeout(1)
            client.receive_rest()

    def _be_cut_off(self, chance):
        with raw_client.RawClient.in_transmission(self._server) as client:
            self._write_in_part(client, chance)

    def _be_cut_off_in_tls(self, chance):
        with self._keys.changing:
            client = tls_keys.TlsClient.in_transmission(self._server, context=self._keys.current.context())
        with client:
            self._write_in_part(client, chance)

    def _write_in_part(self, client, chance):
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
            asked = b"".join(raw_client.request(raw_client.READ, cookie=n, offset=disk.BAD_OFFSET, length=1 << 20)
                             for n in range(100))
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
    """Changes its slot at random, and knows every byte of it, and of each error whether it was provoked."""

    def __init__(self, keys, image, slot, chance):
        self._image, self._slot, self._chance = image, slot, chance
        self._expected = provoked.Expectations(image.controls, image.ledger, slot.number)
        self._handle = keys.connect(chance)
        # Requests of any alignment and length are what is to be tested.
        self._handle.set_strict_mode(0)

    def step(self):
        action = self._chance.choices((self._write, self._read, self._zero, self._trim, self._flush), (8, 8, 2, 2, 1))[0]
        action()

    def _ask(self, call, is_flush=False, is_durable=False):
        """What it is answered with, or None when that is an error that was provoked; any other is raised."""
        import nbd
        was_full = self._image.is_full.is_set()
        self._expected.begin()
        try:
            answer = call()
        except nbd.Error as failure:
            if self._image.is_killed.is_set() and (self._handle.aio_is_dead() or self._handle.aio_is_closed()):
                raise Killed from None
            cause = self._expected.end(failure.errnum, is_flush, is_durable)
            if cause is None and failure.errnum == errno.ENOSPC and (was_full or self._image.is_full.is_set()):
                cause = "want of room"
            if cause is None:
                raise
            self._image.count_told(cause)
            return None
        self._expected.end(None, is_flush, is_durable)
        return answer

    def _range(self):
        length = min(int(self._chance.expovariate(1 / 40000)) + 1, 1 << 20)
        begin = self._chance.randrange(disk.SLOT_SIZE - length)
        if self._chance.random() < 0.5:
            begin, length = begin & ~4095, (length + 4095) & ~4095
            length = min(length, disk.SLOT_SIZE - begin)
        return begin, begin + length

    def _change(self, begin, end, content, call, is_durable=False):
        """The model follows only what was acknowledged; what failed is unknown until written anew."""
        try:
            succeeded = self._ask(functools.partial(call, self._slot.offset + begin), is_durable=is_durable)
        except Killed:
            self._slot.interrupted.append((begin, end, content))
            raise
        if succeeded is None:
            self._slot.unknown.append((begin, end))
            return False
        self._slot.content[begin:end] = content
        return True

    def _write(self):
        import nbd
        begin, end = self._range()
        data = self._chance.randbytes(end - begin)
        flags = nbd.CMD_FLAG_FUA if self._chance.random() < 0.1 else 0
        self._change(begin, end, data, lambda offset: self._handle.pwrite(data, offset, flags) or True, flags != 0)

    def _zero(self):
        import nbd
        begin, end = self._range()
        flags = nbd.CMD_FLAG_NO_HOLE if self._chance.random() < 0.5 else 0
        self._change(begin, end, bytes(end - begin), lambda offset: self._handle.zero(end - begin, offset, flags) or True)

    def _trim(self):
        """What is trimmed reads as zeroes or as it was: it is read to know."""
        begin, end = self._range()
        before = bytes(self._slot.content[begin:end])
        if not self._change(begin, end, bytes(end - begin), lambda offset: self._handle.trim(end - begin, offset) or True):
            return
        try:
            now = self._read_back(begin, end)
        except Killed:
            self._slot.content[begin:end] = before
            self._slot.interrupted.append((begin, end, bytes(end - begin)))
            raise
        if now is None:
            self._slot.unknown.append((begin, end))
            return
        if not self._touches_unknown(begin, end) and any(new not in (0, old) for new, old in zip(now, before)):
            raise RuntimeError(f"after a trim at {self._slot.offset + begin} there is what never was there")
        self._slot.content[begin:end] = now

    def _flush(self):
        self._ask(lambda: self._handle.flush() or True, is_flush=True)

    def _touches_unknown(self, begin, end):
        return any(begin < until and first < end for first, until in self._slot.unknown)

    def _read_back(self, begin, end):
        return self._ask(lambda: self._handle.pread(end - begin, self._slot.offset + begin))

    def _read(self):
        begin, end = self._range()
        self._check(begin, end)

    def _check(self, begin, end):
        data = self._read_back(begin, end)
        if data is None or self._touches_unknown(begin, end):
            return
        if data != self._slot.content[begin:end]:
            at = next(i for i, (new, old) in enumerate(zip(data, self._slot.content[begin:end])) if new != old)
            raise RuntimeError(f"wrong byte at {self._slot.offset + begin + at}")

    def verify_all(self):
        failed, self._slot.unknown = self._slot.unknown, []
        for number, (begin, end) in enumerate(failed):
            data = self._chance.randbytes(end - begin)
            try:
                self._change(begin, end, data, lambda offset, data=data: self._handle.pwrite(data, offset) or True)
            except Killed:
                self._slot.unknown += failed[number:]
                raise
        for begin in range(0, disk.SLOT_SIZE, 1 << 20):
            self._check(begin, begin + (1 << 20))

    def leave(self):
        if self._chance.random() < 0.8:
            self._handle.shutdown()
        self._handle = None  # closes it


def verify_after_the_kill(keys, image, complaints):
    """All that was acknowledged is there, whether flushed or not, and of what was under way each byte is the old or the new."""
    handle = keys.connect(random.Random(0))
    for slot in image.slots:
        found = bytearray(b"".join(handle.pread(1 << 20, slot.offset + begin) for begin in range(0, disk.SLOT_SIZE, 1 << 20)))
        wanted = bytearray(slot.content)
        for begin, end in slot.unknown:
            wanted[begin:end] = found[begin:end]
        for begin, end, content in slot.interrupted:
            for at, (now, new) in enumerate(zip(found[begin:end], content), begin):
                if now == new:
                    wanted[at] = new
        if found != wanted:
            at = next(i for i, (new, old) in enumerate(zip(found, wanted)) if new != old)
            complaints.add(f"after the kill the byte at {slot.offset + at} is not what was acknowledged")
        slot.content, slot.interrupted = found, []
    handle.shutdown()


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
