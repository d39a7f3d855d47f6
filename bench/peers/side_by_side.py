"""Runs Mneme and a peer by turns in one run and holds the ratio against a bar.

Both sides speak the protocol of pytorch_train.py: a JSON line when ready, then one JSON line for each `step K` on standard
input. They are started one after the other, warmed up with two requests each, and then asked by turns, A B A B ..., so
that whatever else the machine does hits both alike. While one works the other is stopped (SIGSTOP): an idle thread pool
that spins would otherwise take a core from the side being timed. What is held against the bar is the ratio of the medians.
"""
import atexit
import json
import os
import select
import shlex
import signal
import statistics
import subprocess
import sys
import time


class TooSlow(Exception):
    """A side did not answer in time; it was killed."""


class Side:
    def __init__(self, name, command, env=None, until=None):
        self.name, self.command, self.records, self.until = name, command, [], until
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                            env={**os.environ, **(env or {})})
        except OSError as e:
            raise SystemExit(f"{name}: {shlex.join(command)}: {e.strerror}. Build Mneme first (scripts/build or ninja -C build).")
        atexit.register(self.kill)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that atexit runs
        self.info = self.read()
        if not self.info.get("ready"):
            raise SystemExit(f"{name}: expected a line with \"ready\": true, got {self.info}")
        self.pause()

    def read(self):
        # One line is asked for at a time, so that nothing waits in the buffer when the pipe is looked at.
        if self.until is not None and not select.select([self.process.stdout], [], [], max(0, self.until - time.monotonic()))[0]:
            self.kill()
            raise TooSlow(self.name)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: {shlex.join(self.command)} ended with status {self.process.wait()}; "
                             "its message is above")
        record = json.loads(line)
        if "error" in record:
            raise SystemExit(f"{self.name}: {record['error']}")
        return record

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def step(self, count, keep=True):
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(f"step {count}\n")
        self.process.stdin.flush()
        record = self.read()
        self.pause()
        if keep:
            self.records.append(record)

    def end(self):
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.close()
        self.process.wait()

    def kill(self):
        """Whatever happens to us, no stopped process stays behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def median(self, key):
        return statistics.median(r[key] for r in self.records)

    def spread(self, key):
        values = [r[key] for r in self.records]
        return min(values), max(values)


def alternate(ours, peer, count, repetitions, warm_up=2):
    for _ in range(warm_up):
        for side in (ours, peer):
            side.step(count, keep=False)
    for i in range(repetitions):
        for side in (ours, peer) if i % 2 == 0 else (peer, ours):
            side.step(count)
        if sys.stderr.isatty():
            print(f"\r{i + 1}/{repetitions} turns", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r" + " " * 30 + "\r", end="", file=sys.stderr, flush=True)
    ours.end()
    peer.end()


class Bars:
    """The closing lines: `measure: value (bar) ok` or `... short`."""

    def __init__(self):
        self.lines, self.short = [], 0

    def at_least(self, measure, value, bar, unit="x"):
        self.add(measure, f"{value:.2f}{unit}", f">= {bar}{unit}", value >= bar)

    def at_most(self, measure, value, bar, unit="x"):
        self.add(measure, f"{value:.2f}{unit}", f"<= {bar}{unit}", value <= bar)

    def add(self, measure, value, bar, ok):
        self.lines.append(f"{measure}: {value} ({bar}) {'ok' if ok else 'short'}")
        self.short += not ok

    def close(self):
        print()
        print("\n".join(self.lines))
        return 1 if self.short else 0


def print_table(rows):
    widths = [max(len(str(r[i])) for r in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(str(v).ljust(w) if i == 0 else str(v).rjust(w) for i, (v, w) in enumerate(zip(row, widths))).rstrip(),
              flush=True)
