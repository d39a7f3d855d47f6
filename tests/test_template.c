/* What must be true of chat templates: what they write is what Jinja writes, construct by construct (tests/golden/template.py); what Jinja
 * refuses is refused; what is outside the subset is refused by name; a hostile template ends; messages name template, line and fault. */
#include "base/file.h"
#include "format/json.h"
#include "format/template.h"
#include "test.h"

#include <signal.h>

#define GOLDEN MN_TEST_SOURCE_DIR "/tests/golden/template/cases.json"

static mn_status render(const char *text, const mn_value *values, const mn_template_limits *limits, mn_text *out) {
  mn_template *t = NULL;
  mn_status status = mn_template_parse("chat", text, strlen(text), &t);
  if (status == MN_OK) status = mn_template_render(t, values, limits, out);
  mn_template_free(t);
  return status;
}

static void as_jinja_writes(void) {
  mn_arena *arena = mn_arena_new();
  const mn_value *all = NULL, *now, *cases;
  setenv("TZ", "UTC", 1);
  CHECK_OK(mn_json_read(arena, GOLDEN, &all));
  now = all ? mn_value_get(all, "now") : NULL, cases = all ? mn_value_get(all, "cases") : NULL;
  CHECK(now && cases && cases->count > 100, "the cases are there");
  for (size_t i = 0; now && cases && i < cases->count; i++) {
    const mn_value *of = cases->as.items[i], *text = mn_value_get(of, "text");
    const char *template = mn_value_get(of, "template")->as.text;
    mn_text out = {0};
    const mn_status status = render(template, mn_value_get(all, "values"), &(mn_template_limits){.now = now->as.integer}, &out);
    if (text) CHECK(status == MN_OK, "%s\n  %s", template, mn_message());
    if (text && status == MN_OK)
      CHECK(!strcmp(out.data ? out.data : "", text->as.text), "%s\n  wanted %s\n  got    %s", template, text->as.text,
            out.data ? out.data : "");
    if (!text) CHECK(status != MN_OK && !out.len, "not refused: %s\n  %s", template, out.data ? out.data : "");
    mn_text_free(&out);
  }
  mn_arena_free(arena);
}

static void check_fault(const char *template, mn_status wanted, const char *const *parts) {
  mn_arena *arena = mn_arena_new();
  const mn_value *values = NULL;
  mn_text out = {0};
  CHECK_OK(mn_json_parse(arena, "values", "{\"a\": 1}", 8, &values));
  const mn_status status = render(template, values, NULL, &out);
  CHECK(status == wanted, "%s: %s", template, mn_message());
  for (; *parts; parts++) CHECK(strstr(mn_message(), *parts) != NULL, "%s: '%s' is not in: %s", template, *parts, mn_message());
  mn_text_free(&out);
  mn_arena_free(arena);
}

#define FAULT(template, status, ...) check_fault(template, status, (const char *const[]){__VA_ARGS__, NULL})

static void faults_name_template_line_and_reason(void) {
  FAULT("a\nb\n{{ x.y }}", MN_ERR_FORMAT, "chat:3: 'y' is asked of the undefined 'x'");
  FAULT("{{ a.y.z }}", MN_ERR_FORMAT, "'z' is asked of the undefined 'y' of an integer");
  FAULT("{{ [a][1].x }}", MN_ERR_FORMAT, "'x' is asked of the undefined '1' of a list");
  FAULT("{{ f(a) }}", MN_ERR_FORMAT, "the undefined 'f' is called");
  FAULT("\n{% include 'other' %}", MN_ERR_FORMAT, "chat:2:", "include", "not supported");
  FAULT("{% extends 'base' %}", MN_ERR_FORMAT, "extends");
  FAULT("{% import 'x' as y %}", MN_ERR_FORMAT, "import");
  FAULT("{% autoescape true %}{% endautoescape %}", MN_ERR_FORMAT, "autoescape");
  FAULT("{% for i in [] recursive %}{% endfor %}", MN_ERR_FORMAT, "recursive");
  FAULT("{% nonsense %}", MN_ERR_FORMAT, "chat:1:", "no statement", "nonsense");
  FAULT("{{ a | urlize }}", MN_ERR_FORMAT, "no filter 'urlize'");
  FAULT("{{ a is prime }}", MN_ERR_FORMAT, "no test 'prime'");
  FAULT("{{ joiner() }}", MN_ERR_FORMAT, "'joiner' is not supported");
  FAULT("{{ [1 }}", MN_ERR_FORMAT, "chat:1:");
  FAULT("{{ a }", MN_ERR_FORMAT, "chat:1:");
  FAULT("{% if a %}\n\n", MN_ERR_FORMAT, "elif, else, endif");
  FAULT("{{ '\\ud800' }}", MN_ERR_FORMAT, "escape");
  FAULT("{{ '\\N{BULLET}' }}", MN_ERR_FORMAT, "escape", "\\N");
  FAULT("{{ 1e100 | int }}", MN_ERR_FORMAT, "64 bits");
  FAULT("{{ '1e100' | int }}", MN_ERR_FORMAT, "64 bits");
  FAULT("{{ '99999999999999999999' | int }}", MN_ERR_FORMAT, "64 bits");
  FAULT("{{ ('9' * 99) | int }}", MN_ERR_FORMAT, "64 bits");
  FAULT("{{ ('7' * 99 + '_0') | int(3, 0) }}", MN_ERR_FORMAT, "64 bits");
  FAULT("{{ ('x' * 99) | int(3, 36) }}", MN_ERR_FORMAT, "64 bits");
  FAULT("{{ '7' | int(3, 'x') }}", MN_ERR_FORMAT, "an integer is wanted");
  FAULT("{{ ('9' * 99 + '.5') | int }}", MN_ERR_FORMAT, "64 bits");
  FAULT("{{ 9000000000000000000 | round(-19) }}", MN_ERR_FORMAT, "64 bits");
  FAULT("{{ 9223372036854775807 | round(-1) }}", MN_ERR_FORMAT, "64 bits");
  FAULT("{{ 1e999 | int }}", MN_ERR_FORMAT, "infinity");
  FAULT("{{ 'x' is sameas 'x' }}", MN_ERR_FORMAT, "'sameas' of a string", "==");
  FAULT("{{ 99999999999999999999 }}", MN_ERR_FORMAT, "64 bits");
  FAULT("{{ 9223372036854775807 + a }}", MN_ERR_FORMAT, "64 bits");
  FAULT("{{ a ? 1 }}", MN_ERR_FORMAT, "'?'");
  FAULT("{% macro f(x) %}{% endmacro %}{{ f(1, 2) }}", MN_ERR_FORMAT, "'f'", "1 arguments, not 2");
  FAULT("{{ 'x'.upper(1) }}", MN_ERR_FORMAT, "method 'upper'");
  FAULT("{{ namespace(_a=1) }}", MN_ERR_FORMAT, "begins with _");
  FAULT("{{ raise_exception('Roles must alternate\033[2J') }}", MN_ERR_CONFIG, "Roles must alternate", "\\x1b", "chat:1");
  const char *bytes = "\xff";
  mn_template *t = NULL;
  CHECK(mn_template_parse("chat", bytes, 1, &t) == MN_ERR_FORMAT && !t && strstr(mn_message(), "UTF-8"), "%s", mn_message());
  CHECK(mn_template_parse("chat", "a\0b", 3, &t) == MN_ERR_FORMAT && !t, "%s", mn_message());
}

/* ... and nothing is written. */
static void check_ends(const char *template, const char *why) {
  const mn_template_limits limits = {.output = 1 << 20, .memory = 32 << 20, .steps = 200000, .depth = 300};
  mn_text out = {0};
  mn_text_add(&out, "kept");
  CHECK(render(template, NULL, &limits, &out) == MN_ERR_FORMAT, "%s", template);
  CHECK(strstr(mn_message(), why) != NULL, "%s: %s", template, mn_message());
  CHECK(!strcmp(out.data, "kept"), "%s: what stood before it", template);
  mn_text_free(&out);
}

static void hostile_templates_end(void) {
  check_ends("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", "takes more than");
  check_ends("{% set x = [1] %}{% for i in x %}{% set _ = x.append(i) %}{% endfor %}", "steps");
  check_ends("{{ 'x' * 2000000 }}", "writes more than");
  check_ends("{{ 'x' * 999999999999 }}", "values of more than");
  check_ends("{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}", "values of more than");
  check_ends("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "deep");
  check_ends("{% macro f() %}{{ caller() }}{% endmacro %}{% macro g() %}{% call f() %}{{ g() }}{% endcall %}{% endmacro %}{{ g() }}",
             "deep");
  check_ends("{% set x = [] %}{% set _ = x.append(x) %}{{ x }}", "deep");
  check_ends("{% set x = [] %}{% set _ = x.append(x) %}{{ x | tojson }}", "deep");
  check_ends("{% set x = [] %}{% set y = [] %}{% set _ = x.append(y) %}{% set _ = y.append(x) %}{{ x == y }}", "deep");
  check_ends("{{ range(100001) }}", "range");
  check_ends("{{ '%999999s' % 'x' * 9999 }}", "values of more than");
  check_ends("{{ ('a' * 100000).replace('a', 'b' * 100000) }}", "values of more than");
  check_ends("{{ strftime_now('%99999d') }}", "strftime_now");
  check_ends("{% for i in range(9999) %}{% set ns = namespace(l=['x' * 9999]) %}{% endfor %}", "values of more than");
  mn_text deep = {0}, out = {0};
  for (int i = 0; i < 3000; i++) mn_text_add(&deep, "{% if 1 %}");
  CHECK(render(deep.data, NULL, NULL, &out) == MN_ERR_FORMAT && strstr(mn_message(), "deep"), "%s", mn_message());
  deep.len = 0;
  mn_text_add(&deep, "{{ ");
  for (int i = 0; i < 3000; i++) mn_text_add(&deep, "(");
  CHECK(render(deep.data, NULL, NULL, &out) == MN_ERR_FORMAT && strstr(mn_message(), "brackets"), "%s", mn_message());
  deep.len = 0;
  mn_text_add(&deep, "{{ ");
  for (int i = 0; i < 3000; i++) mn_text_add(&deep, "not ");
  mn_text_add(&deep, "1 }}");
  CHECK(render(deep.data, NULL, NULL, &out) == MN_ERR_FORMAT && strstr(mn_message(), "deep"), "%s", mn_message());
  deep.len = 0;
  mn_text_add(&deep, "{{ 1");
  for (int i = 0; i < 3000; i++) mn_text_add(&deep, "|abs"); /* no nesting to parse, but to run */
  mn_text_add(&deep, " }}");
  CHECK(render(deep.data, NULL, NULL, &out) == MN_ERR_FORMAT && strstr(mn_message(), "deep"), "%s", mn_message());
  mn_text_free(&deep);
  char *long_one = mn_calloc(MN_TEMPLATE_BYTES + 2, 1);
  memset(long_one, 'x', MN_TEMPLATE_BYTES + 1);
  CHECK(render(long_one, NULL, NULL, &out) == MN_ERR_FORMAT && strstr(mn_message(), "longer"), "%s", mn_message());
  free(long_one);
  mn_text_free(&out);
}

/* What is read over and over counts, however little is made of it. */
static void texts_that_are_read_take_steps(void) {
  static const char *const reads[] = {"'b' in s",
                                      "s < t",
                                      "s == t",
                                      "s.find('b') > 0",
                                      "s.rfind('b') > 0",
                                      "s.count('b') > 0",
                                      "s.index('a', 999999) > 0",
                                      "s is lower",
                                      "s.islower()",
                                      "s | trim == 'b'",
                                      "s.strip() == 'b'",
                                      "s.split() | length",
                                      "s | int",
                                      "s | float",
                                      "m[s]",
                                      "s in m",
                                      "u[999999]",
                                      "u[999998:] == 'b'",
                                      "s in [t, t]",
                                      "[s] == [t]",
                                      "[s, 1] < [t, 2]",
                                      "m.get(s)",
                                      "'%.1s' % s",
                                      "'{:.1}'.format(s)",
                                      "s.startswith('b', 999999)",
                                      "s is eq t",
                                      "s is in m",
                                      "s.isspace()",
                                      "s.partition('b') | length",
                                      "s | wordcount",
                                      "l.index(t) == 0",
                                      "l.count(t)",
                                      "s.isalpha()",
                                      "[s, t] | max | first == 'b'",
                                      "s | replace('b', '') | length"};
  static const char *const cheap[] = {"s", "s[5] == 'a'", "s is string", "s == 'a'", "'b' == s", "m.b", "s[:3] == 'aaa'"};
  const size_t n_reads = sizeof reads / sizeof *reads;
  for (size_t i = 0; i < n_reads + sizeof cheap / sizeof *cheap; i++) {
    const mn_template_limits limits = {.memory = 8 << 20, .steps = 100000};
    char template[600];
    mn_text out = {0};
    snprintf(
        template, sizeof template,
        "{%% set s = 'a' * 1000000 %%}{%% set t = s ~ '' %%}{%% set u = '\u00e9' * 1000000 %%}{%% set m = {t: 1} %%}{%% set l = [s] %%}"
        "{%% for i in range(900) %%}{%% if %s %%}{%% endif %%}{%% endfor %%}",
        i < n_reads ? reads[i] : cheap[i - n_reads]);
    const mn_status status = render(template, NULL, &limits, &out);
    if (i < n_reads)
      CHECK(status == MN_ERR_FORMAT && (strstr(mn_message(), "steps") || strstr(mn_message(), "values of more than")), "%s: %s", reads[i],
            status == MN_OK ? "it ended" : mn_message());
    else CHECK(status == MN_OK, "%s: %s", cheap[i - n_reads], mn_message());
    mn_text_free(&out);
  }
}

static void a_rendering_can_be_interrupted(void) {
  atomic_int stop = 1;
  mn_text out = {0};
  mn_stop_watch(&stop);
  const mn_status status = render("{% for a in range(9999) %}{% for b in range(99) %}{% endfor %}{% endfor %}", NULL, NULL, &out);
  mn_stop_watch(NULL);
  CHECK(status == MN_ERR_CANCELLED && !out.len, "%s", mn_status_name(status));
  mn_text_free(&out);
}

static void a_template_says_what_it_mentions(void) {
  mn_template *t = NULL;
  const char *text = "{% if tools %}{{ message.name }}{% endif %} unheard {{ 'of' }}";
  CHECK_OK(mn_template_parse("chat", text, strlen(text), &t));
  CHECK(mn_template_mentions(t, "tools") && mn_template_mentions(t, "message") && mn_template_mentions(t, "name"), "names");
  CHECK(!mn_template_mentions(t, "unheard") && !mn_template_mentions(t, "of") && !mn_template_mentions(t, "enable_thinking"), "no text");
  mn_template_free(t);
}

int main(void) {
  RUN(as_jinja_writes);
  RUN(faults_name_template_line_and_reason);
  RUN(hostile_templates_end);
  RUN(texts_that_are_read_take_steps);
  RUN(a_rendering_can_be_interrupted);
  RUN(a_template_says_what_it_mentions);
  return test_end();
}
