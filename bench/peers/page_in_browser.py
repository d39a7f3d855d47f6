"""bench/page-in-browser, told how a server is begun: drives a browser by its debugging pipe (messages of JSON, each closed by a zero byte, on
file descriptors 3 and 4) and looks at the page as a person would."""
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
        self.to, self.answers, self.held, self.number, self.session, self.faults, self.asked = to_write, from_read, b"", 0, None, [], []

    def message(self):
        while b"\0" not in self.held:
            more = os.read(self.answers, 1 << 20)
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
            if m.get("method") == "Page.javascriptDialogOpening":  # a question to the person, who says yes
                self.asked.append(m["params"]["message"])
                self.number += 1
                yes = {"id": self.number, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}, "sessionId": m["sessionId"]}
                os.write(self.to, json.dumps(yes).encode() + b"\0")
            if m.get("id") == ask["id"]:
                if "error" in m:
                    sys.exit(f"{method}: {m['error']['message']}")
                return m["result"]

    def page(self, url):
        """A page of its own; what is asked from now on is asked of it. Its name, for turn_to()."""
        self.session = None
        target = self.call("Target.createTarget", url=url)["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Runtime.enable")
        self.call("Page.enable")
        return self.session

    def turn_to(self, page):
        self.session = page

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


class Server:
    """The command, on a port that is free, and after a restart on the same."""

    def __init__(self, command):
        self.command, self.port, self.process, self.url = command, "0", None, ""
        self.begin()

    def begin(self):
        self.process = subprocess.Popen(self.command + ["--port", self.port], stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().split(" ")[0]
        if not self.url.startswith("http"):
            sys.exit("no server")
        self.port = self.url.rsplit(":", 1)[1]

    def end(self, hard=False):
        (self.process.kill if hard else self.process.terminate)()
        self.process.wait()


SAID = "[...document.querySelectorAll('#talk .said span')].map(x => x.textContent)"
SESSIONS = "document.querySelectorAll('#tree li').length"
REST = "document.getElementById('stop').disabled && !document.getElementById('send').disabled"
FAULT = "document.getElementById('fault').textContent"
FIGURES = "document.getElementById('figures').textContent"
BOX = "document.getElementById('text').value"
LONG = "Tell me of the sea."  # what it is asked for an answer that takes long
BUSY = "!document.getElementById('stop').disabled"


class Person:
    """Who sits before the page that the browser was turned to."""

    def __init__(self, browser):
        self.b = browser

    def click(self, name):
        return self.b.value(f"document.getElementById('{name}').click(); true")

    def set(self, name, text):
        return self.b.value(f"(e => {{ e.value = {json.dumps(text)}; e.dispatchEvent(new Event('change')); return true; }})(document.getElementById('{name}'))")

    def begin_to_say(self, text):
        return self.b.value(f"document.getElementById('text').value = {json.dumps(text)}; document.getElementById('form').requestSubmit(); true")

    def say(self, text):
        """What came of it, and how long the answer was whenever one looked."""
        before = len(self.b.value(SAID))
        self.begin_to_say(text)
        lengths, end = [], time.monotonic() + 120
        while time.monotonic() < end:
            now = self.b.value(SAID)
            if len(now) >= before + 2:
                lengths.append(len(now[-1]))
            if self.b.value(REST):
                break
            time.sleep(0.002)
        return self.b.value(SAID)[before:], sorted(set(lengths))

    def ready(self):
        return self.b.until("document.readyState === 'complete' && typeof guard === 'function'") and self.b.until("document.getElementById('model').textContent.length > 0")


def a_key_is_wanted(b, me, check):
    check(b.until("document.readyState === 'complete' && typeof guard === 'function'"), "the page is there")
    check(b.until(f"/wants an API key/.test({FAULT})"), "without a key it says that one is needed")
    me.set("key", "another")
    check(b.until(f"/wants an API key/.test({FAULT})"), "so with a wrong one")
    me.set("key", "the-only-key-there-is")
    check(me.ready(), "with the right one it names the model")
    check(b.until(f"{FAULT} === ''"), "and complains no more")


def a_dialogue(b, me, check):
    me.set("temperature", "0"), me.set("tokens", "24")
    first, lengths = me.say("What colour is the sea?")
    check(len(first) == 2 and first[1], f"a question has an answer: {first[1:]}")
    check(len(lengths) > 1, f"which grows while one looks ({len(lengths)} lengths seen)")
    check(b.until(f"/tokens\\/s/.test({FIGURES})"), "tokens per second are there")
    check(b.until(f"/of state/.test({FIGURES})"), "and bytes of state")
    check(b.until(f"{SESSIONS} === 1"), "one session stands in the tree")
    second, _ = me.say("And snow?")
    check(len(second) == 2 and second[1], f"the dialogue goes on: {second[1:]}")
    check(b.until(f"/[1-9][0-9]* of [0-9]+ tokens were known/.test({FIGURES})"), "and what was read before is not read again")
    return first + second


def forks(b, me, check, dialogue):
    me.click("fork")
    check(b.until(f"{SESSIONS} === 2"), "a fork stands below it")
    check(b.until("document.querySelectorAll('#tree li button')[1].textContent.startsWith('└')"), "as a branch")
    check(b.until(f"JSON.stringify({SAID}) === {json.dumps(json.dumps(dialogue, ensure_ascii=False, separators=(',', ':')))}"), "and holds the same dialogue")
    me.click("back")
    check(b.until(f"{SAID}.length === 2"), "a turn is taken back")
    check(b.value(BOX) == dialogue[2], "and its question is there to be said otherwise")
    b.value("document.querySelectorAll('#tree li button')[0].click(); true")
    check(b.until(f"{SAID}.length === 4"), "in the fork alone")


def reloads(b, me, check, dialogue):
    b.call("Page.reload")
    time.sleep(0.3)
    check(me.ready(), "a page that is loaded again knows its key")
    check(b.until(f"{SAID}.length === 4") and b.value(SAID) == dialogue, "and its dialogue")
    me.set("temperature", "0"), me.set("tokens", "24")


def markup(b, me, check):
    me.click("new")
    evil = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"
    said, _ = me.say(evil)
    check(said and said[0] == evil and b.value("document.querySelectorAll('#talk script, #talk img').length") == 0 and b.value("document.title") == "Mneme",
          "what is said is text, not markup")
    b.value("location.hash = '#<img src=x onerror=alert(1)>'; true")
    check(b.until(f"/is no name of a session/.test({FAULT})"), "also as the name of a session")
    b.value("location.hash = ''; true")
    check(b.until(f"shown === null && {FAULT} === ''"), "without a name in the address a new one begins")


def stops(b, me, check):
    me.click("new")
    me.set("tokens", "6000")
    me.begin_to_say(LONG)
    check(b.until(f"{BUSY} && {SAID}.length === 2 && {SAID}[1].length > 2", 20), "an answer comes in")
    me.click("stop")
    check(b.until(REST), "and is stopped")
    cut = b.value(SAID)
    check(len(cut) == 2 and cut[1] and b.value(FAULT) == "", "what was said stays")
    me.set("tokens", "8")
    after, _ = me.say("And snow?")
    check(b.value(FAULT) == "" and b.value(SAID)[:2] == cut and len(after) == 2, f"and goes along with the next question {b.value(FAULT)}")
    b.call("Page.reload")
    time.sleep(0.3)
    me.ready()
    check(b.until(f"{SAID}.length === 4") and b.value(SAID)[:2] == cut, "the session has it then")
    me.set("temperature", "0"), me.set("tokens", "8")
    return cut


def refusals(b, me, check):
    me.click("new")
    long = "The sea is large. " * 20000
    me.begin_to_say(long)
    check(b.until(f"{REST} && {FAULT} !== ''"), "a question that is too long is refused")
    check("context" in b.value(FAULT), f"with the reason: {b.value(FAULT)[:100]}")
    check(b.value(BOX) == long and b.value(f"{SAID}.length") == 0, "and is still there to be made shorter")
    check(b.value("location.hash") == "", "no session is named that there is not")
    me.begin_to_say("x" * 5_000_000)
    check(b.until(f"{REST} && {FAULT} !== ''") and "larger than" in b.value(FAULT), f"one beyond all bounds too: {b.value(FAULT)[:100]}")
    me.set("text", ""), me.set("tokens", "")
    said, _ = me.say("What colour is the sea?")
    check(len(said) == 2 and b.value(FAULT) == "", f"no number of tokens is any number {b.value(FAULT)}")
    me.set("tokens", "8")


def two_pages(b, me, check, url, first):
    me.click("new")
    me.say("What colour is the sea?")
    name = b.value("location.hash")
    second = b.page(url + "/" + name)
    b.until("document.readyState === 'complete' && typeof guard === 'function'")
    me.set("key", "the-only-key-there-is")
    check(b.until(f"{SAID}.length === 2"), "another page of the session shows it")
    me.set("temperature", "0"), me.set("tokens", "8")
    me.say("And snow?")
    there = b.value(SAID)
    b.turn_to(first)
    said, _ = me.say("And grass?")
    check(b.value(SAID)[:4] == there and len(b.value(SAID)) == 6, "what was said there is here with the next answer")
    b.turn_to(second)
    b.value("dispatchEvent(new Event('focus')); true")
    check(b.until(f"{SAID}.length === 6"), "and there when one looks")
    me.click("new")
    me.set("tokens", "6000")
    me.begin_to_say(LONG)
    check(b.until(f"{BUSY} && {SAID}.length === 2 && {SAID}[1].length > 2", 20), "an answer comes in there")
    name = b.value("shown")
    b.turn_to(first)
    b.value(f"choose('{name}'); true")
    me.begin_to_say("At the same time")
    check(b.until(f"{REST} && /another request/.test({FAULT})", 20), f"two at once: one waits for the other: {b.value(FAULT)}")
    check(b.value(BOX) == "At the same time", "and has its question still")
    b.turn_to(second)
    me.click("stop")
    b.until(REST)
    b.turn_to(first)
    me.set("text", "")


def killed(b, me, check, server):
    me.click("new")
    me.set("tokens", "8")
    first, _ = me.say("What colour is the sea?")
    me.set("tokens", "6000")
    me.begin_to_say(LONG)
    check(b.until(f"{BUSY} && {SAID}.length === 4 && {SAID}[3].length > 2", 20), "an answer comes in once more")
    server.end(hard=True)
    check(b.until(f"{REST} && /in the middle/.test({FAULT})"), f"a server that is killed is missed: {b.value(FAULT)}")
    cut = b.value(SAID)
    check(len(cut) == 4 and cut[3], "what it had said stays")
    me.begin_to_say("Are you there?")
    check(b.until(f"{REST} && /cannot be reached/.test({FAULT})"), "one that is not there, too")
    check(b.value(BOX) == "Are you there?" and b.value(SAID) == cut, "the question waits")
    server.begin()
    me.set("tokens", "8"), me.set("text", "")
    said, _ = me.say("And snow?")
    check(b.value(FAULT) == "" and len(said) == 2 and b.value(SAID)[:4] == cut, f"when it is back the dialogue goes on {b.value(FAULT)}")


def deleted(b, me, check):
    n = b.value(SESSIONS)
    me.click("remove")
    check(b.until(f"{SESSIONS} === {n - 1}"), "a session is deleted")
    check(len(b.asked) == 1 and "Delete" in b.asked[0], "when one has said so twice")
    check(b.until(f"{SAID}.length === 0") and b.value("location.hash") == "", "and is gone from the page")


def typed(b, me, check):
    me.set("text", "ni")
    key = "(c => document.getElementById('text').dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', bubbles: true, cancelable: true, isComposing: c})))(%s); true"
    b.value(key % "true")
    check(b.value(BOX) == "ni" and b.value(REST), "Enter that chooses a word of an input method sends nothing")
    b.value(key % "false")
    check(b.until(f"{REST} && {SAID}.length === 2") and b.value(BOX) == "", "Enter sends")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--browser", required=True)
    parser.add_argument("--picture", default="")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    counts = {True: 0, False: 0}

    def check(ok, what):
        counts[bool(ok)] += 1
        print(("ok     " if ok else "FAILED ") + what, flush=True)

    server = Server(args.command)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        b = Browser(args.browser, folder)
        try:
            me, page = Person(b), b.page(server.url)
            a_key_is_wanted(b, me, check)
            dialogue = a_dialogue(b, me, check)
            forks(b, me, check, dialogue)
            if args.picture:
                shot = b.call("Page.captureScreenshot", format="png")
                with open(args.picture, "wb") as f:
                    f.write(base64.b64decode(shot["data"]))
                print(f"{args.picture} shows it")
            reloads(b, me, check, dialogue)
            markup(b, me, check)
            stops(b, me, check)
            refusals(b, me, check)
            two_pages(b, me, check, server.url, page)
            killed(b, me, check, server)
            deleted(b, me, check)
            typed(b, me, check)
            check(not b.faults, f"no exceptions {b.faults or ''}")
        finally:
            b.process.kill()
            b.process.wait()
            server.end()
    print(f"\n{counts[True]} passed, {counts[False]} failed")
    sys.exit(0 if not counts[False] else 1)


if __name__ == "__main__":
    main()
