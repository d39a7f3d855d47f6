"""The clients of bench/serve-load: serve_load.py URL PID REQUESTS. Standard library alone."""
import http.client
import json
import random
import statistics
import sys
import threading
import time
import urllib.parse

url, pid, requests = urllib.parse.urlparse(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
KEYS = ["first-key-of-the-load", "second-key-of-the-load"]
CLIENTS = 64
WORDS = "the whale ship sea old man boat white captain night water wind".split()
short = 0


def bar(name, value, wanted, fine):
    global short
    print(f"{name}: {value} ({wanted}) {'ok' if fine else 'short'}", flush=True)
    short += not fine


def resident():
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmRSS"))


def ask(body, key=0, leave=None):
    """Status, text, tokens, seconds to the first piece. leave: goes away after so many pieces of a stream."""
    c = http.client.HTTPConnection(url.hostname, url.port, timeout=600)
    began, first, text, tokens, pieces = time.monotonic(), None, "", 0, 0
    try:
        c.request("POST", "/v1/completions", json.dumps(body), {"Authorization": "Bearer " + KEYS[key], "Content-Type": "application/json"})
        r = c.getresponse()
        if r.status != 200:
            return r.status, r.read().decode(), 0, 0
        if not body.get("stream"):
            j = json.loads(r.read())
            return 200, j["choices"][0]["text"], j["usage"]["completion_tokens"], time.monotonic() - began
        while True:
            line = r.readline().decode()
            if not line or line.startswith("data: [DONE]"):
                return (200 if line else 0), text, tokens, first
            if not line.startswith("data: "):
                continue
            j = json.loads(line[6:])
            if "error" in j:
                return 500, j["error"]["message"], 0, 0
            first = first or time.monotonic() - began
            pieces += 1
            if leave is not None and pieces > leave:
                return -1, text, tokens, first
            if j["choices"]:
                text += j["choices"][0]["text"]
            if j.get("usage"):
                tokens = j["usage"]["completion_tokens"]
    finally:
        c.close()


def metric(name):
    c = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    c.request("GET", "/metrics", headers={"Authorization": "Bearer " + KEYS[0]})
    lines = c.getresponse().read().decode().splitlines()
    c.close()
    return next(float(line.split()[-1]) for line in lines if line.startswith("mneme_" + name + " "))


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
    return {"prompt": prompt(rng, rng.choice([1, 3, 10, 40, 150])), "max_tokens": rng.choice([1, 5, 20, 60, 120]), "seed": i, "temperature": 0.8,
            "stream": rng.random() < 0.6, "ignore_eos": True}


# ---- 64 clients, a tenth leave ----
def storm(first, n):
    results, lock, left = {}, threading.Lock(), list(range(first, first + n))

    def client():
        while True:
            with lock:
                if not left:
                    return
                i = left.pop(0)
            body = ragged(i)
            leaves = i % 10 == 7
            if leaves:
                body["stream"] = True
                body["max_tokens"] = 120
            if body["stream"]:
                body["stream_options"] = {"include_usage": True}
            got = ask(body, i % 2, leave=random.Random(i).randrange(3) if leaves else None)
            with lock:
                results[i] = (leaves, body, got)

    began = time.monotonic()
    in_threads([client] * CLIENTS)
    return results, time.monotonic() - began


def wait_idle():
    until = time.monotonic() + 300
    while metric("streams_running") or metric("prompts_reading") or metric("requests_waiting"):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


warm, _ = storm(100000, CLIENTS)
wait_idle()
before = resident()
results, seconds = storm(0, requests)
wrong = [(i, r[2]) for i, r in results.items() if not r[0] and (r[2][0] != 200 or r[2][2] != r[1]["max_tokens"])]
for i, r in wrong[:5]:
    print(f"  request {i}: {r[0]} {r[1][:200]!r}, {r[2]} tokens", file=sys.stderr)
gone = sum(r[0] for r in results.values())
made = sum(r[2][2] for r in results.values() if not r[0])
print(f"{requests} requests of {CLIENTS} clients, {gone} of which left: {seconds:.1f} s, {made / seconds:.0f} tokens/s kept")
bar("requests that failed", len(wrong), 0, not wrong)
bar("idle when all are served", "yes" if wait_idle() else "no", "yes", metric("batch_room") == 0)

# ---- who asks alone gets the same ----
some = [i for i, r in sorted(results.items()) if not r[0]][:12]
same = sum(ask(results[i][1])[1] == results[i][2][1] for i in some)
bar("answers that are the same when asked for alone", f"{same} of {len(some)}", len(some) - 1, same >= len(some) - 1)

# ---- memory ----
storm(1000, requests)
wait_idle()
grown = resident() - before
bar("growth of memory over twice as many requests", f"{grown / 2**20:.1f} MiB", "32 MiB", grown < 32 << 20)

# ---- 1 against 8 ----
body = {"prompt": "the white whale", "max_tokens": 100, "temperature": 0.8, "ignore_eos": True}


def rate(streams):
    began = time.monotonic()
    in_threads([lambda k=k: ask({**body, "seed": k}) for k in range(streams)])
    return streams * 100 / (time.monotonic() - began)


rate(8), rate(1)
turns = [(rate(1), rate(8)) for _ in range(5)]
one, eight = (statistics.median(t[k] for t in turns) for k in (0, 1))
ratio = statistics.median(t[1] / t[0] for t in turns)
print(f"one stream {one:.0f} tokens/s, eight together {eight:.0f}")
bar("eight streams over one", f"{ratio:.2f}", 1.5, ratio >= 1.5)

# ---- two keys: one asks for ten times as much ----
order, lock = [], threading.Lock()


def work(key, i):
    ask({"prompt": prompt(random.Random(i), 20), "max_tokens": 40, "seed": i, "ignore_eos": True}, key)
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
sys.exit(1 if short else 0)
