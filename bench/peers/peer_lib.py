"""What the peers share: resident memory, the `step K` protocol, and a trial run in a child process."""
import json
import multiprocessing
import statistics
import sys
import time


def status_bytes(key):
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


def rss_bytes():
    return status_bytes("VmRSS")


def peak_rss_bytes():
    return status_bytes("VmHWM")


def child_main(pipe, function, args, threads):
    import torch
    torch.set_num_threads(threads)
    pipe.send(function(*args))


def in_child(function, *args, threads):
    """function(*args) in a fresh process (spawned, so that it inherits no thread pool)."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=child_main, args=(theirs, function, args, threads))
    child.start()
    theirs.close()  # so that a child that dies ends our wait
    try:
        return ours.recv()
    except EOFError:
        raise RuntimeError("the trial run failed; its message is above") from None
    finally:
        child.join()


def serve_or_time(args, info, step):
    """Answers `step K` requests (see pytorch_train.py), or times args.steps steps after two of warm-up."""
    def run(steps):
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        return times

    def say(record):
        print(json.dumps(record), flush=True)

    tokens = info["tokens_per_step"]
    if not args.steps_on_stdin:
        run(2)
        seconds = statistics.median(run(args.steps))
        say({**info, "seconds_per_step": seconds, "tokens_per_second": tokens / seconds,
             "peak_rss_bytes": peak_rss_bytes()})
        return
    say({**info, "ready": True})
    for line in sys.stdin:
        words = line.split()
        if not words:
            continue
        if words == ["quit"]:
            break
        if len(words) != 2 or words[0] != "step" or not words[1].isdigit() or int(words[1]) < 1:
            say({"error": f"expected `step K` or `quit`, got {line.strip()!r}"})
            continue
        seconds = sum(run(int(words[1])))
        say({"steps": int(words[1]), "seconds": seconds, "seconds_per_step": seconds / int(words[1]),
             "tokens_per_second": tokens * int(words[1]) / seconds, "peak_rss_bytes": peak_rss_bytes()})
