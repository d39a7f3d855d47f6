"""The clients of bench/serve-load, and who begins and ends the server. Standard library alone."""
import argparse
import http.client
import json
import os
import random
import signal
import ssl
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse

parser = argparse.ArgumentParser()
for name in ("--mneme", "--dir", "--model"):
    parser.add_argument(name, required=True)
parser.add_argument("--seconds", type=float, default=20)
parser.add_argument("--threads", default="0")
parser.add_argument("--tls", action="store_true")
parser.add_argument("--only", default="storm,memory,streams,turns,drain,kill")
args = parser.parse_args()
PARTS = args.only.split(",")
KEYS = ["first-key-of-the-load", "second-key-of-the-load"]
CLIENTS, SESSION_MIB = 64, 64
WORDS = "the whale ship sea old man boat white captain night water wind".split()
short = 0
trust = None


def bar(name, value, wanted, fine):
    global short
    print(f"{name}: {value} ({wanted}) {'ok' if fine else 'short'}", flush=True)
    short += not fine


# ---- the server ----
class Server:
    def __init__(self, *more):
        words = [args.mneme, "serve", args.model, "--port", "0", "--name", "load", "--streams", "16", "--queue", "1000", "--connections", "512",
                 "--session-mib", str(SESSION_MIB), "--api-key-file", os.path.join(args.dir, "keys.txt"), "--quiet", *more]
        if args.threads != "0":
            words += ["--threads", args.threads]
        if args.tls:
            words += ["--tls-cert", os.path.join(args.dir, "cert.pem"), "--tls-key", os.path.join(args.dir, "key.pem")]
        self.log = open(os.path.join(args.dir, "log"), "ab")
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=self.log)
        line = self.process.stdout.readline().decode()
        if "http" not in line:
            sys.exit("the server did not begin: " + open(os.path.join(args.dir, "log")).read()[-2000:])
        self.url = urllib.parse.urlparse(line.split()[0])

    def connect(self, timeout=900):
        if args.tls:
            return http.client.HTTPSConnection(self.url.hostname, self.url.port, timeout=timeout, context=trust)
        return http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=timeout)

    def resident(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmRSS"))

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        return self.process.wait()

    def get(self, path, method="GET", body=None):
        c = self.connect()
        c.request(method, path, json.dumps(body) if body is not None else None, {"Authorization": "Bearer " + KEYS[0]})
        r = c.getresponse()
        text = r.read().decode()
        c.close()
        return r.status, text

    def metric(self, name):
        return next(float(line.split()[-1]) for line in self.get("/metrics")[1].splitlines() if line.startswith("mneme_" + name + " "))

    def wait_idle(self):
        until = time.monotonic() + 300
        while self.metric("streams_running") or self.metric("prompts_reading") or self.metric("requests_waiting") or self.metric("requests_reading"):
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    def ask(self, body, key=0, leave=None):
        """Status, text, tokens, the reply. leave: goes away after so many pieces of a stream."""
        c = self.connect()
        text, tokens, pieces = "", 0, 0
        try:
            c.request("POST", "/v1/completions", json.dumps(body), {"Authorization": "Bearer " + KEYS[key], "Content-Type": "application/json"})
            r = c.getresponse()
            if r.status != 200:
                return r.status, r.read().decode(), 0, None
            if not body.get("stream"):
                j = json.loads(r.read())
                return 200, j["choices"][0]["text"], j["usage"]["completion_tokens"], j
            while True:
                line = r.readline().decode()
                if not line or line.startswith("data: [DONE]"):
                    return (200 if line else 0), text, tokens, None
                if not line.startswith("data: "):
                    continue
                j = json.loads(line[6:])
                if "error" in j:
                    return 500, j["error"]["message"], 0, None
                pieces += 1
                if leave is not None and pieces > leave:
                    return -1, text, tokens, None
                if j["choices"]:
                    text += j["choices"][0]["text"]
                if j.get("usage"):
                    tokens = j["usage"]["completion_tokens"]
        except (OSError, http.client.HTTPException) as e:
            return -2, repr(e), 0, None
        finally:
            c.close()


def prompt(rng, n):
    return " ".join(rng.choice(WORDS) for _ in range(n))


def in_threads(works):
    threads = [threading.Thread(target=w) for w in works]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


def ragged(i):
    rng = random.Random(i)
    body = {"prompt": prompt(rng, rng.choice([1, 3, 10, 40, 150])), "max_tokens": rng.choice([1, 5, 20, 60, 120]), "seed": i, "temperature": 0.8,
            "stream": rng.random() < 0.6, "ignore_eos": True}
    leaves = i % 10 == 7
    if leaves:
        body.update(stream=True, max_tokens=120)
    if body["stream"]:
        body["stream_options"] = {"include_usage": True}
    return body, leaves


# ---- 64 clients, a tenth leave ----
def storm(server, first, seconds, until=None):
    """What each request got, by its number; a client begins none after `seconds`, or when until() says so."""
    results, lock, number, began = {}, threading.Lock(), [first], time.monotonic()

    def client():
        while time.monotonic() - began < seconds and not (until and until()):
            with lock:
                i = number[0]
                number[0] += 1
            body, leaves = ragged(i)
            begun = time.monotonic()
            got = server.ask(body, i % 2, leave=random.Random(i).randrange(3) if leaves else None)
            with lock:
                results[i] = (leaves, body, got, begun, time.monotonic())

    in_threads([client] * CLIENTS)
    return results, time.monotonic() - began


def wrong_of(results):
    return [(i, r[2]) for i, r in sorted(results.items()) if not r[0] and (r[2][0] != 200 or r[2][2] != r[1]["max_tokens"])]


def show(wrong):
    for i, r in wrong[:5]:
        print(f"  request {i}: {r[0]} {r[1][:200]!r}, {r[2]} tokens", file=sys.stderr)


def part_storm(server):
    storm(server, 10_000_000, min(args.seconds, 10))  # warm
    server.wait_idle()
    before = server.resident()
    results, seconds = storm(server, 0, args.seconds)
    wrong = wrong_of(results)
    show(wrong)
    gone = sum(r[0] for r in results.values())
    made = [sum(r[2][2] for i, r in results.items() if not r[0] and i % 2 == k) for k in (0, 1)]
    print(f"{len(results)} requests of {CLIENTS} clients, {gone} of which left: {seconds:.1f} s, {sum(made) / seconds:.0f} tokens/s kept")
    bar("requests that failed", len(wrong), 0, not wrong)
    bar("idle when all are served", "yes" if server.wait_idle() else "no", "yes", server.metric("batch_room") == 0)
    ratio = max(made) / max(1, min(made))
    bar("tokens of one key over those of the other", f"{ratio:.2f}", "at most 2", ratio <= 2)
    some = [i for i, r in sorted(results.items()) if not r[0]]
    some = random.Random(1).sample(some, min(24, len(some)))
    same = sum(server.ask(results[i][1])[1] == results[i][2][1] for i in some)
    bar("answers that are the same when asked for alone", f"{same} of {len(some)}", len(some) - 1, same >= len(some) - 1)
    storm(server, 1_000_000, min(args.seconds, 60))
    server.wait_idle()
    grown = server.resident() - before
    bar("growth of memory over a second storm", f"{grown / 2**20:.1f} MiB", "32 MiB", grown < 32 << 20)


def part_memory(server):
    """More sessions than the budget holds: the least lately used go to the disk, and every one of them goes on."""
    work = [(f"m{k}", f"{prompt(random.Random(k), 30)}") for k in range(48)]
    in_threads([lambda chunk=work[c::8]: [server.ask({"prompt": p, "max_tokens": 8, "temperature": 0, "session_id": s}) for s, p in chunk] for c in range(8)])
    kept = server.metric("session_bytes")
    bar("bytes of kept sessions in memory", f"{kept / 2**20:.1f} MiB", f"{SESSION_MIB} MiB", kept <= SESSION_MIB << 20)
    again = [server.ask({"prompt": " and", "max_tokens": 4, "temperature": 0, "session_id": s}) for s, _ in work]
    good = sum(a[0] == 200 and a[3]["usage"]["prompt_tokens_details"]["cached_tokens"] > 30 for a in again)
    bar("sessions that go on, from memory or the disk", f"{good} of {len(work)}", len(work), good == len(work))


def part_streams(server):
    body = {"prompt": "the white whale", "max_tokens": 100, "temperature": 0.8, "ignore_eos": True}

    def rate(streams):
        began = time.monotonic()
        in_threads([lambda k=k: server.ask({**body, "seed": k}) for k in range(streams)])
        return streams * 100 / (time.monotonic() - began)

    rate(8), rate(1)
    turns = [(rate(1), rate(8)) for _ in range(7)]
    one, eight = (statistics.median(t[k] for t in turns) for k in (0, 1))
    ratio = statistics.median(t[1] / t[0] for t in turns)
    print(f"one stream {one:.0f} tokens/s, eight together {eight:.0f}")
    bar("eight streams over one", f"{ratio:.2f}", 3, ratio >= 3)


def part_turns(server):
    """Two keys, of which one asks for ten times as much."""
    order, lock = [], threading.Lock()

    def work(key, i):
        server.ask({"prompt": prompt(random.Random(i), 20), "max_tokens": 40, "seed": i, "ignore_eos": True}, key)
        with lock:
            order.append(key)

    greedy = [threading.Thread(target=work, args=(0, i)) for i in range(60)]
    for t in greedy:
        t.start()
    time.sleep(0.05)
    modest = [threading.Thread(target=work, args=(1, 100 + i)) for i in range(6)]
    for t in modest:
        t.start()
    for t in greedy + modest:
        t.join()
    last = max(i for i, key in enumerate(order) if key == 1)
    bar("of 66 requests, those served before the last of the modest client's 6", last, 40, last <= 40)


def part_drain(server):
    """Told to end under load: what had begun comes to its end, what comes later is refused."""
    told = []

    def tell():
        time.sleep(min(args.seconds, 10) / 2)
        told.append(time.monotonic())
        server.process.send_signal(signal.SIGTERM)

    thread = threading.Thread(target=tell)
    thread.start()
    results, _ = storm(server, 2_000_000, min(args.seconds, 10) / 2 + 5, until=lambda: told and time.monotonic() - told[0] > 1)
    thread.join()
    code = server.process.wait()
    # a request that was sent at the very moment may find the door closed; one that was on its way well before is answered
    begun = {i: r for i, r in results.items() if r[3] < told[0] - 0.25}
    wrong = wrong_of(begun)
    show(wrong)
    later = [r for r in results.values() if r[3] > told[0] + 0.25 and not r[0] and r[2][0] == 200]
    print(f"{len(begun)} requests were begun before SIGTERM, {sum(r[4] > told[0] for r in begun.values())} of which ended after it")
    bar("of those, requests that failed", len(wrong), 0, not wrong)
    bar("requests that were begun after it and answered", len(later), 0, not later)
    bar("exit code when told to end", code, 0, code == 0)


def part_kill():
    """Killed under load: sessions that were answered for go on to the bit."""
    folder = os.path.join(args.dir, "sessions")
    server = Server("--sessions", folder)
    logs = {"prompt": " so then", "max_tokens": 12, "temperature": 0, "logprobs": 5, "ignore_eos": True}
    names = [f"k{i}" for i in range(12)]
    for i, s in enumerate(names):
        for turn in range(2):
            server.ask({"prompt": prompt(random.Random(50 + i * 2 + turn), 20 + 10 * i), "max_tokens": 10, "seed": i, "session_id": s, "ignore_eos": True})
        server.get(f"/sessions/{s}/fork", "POST", {"to": s + "-twin"})
    wanted = {s: server.ask({**logs, "session_id": s + "-twin"}) for s in names}
    stop, half = threading.Event(), {}

    def talk(s):  # turns of sessions that are under way when it is killed
        done, turn = 0, 0
        while not stop.is_set():
            got = server.ask({"prompt": prompt(random.Random(turn), 10), "max_tokens": 10, "seed": turn, "session_id": s, "ignore_eos": True})
            turn += 1
            if got[0] == 200:
                done = got[3]["usage"]["prompt_tokens"] + got[2]
            half[s] = done
            if done > 800 or got[0] in (-2, 400):
                break

    talkers = [threading.Thread(target=talk, args=(f"h{i}",)) for i in range(12)]
    load = threading.Thread(target=lambda: storm(server, 3_000_000, 60, until=stop.is_set))
    for t in talkers + [load]:
        t.start()
    time.sleep(min(args.seconds, 5))
    server.end(signal.SIGKILL)
    stop.set()
    for t in talkers + [load]:
        t.join()
    server = Server("--sessions", folder)
    got = {s: server.ask({**logs, "session_id": s}) for s in names}
    same = sum(got[s][0] == 200 and got[s][3]["choices"] == wanted[s][3]["choices"] for s in names)
    bar("sessions that go on to the bit after SIGKILL", f"{same} of {len(names)}", len(names), same == len(names))
    listed = {s["id"]: s for s in json.loads(server.get("/sessions")[1])["data"]}
    whole = 0
    for s, done in half.items():
        if s not in listed:
            whole += done == 0
            continue
        after = server.ask({"prompt": " and", "max_tokens": 2, "session_id": s})
        known = after[3]["usage"]["prompt_tokens_details"]["cached_tokens"] if after[0] == 200 else -1
        whole += known >= done - 1  # all that was answered for; a turn more, if its file was written and its answer not heard
    bar("sessions under way then that hold all that was answered", f"{whole} of {len(half)}", len(half), whole == len(half))
    litter = [f for f in os.listdir(folder) if not f.endswith(".safetensors") or f.startswith(".")]
    print(f"files that the kill left half-written beside them: {len(litter)}")
    bar("exit code when told to end", server.end(), 0, server.process.returncode == 0)


with open(os.path.join(args.dir, "keys.txt"), "w") as f:
    f.write("\n".join(KEYS) + "\n")
if args.tls:
    cert = os.path.join(args.dir, "cert.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=IP:127.0.0.1", "-keyout", os.path.join(args.dir, "key.pem"), "-out", cert], check=True, capture_output=True)
    trust = ssl.create_default_context(cafile=cert)
if set(PARTS) - {"kill"}:
    all_of_them = Server("--sessions", os.path.join(args.dir, "kept"))
    for part in ("storm", "memory", "streams", "turns"):
        if part in PARTS:
            globals()["part_" + part](all_of_them)
    if "drain" in PARTS:
        part_drain(all_of_them)
    else:
        bar("exit code when told to end", all_of_them.end(), 0, all_of_them.process.returncode == 0)
if "kill" in PARTS:
    part_kill()
sys.exit(1 if short else 0)
