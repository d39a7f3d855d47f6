"""The client of bench/openai-client: openai_client.py TALKS TOOLS VECTORS, the addresses of three servers."""
import json
import math
import sys

import openai

talks, tools, vectors = (openai.OpenAI(base_url=u + "/v1", api_key="the-only-key-there-is", max_retries=0) for u in sys.argv[1:4])
passed = failed = 0


def check(what, fine, seen=""):
    global passed, failed
    passed, failed = passed + bool(fine), failed + (not fine)
    if not fine:
        print(f"FAILED {what}: {seen}")


def refused(what, kind, fn):
    try:
        fn()
        check(what, False, "it was not refused")
    except kind as e:
        check(what, e.body and e.body.get("message"), e)


check("models", [m.id for m in talks.models.list()] == ["talks"])
question = [{"role": "user", "content": "What colour is the sea?"}]
r = talks.chat.completions.create(model="talks", messages=question, temperature=0)
check("a chat", r.choices[0].message.content == "It is blue." and r.choices[0].finish_reason == "stop", r)
check("usage", r.usage.total_tokens == r.usage.prompt_tokens + r.usage.completion_tokens and r.usage.prompt_tokens > 20, r.usage)
pieces = list(talks.chat.completions.create(model="talks", messages=question, temperature=0, stream=True, stream_options={"include_usage": True}))
check("a stream", "".join(p.choices[0].delta.content or "" for p in pieces if p.choices) == "It is blue.", pieces)
check("its usage", pieces[-1].usage and pieces[-1].usage.completion_tokens == r.usage.completion_tokens, pieces[-1])
check("its role and end", pieces[0].choices[0].delta.role == "assistant" and pieces[-2].choices[0].finish_reason == "stop")
whole = question + [{"role": "assistant", "content": "It is blue."}, {"role": "user", "content": "And snow?"}]
r = talks.chat.completions.create(model="talks", messages=whole, temperature=0, logprobs=True, top_logprobs=3, n=2, max_completion_tokens=4)
check("several answers", len(r.choices) == 2 and all(c.finish_reason == "length" for c in r.choices), r)
log = r.choices[0].logprobs.content
check("log-probabilities", len(log) == 4 and all(len(t.top_logprobs) == 3 and t.logprob <= 0 and t.bytes for t in log), log)
check("the likeliest is first", all(t.top_logprobs[0].logprob >= t.top_logprobs[1].logprob for t in log))
check("a parts message", talks.chat.completions.create(model="talks", temperature=0, messages=[{"role": "user", "content": [
    {"type": "text", "text": "What colour "}, {"type": "text", "text": "is the sea?"}]}]).choices[0].message.content == "It is blue.")
r = talks.completions.create(model="talks", prompt=["User: What", "User: And"], max_tokens=6, temperature=0, logprobs=2, n=1, extra_body={"ignore_eos": True})
check("completions", len(r.choices) == 2 and len(r.choices[0].logprobs.tokens) == 6 and len(r.choices[1].logprobs.top_logprobs[0]) == 2, r)
text = "".join(p.choices[0].text for p in talks.completions.create(model="talks", prompt="User: What", max_tokens=6, temperature=0, stream=True, extra_body={"ignore_eos": True}))
check("a stream of a completion", text == r.choices[0].text, text)
r = talks.completions.create(model="talks", prompt="User: What", max_tokens=40, temperature=0, stop=["sea"])
check("a stop", r.choices[0].finish_reason == "stop" and "sea" not in r.choices[0].text, r)
a, b = (talks.completions.create(model="talks", prompt="The", max_tokens=20, seed=5, temperature=1.2).choices[0].text for _ in range(2))
check("a seed", a == b, (a, b))
schema = {"type": "object", "properties": {"colour": {"type": "string", "enum": ["blue", "white"]}, "sure": {"type": "boolean"}},
          "required": ["colour", "sure"], "additionalProperties": False}
for seed in range(4):
    r = talks.chat.completions.create(model="talks", messages=question, seed=seed, max_tokens=100, response_format={
        "type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}})
    said = json.loads(r.choices[0].message.content)
    check("a schema", set(said) == {"colour", "sure"} and said["colour"] in ("blue", "white") and isinstance(said["sure"], bool), r)
adding = [{"type": "function", "function": {"name": "add", "description": "adds", "parameters": {"type": "object", "properties": {
    "a": {"type": "integer", "minimum": 0, "maximum": 9}, "b": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["a", "b"]}}}]
r = tools.chat.completions.create(model="tools", messages=question, tools=adding, tool_choice="required", max_tokens=100, seed=1)
call = r.choices[0].message.tool_calls[0] if r.choices[0].message.tool_calls else None
check("a call", r.choices[0].finish_reason == "tool_calls" and call and call.function.name == "add" and set(json.loads(call.function.arguments)) == {"a", "b"}, r)
answered = question + [r.choices[0].message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": "3"}]
r = tools.chat.completions.create(model="tools", messages=answered, tools=adding, tool_choice="none", max_tokens=5)
check("after a call", r.choices[0].finish_reason in ("length", "stop"), r)
names, arguments = "", ""
for p in tools.chat.completions.create(model="tools", messages=question, tools=adding, tool_choice={"type": "function", "function": {"name": "add"}}, max_tokens=100, stream=True):
    for c in (p.choices[0].delta.tool_calls or []) if p.choices else []:
        names += c.function.name or ""
        arguments += c.function.arguments or ""
check("a call in a stream", names == "add" and set(json.loads(arguments)) == {"a", "b"}, (names, arguments))
r = vectors.embeddings.create(model="vectors", input=["the sea", "a ship"])
check("embeddings", len(r.data) == 2 and all(abs(math.fsum(x * x for x in d.embedding) - 1) < 1e-4 for d in r.data), r.usage)
f = vectors.embeddings.create(model="vectors", input="the sea", encoding_format="float", dimensions=8)
check("fewer dimensions", len(f.data[0].embedding) == 8 and abs(sum(x * x for x in f.data[0].embedding) - 1) < 1e-4)
first = talks.chat.completions.create(model="talks", messages=question, temperature=0, extra_body={"session_id": "client"})
again = talks.chat.completions.create(model="talks", messages=[{"role": "user", "content": "And snow?"}], temperature=0, extra_body={"session_id": "client"})
check("a session", again.choices[0].message.content == "It is white." and again.usage.prompt_tokens_details.cached_tokens > 20, again)
r = talks.responses.create(model="talks", input="What colour is the sea?", temperature=0)
check("a response", r.output_text == "It is blue." and r.status == "completed" and r.usage.total_tokens > 20, r)
kinds, text = [], ""
for e in talks.responses.create(model="talks", input="What colour is the sea?", temperature=0, stream=True):
    kinds.append(e.type)
    text += e.delta if e.type == "response.output_text.delta" else ""
check("a response in events", text == "It is blue." and kinds[0] == "response.created" and kinds[-1] == "response.completed", kinds)
with talks.responses.stream(model="talks", input="What colour is the sea?", temperature=0) as stream:
    snapshots = [e.snapshot for e in stream if e.type == "response.output_text.delta"]
    final = stream.get_final_response()
check("a stream of a response", final.output_text == snapshots[-1] == "It is blue." and final.usage.output_tokens > 0, final)
flat = [{"type": "function", **adding[0]["function"], "strict": True}]
r = tools.responses.create(model="tools", input="What colour is the sea?", tools=flat, tool_choice="required", max_output_tokens=100)
call = r.output[0]
check("a call as an item", call.type == "function_call" and call.name == "add" and set(json.loads(call.arguments)) == {"a", "b"}, r)
r = tools.responses.create(model="tools", max_output_tokens=5, tools=flat, tool_choice="none", input=[
    {"role": "user", "content": "What?"}, *[o.model_dump(exclude_none=True) for o in r.output], {"type": "function_call_output", "call_id": call.call_id, "output": "3"}])
check("after its result", r.output[0].type == "message", r)
with tools.responses.stream(model="tools", input="What?", tools=flat, tool_choice={"type": "function", "name": "add"}, max_output_tokens=100) as stream:
    arguments = "".join(e.delta for e in stream if e.type == "response.function_call_arguments.delta")
    final = stream.get_final_response()
check("a call in events", json.loads(arguments) == json.loads(final.output[0].arguments), (arguments, final))
r = talks.responses.create(model="talks", input="What colour is the sea?", max_output_tokens=100, text={"format": {
    "type": "json_schema", "name": "answer", "strict": True, "schema": schema}})
check("a response of a schema", json.loads(r.output_text)["colour"] in ("blue", "white"), r)
first = talks.responses.create(model="talks", input="What colour is the sea?", temperature=0, store=True)
r = talks.responses.create(model="talks", input="And snow?", temperature=0, previous_response_id=first.id)
check("a response goes on", r.output_text == "It is white." and r.usage.input_tokens_details.cached_tokens > 20, r)
r = talks.completions.create(model="talks", prompt="User: What", max_tokens=0, echo=True, logprobs=1)
log = r.choices[0].logprobs
check("log-probabilities of a prompt", r.choices[0].text == "User: What" and len(log.tokens) == 10 and log.token_logprobs[0] is None and all(
    p <= max(t.values()) + 1e-9 <= 1e-9 for p, t in zip(log.token_logprobs[1:], log.top_logprobs[1:])), log)
refused("a response that is not kept", openai.NotFoundError, lambda: talks.responses.create(model="talks", input="a", previous_response_id="resp_1"))
refused("another model", openai.NotFoundError, lambda: talks.completions.create(model="other", prompt="a"))
refused("a wrong value", openai.BadRequestError, lambda: talks.completions.create(model="talks", prompt="a", temperature=9))
refused("too long", openai.BadRequestError, lambda: talks.completions.create(model="talks", prompt="a" * 5000))
refused("a wrong key", openai.AuthenticationError, lambda: talks.with_options(api_key="wrong-key").models.list())
refused("no vectors", openai.BadRequestError, lambda: talks.embeddings.create(model="talks", input="a"))
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed else 0)
