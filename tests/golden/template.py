"""Small chat templates, one construct each, and what Jinja makes of them as transformers sets it up (jinja2 3.1 or later):
template/cases.json. A case's `text` is what must be written; one without it must be refused. `mutable` cases change lists or maps in
place, which transformers forbids, and are rendered where that is allowed."""
import datetime
import json

import jinja2
import jinja2.ext
import jinja2.sandbox

NOW = 1764417600  # 2025-11-29 12:00 UTC


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_pass"), [], [], body).set_lineno(line)

    def _pass(self, caller):
        return caller()


def environment(mutable):
    kind = jinja2.sandbox.SandboxedEnvironment if mutable else jinja2.sandbox.ImmutableSandboxedEnvironment
    env = kind(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])

    def refuse(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = refuse
    env.globals["strftime_now"] = lambda f: datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(f)
    return env


VALUES = {
    "a": 7, "b": -3, "f": 2.5, "s": " Hello, World \n", "n": None, "t": True, "e": "", "u": "Zürich – 日本 \U0001F600",
    "l": [3, 1, 2], "m": {"x": 1, "y": [1, 2], "items": "own", "nul": None},
    "people": [{"name": "Ada", "age": 36, "at": {"town": "London"}}, {"name": "bob", "age": 7}, {"name": "Cy", "age": 36, "at": {"town": "Bern"}}],
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello <b>"}],
    "tool": {"name": "f", "parameters": {"type": "object", "n": [1, 2.0, -0.5, 1e20, 1e-7, True, None], "d": "é\"\\\n\t\u0001/"}},
}

TEXTS = r"""
plain text { % } {a} # }} %}
{{ a }}|{{- a }}|{{ a -}} |{{+ a }}
line\n  {% if t %}\n  in\n  {% endif %}\n  out\n
line\n  {%+ if t %}\n  in\n  {%- endif +%}\n  out\n
x {% if t %} y {% endif %} z
x  {#- gone -#}  y{# a\n comment #}\nz
  {# first #}\n{{ a }}\n\n
{% raw %}{{ a }} {% if %}{% endraw %}\n|{%- raw -%}  {{ b }}  {%- endraw -%}  |
{{ 'it''s' }} {{ "a" 'b' }} {{ 'tab\\tnew\\nquote\\'uni\\u00e9\\x41\\101\\q\\\\' }}
{{ 1 }} {{ 1.5 }} {{ 1e3 }} {{ 1_000 }} {{ 0x1f }} {{ 0b11 }} {{ 0o17 }} {{ 10.0 }} {{ 1e16 }} {{ 1e-5 }} {{ 123456789012345680.0 }}
{{ true }} {{ True }} {{ false }} {{ none }} {{ None }} {{ missing }}.
{{ a + b }} {{ a - b }} {{ a * b }} {{ a / 2 }} {{ a // 2 }} {{ b // 2 }} {{ a % 4 }} {{ b % 4 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ -a }} {{ +a }}
{{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 1 / 3 }} {{ t + 1 }} {{ 2 * f }} {{ 0.1 + 0.2 }} {{ -0.0 }} {{ 2 ** 0.5 }}
{{ 'ab' + 'c' }} {{ 'ab' * 3 }} {{ 2 * 'ab' }} {{ [1] + [2, 3] }} {{ [0] * 3 }} {{ (1, 2) + (3,) }} {{ a ~ b ~ 'x' ~ n ~ missing ~ l }}
{{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }} {{ 1 == 1.0 == t }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ a != b }} {{ 1 <= 1 }} {{ 2 >= 3 }} {{ n == none }}
{{ t and 'x' }} {{ e or 'y' }} {{ n and missing.x }} {{ not t }} {{ not e and not n }} {{ 1 and 2 or 3 }} {{ 0 or e or [] }}
{{ 'x' if t else 'y' }} {{ 'x' if e }}. {{ 'x' if n else 'y' if e else 'z' }} {{ ('p' if t else 'q') ~ 'r' }}
{{ 'ell' in s }} {{ 3 in l }} {{ 'x' in m }} {{ 5 not in l }} {{ 'z' in missing }} {{ not 3 in l }} {{ 'a' in ('a', 'b') }} {{ '' in 'x' }}
{{ l[0] }} {{ l[-1] }} {{ l[9] }}. {{ m.x }} {{ m['y'][1] }} {{ m.y.1 }} {{ m.absent }}. {{ s[1] }} {{ u[1] }} {{ u[-1] }} {{ m['items'] }} {{ n.x }}.
{{ m[l] }}. {{ m[m] is defined }} {{ l[1:] }} {{ l[:-1] }} {{ l[::-1] }} {{ s[1:6] }} {{ u[1:4] }} {{ u[::-1] }} {{ l[5:] }} {{ 'abcdef'[1:5:2] }} {{ 'abcdef'[-2:] }} {{ 'abcdef'[4:1:-1] }}
{{ [1, 'a', none, true, 1.5, {'k': (1,)}, [], {}, ()] }} {{ "it's" ~ ["it's", 'a"b', 'a\\'"', 'n\\n', u] }}
{{ {'a': 1, 'b': {'c': [1]}}.b.c[0] }} {{ {1: 'x', 1.0: 'y', true: 'z'} }} {{ {} }} {{ {'a': 1,} }} {{ [1, 2,] }} {{ (1,) }} {{ () }}
{{ 1, 2 }} {% set x = 1, 2 %}{{ x }} {% set p, q = (3, 4) %}{{ p }}{{ q }} {% set (i, j) = [5, 6] %}{{ i + j }}
{% set x = 1 %}{% for i in l %}{{ x }}{% set x = i %}{{ x }} {% endfor %}{{ x }}
{% set ns = namespace(n=0, s='') %}{% for i in l %}{% set ns.n = ns.n + i %}{% set ns.s = ns.s ~ i %}{% endfor %}{{ ns.n }} {{ ns.s }} {{ ns['n'] }} {{ ns.none }}.
{% set ns = namespace({'k': 1}) %}{{ ns.k }}{% set ns.k = none %}{{ ns.k }}{% if ns %}true{% endif %}
{% set x %} block {{ a }} {% endset %}[{{ x }}] {% set y | upper | trim %} up {% endset %}[{{ y }}]
{% set x = 1 %}{% set z %}{% set x = 2 %}{{ x }}{% endset %}{{ x }}{{ z }}
{% if a > 100 %}A{% elif b > 100 %}B{% elif t %}C{% else %}D{% endif %}{% if n %}A{% else %}B{% endif %}
{% if t %}{% set v = 1 %}{% endif %}{{ v }}{% if e %}{% set w = 1 %}{% endif %}{{ w is defined }}
{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.cycle('o', 'e') }} {% endfor %}
{% for i in l %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }}{{ loop.previtem is defined }} {% endfor %}{% for i in [1, 1, 2] %}{{ loop.changed(i) }}{% endfor %}
{% for i in [] %}x{% else %}none{% endfor %}{% for i in l if i > 5 %}x{% else %}no{% endfor %}{% for i in l if i > 1 %}{{ i }}/{{ loop.length }}{% endfor %}
{% for k, v in m.items() %}x{% endfor %}
{% for k, v in tool.parameters.items() %}{{ k }}={{ v }};{% endfor %}{% for k in tool %}{{ k }},{% endfor %}{% for c in 'añ' %}<{{ c }}>{% endfor %}
{% for p in people %}{% if loop.index == 2 %}{% continue %}{% endif %}{{ p.name }}{% for q in l %}{% if q == 1 %}{% break %}{% endif %}{{ q }}{{ loop.depth }}{% endfor %}{% endfor %}
{% for i in range(3) %}{% for j in range(i) %}{{ i }}{{ j }} {% endfor %}{{ loop.index }}{% endfor %}{{ range(2, 10, 3) | list }}{{ range(3, 0, -1) | list }}
{% for i in missing %}x{% endfor %}{% for i in n or [] %}x{% endfor %}{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% macro greet(name, how='Hi', n=1) %}{{ how }} {{ name }}{{ '!' * n }}{% endmacro %}{{ greet('A') }} {{ greet('B', n=2) }} {{ greet(how='Yo', name='C') }} {{ greet() }}
{% macro m1(x) %}{{ x }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m1(1, 2, 3, k=4) }}{{ m1(*[1, 2], **{'z': 5}) }}
{% macro outer() %}[{{ caller() }}|{{ caller is defined }}]{% endmacro %}{% call outer() %}in {{ a }}{% endcall %}{{ outer.name }}{{ outer.arguments }}
{% macro each(xs) %}{% for x in xs %}{{ caller(x) }}{% endfor %}{% endmacro %}{% call(y) each(l) %}<{{ y }}>{% endcall %}
{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(4) }} {% set g = f %}{{ g(2) | length }}
{% set x = 1 %}{% macro late() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ late() }}{% macro d(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ d(1) }}
{% macro deep(v) %}{% if v is mapping %}{ {%- for k, w in v | dictsort %}{{ k }}:{{ deep(w) }};{% endfor %} }{% elif v is sequence and v is not string %}({% for w in v %}{{ deep(w) }} {% endfor %}){% else %}{{ v }}{% endif %}{% endmacro %}{{ deep(m) }}
{% filter upper %}shout {{ u }}{% endfilter %} {% filter replace('a', 'b') | trim %} banana {% endfilter %}.
{% generation %}said {{ a }}{% endgeneration %}. {% with x = 1, y = a %}{{ x }}{{ y }}{% endwith %}{{ x }}
{{ s | trim }}|{{ s.strip() }}|{{ s.lstrip() }}|{{ s.rstrip() }}|{{ 'xxaxx' | trim('x') }}|{{ 'xyaxy'.strip('xy') }}|{{ 'abc'.rstrip('cb') }}
{{ 'a,b,,c'.split(',') }} {{ ' a  b c '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ' a  b c '.rsplit(None, 1) }} {{ ' a b  c '.split(None, 1) }} {{ ''.split(',') }} {{ ''.split() }}
{{ 'Ab c'.upper() }} {{ 'Ab'.lower() }} {{ 'ab cd-ef x1y'.title() }} {{ 'aBC d'.capitalize() }} {{ 'aB'.swapcase() }} {{ 'éÀß'.lower() }} {{ 'éa'.upper() }} {{ "they're" | title }} {{ 'a-b (c) [d] <e x' | title }}
{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'bc')) }} {{ 'abc'.startswith('b', 1) }} {{ 'abcb'.find('b') }} {{ 'abcb'.rfind('b') }} {{ u.find('日') }} {{ 'abc'.find('z') }} {{ 'aXbX'.count('X') }} {{ 'abc'.index('c') }}
{{ 'aaa'.replace('a', 'b') }} {{ 'aaa'.replace('a', 'b', 2) }} {{ 'ab'.replace('', '-') }} {{ 'a.b' | replace('.', '!') }} {{ 'aaa' | replace('a', 'x', 1) }} {{ 5 | replace('5', '6') }}
{{ ', '.join(['a', 'b']) }} {{ '-'.join('abc') }} {{ l | join('-') }} {{ people | join(', ', attribute='name') }} {{ l | join }} {{ 'abc' | join('.') }}
{{ '{} {}'.format(1, 'x') }} {{ '{0}{1}{0}'.format('a', 'b') }} {{ '{x}:{y[0]}:{z.name}'.format(x=1, y=[2], z={'name': 3}['name']) if false else '{x}'.format(x=1) }} {{ '{{}}{:>5}|{:<4}|{:^5}|{:05d}|{:.2f}|{:,}|{:x}|{:+}|{!r}'.format('ab', 'c', 'd', 42, 3.14159, 1234567, 255, 3, 'q') }}
{{ '%s is %d and %.2f, %r, %5s|%-5s|%05d|%%|%x' % ('a', 3, 2.5, 'q', 'r', 'l', 42, 255) }} {{ '%s' % 'one' }} {{ '%(k)s' % {'k': 'v'} }} {{ '%s-%s' | format('a', 'b') }} {{ '%s' % [1] }}
{{ 'a\\nb\\r\\nc'.splitlines() }} {{ 'a=b=c'.partition('=') }} {{ 'a=b=c'.rpartition('=') }} {{ 'x'.partition('=') }} {{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.py'.removesuffix('.py') }} {{ '7'.zfill(3) }} {{ '-7'.zfill(4) }} {{ 'a'.ljust(3, '.') }} {{ 'a'.rjust(3) }}
{{ '12'.isdigit() }} {{ 'a1'.isalnum() }} {{ 'ab'.isalpha() }} {{ ' '.isspace() }} {{ ''.isdigit() }} {{ 'AB'.isupper() }} {{ 'aB'.islower() }}
{{ m.get('x') }} {{ m.get('z') }} {{ m.get('z', 'd') }} {{ m.keys() | list }} {{ m.values() | list }} {{ m.items() | list }} {{ m | length }} {{ m | list }} {{ m | items | list }} {{ missing | items | list }}
{{ tool | tojson }} {{ tool.parameters.d | tojson }} {{ u | tojson }} {{ u | tojson(ensure_ascii=true) }} {{ none | tojson }} {{ '<&>' | tojson }} {{ (1, 2) | tojson }} {{ {1: 2, none: 3, true: 4} | tojson }} {{ {} | tojson }}{{ [] | tojson(indent=2) }}
{{ tool | tojson(indent=2) }}\n{{ m | tojson(indent=1, separators=(',', ' = ')) }} {{ m | tojson(separators=(',', ':')) }} {{ {'b': 1, 'a': [{'z': 1, 'y': 2}]} | tojson(sort_keys=true) }} {{ [1] | tojson(indent='--') }}
{{ u | length }} {{ l | length }} {{ e | length }} {{ missing | length }} {{ l | count }} {{ u | upper }} {{ 'ABC' | lower }} {{ 'hELLO wORLD' | capitalize }} {{ 5 | string + '!' }}
{{ missing | default('d') }} {{ n | default('d') }} {{ n | default('d', true) }} {{ e | default('d', boolean=true) }} {{ e | d('x') }}. {{ missing | default }}. {{ m.z | default(a) }}
{{ l | first }} {{ l | last }} {{ [] | first }}. {{ 'abc' | first }} {{ 'abc' | last }} {{ l | sum }} {{ people | sum(attribute='age') }} {{ l | min }} {{ l | max }} {{ people | map(attribute='age') | max }}
{{ people | map(attribute='name') | list }} {{ people | map(attribute='at.town', default='?') | list }} {{ ['a', 'b'] | map('upper') | join }} {{ ['a ', ' b'] | map('trim') | list }} {{ l | map('string') | list }} {{ ['a'] | map('replace', 'a', 'b') | first }}
{{ l | select('odd') | list }} {{ l | reject('odd') | list }} {{ [0, 1, '', 'a', none] | select | list }} {{ l | select('greaterthan', 1) | list }} {{ people | selectattr('age', 'equalto', 36) | map(attribute='name') | list }} {{ people | selectattr('at') | list | length }} {{ people | rejectattr('at', 'defined') | map(attribute='name') | list }} {{ people | selectattr('name', 'in', ['bob']) | list | length }} {{ n | selectattr('x') | list }}
{{ l | sort }} {{ l | sort(reverse=true) }} {{ ['b', 'A', 'c', 'B'] | sort }} {{ ['b', 'A', 'c'] | sort(case_sensitive=true) }} {{ people | sort(attribute='age') | map(attribute='name') | list }} {{ people | sort(attribute='age,name', reverse=true) | map(attribute='name') | list }}
{{ {'b': 1, 'A': 3, 'c': 2} | dictsort }} {{ {'b': 1, 'A': 3, 'c': 2} | dictsort(true) }} {{ {'b': 1, 'A': 3, 'c': 2} | dictsort(false, 'value', reverse=true) }} {{ {'b': 1, 'A': 3} | dictsort(by='value') }}
{{ ['a', 'B', 'b', 'A'] | unique | list }} {{ [1, 2, 1, 1.0] | unique | list }} {{ l | reverse | list }} {{ 'abc' | reverse }} {{ l | batch(2) | list }} {{ l | batch(2, 'x') | list }} {{ [1, 2, 3, 4, 5] | slice(2) | list }}
{{ '42' | int }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ '3.9' | int }} {{ 3.9 | int }} {{ 'ff' | int(0, 16) }} {{ '0x1f' | int(base=16) }} {{ n | int }} {{ '2.50' | float }} {{ 'z' | float }} {{ 3 | float }} {{ ' 12 ' | int }} {{ '1_0' | int }}
{{ ('0' * 99 + '7') | int }} {{ ('0' * 99 + '2.5') | float }} {{ ('3.' + '3' * 200) | float }} {{ ('1' * 200 + 'e-190') | float }} {{ ('1' * 400) | float }} {{ ('0.' + '0' * 330 + '17e331') | float }} {{ ('1_' * 60 + 'x') | int(5) }} {{ ('0' * 90 + '9.9') | int }}
{{ '0b101' | int(base=2) }} {{ '0o17' | int(base=8) }} {{ '0b101' | int(base=0) }} {{ '017' | int(3, 0) }} {{ '0x_ff' | int(base=16) }} {{ '_1' | int(4) }} {{ '1__0' | int(4) }} {{ '0x' | int(4, 16) }} {{ '00' | int(4, 0) }} {{ '0b1' | int(base=16) }} {{ '-0x1F' | int(base=0) }} {{ '+ 1' | int(4) }} {{ '- 1' | int(4) }}
{{ '٣٤' | int }} {{ '१२.५' | float }} {{ '\u2003 12\u00a0' | int }} {{ '𝟙𝟚' | int }} {{ '²' | int(4) }} {{ '1_0.5_0e1_0' | float }} {{ '1_.5' | float(4) }} {{ '1._5' | float(4) }} {{ '.5' | float }} {{ '5.' | float }} {{ '.' | float(4) }} {{ '1e' | float(4) }} {{ '-Infinity' | float }} {{ 'nan(1)' | float(4) }} {{ '0x1p3' | float(4) }} {{ '１２' | int }}
{{ 0b101 }} {{ 0o17 }} {{ 0xFF_ff }} {{ 1_000 }} {{ 00 }} {{ 0_0 }} {{ 3.14159265358979323846264338327950288419716939937510582097494459230781640628 }} {{ 1_0.2_5e1_0 }} {{ 0.000000000000000000000000000000000000000000000000000000000000000000000001 }}
{{ 9007199254740993 | round }} {{ 9223372036854775807 | round(3) }} {{ 25 | round(-1) }} {{ 35 | round(-1) }} {{ -25 | round(-1) }} {{ -26 | round(-1) }} {{ 7 | round(-30) }} {{ 4999999999999999999 | round(-19) }} {{ 9007199254740993 | round(0, 'floor') }} {{ 1234 | round(-2, 'ceil') }} {{ true | round }} {{ 5000000000000000000 | round(-19) }}
{{ 15.0 | round(-1) }} {{ 25.0 | round(-1) }} {{ 45.1 | round(-2) }} {{ 50.0 | round(-2) }} {{ 51.0 | round(-2) }} {{ -51.0 | round(-2) }} {{ 4.0 | round(-2) }} {{ 1e300 | round(-300) }} {{ 1e22 | round(-400) }} {{ 5e-324 | round(323) }} {{ 5e-324 | round(324) }} {{ 2.675 | round(2) }} {{ 0.5 | round }} {{ 1.5 | round }} {{ 123456.789 | round(2, 'ceil') }} {{ 6.0 | round(-1) }} {{ 5.0 | round(-1) }}
{{ 2.5 | round }} {{ 3.5 | round }} {{ 2.567 | round(2) }} {{ 2.1 | round(0, 'ceil') }} {{ 2.19 | round(1, 'floor') }} {{ 42 | round }} {{ -5 | abs }} {{ b | abs }} {{ -2.5 | abs }} {{ 1234.5 | round(-2) }}
{{ 'a\\nb\\n\\nc' | indent }}|{{ 'a\\nb' | indent(2, true) }}|{{ 'a\\n\\nb' | indent(1, blank=true) }}|{{ 'a\\nb' | indent('> ', first=true) }}|{{ 'a\\n' | indent }}|
{{ 'a b c' | wordcount }} {{ 'x' | center(5) }}| {{ 'hello world foo' | truncate(11, leeway=0) }} {{ 'hello world foo' | truncate(11, true, leeway=0) }} {{ 'short' | truncate }} {{ '<a href="x">' | e }} {{ '<b>' | safe }} {{ '<'|safe + '<&' }} {{ 'x<' + '<y'|safe }} {{ m | attr('x') }}.
{{ a is defined }} {{ missing is defined }} {{ missing is undefined }} {{ n is none }} {{ e is none }} {{ t is true }} {{ e is false }} {{ a is boolean }} {{ t is boolean }} {{ n is not none }}
{{ a is number }} {{ t is number }} {{ f is number }} {{ s is number }} {{ a is integer }} {{ t is integer }} {{ f is integer }} {{ f is float }} {{ s is string }} {{ a is string }} {{ m is mapping }} {{ l is mapping }}
{{ l is sequence }} {{ s is sequence }} {{ m is sequence }} {{ a is sequence }} {{ l is iterable }} {{ s is iterable }} {{ a is iterable }} {{ missing is iterable }} {{ range(2) is sequence }} {{ (1,) is sequence }} {{ m.keys() is sequence }} {{ l | map('string') is sequence }}
{{ 3 is odd }} {{ 3 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ 1 is eq 1 }} {{ 1 is equalto(2) }} {{ 1 is ne 2 }} {{ 1 is lt 2 }} {{ 2 is ge 3 }} {{ 1 is in [1, 2] }} {{ 3 is not in([1]) }} {{ 'ab' is lower }} {{ 'AB' is upper }} {{ n is sameas none }} {{ range is callable }} {{ a is callable }} {{ 'upper' is filter }} {{ 'odd' is test }}
{{ a is defined and b is defined or c }} {{ not a is none }} {{ a is not string and b }} {{ 'x' ~ a is string }} {{ -a | abs }} {{ 2 + 3 * 2 ** 2 }} {{ (2 + 3) * 2 }} {{ 10 - 2 - 3 }} {{ 2 ** 3 ** 2 }} {{ 1 ~ 2 ~ 3 }} {{ 'a' 'b' | upper ~ 'c' }}
{% if l | selectattr('x') %}generators are true{% endif %}{% if l | select('gt', 9) | list %}x{% else %}lists are not{% endif %}{% if m.keys() %}views have a length{% endif %}{{ [] == () }}{{ m.items() | length }}
{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message.content | trim + '<|end|>\\n' }}{% endfor %}{% if add_generation_prompt is defined %}x{% endif %}{{ '<|assistant|>\\n' }}
{%- set loop_messages = messages[1:] if messages[0]['role'] == 'system' else messages -%}{%- for m in loop_messages -%}{%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}{{- raise_exception('alternate') -}}{%- endif -%}{{- m.role ~ ':' ~ m.content -}}{%- endfor -%}
{{ strftime_now('%d %b %Y') }} {{ strftime_now('%Y-%m-%d') }} {{ dict(a=1, b=2) }} {{ dict([('k', 1)], z=2) }} {{ dict(m).x }}
{{ messages | map(attribute='role') | join(',') }} {{ (messages | last).content }} {{ messages | length > 2 }} {{ messages[-1]['content'].split('<')[0] }} {{ messages | rejectattr('role', 'eq', 'system') | map(attribute='content') | list | tojson }}
{{ ['a', none, 1] | join('|') }} {{ [[1, 2], [3]] | sum(start=[]) }} {{ [missing] }} {{ 'é' ~ 1 }} {{ ['é\\u200b\\x07'] }} {{ '\\U0001F600' | length }}
{{ {'a': {'b': 1}} == {'a': {'b': 1.0}} }} {{ [1, [2]] == [1, [2]] }} {{ 'a' == 1 }} {{ missing == missing2 }} {{ none == missing }} {{ (1, 2) == [1, 2] }} {{ {'a': 1, 'b': 2} == {'b': 2, 'a': 1} }}
{{ 'ß ŉ ǰ ﬃ ᾳ ΐ'.upper() }} {{ 'İI ΑΣ ΑΣ. Σ ΑΣΑ Α\'Σ' | lower }} {{ 'ßa ǆb ﬁ'.title() }} {{ 'ŉA ΑΣ'.capitalize() }} {{ 'ßŉa ΑΣ ῼ'.swapcase() }}
{{ 'Straße ﬃ ΑΣ İ ᾳ'.casefold() }} {{ 'ß-ßa (ﬁN ΑΣ' | title }} {{ 'ßA' | capitalize }} {{ ['ß', 'SS', 'ss'] | unique | list }}
{{ '²'.isdigit() }}{{ '²'.isdecimal() }}{{ '½'.isnumeric() }}{{ '½'.isdigit() }}{{ '五'.isnumeric() }}{{ '五'.isdigit() }}{{ '²'.isalnum() }}{{ 'Ⅷ'.isupper() }}{{ 'ª'.islower() }}{{ 'ǅ' is upper }}{{ 'aǅ' is lower }}{{ 'x²½ y' | wordcount }}
{{ '😀🀀'.isupper() }}{{ '😀' | upper }}{{ '󰀀'.isnumeric() }}{{ 'A😀' is upper }}{{ 'a😀'.islower() }}{{ '😀'.isalnum() }}{{ '😀ß' | title }}
{{ 9223372036854774784.0 | int }} {{ '-9223372036854775808' | int }} {{ 'nan' | int(4) }} {{ 'inf' | float | string }} {{ 'x' * 99 | int }} {{ ('x' * 99) | int(3) }} {{ ('e' * 99) | float }}
{{ l is sameas l }}{{ [] is sameas [] }}{{ 1 is sameas 1 }}{{ s is sameas s }}{{ 'a' is sameas 'b' }}{{ m is sameas l }}{{ n is sameas none }}
"""

REFUSED = r"""
{{ raise_exception('no ' ~ a) }}
{% if n.x.y %}{% endif %}
{{ missing.x }}
{{ missing + 1 }}
{{ missing() }}
{{ a() }}
{{ 'a' + 1 }}
{{ [1] + (2,) }}
{{ 1 < 'a' }}
{{ none < 1 }}
{{ 1 in 5 }}
{{ 1 in 'a' }}
{{ 1 / 0 }}
{{ 1 // 0 }}
{% for i in 5 %}{% endfor %}
{% for i in none %}{% endfor %}
{% for a, b in [(1, 2, 3)] %}{% endfor %}
{% set x.y = 1 %}
{% set m.x = 1 %}
{{ missing | tojson }}
{{ a | nofilter }}
{{ a is notest }}
{% macro f(x) %}{% endmacro %}{{ f(1, 2) }}
{% macro f(x) %}{% endmacro %}{{ f(y=2) }}
{% macro f(x) %}{% endmacro %}{{ f(1, x=2) }}
{% if t %}
{% endif %}
{% for i in l %}{% endif %}
{{ a
{% if a
{# comment
{{ a b }}
{{ (a }}
{{ a) }}
{{ 'open }}
{{ }}
{{ a ++ }}
{% set = 1 %}
{% set 1 = 2 %}
{% set true = 2 %}
{% unknown %}
{% raw %}x
{{ a is x is y }}
{% macro f(a=1, b) %}{% endmacro %}
{{ f(a=1, 2) }}
{{ 'x'.index('y') }}
{{ {[]: 1} }}
{{ '%d' % 'x' }}
{{ '%s %s' % 'x' }}
{{ '{} {}'.format(1) }}
{{ l | select('notest') | list }}
{{ ['a', 1] | sort }}
{{ (l | map('string')) | length }}
{% call a() %}{% endcall %}
{{ 'a'.split('') }}
{{ -'x' }}
{{ l[::0] }}
{{ 1.5 | round(400, 'floor') }}
{{ 1e300 | round(10, 'ceil') }}
{{ 1.7976931348623157e308 | round(-307) }}
{{ 012 }}
{{ 0x }}
{{ 0b12 }}
{{ 1__0 }}
{% break %}
"""

MUTABLE = r"""
{% set x = [1] %}{% set _ = x.append(2) %}{{ x }}{{ x.pop(0) }}{{ x }}{% set _ = x.extend([5, 6]) %}{% set _ = x.insert(1, 'i') %}{{ x }}{{ x.pop() }}{% set _ = x.reverse() %}{{ x }}{{ x.index('i') }}{{ x.count(5) }}{% set _ = x.remove(5) %}{{ x }}
{% set d = {'a': 1} %}{% set _ = d.update({'b': 2}) %}{{ d }}{{ d.pop('a') }}{{ d.pop('z', 9) }}{{ d.setdefault('c', 3) }}{{ d.setdefault('b', 8) }}{{ d }}{% set e = d.copy() %}{% set _ = d.clear() %}{{ d }}{{ e }}
{% set x = [1, 2] %}{% for i in x %}{{ i }}{% if i < 5 %}{% set _ = x.append(i + 2) %}{% endif %}{% endfor %}{{ x }}
{% set d = {} %}{% for i in range(40) %}{% set _ = d.update({'k%d' % i: i}) %}{% endfor %}{% for i in range(0, 40, 2) %}{% set _ = d.pop('k%d' % i) %}{% endfor %}{{ d.k39 }}{{ d.k38 is defined }}{{ d | length }}{{ d.keys() | first }}
"""


def render(text, mutable):
    return environment(mutable).from_string(text).render(**json.loads(json.dumps(VALUES)))


def unescaped(block):
    """A line is a template; \\n in it is a line's end, \\\\ a backslash."""
    for line in block.strip("\n").split("\n"):
        yield line.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\")


def main():
    cases = [{"template": t, "text": render(t, False)} for t in unescaped(TEXTS)]
    cases += [{"template": t, "text": render(t, True)} for t in unescaped(MUTABLE)]
    for t in unescaped(REFUSED):
        try:
            said = render(t, False)
        except Exception:
            cases.append({"template": t})
        else:
            raise SystemExit(f"Jinja does not refuse {t!r}: {said!r}")
    with open("template/cases.json", "w", encoding="utf-8") as f:
        json.dump({"now": NOW, "values": VALUES, "cases": cases}, f, ensure_ascii=False, indent=0)
        f.write("\n")


if __name__ == "__main__":
    main()
