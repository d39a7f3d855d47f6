/* test_schema_bounds.c - what must be true of schemas at their bounds: what is admitted at first can be said to its end, with every mask on the way, or
 * is refused by name; what null is kept out of it stays out of, whoever is nullable beside it; an opposite of what is no schema is none. */
#include "base/text.h"
#include "format/json.h"
#include "serve/json_schema.h"
#include "test.h"

#define OBJECT "{\"type\": \"object\", "
#define ARRAY  "{\"type\": \"array\", "

typedef struct compiled {
  mn_arena *arena;
  mn_grammar *g;
  mn_machine *m;
} compiled;

static mn_status compile(const char *schema, compiled *c) {
  const mn_value *v = NULL;
  *c = (compiled){.arena = mn_arena_new()};
  CHECK_OK(mn_json_parse(c->arena, "schema", schema, strlen(schema), &v));
  mn_status status = v ? mn_grammar_of_schema(v, &c->g) : MN_ERR_FORMAT;
  if (status == MN_OK) status = mn_machine_new(c->g, &c->m);
  return status;
}

static void release(compiled *c) { mn_machine_free(c->m), mn_grammar_free(c->g), mn_arena_free(c->arena); }

static int32_t after(mn_machine *m, int32_t at, const char *s) {
  for (; *s && at >= 0; s++) at = mn_machine_next(m, at, (unsigned char)*s);
  return at;
}

typedef struct rule {
  const char *schema, *good[4], *bad[4];
} rule;

static void all_hold(const rule *all, size_t n) {
  for (size_t i = 0; i < n; i++) {
    compiled c;
    const mn_status status = compile(all[i].schema, &c);
    CHECK(status == MN_OK, "%s: %s", all[i].schema, mn_message());
    for (int k = 0; c.m && k < 4 && all[i].good[k]; k++)
      CHECK(mn_machine_whole(c.m, after(c.m, mn_machine_begin(c.m), all[i].good[k])), "%s: not %s", all[i].schema, all[i].good[k]);
    for (int k = 0; c.m && k < 4 && all[i].bad[k]; k++)
      CHECK(!mn_machine_whole(c.m, after(c.m, mn_machine_begin(c.m), all[i].bad[k])), "%s: %s", all[i].schema, all[i].bad[k]);
    release(&c);
  }
}

static void is_refused(const char *schema, const char *said) {
  compiled c;
  const mn_status status = compile(schema, &c);
  CHECK(status == MN_ERR_CONFIG && strstr(mn_message(), said), "%s: %s", schema, status == MN_OK ? "is taken" : mn_message());
  release(&c);
}

/* ---- to the end ---- */
static const char *word(void *ctx, int32_t i, size_t *bytes) {
  static const char *const words[] = {"[",   "]",    "{",    "}",    "\"",  "\"a\": ",   ", ",  ",",     "1",        "12", "-1",
                                      "2.5", "null", "true", "[1, ", "{\"", "\": 1, \"", "abc", "\\u00", "\xc3\xa9", ":",  ": ",
                                      " ",   "t",    "\n  ", "e5",   "0.",  "{}",        "[[",  "[]",    "fal",      "b"};
  (void)ctx;
  if (i >= (int32_t)(sizeof words / sizeof *words)) return NULL;
  *bytes = strlen(words[i]);
  return words[i];
}

/* `first`, n times `more`, `end`, with a mask before each byte. */
static void runs(const char *schema, const char *first, const char *more, int n, const char *end) {
  compiled c;
  mn_lexicon *l = NULL;
  const mn_status status = compile(schema, &c);
  CHECK(status == MN_OK, "%s: %s", schema, mn_message());
  CHECK_OK(mn_lexicon_new(32, word, NULL, &l));
  int32_t at = c.m ? after(c.m, mn_machine_begin(c.m), first) : -1;
  const uint64_t *begin = c.m ? mn_machine_mask(c.m, mn_machine_begin(c.m), l) : NULL, before = begin ? *begin : 0;
  int i = 0;
  for (; i < n && at >= 0; i++)
    for (const char *b = more; *b && at >= 0; b++) {
      const uint64_t *mask = mn_machine_mask(c.m, at, l);
      at = mask && *mask ? mn_machine_next(c.m, at, (unsigned char)*b) : -1;
    }
  if (c.m)
    CHECK(mn_machine_whole(c.m, after(c.m, at, end)), "%s: ends at item %d: %s", schema, i,
          mn_machine_status(c.m) == MN_OK ? "" : mn_message());
  begin = at >= 0 ? mn_machine_mask(c.m, mn_machine_begin(c.m), l) : NULL; /* forgotten on the way, and found again */
  CHECK(begin && before && *begin == before, "%s: begins otherwise", schema);
  mn_lexicon_free(l);
  release(&c);
}

static void what_is_admitted_runs_to_its_end(void) {
  runs(ARRAY "\"contains\": {\"const\": 1}, \"minContains\": 100}", "[1", ", 1", 149, "]");
  runs(ARRAY "\"contains\": {\"const\": 1}, \"minContains\": 1000}", "[1", ", 1", 1499, "]");
  runs(ARRAY "\"contains\": {\"type\": \"string\"}, \"minContains\": 64}", "[\"abcdefghijkl\"", ", \"abcdefghijkl\"", 95, "]");
  runs(ARRAY "\"contains\": {\"type\": \"integer\"}, \"minContains\": 32}", "[1", ", 1", 47, "]");
  runs(ARRAY "\"contains\": {\"const\": 1}, \"minContains\": 4096}", "[1", ", 1", 6143, "]");
  runs(OBJECT "\"maxProperties\": 4096}", "{\"b\": 1", ", \"b\": 1", 1023, "}");
  runs(ARRAY "\"items\": " OBJECT "\"properties\": {\"a\": {}, \"b\": {}}}, \"maxItems\": 4096}", "[{\"a\": 1, \"b\": \"b\"}",
       ", {\"a\": 1, \"b\": \"b\"}", 1023, "]");
  runs(ARRAY "\"maxItems\": 4096}", "[{\"a\": [1]}", ", {\"a\": [1]}", 1023, "]");
}

static void more_than_runs_is_refused(void) {
  is_refused(ARRAY "\"contains\": {\"type\": \"integer\"}, \"minContains\": 33}", "minContains above 32");
  is_refused(ARRAY "\"contains\": {\"pattern\": \"a\", \"type\": \"string\", \"minLength\": 2, \"format\": \"date\"}, \"minContains\": 40}",
             "minContains above 32");
  is_refused(ARRAY "\"contains\": " ARRAY "\"contains\": {\"type\": \"integer\"}, \"minContains\": 30}, \"minContains\": 30}",
             "minContains above 32");
  is_refused(ARRAY "\"contains\": {\"const\": 1}, \"minContains\": 4096, \"maxContains\": 4096, \"minItems\": 4096, \"maxItems\": 4096}",
             "more than 200000 nodes");
}

/* Names that are many, and counted: what is refused is refused by its size, wherever the room ran out. */
static void what_is_too_large_says_so(void) {
  static const char *const all[] = {ARRAY "\"contains\": {\"const\": 1}, \"maxContains\": 4096, \"maxItems\": 4096}",
                                    ARRAY "\"contains\": {\"enum\": [1, \"a\"]}, \"maxContains\": 900, \"maxItems\": 900}"};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) is_refused(all[i], "more than 200000 nodes");
  for (int n = 600; n <= 4000; n += n < 610 ? 1 : 1690) {
    mn_text t = {0};
    mn_text_add(&t, OBJECT "\"maxProperties\": 300, \"properties\": {");
    for (int i = 0; i < n; i++) mn_text_addf(&t, "%s\"k%d\": {}", i ? ", " : "", i);
    mn_text_add(&t, "}}");
    CHECK_OK(mn_text_status(&t));
    is_refused(t.data, "more than 200000 nodes");
    mn_text_free(&t);
  }
}

/* Null is among what is told apart where the schema that tells says so, and not as another is nullable. */
static void what_null_is_kept_out_of_stays_so(void) {
  static const rule all[] = {
      {"{\"nullable\": true, \"allOf\": [{\"not\": {\"type\": \"null\"}}]}", {"1", "\"a\""}, {"null"}},
      {"{\"allOf\": [{\"nullable\": true}, {\"not\": {\"type\": \"null\"}}]}", {"1", "\"a\""}, {"null"}},
      {"{\"allOf\": [{\"not\": {\"type\": \"null\"}}, {\"nullable\": true}]}", {"1", "\"a\""}, {"null"}},
      {"{\"nullable\": true, \"anyOf\": [{\"not\": {\"type\": \"null\"}}]}", {"1"}, {"null"}},
      {"{\"nullable\": true, \"oneOf\": [{\"not\": {\"type\": \"null\"}}]}", {"1"}, {"null"}},
      {"{\"nullable\": true, \"allOf\": [{\"$ref\": \"#/$defs/n\"}], \"$defs\": {\"n\": {\"not\": {\"enum\": [null, 1]}}}}",
       {"2", "\"a\""},
       {"null", "1"}},
      {"{\"nullable\": true, \"$ref\": \"#/$defs/n\", \"$defs\": {\"n\": {\"not\": {\"type\": \"null\"}}}}", {"2"}, {"null"}},
      {"{\"anyOf\": [{\"nullable\": true}, {\"const\": 3}], \"allOf\": [{\"not\": {\"enum\": [null, 3]}}]}", {"1"}, {"null", "3"}},
      {"{\"nullable\": true, \"allOf\": [{\"if\": {\"type\": \"string\"}, \"then\": {\"minLength\": 2}, \"else\": {\"type\": \"integer\"}}]}",
       {"\"ab\"", "1"},
       {"\"a\"", "null"}},
      {"{\"anyOf\": [{\"nullable\": true}, {\"const\": \"q\"}], \"allOf\": [{\"if\": {\"type\": \"string\"}, \"then\": {\"minLength\": 2}, \"else\": {\"type\": "
       "\"integer\"}}, {\"if\": {\"const\": 1}, \"then\": false, \"else\": true}]}",
       {"\"ab\"", "2"},
       {"\"a\"", "null", "1"}},
      {"{\"allOf\": [{\"nullable\": true}, {\"if\": {\"type\": \"null\"}, \"then\": false, \"else\": true}]}", {"1"}, {"null"}},
      {ARRAY "\"items\": {\"nullable\": true}, \"contains\": {\"type\": \"null\"}, \"minContains\": 0, \"maxContains\": 1}",
       {"[]", "[null]", "[1, null]"},
       {"[null, null]"}},
      {ARRAY "\"items\": {\"nullable\": true}, \"contains\": {\"const\": 1}}", {"[1]"}, {"[null]", "[]"}},
      {ARRAY "\"items\": {\"nullable\": true}, \"not\": {\"contains\": {\"type\": \"null\"}}}", {"[]", "[1]"}, {"[null]", "[1, null]"}},
      {OBJECT
       "\"properties\": {\"a\": {\"nullable\": true}}, \"required\": [\"a\"], \"not\": {\"properties\": {\"a\": {\"type\": \"null\"}}}}",
       {"{\"a\": 1}"},
       {"{\"a\": null}", "{}"}},
      /* it is there where both say so, and of what is nullable around a type */
      {"{\"nullable\": true, \"allOf\": [{\"not\": {\"type\": \"string\"}}]}", {"null", "1"}, {"\"a\""}},
      {"{\"nullable\": true, \"allOf\": [{\"type\": \"string\"}]}", {"null", "\"a\""}, {"1"}},
      {"{\"nullable\": true, \"anyOf\": [{\"type\": \"string\"}, {\"not\": {\"type\": \"null\"}}]}", {"null", "1"}, {NULL}},
      {"{\"nullable\": true, \"anyOf\": [{\"anyOf\": [{\"not\": {\"type\": \"null\"}}]}, {\"not\": {\"enum\": [null]}}]}", {"1"}, {"null"}},
  };
  all_hold(all, sizeof all / sizeof *all);
}

static void an_opposite_of_no_schema_is_none(void) {
  is_refused("{\"not\": {\"type\": \"bogus\"}}", "unknown type");
  is_refused("{\"not\": {\"type\": [\"string\", \"bogus\"]}}", "unknown type");
  is_refused("{\"not\": {\"type\": [\"string\", 3]}}", "neither a word nor a list of words");
  is_refused("{\"if\": {\"type\": \"objct\"}, \"then\": {\"type\": \"string\"}}", "unknown type");
  is_refused(ARRAY "\"contains\": {\"type\": \"strng\"}, \"minContains\": 0, \"maxContains\": 0}", "unknown type");
  is_refused(ARRAY "\"contains\": {\"type\": \"strng\"}, \"minContains\": 0}", "unknown type");
  is_refused(ARRAY "\"contains\": {\"bogus\": 3}, \"minContains\": 0}", "the key 'bogus'");
  is_refused(ARRAY "\"contains\": 3, \"minContains\": 0}", "not a map");
  /* false is what a complement of {} makes, first in a list of what must hold */
  is_refused(
      "{\"allOf\": [{\"if\": {\"anyOf\": [{}, {\"type\": \"string\", \"maxLength\": 0}, {\"type\": \"null\"}], \"type\": \"array\"}, \"then\": "
      "{\"type\": \"object\"}, \"else\": {\"type\": \"array\", \"minItems\": 2}}]}",
      "wants two types at once");
  static const rule all[] = {
      {"{\"anyOf\": [{\"allOf\": [{\"if\": {\"anyOf\": [{}, {\"type\": \"null\"}], \"type\": \"array\"}, \"then\": {\"type\": \"object\"}, \"else\": "
       "{\"type\": [\"array\", \"null\"]}}]}, {\"const\": 7}]}",
       {"7", "null"},
       {"[1]", "[]", "{}"}},
      {ARRAY "\"contains\": false, \"minContains\": 0}", {"[]", "[1]"}, {"{}"}},
      {OBJECT "\"properties\": {\"a\": {}, \"b\": {}, \"c\": {}}, \"additionalProperties\": true, \"maxProperties\": 1}",
       {"{}", "{\"c\": 1}", "{\"d\": 1}"},
       {"{\"a\": 1, \"b\": 1}", "{\"d\": 1, \"e\": 1}"}},
      {OBJECT "\"properties\": {\"a\": {}, \"b\": {}}, \"additionalProperties\": true, \"maxProperties\": 0}",
       {"{}"},
       {"{\"c\": 1}", "{\"a\": 1}"}},
  };
  all_hold(all, sizeof all / sizeof *all);
}

/* ---- keys that say nothing where they stand ---- */
static void keys_that_say_nothing_change_nothing(void) {
  static const rule all[] = {
      /* of another type than the schema's own, also where it comes by all that must hold at once */
      {"{\"type\": \"integer\", \"minLength\": 3, \"pattern\": \"a\", \"items\": {}, \"format\": \"date\", \"required\": [\"a\"]}",
       {"1", "-20"},
       {"1.5", "\"abc\""}},
      {"{\"type\": \"string\", \"minItems\": 3, \"minimum\": 5, \"format\": \"int32\", \"minProperties\": 1}",
       {"\"\"", "\"a\""},
       {"5", "[1, 2, 3]"}},
      {"{\"type\": \"boolean\", \"format\": \"no such\", \"maxItems\": 0, \"multipleOf\": 2}", {"true"}, {"2"}},
      {"{\"allOf\": [{\"type\": \"integer\", \"maximum\": 9}, {\"minLength\": 3}]}", {"9", "1"}, {"10", "\"abc\""}},
      {"{\"type\": [\"string\", \"integer\"], \"minLength\": 1, \"minimum\": 3, \"anyOf\": [{\"type\": \"integer\"}, {\"type\": \"string\"}]}",
       {"3", "\"a\""},
       {"2", "\"\""}},
      {"{\"$defs\": {\"a\": {\"maxLength\": 2}}, \"$ref\": \"#/$defs/a\", \"type\": \"number\"}", {"1234", "1.5"}, {"\"a\""}},
      /* of several types, where none is said */
      {"{\"minLength\": 2, \"minimum\": 3}", {"3", "4.5", "\"ab\""}, {"2", "\"a\""}},
      {"{\"minItems\": 1, \"required\": [\"a\"]}", {"[1]", "{\"a\": 1}"}, {"[]", "{}"}},
      /* beside values */
      {"{\"enum\": [1, \"a\", \"abc\", null], \"minLength\": 2}", {"1", "\"abc\"", "null"}, {"\"a\""}},
      {"{\"const\": 7, \"maxLength\": 0}", {"7"}, {"\"\""}},
      {"{\"const\": [1], \"minItems\": 1, \"minimum\": 3}", {"[1]"}, {"[]"}},
      /* conditions: what they speak of is not there, so that they hold */
      {"{\"type\": \"integer\", \"if\": {\"minLength\": 3}, \"then\": {\"minimum\": 5}, \"else\": {\"maximum\": 2}}",
       {"5", "6"},
       {"1", "4"}},
      {"{\"type\": \"string\", \"not\": {\"type\": \"integer\", \"minimum\": 3}}", {"\"a\""}, {"1"}},
      {"{\"anyOf\": [{\"type\": \"integer\", \"not\": {\"minLength\": 3}}, {\"type\": \"null\"}]}", {"null"}, {"1"}},
      {"{\"type\": \"string\", \"then\": {\"minLength\": 2}, \"else\": false}", {"\"\"", "\"abc\""}, {"1"}},
      {"{\"type\": \"string\", \"if\": {\"minLength\": 2}}", {"\"\"", "\"abc\""}, {"1"}},
      {"{\"type\": \"integer\", \"allOf\": [{\"then\": false}, {\"if\": {\"minimum\": 3}, \"else\": {\"const\": 1}}]}", {"3", "1"}, {"2"}},
      {"{\"type\": [\"string\", \"null\"], \"nullable\": true, \"else\": false}", {"null", "\"\""}, {"1"}},
      /* of a key beside them that is not there, and not of another schema's */
      {ARRAY "\"items\": {\"enum\": [1, 2]}, \"minContains\": 3, \"maxContains\": 1}", {"[]", "[1, 2]"}, {"[3]"}},
      {"{\"allOf\": [" ARRAY "\"items\": {\"enum\": [1, 2]}, \"contains\": {\"const\": 2}}, {\"minContains\": 2}]}",
       {"[2]", "[1, 2, 2]"},
       {"[]", "[1]"}},
      {"{\"allOf\": [{\"minContains\": 2, \"maxContains\": 0}, " ARRAY
       "\"items\": {\"enum\": [1, 2]}, \"contains\": {\"const\": 2}, \"minContains\": 1}]}",
       {"[2]", "[1, 2, 2]"},
       {"[]", "[1]"}},
      {ARRAY "\"items\": {\"type\": \"integer\"}, \"additionalItems\": false}", {"[]", "[1, 2]"}, {"[true]"}},
      {"{\"allOf\": [" ARRAY "\"items\": [{\"type\": \"integer\"}]}, {\"additionalItems\": false}]}", {"[1]", "[1, true]"}, {"[true]"}},
      {"{\"type\": \"array\", \"not\": {\"type\": \"array\", \"minItems\": 1, \"minContains\": 4, \"then\": false}}", {"[]"}, {"[1]"}},
  };
  all_hold(all, sizeof all / sizeof *all);
  is_refused("{\"type\": \"integer\", \"not\": {\"minLength\": 3}}", "wants two types at once"); /* each integer has it */
  is_refused("{\"type\": \"integer\", \"minLength\": -1}", "'minLength' of values of another type than its own, and that is no such key");
  is_refused("{\"type\": \"integer\", \"pattern\": 5}", "that is no such key");
  is_refused("{\"type\": \"null\", \"items\": [3]}", "that is no such key");
  is_refused("{\"type\": \"null\", \"required\": [3]}", "that is no such key");
  is_refused("{\"type\": \"null\", \"uniqueItems\": 1}", "that is no such key");
  is_refused("{\"type\": \"null\", \"properties\": []}", "that is no such key");
  is_refused("{\"type\": \"null\", \"minimum\": \"3\"}", "that is no such key");
  is_refused("{\"type\": \"null\", \"prefixItems\": {}}", "that is no such key");
  is_refused("{\"type\": \"null\", \"frobnicate\": {}}", "not known here");
}

int main(void) {
  RUN(what_is_admitted_runs_to_its_end);
  RUN(more_than_runs_is_refused);
  RUN(what_is_too_large_says_so);
  RUN(what_null_is_kept_out_of_stays_so);
  RUN(an_opposite_of_no_schema_is_none);
  RUN(keys_that_say_nothing_change_nothing);
  return test_end();
}
