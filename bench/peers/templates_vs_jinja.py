"""Chat templates rendered by bench-rendered and by Jinja as transformers sets it up, conversation by conversation.

    templates_vs_jinja.py BENCH_RENDERED [--verbose] TEMPLATE...

Two agree where both write the same text, or both refuse. What transformers forbids but other programs allow (a list that is changed,
the filter from_json) is compared with Jinja where that is allowed."""
import argparse
import collections
import datetime
import importlib.util
import json
import os
import subprocess
import sys
import tempfile


# Jinja as the golden cases know it
SPEC = importlib.util.spec_from_file_location("golden_template", os.path.join(os.path.dirname(__file__), "../../tests/golden/template.py"))
golden = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(golden)


def environment(mutable):
    env = golden.environment(mutable)
    if mutable:
        env.filters["from_json"] = json.loads
    env.globals["strftime_now"] = lambda f: datetime.datetime.fromtimestamp(golden.NOW).strftime(f)
    return env


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a place: \"now\" or <later>.",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "description": "A town, e.g. Zürich"},
                    "days": {"type": "integer", "default": 1, "enum": [1, 2, 7]},
                    "units": {"type": ["string", "null"], "description": "C or F"},
                    "exact": {"type": "boolean"},
                    "bounds": {"type": "array", "items": {"type": "number"}, "minItems": 2},
                },
                "required": ["place"],
            },
            "return": {"type": "object", "description": "what it is like"},
        },
    },
    {"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}}},
]


def call(name, arguments, number=0):
    return {"id": f"call{number:05d}", "type": "function", "function": {"name": name, "arguments": arguments}}


def conversations():
    user, system = {"role": "user", "content": " What is 2 + 2?\n"}, {"role": "system", "content": "You are terse. Süß – 日本"}
    answer = {"role": "assistant", "content": "It is 4."}
    more = {"role": "user", "content": "And 'three' <b>times</b> that?"}
    called = {"role": "assistant", "content": "", "tool_calls": [call("weather", {"place": "Zürich", "days": 2, "exact": True})]}
    as_text = {"role": "assistant", "content": None, "tool_calls": [call("weather", json.dumps({"place": "Bern"}), 1), call("now", "{}", 2)]}
    result = {"role": "tool", "name": "weather", "tool_call_id": "call00000", "content": '{"sky": "clear", "t": 21.5}'}
    second = {"role": "tool", "name": "now", "tool_call_id": "call00002", "content": "12:00"}
    third = {"role": "tool", "name": "weather", "tool_call_id": "call00001", "content": "rain"}
    thought = {"role": "assistant", "reasoning_content": "Two and two.\nFour.", "thinking": "Two and two.\nFour.", "content": "4"}
    inline = {"role": "assistant", "content": "<think>\nTwo and two.\n</think>\n\n4"}
    parts = {"role": "user", "content": [{"type": "text", "text": "Look: "}, {"type": "text", "text": "here"}]}
    image = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}
    yield "plain", [user], {}
    yield "no prompt", [user], {"add_generation_prompt": False}
    yield "system", [system, user], {}
    yield "turns", [system, user, answer, more], {}
    yield "turns without a prompt", [user, answer, more, answer], {"add_generation_prompt": False}
    yield "tools", [system, user], {"tools": TOOLS}
    yield "call", [user, called], {"tools": TOOLS, "add_generation_prompt": False}
    yield "result", [user, called, result], {"tools": TOOLS}
    yield "two results", [system, user, as_text, third, second], {"tools": TOOLS}
    yield "answer to a result", [user, called, result, answer, more], {"tools": TOOLS}
    yield "thinking", [user, thought, more], {"enable_thinking": True, "thinking": True}
    yield "no thinking", [user, inline, more], {"enable_thinking": False, "thinking": False}
    yield "reasons", [user, thought, more], {"reasoning_effort": "high", "keep_past_thinking": True, "preserve_thinking": True}
    yield "parts", [parts, {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]}, parts], {}
    yield "image", [image], {}
    yield "wrong order", [answer, answer, system], {}
    yield "empty", [], {}
    yield "documents", [user], {"documents": [{"title": "Sums", "text": "2 + 2 = 4", "doc_id": 1}]}
    yield "date", [user], {"date_string": "1 Jan 2026", "builtin_tools": ["brave_search"], "tools": TOOLS[1:]}


def values(messages, extra):
    all_of = {"messages": messages, "add_generation_prompt": True, "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    # transformers gives tools and documents always, and drops what is None in a message
    all_of.update({"tools": None, "documents": None})
    all_of.update(extra)
    all_of["messages"] = [{k: v for k, v in m.items() if v is not None} for m in messages]
    return all_of


def by_jinja(text, of, mutable):
    try:
        return environment(mutable).from_string(text).render(**json.loads(json.dumps(of))), None
    except Exception as e:  # whatever goes wrong in a template
        return None, f"{type(e).__name__}: {e}"


def by_mneme(program, path, of):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump(of, f)
        f.flush()
        done = subprocess.run([program, path, f.name, str(golden.NOW)], capture_output=True)
    return (done.stdout.decode(), None) if done.returncode == 0 else (None, done.stderr.decode().strip())


def first_difference(a, b):
    at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    return f"at {at}: Jinja {a[max(0, at - 30):at + 40]!r}, Mneme {b[max(0, at - 30):at + 40]!r}"


def main():
    args = argparse.ArgumentParser()
    args.add_argument("program")
    args.add_argument("templates", nargs="+")
    args.add_argument("--verbose", action="store_true")
    args = args.parse_args()
    good, counts = 0, collections.Counter()
    for path in args.templates:
        with open(path, encoding="utf-8") as f:
            text = f.read()
        bad = []
        for name, messages, extra in conversations():
            of = values(messages, extra)
            wanted, why = by_jinja(text, of, False)
            if wanted is None and ("SecurityError" in why or "from_json" in why):
                wanted, why = by_jinja(text, of, True)
            got, said = by_mneme(args.program, path, of)
            if args.verbose and wanted is None:
                print(f"  {os.path.basename(path)}, {name}: Jinja {why} | Mneme {said}")
            if wanted is None and got is None:
                counts["both refuse"] += 1
            elif wanted is not None and wanted == got:
                counts["the same text"] += 1
            else:
                counts["differ"] += 1
                bad.append(f"{name}: " + (f"Jinja refuses ({why})" if wanted is None else f"Mneme refuses ({said})" if got is None else first_difference(wanted, got)))
        good += not bad
        for line in bad:
            print(f"{os.path.basename(path)}: {line}")
    for what in ("the same text", "both refuse", "differ"):
        print(f"conversations, {what}: {counts[what]}")
    total = len(args.templates)
    print(f"templates that agree on every conversation: {good} of {total} ({total}) {'ok' if good == total else 'short'}")
    return good != total


if __name__ == "__main__":
    sys.exit(main())
