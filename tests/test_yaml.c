/* Value trees: what YAML and JSON say, where they say it, --set, and JSON written back. */
#include "base/file.h"
#include "fence.h"
#include "format/json.h"
#include "format/yaml.h"
#include "test.h"

#include <math.h>
#include <stdint.h>

static mn_arena *arena;

static const mn_value *yaml(const char *text) {
  const mn_value *v = NULL;
  mn_status status = mn_yaml_parse(arena, "r.yaml", text, strlen(text), &v);
  CHECK(status == MN_OK, "%s: %s", text, mn_message());
  return v;
}

static const mn_value *json(const char *text) {
  const mn_value *v = NULL;
  mn_status status = mn_json_parse(arena, "c.json", text, strlen(text), &v);
  CHECK(status == MN_OK, "%s: %s", text, mn_message());
  return v;
}

static const char *as_json(const mn_value *v, int indent) {
  mn_text out = {0};
  if (!v) return "(none)";
  mn_status status = mn_value_to_json(v, indent, &out);
  char *text = mn_text_take(&out);
  const char *kept = status == MN_OK && text ? mn_arena_strdup(arena, text) : "(failed)";
  free(text);
  return kept;
}

/* ---- YAML ---- */
static void scalars_have_the_core_schemas_types(void) {
  static const struct {
    const char *text, *json;
  } cases[] = {
      {"a: 1", "{\"a\": 1}"},
      {"a: -17", "{\"a\": -17}"},
      {"a: +3", "{\"a\": 3}"},
      {"a: 0x1F", "{\"a\": 31}"},
      {"a: 0o17", "{\"a\": 15}"},
      {"a: 007", "{\"a\": 7}"},
      {"a: 1.5", "{\"a\": 1.5}"},
      {"a: 1e-4", "{\"a\": 0.0001}"},
      {"a: 3E2", "{\"a\": 3e+02}"},
      {"a: .5", "{\"a\": 0.5}"},
      {"a: 1.", "{\"a\": 1.0}"},
      {"a: true", "{\"a\": true}"},
      {"a: False", "{\"a\": false}"},
      {"a: yes", "{\"a\": \"yes\"}"},
      {"a: off", "{\"a\": \"off\"}"},
      {"a: ~", "{\"a\": null}"},
      {"a:", "{\"a\": null}"},
      {"a: null", "{\"a\": null}"},
      {"a: '1'", "{\"a\": \"1\"}"},
      {"a: \"true\"", "{\"a\": \"true\"}"},
      {"a: 1_000", "{\"a\": \"1_000\"}"},
      {"a: 1.2.3", "{\"a\": \"1.2.3\"}"},
      {"a: 1e", "{\"a\": \"1e\"}"},
      {"a: .", "{\"a\": \".\"}"},
      {"a: 0x", "{\"a\": \"0x\"}"},
      {"a: [1, x, 2.5]", "{\"a\": [1, \"x\", 2.5]}"},
      {"a: {b: 1, c: [{d: e}]}", "{\"a\": {\"b\": 1, \"c\": [{\"d\": \"e\"}]}}"},
      {"- 1\n- b: 2\n- [3]\n", "[1, {\"b\": 2}, [3]]"},
      {"a: |\n  two\n  lines\n", "{\"a\": \"two\\nlines\\n\"}"},
      {"# comment\na: 1 # more\n", "{\"a\": 1}"},
      {"---\na: 1\n...\n", "{\"a\": 1}"},
      {"1: x\ntrue: y", "{\"1\": \"x\", \"true\": \"y\"}"},
      {"{\"a\": [1, 2.0, null, \"\\u00e9\"]}", "{\"a\": [1, 2.0, null, \"\xC3\xA9\"]}"},
      {"9223372036854775807", "9223372036854775807"},
      {"-9223372036854775808", "-9223372036854775808"},
      {"text", "\"text\""},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const char *given = as_json(yaml(cases[i].text), 0);
    CHECK(!strcmp(given, cases[i].json), "%s -> %s, expected %s", cases[i].text, given, cases[i].json);
  }
  const mn_value *v = yaml("a: .inf\nb: -.inf\nc: .nan\n");
  CHECK(isinf(mn_value_get(v, "a")->as.real) && mn_value_get(v, "b")->as.real < 0 && isnan(mn_value_get(v, "c")->as.real),
        "infinities and NaN");
}

static void everything_knows_its_place(void) {
  const mn_value *v = yaml("model:\n  d_model: 64\n  blocks:\n    - mixer: {kind: titans, window: 4}\n    - 7\n");
  const mn_value *window = mn_value_find(v, "model.blocks.0.mixer.window");
  CHECK(window && window->as.integer == 4, "found");
  CHECK(window->line == 4 && window->column == 37 && !strcmp(window->file, "r.yaml"), "%d:%d", window->line, window->column);
  CHECK(!strcmp(window->path, "model.blocks[0].mixer.window"), "%s", window->path);
  const mn_value *mixer = mn_value_find(v, "model.blocks.0.mixer");
  CHECK(mixer->as.entries[1].line == 4 && mixer->as.entries[1].column == 29, "a key knows its place: %d", mixer->as.entries[1].column);
  CHECK(mn_value_find(v, "model.blocks.1")->line == 5, "item");
  CHECK(!mn_value_find(v, "model.blocks.2") && !mn_value_find(v, "model.x") && !mn_value_find(v, "model.d_model.x"), "absent");
  CHECK(mn_value_find(v, "") == v, "the empty path is the root");
  CHECK(mn_value_fail(window, "must be at least %d", 8) == MN_ERR_CONFIG, "status");
  CHECK(!strcmp(mn_message(), "r.yaml:4: must be at least 8"), "%s", mn_message());
  v = json("{\"a\": 1,\n \"b\\\"\": [ {\"c\" : \"x\\\\\"},\n 5 ],\n\"d\":{\n},\"e\":[],\n\"f\":-1.5e3}");
  CHECK(mn_value_get(v, "a")->line == 1 && mn_value_get(v, "a")->column == 7, "json place");
  CHECK(mn_value_get(v, "b\"")->line == 2 && mn_value_get(v, "b\"")->column == 9, "json place");
  CHECK(mn_value_find(v, "b\".0.c")->line == 2 && !strcmp(mn_value_find(v, "b\".0.c")->path, "b\"[0].c"), "json path");
  CHECK(mn_value_find(v, "b\".1")->line == 3 && mn_value_get(v, "d")->line == 4 && mn_value_get(v, "e")->line == 5, "lines");
  CHECK(v->as.entries[4].line == 6 && v->as.entries[4].column == 1 && mn_value_get(v, "f")->as.real == -1500, "last key");
}

static void yaml_refuses_with_reasons(void) {
  char deep[2000];
  memset(deep, '[', 1000);
  memset(deep + 1000, ']', 999);
  deep[1999] = 0;
  const struct {
    const char *text, *says;
  } cases[] = {
      {"", "r.yaml is empty"},
      {" \n\n", "r.yaml is empty"},
      {"# only a comment\n", "nothing is in this file"},
      {"a: 1\nb: 2\na: 3\n", "r.yaml:3: the key 'a' is already given on line 1"},
      {"a: {x: 1, x: 2}", "r.yaml:1: the key 'x' is already given"},
      {"a: &x 1\nb: *x\n", "r.yaml:1: anchors and aliases"},
      {"a: &x [1]\n", "r.yaml:1: anchors and aliases"},
      {"b:\n  - *x\n", "r.yaml:2: anchors and aliases"},
      {"*x : 1\n", "r.yaml:1: anchors and aliases"},
      {"&x a: 1\n", "anchors and aliases"},
      {"a: !!int '1'\n", "tags (!...)"},
      {"a: !secret x\n", "tags (!...)"},
      {"a: !!python/object:os.system {}\n", "tags (!...)"},
      {"!t a: 1\n", "tags (!...)"},
      {"a: 1\n---\nb: 2\n", "r.yaml:2: a second document"},
      {"? [a, b]\n: 1\n", "a key must be a word"},
      {"{a: 1}: 1\n", "a key must be a word"},
      {"'': 1\n", "a key is empty"},
      {"a: 9223372036854775808\n", "does not fit in 64 bits"},
      {"a: 0xFFFFFFFFFFFFFFFFF\n", "does not fit in 64 bits"},
      {"a: 1e-400\n", "the number 1e-400 is too small"},
      {"a: -2.5E+400\n", "the number -2.5E+400 is too large"},
      {"a: \"\\0\"\n", "zero byte"},
      {"\"\\0\": a\n", "zero byte"},
      {"a: [1, 2\n", "r.yaml:2: not valid YAML"},
      {"a: 1\n b: 2\n", "r.yaml:2: not valid YAML"},
      {"a:\n\t- 1\n", "r.yaml:2: not valid YAML"},
      {"a: 'x\n", "not valid YAML"},
      {"a: \xFF\xFE\n", "save the file as UTF-8"},
      {"a: \"\\uD800\"\n", "not valid YAML"},
      {deep, "nested more than 64 deep"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const mn_value *v = NULL;
    mn_status status = mn_yaml_parse(arena, "r.yaml", cases[i].text, strlen(cases[i].text), &v);
    CHECK(status != MN_OK && !v, "accepted: %s", cases[i].text);
    CHECK(strstr(mn_message(), cases[i].says), "%s -> %s", cases[i].text, mn_message());
  }
}

/* Nine levels of nine references each: 3.5e8 texts where aliases are followed. */
static void a_billion_laughs_are_refused(void) {
  const mn_value *v;
  const char *text = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n";
  size_t before = mn_arena_used(arena);
  CHECK(mn_yaml_parse(arena, "laughs", text, strlen(text), &v) == MN_ERR_CONFIG, "refused");
  CHECK(mn_arena_used(arena) - before < 10000, "%zu bytes", mn_arena_used(arena) - before);
}

/* A long key over many members must not be copied into every member's path. */
static void paths_are_bounded(void) {
  size_t key = 100000, members = 5000;
  mn_text t = {0};
  mn_text_add(&t, "{\"");
  for (size_t i = 0; i < key; i++) mn_text_add(&t, "k");
  mn_text_add(&t, "\": [");
  for (size_t i = 0; i < members; i++) mn_text_add(&t, i ? ",{}" : "{}");
  mn_text_add(&t, "]}");
  size_t before = mn_arena_used(arena);
  const mn_value *v;
  CHECK_OK(mn_json_parse(arena, "wide", t.data, t.len, &v));
  CHECK(mn_arena_used(arena) - before < 4000000, "%zu bytes", mn_arena_used(arena) - before);
  mn_text_free(&t);
}

/* ---- JSON ---- */
static void json_is_strict(void) {
  const char *bad[] = {"",
                       "{",
                       "{\"a\":1,}",
                       "[1,]",
                       "{a:1}",
                       "'a'",
                       "01",
                       "1.",
                       "nul",
                       "[1 2]",
                       "{\"a\" 1}",
                       "\"\x01\"",
                       "\"\\x\"",
                       "\"\\ud800\"",
                       "// x\n1",
                       "{} {}",
                       "\"\xFF\"",
                       "NaN",
                       "{\"a\":1,\"a\":2}",
                       "99999999999999999999",
                       "1e999",
                       "{\"a\": -1.5e-400}",
                       "\"a\\u0000b\""};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    const mn_value *v;
    CHECK(mn_json_parse(arena, "c.json", bad[i], strlen(bad[i]), &v) == MN_ERR_FORMAT && !v, "accepted: %s", bad[i]);
    CHECK(strstr(mn_message(), "c.json:"), "%s", mn_message());
  }
  char deep[300];
  memset(deep, '[', 150);
  memset(deep + 150, ']', 150);
  const mn_value *v;
  CHECK(mn_json_parse(arena, "c.json", deep, 300, &v) == MN_ERR_FORMAT && strstr(mn_message(), "nested"), "%s", mn_message());
  CHECK(!strcmp(as_json(json("[1,-2,3.0,1e3,true,false,null,\"\\ud83d\\ude00\\n\\/\",{},[]]"), 0),
                "[1, -2, 3.0, 1e+03, true, false, null, \"\xF0\x9F\x98\x80\\n/\", {}, []]"),
        "round trip");
}

static void json_reads_back_the_same(void) {
  const double reals[] = {0, -0.0, 0.1, 1.0 / 3, 1e22, 1e-7, 5e-324, 1.7976931348623157e308, 123456789.125, 1e15, -2.5};
  const mn_value *items[11];
  for (int i = 0; i < 11; i++) items[i] = mn_value_real(arena, reals[i]);
  const mn_value *list = mn_value_list(arena, 11, items);
  const char *keys[] = {"reals", "quote\"\\\n\t\x01", "flag", "n", "none"};
  const mn_value *values[] = {list, mn_value_text(arena, "\xE2\x82\xAC \"x\" \x1f"), mn_value_bool(arena, true),
                              mn_value_int(arena, INT64_MIN), mn_value_list(arena, 0, NULL)};
  const mn_value *v = mn_value_map(arena, 5, keys, values);
  for (int indent = 0; indent <= 2; indent += 2) {
    const mn_value *back = json(as_json(v, indent));
    CHECK(mn_value_equal(v, back), "indent %d: %s", indent, as_json(back, 0));
    for (int i = 0; i < 11; i++) {
      const mn_value *r = mn_value_get(back, "reals")->as.items[i];
      CHECK(r->kind == MN_REAL && !memcmp(&r->as.real, &reals[i], 8), "%a came back as %a", reals[i], r->as.real);
    }
  }
  CHECK(!mn_value_equal(v, list) && !mn_value_equal(json("{\"a\":1}"), json("{\"a\":2}")), "unequal");
  CHECK(mn_value_equal(json("{\"a\":1,\"b\":[2]}"), json("{\"b\":[2],\"a\":1}")), "maps in any order");
  CHECK(!strcmp(as_json(json("{\"a\":{\"b\":[1,2],\"c\":[[1],[]]},\"d\":{}}"), 2),
                "{\n  \"a\": {\n    \"b\": [1, 2],\n    \"c\": [\n      [1],\n      []\n    ]\n  },\n  \"d\": {}\n}\n"),
        "layout: %s", as_json(json("{\"a\":{\"b\":[1,2],\"c\":[[1],[]]},\"d\":{}}"), 2));
  mn_text out = {0};
  CHECK(mn_value_to_json(mn_value_real(arena, NAN), 0, &out) == MN_ERR_ARG, "NaN has no JSON");
  mn_text_free(&out);
  CHECK(!mn_value_map(arena, 1, keys, (const mn_value *[]){NULL}) && !mn_value_text(arena, NULL), "NULL passes through");
}

/* ---- --set ---- */
static const mn_value *set(const mn_value *root, const char *assignment) {
  const mn_value *v = NULL;
  mn_status status = mn_value_set(arena, root, assignment, &v);
  CHECK(status == MN_OK, "%s: %s", assignment, mn_message());
  return v;
}

/* No zero stands behind a text, and here nothing may be read behind it: the page that comes next is nobody's. */
static void nothing_is_read_behind_a_text(void) {
  static const char *const texts[] = {"0.00", "-0.0", "0",     "0e5",   "0.0e-5", "1e-400", "-",     "+.0",    "tru",
                                      "true", "null", "\"a\"", "\"a",   "\"\\",   "[0.0",   "[0.0]", "{\"a\"", "{\"a\":0.0",
                                      "{",    "0x",   "0x1f",  "0o",    "~",      ".inf",   ".na",   "a: 0.0", "a: |",
                                      "- ",   "&a",   "*a",    "!!int", "'a",     "# note", "---",   "...",    "\t"};
  CHECK(fence_end() != NULL, "no page of nobody");
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    const size_t n = strlen(texts[i]);
    const mn_value *v = NULL;
    memset(fence_end() - 64, '0', 64); /* what stands before it could be more of it */
    const char *at = fence_text(texts[i], n);
    const mn_status json = mn_json_parse(arena, "c.json", at, n, &v);
    CHECK((json == MN_OK) == (v != NULL), "%s as JSON", texts[i]);
    const mn_status yaml = mn_yaml_parse(arena, "r.yaml", at, n, &v);
    CHECK((yaml == MN_OK) == (v != NULL), "%s as YAML", texts[i]);
  }
}

static void set_replaces_and_leaves_the_old_tree(void) {
  const mn_value *v = yaml("model:\n  d_model: 64\n  blocks: [{window: 1}, {window: 2}]\nseed: 1\n");
  const char *before = as_json(v, 0);
  static const struct {
    const char *assignment, *json;
  } cases[] = {
      {"seed=7", "{\"model\": {\"d_model\": 64, \"blocks\": [{\"window\": 1}, {\"window\": 2}]}, \"seed\": 7}"},
      {"model.d_model=96", "{\"model\": {\"d_model\": 96, \"blocks\": [{\"window\": 1}, {\"window\": 2}]}, \"seed\": 1}"},
      {"model.blocks.1.window=[3, x]",
       "{\"model\": {\"d_model\": 64, \"blocks\": [{\"window\": 1}, {\"window\": [3, \"x\"]}]}, \"seed\": 1}"},
      {"train.lr=1e-3",
       "{\"model\": {\"d_model\": 64, \"blocks\": [{\"window\": 1}, {\"window\": 2}]}, \"seed\": 1, \"train\": {\"lr\": 0.001}}"},
      {"model={a: {b: 1}}", "{\"model\": {\"a\": {\"b\": 1}}, \"seed\": 1}"},
      {"seed=null", "{\"model\": {\"d_model\": 64, \"blocks\": [{\"window\": 1}, {\"window\": 2}]}, \"seed\": null}"},
      {"seed=a=b", "{\"model\": {\"d_model\": 64, \"blocks\": [{\"window\": 1}, {\"window\": 2}]}, \"seed\": \"a=b\"}"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const char *after = as_json(set(v, cases[i].assignment), 0);
    CHECK(!strcmp(after, cases[i].json), "%s -> %s", cases[i].assignment, after);
    CHECK(!strcmp(as_json(v, 0), before), "the old tree is as it was");
  }
  const mn_value *w = set(set(v, "a.b.c=1"), "a.b.d=true");
  CHECK(!strcmp(as_json(mn_value_get(w, "a"), 0), "{\"b\": {\"c\": 1, \"d\": true}}"), "%s", as_json(w, 0));
  const mn_value *d = mn_value_find(w, "a.b.d");
  mn_value_fail(d, "too true");
  CHECK(!strcmp(mn_message(), "--set a.b.d=true: too true"), "%s", mn_message());
  CHECK(!strcmp(d->path, "a.b.d"), "%s", d->path);
  d = mn_value_find(set(v, "model={a: {b: 1}}"), "model.a.b");
  CHECK(!strcmp(d->path, "model.a.b") && d->line == 0, "%s", d->path);
  CHECK(!strcmp(as_json(set(NULL, "a=1"), 0), "{\"a\": 1}"), "from nothing");
}

static void set_does_not_pass_the_depth_limit(void) {
  char deep[200] = "a";
  for (int i = 0; i < 60; i++) strcat(deep, ".a");
  const mn_value *out;
  char assignment[300];
  snprintf(assignment, sizeof assignment, "%s=[[[1]]]", deep);
  json(as_json(set(NULL, assignment), 0)); /* 61 + 3 levels are read back */
  snprintf(assignment, sizeof assignment, "%s=[[[[1]]]]", deep);
  CHECK(mn_value_set(arena, NULL, assignment, &out) == MN_ERR_CONFIG && strstr(mn_message(), "64 deep"), "%s", mn_message());
}

static void set_refuses_with_reasons(void) {
  const mn_value *v = yaml("model:\n  d_model: 64\n  blocks: [{window: 1}]\n"), *out;
  static const struct {
    const char *assignment, *says;
  } cases[] = {
      {"model", "expected key=value"},
      {"=1", "expected key=value"},
      {"", "expected key=value"},
      {"seed=", "there is no value"},
      {"seed= \t", "there is no value"},
      {"model.d_model.x=1", "model.d_model is an integer, so it has no key 'x'"},
      {"model.blocks.1.window=1", "model.blocks is a list of 1 items; use a number from 0 to 0, not '1'"},
      {"model.blocks.first=1", "not 'first'"},
      {"model..x=1", "a part of the key is empty"},
      {"model.=1", "a part of the key is empty"},
      {".a=1", "a part of the key is empty"},
      {"a=[1", "--set a=[1: not valid YAML"},
      {"a=&x 1", "anchors"},
      {"a\xFF=1", "--set a?=1: not valid UTF-8"},
      {"a={b: 1, b: 2}", "--set a={b: 1, b: 2}: the key 'b' is already given;"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    CHECK(mn_value_set(arena, v, cases[i].assignment, &out) == MN_ERR_CONFIG && !out, "accepted: %s", cases[i].assignment);
    CHECK(strstr(mn_message(), cases[i].says) && strstr(mn_message(), "--set"), "%s -> %s", cases[i].assignment, mn_message());
  }
}

/* ---- files and text ---- */
static void files_are_read_and_written(void) {
  char path[] = P_tmpdir "/mneme-test-yaml-XXXXXX";
  int fd = mkstemp(path);
  CHECK(fd >= 0, "scratch file");
  close(fd);
  const mn_value *v = yaml("a: [1, {b: 2.5}]\n"), *back;
  CHECK_OK(mn_json_write(path, v));
  CHECK_OK(mn_json_read(arena, path, &back));
  CHECK(mn_value_equal(v, back), "%s", as_json(back, 0));
  CHECK_OK(mn_yaml_read(arena, path, &back));
  CHECK(mn_value_equal(v, back), "JSON is YAML");
  CHECK_OK(mn_file_write(path, "a:\n  - b: [\n", 12));
  CHECK(mn_yaml_read(arena, path, &back) != MN_OK && !strncmp(mn_message(), path, strlen(path)), "%s", mn_message());
  unlink(path);
  CHECK(mn_yaml_read(arena, path, &back) == MN_ERR_IO, "missing");
}

static void foreign_text_is_made_printable(void) {
  char buf[MN_PRINTABLE], longer[400];
  CHECK(!strcmp(mn_printable("a\x1b[31m\n\xFF\xC3\xA9", buf), "a?[31m??\xC3\xA9"), "%s", buf);
  memset(longer, 'x', sizeof longer);
  longer[399] = 0;
  mn_printable(longer, buf);
  CHECK(strlen(buf) < MN_PRINTABLE && !strcmp(buf + strlen(buf) - 3, "..."), "%s", buf);
  static const struct {
    const char *s;
    size_t valid;
  } utf8[] = {{"abc", 3},          {"\xC3\xA9", 2},         {"\xC0\x80", 0},     {"a\xED\xA0\x80", 1}, {"\xF4\x90\x80\x80", 0},
              {"\xE0\x9F\xBF", 0}, {"\xF0\x9F\x98\x80", 4}, {"\xF0\x9F\x98", 0}, {"\x80", 0},          {"\xF5\x80\x80\x80", 0},
              {"\xED\x9F\xBF", 3}};
  for (size_t i = 0; i < sizeof utf8 / sizeof *utf8; i++)
    CHECK(mn_utf8_valid(utf8[i].s, strlen(utf8[i].s)) == utf8[i].valid, "case %zu", i);
  mn_text t = {0};
  mn_text_add(&t, "ab");
  mn_text_pad(&t, 5);
  mn_text_addf(&t, "%d|\n", 7);
  mn_text_pad(&t, 2);
  CHECK(!strcmp(t.data, "ab   7|\n  "), "'%s'", t.data);
  mn_text_free(&t);
  char *none = mn_text_take(&t);
  CHECK(none && !*none, "an empty text is \"\"");
  free(none);
}

int main(void) {
  arena = mn_arena_new();
  RUN(scalars_have_the_core_schemas_types);
  RUN(everything_knows_its_place);
  RUN(yaml_refuses_with_reasons);
  RUN(a_billion_laughs_are_refused);
  RUN(paths_are_bounded);
  RUN(json_is_strict);
  RUN(json_reads_back_the_same);
  RUN(nothing_is_read_behind_a_text);
  RUN(set_replaces_and_leaves_the_old_tree);
  RUN(set_does_not_pass_the_depth_limit);
  RUN(set_refuses_with_reasons);
  RUN(files_are_read_and_written);
  RUN(foreign_text_is_made_printable);
  mn_arena_free(arena);
  return test_end();
}
