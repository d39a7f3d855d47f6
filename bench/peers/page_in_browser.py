"""bench/page-in-browser, after the shell has begun a server: drives a browser by its debugging pipe (messages of JSON, each closed by a zero
byte, on file descriptors 3 and 4) and looks at the page as a person would."""
import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile
import time


class Browser:
    def __init__(self, program, folder):
        to_read, to_write = os.pipe()
        from_read, from_write = os.pipe()

        def descriptors():
            a, b = os.dup(to_read), os.dup(from_write)
            os.dup2(a, 3)
            os.dup2(b, 4)

        self.process = subprocess.Popen(
            [program, "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run", "--user-data-dir=" + folder],
            preexec_fn=descriptors, close_fds=False, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(from_write)
        self.to, self.answers, self.held, self.number, self.session, self.faults = to_write, from_read, b"", 0, None, []

    def message(self):
        while b"\0" not in self.held:
            more = os.read(self.answers, 1 << 16)
            if not more:
                sys.exit("the browser ended")
            self.held += more
        text, self.held = self.held.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, **params):
        self.number += 1
        ask = {"id": self.number, "method": method, "params": params}
        if self.session:
            ask["sessionId"] = self.session
        os.write(self.to, json.dumps(ask).encode() + b"\0")
        while True:
            m = self.message()
            if m.get("method") == "Runtime.exceptionThrown":
                self.faults.append(m["params"]["exceptionDetails"].get("text", "an exception"))
            if m.get("id") == self.number:
                if "error" in m:
                    sys.exit(f"{method}: {m['error']['message']}")
                return m["result"]

    def page(self, url):
        target = self.call("Target.createTarget", url=url)["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Runtime.enable")

    def value(self, expression):
        r = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in r:
            self.faults.append(r["exceptionDetails"]["text"])
        return r["result"].get("value")

    def until(self, expression, seconds=120):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.value(expression):
                return True
            time.sleep(0.05)
        return False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--browser", required=True)
    parser.add_argument("--picture", default="")
    parser.add_argument("url")
    args = parser.parse_args()
    counts = {True: 0, False: 0}

    def check(ok, what):
        counts[bool(ok)] += 1
        print(("ok     " if ok else "FAILED ") + what, flush=True)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        b = Browser(args.browser, folder)
        b.page(args.url)
        set_key = "document.getElementById('key').value = '%s'; document.getElementById('key').dispatchEvent(new Event('change')); true"
        said = "[...document.querySelectorAll('#talk .said span')].map(x => x.textContent)"
        wrong = "document.querySelectorAll('#talk .wrong').length"
        sessions = "document.querySelectorAll('#tree li').length"
        rest = "document.getElementById('stop').disabled && !document.getElementById('send').disabled"
        check(b.until("document.readyState === 'complete' && typeof guard === 'function'"), "the page is there")
        check(b.until(wrong), "without a key it says that one is needed")
        b.value(set_key % "another")
        check(b.until(f"{wrong} > 1"), "so with a wrong one")
        b.value(set_key % "the-only-key-there-is")
        check(b.until("document.getElementById('model').textContent.length > 0"), "with the right one it names the model")
        b.value("document.getElementById('talk').replaceChildren(); document.getElementById('temperature').value = 0; "
                "document.getElementById('tokens').value = 24; true")

        def say(text):
            before = len(b.value(said))
            b.value(f"document.getElementById('text').value = {json.dumps(text)}; document.getElementById('form').requestSubmit(); true")
            lengths = []
            end = time.monotonic() + 120
            while time.monotonic() < end:  # live: the answer is looked at while it grows
                now = b.value(said)
                if len(now) >= before + 2:
                    lengths.append(len(now[-1]))
                if len(now) >= before + 2 and b.value(rest):
                    break
                time.sleep(0.002)
            return b.value(said)[before:], sorted(set(lengths))

        first, lengths = say("What colour is the sea?")
        check(len(first) == 2 and first[1], f"a question has an answer: {first[1:]}")
        check(len(lengths) > 1, f"which grows while one looks ({len(lengths)} lengths seen)")
        check(b.until("/tokens\\/s/.test(document.getElementById('figures').textContent)"), "tokens per second are there")
        check(b.until("/of state/.test(document.getElementById('figures').textContent)"), "and bytes of state")
        check(b.value(sessions) == 1, "one session stands in the tree")
        second, _ = say("And snow?")
        check(len(second) == 2 and second[1], f"the dialogue goes on: {second[1:]}")
        check(b.until("/[1-9][0-9]* of [0-9]+ tokens were known/.test(document.getElementById('figures').textContent)"),
              "and what was read before is not read again")
        b.value("document.getElementById('fork').click(); true")
        check(b.until(f"{sessions} === 2"), "a fork stands below it")
        check(b.until("document.querySelectorAll('#tree li button')[1].textContent.startsWith('└')"), "as a branch")
        check(b.value(said) == first + second, "and holds the same dialogue")
        b.value("document.getElementById('back').click(); true")
        check(b.until(f"{said}.length === 2"), "a turn is taken back")
        b.value("document.querySelectorAll('#tree li button')[0].click(); true")
        check(b.until(f"{said}.length === 4"), "in the fork alone")
        if args.picture:
            shot = b.call("Page.captureScreenshot", format="png")
            with open(args.picture, "wb") as f:
                f.write(base64.b64decode(shot["data"]))
            print(f"{args.picture} shows it")
        b.value("document.getElementById('remove').click(); true")
        check(b.until(f"{sessions} === 1"), "a session is deleted")
        check(b.value("document.querySelectorAll('#talk script, #talk img').length") == 0, "what is said is text, not markup")
        check(not b.faults, f"no exceptions {b.faults or ''}")
        b.process.kill()
        b.process.wait()
    print(f"\n{counts[True]} passed, {counts[False]} failed")
    sys.exit(0 if not counts[False] else 1)


if __name__ == "__main__":
    main()
