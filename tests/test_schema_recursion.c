/* test_schema_recursion.c - what must be true of schemas that lead to themselves: lists that hold such lists, how many of them, and what does not fit;
 * what has no finite value is refused, and what could not be told in time. And of lists whose items nothing fits: they are empty. */
#include "format/json.h"
#include "serve/json_schema.h"
#include "test.h"

typedef struct rule {
  const char *schema, *good[5], *bad[5];
} rule;

static mn_status compile(const char *schema, mn_arena *arena, mn_grammar **g) {
  const mn_value *v = NULL;
  *g = NULL;
  CHECK_OK(mn_json_parse(arena, "schema", schema, strlen(schema), &v));
  return v ? mn_grammar_of_schema(v, g) : MN_ERR_FORMAT;
}

static bool takes(mn_machine *m, const char *s) {
  int32_t at = mn_machine_begin(m);
  for (; *s && at >= 0; s++) at = mn_machine_next(m, at, (unsigned char)*s);
  return mn_machine_whole(m, at);
}

static void all_hold(const rule *all, size_t n) {
  for (size_t i = 0; i < n; i++) {
    mn_arena *arena = mn_arena_new();
    mn_grammar *g;
    mn_machine *m = NULL;
    const mn_status status = compile(all[i].schema, arena, &g);
    CHECK(status == MN_OK, "%s: %s", all[i].schema, mn_message());
    if (g) CHECK_OK(mn_machine_new(g, &m));
    for (int k = 0; m && k < 5 && all[i].good[k]; k++) CHECK(takes(m, all[i].good[k]), "%s: not %s", all[i].schema, all[i].good[k]);
    for (int k = 0; m && k < 5 && all[i].bad[k]; k++) CHECK(!takes(m, all[i].bad[k]), "%s: %s", all[i].schema, all[i].bad[k]);
    mn_machine_free(m), mn_grammar_free(g), mn_arena_free(arena);
  }
}

static void is_refused(const char *schema, const char *said) {
  mn_arena *arena = mn_arena_new();
  mn_grammar *g;
  const mn_status status = compile(schema, arena, &g);
  CHECK(status == MN_ERR_CONFIG && strstr(mn_message(), said), "%s: %s", schema, status == MN_OK ? "is taken" : mn_message());
  mn_grammar_free(g), mn_arena_free(arena);
}

#define T(...)    "{\"$ref\": \"#/$defs/t\", \"$defs\": {\"t\": " __VA_ARGS__ "}}"
#define LIST(...) "{\"type\": \"array\", \"contains\": {\"$ref\": \"#/$defs/t\"}" __VA_ARGS__ "}"
#define WORD(...) T("{\"anyOf\": [{\"type\": \"string\"}, " LIST(__VA_ARGS__) "]}")

static void a_list_may_hold_such_lists(void) {
  static const rule all[] = {
      {WORD(), {"\"a\"", "[\"a\"]", "[[[\"a\"]]]", "[3, [], [1, [\"a\", null]]]"}, {"[]", "[3]", "[[]]", "[[3, [4]], {}]"}},
      {T("{\"anyOf\": [{\"type\": \"integer\"}, " LIST() "]}"), {"1", "[1]", "[true, [[2]]]"}, {"[]", "[1.5]", "[[], [[]]]"}},
      {"{\"type\": \"array\", \"contains\": {\"$ref\": \"#\"}, \"minContains\": 0}", {"[]", "[1]", "[[]]"}, {"1"}},
      {"{\"type\": [\"string\", \"array\"], \"contains\": {\"$ref\": \"#\"}, \"minContains\": 0, \"maxContains\": 0}",
       {"\"a\"", "[]", "[3]", "[[\"a\"], [[3]]]"},
       {"[\"a\"]", "[[3]]", "[1, []]"}},
      /* beside what its items are */
      {T("{\"anyOf\": [{\"type\": \"null\"}, " LIST(
           ", \"items\": {\"type\": [\"array\", \"null\", \"boolean\"]}, \"prefixItems\": [{\"type\": \"boolean\"}], \"maxItems\": 3") "]}"),
       {"null", "[true, null]", "[true, [], [false, null]]"},
       {"[]", "[null]", "[true, []]", "[true, 1, null]", "[true, [null]]"}},
      {"{\"type\": [\"array\", \"null\"], \"contains\": {\"$ref\": \"#\"}, \"items\": {\"type\": [\"array\", \"null\"]}, \"minContains\": 0, \"maxContains\": 0}",
       {"null", "[]", "[[null], [[]]]"},
       {"[null]", "[[]]", "[[[null]]]"}},
      /* what is no such list */
      {"{\"not\": {\"$ref\": \"#/$defs/t\"}, \"$defs\": {\"t\": {\"type\": \"array\", \"items\": {\"$ref\": \"#/$defs/t\"}}}}",
       {"1", "[1]", "[[1], []]", "[[[2]]]"},
       {"[]", "[[]]", "[[], [[]]]"}},
      {"{\"type\": \"array\", \"items\": {\"not\": {\"$ref\": \"#/$defs/t\"}}, \"$defs\": {\"t\": {\"anyOf\": [{\"type\": \"string\"}, " LIST() "]}}}",
       {"[]", "[1]", "[[[1]], []]"},
       {"[\"a\"]", "[1, [[\"a\"]]]"}},
      /* counts, and fewer or more */
      {"{\"not\": {\"contains\": {\"type\": \"string\"}, \"minContains\": 2}}", {"[]", "[\"a\", 1]"}, {"[\"a\", \"b\"]", "1"}},
      {"{\"type\": \"array\", \"not\": {\"contains\": {\"type\": \"string\"}, \"minContains\": 2, \"maxContains\": 3}}",
       {"[]", "[1, \"a\"]", "[\"a\", \"b\", 1, \"c\", \"d\"]"},
       {"[\"a\", \"b\"]", "[1, \"a\", \"b\", \"c\"]"}},
      /* within other references */
      {"{\"$defs\": {\"l\": {\"type\": \"array\", \"contains\": {\"format\": \"date\", \"type\": \"string\"}, \"minContains\": 2}}, \"type\": \"array\", \"contains\": {\"$ref\": "
       "\"#/$defs/l\"}, \"minContains\": 2}",
       {"[[\"2024-01-01\", \"2024-01-02\"], 1, [\"2024-01-01\", 3, \"2024-01-03\"]]"},
       {"[]", "[[\"2024-01-01\", \"2024-01-02\"], [\"2024-01-01\"]]"}},
  };
  all_hold(all, sizeof all / sizeof *all);
}

/* Fifty lists deep, with one that is none beside it at each depth: as fast as one. */
static void depth_does_not_multiply(void) {
  static const char *const all[] = {
      WORD(),
      "{\"not\": {\"$ref\": \"#/$defs/t\"}, \"$defs\": {\"t\": {\"anyOf\": [{\"type\": \"number\"}, {\"type\": \"array\", \"items\": "
      "{\"$ref\": \"#/$defs/t\"}}]}}, \"type\": [\"array\", \"string\"]}"};
  for (int k = 0; k < 2; k++) {
    char text[400] = "";
    mn_arena *arena = mn_arena_new();
    mn_grammar *g;
    mn_machine *m = NULL;
    CHECK_OK(compile(all[k], arena, &g));
    if (g) CHECK_OK(mn_machine_new(g, &m));
    for (int i = 0; i < 50; i++) strcat(text, "[1,");
    strcat(text, "\"a\"");
    for (int i = 0; i < 50; i++) strcat(text, "]");
    CHECK(m && takes(m, text), "%s: not %s", all[k], text);
    if (m) CHECK_OK(mn_machine_status(m));
    mn_machine_free(m), mn_grammar_free(g), mn_arena_free(arena);
  }
}

static void what_has_no_end_is_refused(void) {
  is_refused(T(LIST()), "no text that ends");
  is_refused("{\"contains\": {\"$ref\": \"#\"}}", "no text that ends");
  is_refused(T("{\"$ref\": \"#/$defs/t\"}"), "no text that ends");
  is_refused("{\"not\": {\"$ref\": \"#\"}}", "schema"); /* what fits is what does not */
}

/* What is alive would double at each depth; of other lists a depth of five does. */
static void what_would_multiply_is_refused(void) {
  is_refused(WORD(", \"minContains\": 2"), "multiply with each level");
  is_refused(WORD(", \"maxContains\": 1"), "multiply with each level");
  is_refused("{\"type\": \"array\", \"contains\": {\"$ref\": \"#\"}, \"minContains\": 0, \"maxContains\": 1}", "multiply with each level");
  is_refused(T("{\"anyOf\": [{\"type\": \"integer\"}, " LIST(", \"minContains\": 2") "]}"), "multiply with each level");
  is_refused(
      "{\"$defs\": {\"l\": {\"type\": \"array\", \"contains\": {\"format\": \"date\", \"type\": \"string\"}, \"minContains\": 10}}, \"type\": \"array\", \"prefixItems\": [{\"type\": "
      "\"array\", \"contains\": {\"type\": \"array\", \"items\": {\"$ref\": \"#/$defs/l\"}, \"uniqueItems\": false}, \"minContains\": 10}, {\"$ref\": \"#/$defs/l\"}]}",
      "counts of items within counts of items");
  is_refused(
      "{\"contains\": {\"contains\": {\"contains\": {\"contains\": {\"contains\": {\"contains\": {\"const\": 1}, \"maxContains\": 2}, \"maxContains\": 2}, "
      "\"maxContains\": 2}, \"maxContains\": 2}, \"maxContains\": 2}, \"maxContains\": 2}",
      "more than five lists");
}

/* Also where two schemas meet of which one leads elsewhere. */
static void what_stands_beside_a_reference_holds(void) {
  static const rule all[] = {
      {"{\"allOf\": [{\"$ref\": \"#/$defs/x\", \"const\": 2.5}, {\"minimum\": 1}], \"$defs\": {\"x\": {\"type\": [\"number\", \"string\"]}}}",
       {"2.5"},
       {"3", "\"a\""}},
      {"{\"contains\": {}, \"items\": {\"$ref\": \"#/$defs/x\", \"const\": 2.5}, \"$defs\": {\"x\": {\"uniqueItems\": false}}}",
       {"[2.5]"},
       {"[[]]", "[]"}},
      {"{\"minimum\": 1, \"anyOf\": [{\"$ref\": \"#/$defs/x\", \"maximum\": 2}, {\"type\": \"null\"}], \"$defs\": {\"x\": {\"type\": \"integer\"}}}",
       {"1", "2", "null"},
       {"0", "3"}},
      {"{\"oneOf\": [{\"$ref\": \"#/$defs/x\", \"maximum\": 2}, {\"type\": \"null\"}], \"$defs\": {\"x\": {\"$ref\": \"#/$defs/y\", \"minimum\": 1}, \"y\": {\"type\": \"integer\"}}}",
       {"1", "2", "null"},
       {"0", "3"}},
  };
  all_hold(all, sizeof all / sizeof *all);
}

static void a_list_that_nothing_fits_into_is_empty(void) {
  static const rule all[] = {
      {"{\"type\": \"array\", \"items\": {\"allOf\": [{\"type\": \"string\"}, {\"type\": \"integer\"}]}}", {"[]"}, {"[1]", "[\"a\"]"}},
      {"{\"type\": \"array\", \"items\": {\"allOf\": [{\"type\": \"string\"}, {\"type\": \"integer\"}]}, \"maxItems\": 3}",
       {"[]"},
       {"[1]"}},
      {"{\"type\": \"array\", \"prefixItems\": [{\"type\": \"null\"}, {\"const\": 1, \"type\": \"string\"}, {}], \"items\": {\"type\": \"null\"}}",
       {"[]", "[null]"},
       {"[null, 1]", "[1]"}},
      {"{\"type\": \"array\", \"prefixItems\": [{\"type\": \"null\"}], \"items\": {\"const\": 1, \"type\": \"string\"}, \"minItems\": 1}",
       {"[null]"},
       {"[]", "[null, 1]"}},
  };
  all_hold(all, sizeof all / sizeof *all);
  is_refused("{\"type\": \"array\", \"minItems\": 1, \"items\": {\"const\": 1, \"type\": \"string\"}}",
             "items that no value fits, and a minItems");
  is_refused("{\"type\": \"array\", \"minItems\": 2, \"prefixItems\": [{}, {\"const\": 1, \"type\": \"string\"}]}", "no value that fits");
}

int main(void) {
  RUN(a_list_may_hold_such_lists);
  RUN(depth_does_not_multiply);
  RUN(what_has_no_end_is_refused);
  RUN(what_would_multiply_is_refused);
  RUN(what_stands_beside_a_reference_holds);
  RUN(a_list_that_nothing_fits_into_is_empty);
  return test_end();
}
