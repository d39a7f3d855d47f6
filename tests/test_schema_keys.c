/* test_schema_keys.c - what must be true of a schema's keys where several speak of the same, in order: names that propertyNames forbids are never
 * made, whoever names them; every other name can be; what is merged keeps what each of its schemas says; of oneOf what one value fits twice is found;
 * numbers are equal by value, whichever way they are written; and what is not known is refused, wherever it stands, also what clients write. */
#include "base/text.h"
#include "format/json.h"
#include "serve/json_schema.h"
#include "test.h"

static bool takes(mn_machine *m, const char *s) {
  int32_t at = mn_machine_begin(m);
  for (; *s && at >= 0; s++) at = mn_machine_next(m, at, (unsigned char)*s);
  return mn_machine_whole(m, at);
}

typedef struct rule {
  const char *schema, *good[8], *bad[8];
} rule;

static void all_hold(const rule *all, size_t n) {
  for (size_t i = 0; i < n; i++) {
    mn_arena *arena = mn_arena_new();
    const mn_value *v = NULL;
    mn_grammar *g = NULL;
    mn_machine *m = NULL;
    CHECK_OK(mn_json_parse(arena, "schema", all[i].schema, strlen(all[i].schema), &v));
    const mn_status status = v ? mn_grammar_of_schema(v, &g) : MN_ERR_FORMAT;
    CHECK(status == MN_OK, "%s: %s", all[i].schema, mn_message());
    if (status == MN_OK) CHECK_OK(mn_machine_new(g, &m));
    for (int k = 0; m && k < 8 && all[i].good[k]; k++) CHECK(takes(m, all[i].good[k]), "%s: not %s", all[i].schema, all[i].good[k]);
    for (int k = 0; m && k < 8 && all[i].bad[k]; k++) CHECK(!takes(m, all[i].bad[k]), "%s: %s", all[i].schema, all[i].bad[k]);
    mn_machine_free(m), mn_grammar_free(g), mn_arena_free(arena);
  }
}

typedef struct refusal {
  const char *schema, *said;
} refusal;

static void all_are_refused(const refusal *all, size_t n) {
  for (size_t i = 0; i < n; i++) {
    mn_arena *arena = mn_arena_new();
    const mn_value *v = NULL;
    mn_grammar *g = NULL;
    CHECK_OK(mn_json_parse(arena, "schema", all[i].schema, strlen(all[i].schema), &v));
    const mn_status status = v ? mn_grammar_of_schema(v, &g) : MN_ERR_FORMAT;
    CHECK(status == MN_ERR_CONFIG && !g && strstr(mn_message(), all[i].said), "%s: %s", all[i].schema,
          status == MN_OK ? "is taken" : mn_message());
    mn_grammar_free(g), mn_arena_free(arena);
  }
}

#define OBJECT "{\"type\": \"object\", "

static void names_are_what_they_must_be(void) {
  static const rule all[] = {
      {OBJECT "\"properties\": {\"a\": {}, \"b\": {}}, \"propertyNames\": {\"enum\": [\"a\"]}}",
       {"{}", "{\"a\": 1}"},
       {"{\"b\": 1}", "{\"a\": 1, \"b\": 1}"}},
      {OBJECT
       "\"properties\": {\"a\": {}, \"b\": {}}, \"propertyNames\": {\"const\": \"b\", \"type\": \"string\"}, \"additionalProperties\": false}",
       {"{}", "{\"b\": 1}"},
       {"{\"a\": 1}"}},
      /* a closed one has no more names for it */
      {OBJECT "\"properties\": {\"a\": {}}, \"propertyNames\": {\"enum\": [\"a\", \"c\"]}}", {"{\"a\": 1}"}, {"{\"c\": 1}"}},
      {OBJECT "\"properties\": {\"a\": {}}, \"propertyNames\": {\"enum\": [\"a\", \"c\"]}, \"additionalProperties\": {\"type\": \"null\"}}",
       {"{\"a\": 1, \"c\": null}"},
       {"{\"c\": 1}", "{\"d\": null}"}},
      /* names of a list with more beside it */
      {OBJECT "\"propertyNames\": {\"enum\": [\"a\", \"bb\"], \"maxLength\": 1}}", {"{\"a\": 1}"}, {"{\"bb\": 1}", "{\"c\": 1}"}},
      {OBJECT "\"propertyNames\": {\"contentEncoding\": \"base64\"}}", {"{\"TW5l\": 1}"}, {"{\"TW5\": 1}"}},
      {OBJECT "\"propertyNames\": {\"title\": \"a name\", \"type\": [\"string\", \"null\"]}}", {"{\"b\": 1}"}, {"{b: 1}"}},
      /* that no name can be: there are none */
      {OBJECT "\"propertyNames\": {\"type\": [\"integer\"]}}", {"{}"}, {"{\"a\": 1}", "{\"1\": 1}"}},
      {OBJECT "\"propertyNames\": {\"const\": \"a\", \"enum\": [\"b\"]}}", {"{}"}, {"{\"a\": 1}", "{\"b\": 1}"}},
  };
  static const refusal bad[] = {
      {OBJECT "\"propertyNames\": {\"type\": 3}}", "neither a word nor a list"},
      {OBJECT "\"properties\": {\"a\": {}}, \"propertyNames\": {\"not\": {\"const\": \"a\"}}}", "beside names"},
      {OBJECT "\"properties\": {\"a\": {}}, \"propertyNames\": {\"enum\": [\"a\"], \"minLength\": 2}}", "beside names"},
      {OBJECT "\"properties\": {\"a\": {}, \"b\": {}}, \"required\": [\"b\"], \"propertyNames\": {\"enum\": [\"a\"]}}", "may not be there"},
  };
  all_hold(all, sizeof all / sizeof *all);
  all_are_refused(bad, sizeof bad / sizeof *bad);
}

/* Beside names that are known any other of ASCII can be made, whatever letter it has at any place, and none of those that are. */
static void every_other_name_can_be_made(void) {
  const char *const schema =
      OBJECT "\"properties\": {\"a\": {\"type\": \"null\"}, \"Bee\": {\"type\": \"null\"}, \"B[\": {\"type\": \"null\"}, \"~\": "
             "{\"type\": \"null\"}}, \"additionalProperties\": true}";
  static const char *const before[] = {"", "a", "B", "Be", "Bee", "B[", "x", "~"};
  static const char *const named[] = {"a", "Bee", "B[", "~"};
  mn_arena *arena = mn_arena_new();
  const mn_value *v = NULL;
  mn_grammar *g = NULL;
  mn_machine *m = NULL;
  CHECK_OK(mn_json_parse(arena, "schema", schema, strlen(schema), &v));
  CHECK_OK(mn_grammar_of_schema(v, &g));
  CHECK_OK(mn_machine_new(g, &m));
  for (size_t i = 0; m && i < sizeof before / sizeof *before; i++)
    for (int b = ' '; b <= '~'; b++) {
      char name[8], text[40];
      bool known = false;
      snprintf(name, sizeof name, "%s%c", before[i], b);
      for (size_t k = 0; k < sizeof named / sizeof *named; k++) known = known || !strcmp(named[k], name);
      snprintf(text, sizeof text, "{\"%s\": 1}", name);
      CHECK(takes(m, text) == (!known && b != '"' && b != '\\'), "%s", text);
      snprintf(text, sizeof text, "{\"%s\": null}", name);
      CHECK(takes(m, text) == (b != '"' && b != '\\'), "%s", text);
    }
  CHECK(m && takes(m, "{\"\": 1}"), "a name without a letter");
  mn_machine_free(m), mn_grammar_free(g), mn_arena_free(arena);
}

static void references_are_read_as_uris(void) {
  static const rule all[] = {
      {"{\"$ref\": \"#/$defs/a%20b\", \"$defs\": {\"a b\": {\"const\": 1}}}", {"1"}, {"2"}},
      {"{\"$ref\": \"#/%24defs/%C3%A9%5b%5D\", \"$defs\": {\"\u00e9[]\": {\"const\": 1}}}", {"1"}, {"2"}},
      {"{\"$ref\": \"#/$defs/a~1b~0c%25\", \"$defs\": {\"a/b~c%\": {\"const\": 1}}}", {"1"}, {"2"}},
      {"{\"$ref\": \"#/$defs/a%7E1b\", \"$defs\": {\"a/b\": {\"const\": 1}}}", {"1"}, {"2"}},
      {"{\"$ref\": \"#/$defs/a%2\", \"$defs\": {\"a%2\": {\"const\": 1}}}", {"1"}, {"2"}},                        /* as some write it */
      {"{\"$ref\": \"#/$defs/a%20b\", \"$defs\": {\"a%20b\": {\"const\": 1}}}", {"1"}, {"2"}},                    /* likewise */
      {"{\"$ref\": \"#/$defs/%41\", \"$defs\": {\"%41\": {\"const\": 2}, \"A\": {\"const\": 1}}}", {"1"}, {"2"}}, /* the standard first */
  };
  static const refusal bad[] = {{"{\"$ref\": \"#/$defs/a%20b\", \"$defs\": {\"ab\": {\"const\": 1}}}", "leads nowhere"},
                                {"{\"$ref\": \"#/$defs/a%00\", \"$defs\": {\"a\": {\"const\": 1}}}", "leads nowhere"}};
  all_hold(all, sizeof all / sizeof *all);
  all_are_refused(bad, sizeof bad / sizeof *bad);
}

static void what_is_no_schema_is_none(void) {
  static const rule all[] = {
      {"{\"prefixItems\": [{\"type\": \"null\"}, false]}", {"[]", "[null]"}, {"[1]", "[null, 1]"}},
      {"{\"prefixItems\": [true]}", {"[]", "[1]", "[1, 2]"}, {"{}"}},
      {"{\"type\": \"array\", \"items\": [false], \"additionalItems\": true}", {"[]"}, {"[1]", "[1, 2]"}},
      {"{\"anyOf\": [false, {\"type\": \"null\"}]}", {"null"}, {"1"}},
      {OBJECT "\"additionalProperties\": true}", {"{\"a\": 1}"}, {"[]"}},
  };
  static const refusal bad[] = {
      {"{\"prefixItems\": [\"string\"]}", "is not a map"},
      {"{\"prefixItems\": [null]}", "is not a map"},
      {"{\"prefixItems\": [false], \"minItems\": 1}", "room for fewer items"},
      {OBJECT "\"additionalProperties\": \"string\"}", "is not a map"},
      {OBJECT "\"unevaluatedProperties\": [true]}", "is not a map"},
      {OBJECT "\"patternProperties\": {\"^a\": \"string\"}}", "is not a map"},
      {OBJECT "\"properties\": {\"a\": \"string\"}}", "is not a map"},
      {"{\"type\": \"array\", \"items\": \"string\"}", "not a schema"},
      {"false", "no value fits"},
  };
  all_hold(all, sizeof all / sizeof *all);
  all_are_refused(bad, sizeof bad / sizeof *bad);
}

/* What one schema says of all that it does not name it says of what another names. */
static void what_is_merged_keeps_what_each_says(void) {
  static const rule all[] = {
      /* another's names are none that it evaluates; those around it are seen */
      {"{\"allOf\": [" OBJECT "\"properties\": {\"a\": {}}, \"unevaluatedProperties\": false}, {\"properties\": {\"b\": {}}}]}",
       {"{\"a\": 1}"},
       {"{\"b\": 1}"}},
      {"{\"allOf\": [{\"properties\": {\"b\": {}}}, " OBJECT
       "\"properties\": {\"a\": {}}, \"unevaluatedProperties\": {\"type\": \"null\"}}]}",
       {"{\"a\": 1, \"c\": null}", "{\"b\": null}"},
       {"{\"b\": 1}"}},
      {OBJECT "\"properties\": {\"a\": {}}, \"anyOf\": [{\"properties\": {\"b\": {}}, \"unevaluatedProperties\": false}]}",
       {"{\"b\": 1}"},
       {"{\"a\": 1}"}},
      {"{\"$defs\": {\"x\": " OBJECT
       "\"properties\": {\"a\": {}}, \"unevaluatedProperties\": false}}, \"$ref\": \"#/$defs/x\", \"properties\": {\"b\": {}}}",
       {"{\"a\": 1}"},
       {"{\"b\": 1}"}},
      {OBJECT
       "\"properties\": {\"p\": {\"properties\": {\"a\": {}}, \"unevaluatedProperties\": false}}, \"allOf\": [{\"properties\": {\"p\": {\"properties\": {\"b\": {}}}}}]}",
       {"{\"p\": {\"a\": 1}}"},
       {"{\"p\": {\"b\": 1}}"}},
      {OBJECT
       "\"unevaluatedProperties\": false, \"allOf\": [{\"properties\": {\"a\": {}}, \"additionalProperties\": {\"type\": \"null\"}}]}",
       {"{\"a\": 1, \"b\": null}"},
       {"{\"b\": 1}"}},
      /* patterns of one, and what the other says of all */
      {"{\"allOf\": [{\"patternProperties\": {\"^a$\": {}}, \"additionalProperties\": false}, {\"additionalProperties\": {\"type\": \"integer\"}}]}",
       {"{\"a\": 1}", "{}"},
       {"{\"a\": \"x\"}", "{\"b\": 1}"}},
      {"{\"allOf\": [{\"additionalProperties\": {\"type\": \"integer\"}}, {\"patternProperties\": {\"^a$\": {\"type\": [\"integer\", \"null\"]}}}]}",
       {"{\"a\": 1}"},
       {"{\"a\": null}"}},
      {"{\"allOf\": [{\"patternProperties\": {\"^a$\": {}}}, " OBJECT "\"additionalProperties\": false}]}", {"{}"}, {"{\"a\": 1}"}},
      /* items by their number of one, and all items of the other */
      {"{\"allOf\": [{\"prefixItems\": [{\"type\": [\"string\", \"integer\"]}, {}]}, {\"items\": {\"type\": \"integer\"}}]}",
       {"[]", "[1]", "[1, 2, 3]"},
       {"[\"a\"]", "[1, \"a\"]", "[1, 2, null]"}},
      {"{\"allOf\": [{\"items\": false}, {\"prefixItems\": [{}], \"type\": \"array\"}]}", {"[]"}, {"[1]"}},
      /* null of one that the other does not take */
      {"{\"allOf\": [{\"type\": \"string\", \"nullable\": true}, {\"type\": \"string\"}]}", {"\"a\""}, {"null"}},
      {"{\"allOf\": [{\"type\": \"string\"}, {\"type\": \"string\", \"nullable\": true}]}", {"\"a\""}, {"null"}},
      {"{\"allOf\": [{\"type\": \"string\", \"nullable\": true}, {\"type\": [\"null\", \"string\"]}]}", {"\"a\"", "null"}, {"1"}},
      {"{\"allOf\": [{\"type\": \"string\", \"nullable\": true}, {\"minLength\": 2}]}", {"\"ab\"", "null"}, {"\"a\""}},
      {"{\"$defs\": {\"s\": {\"type\": \"string\"}}, \"nullable\": true, \"allOf\": [{\"$ref\": \"#/$defs/s\"}]}",
       {"\"a\"", "null"},
       {"1"}},
      /* bounds that f64 does not tell apart */
      {"{\"type\": \"integer\", \"allOf\": [{\"minimum\": 9007199254740993}, {\"minimum\": 9007199254740992}]}",
       {"9007199254740993"},
       {"9007199254740992"}},
      {"{\"type\": \"integer\", \"allOf\": [{\"maximum\": 9007199254740992}, {\"maximum\": 9007199254740993}]}",
       {"9007199254740992"},
       {"9007199254740993"}},
      {"{\"type\": \"integer\", \"allOf\": [{\"minimum\": 9007199254740992.0}, {\"minimum\": 9007199254740993}]}",
       {"9007199254740993"},
       {"9007199254740992"}},
      /* what is true of one's properties, and false of one's values */
      {"{\"allOf\": [" OBJECT "\"properties\": {\"a\": true}}, {\"required\": [\"a\"]}]}", {"{\"a\": 1}"}, {"{}"}},
      {"{\"anyOf\": [{\"allOf\": [false, {\"type\": \"string\"}]}, {\"type\": \"null\"}]}", {"null"}, {"\"a\""}},
      {"{\"anyOf\": [{\"allOf\": [false, true]}, {\"type\": \"null\"}]}", {"null"}, {"1"}},
      {"{\"type\": [\"object\", \"null\"], \"additionalProperties\": {\"type\": \"string\", \"minLength\": 2, \"maxLength\": 1}}",
       {"null", "{}"},
       {"{\"a\": \"b\"}"}},
      {"{\"type\": \"object\", \"maxProperties\": 2, \"additionalProperties\": {\"allOf\": [{\"type\": \"string\"}, {\"type\": \"null\"}]}}",
       {"{}"},
       {"{\"a\": null}", "{\"a\": \"b\"}"}},
      {"{\"type\": \"object\", \"propertyNames\": false}", {"{}"}, {"{\"a\": 1}"}},
      {"{\"type\": \"object\", \"propertyNames\": {\"minLength\": 2, \"maxLength\": 1}}", {"{}"}, {"{\"a\": 1}"}},
      {"{\"anyOf\": [{\"type\": \"array\", \"uniqueItems\": true, \"items\": {\"enum\": [1, 2]}, \"minItems\": 3}, {\"type\": \"null\"}]}",
       {"null"},
       {"[1,2]"}},
      /* equal by value */
      {"{\"allOf\": [{\"const\": 1}, {\"const\": 1.0}]}", {"1"}, {"2"}},
      {"{\"allOf\": [{\"enum\": [1, [2]]}, {\"enum\": [[2.0], 3]}]}", {"[2]"}, {"1", "3"}},
  };
  static const refusal bad[] = {
      {"{\"allOf\": [{\"anyOf\": [{\"properties\": {\"a\": {}}}], \"unevaluatedProperties\": false}, {\"properties\": {\"b\": {}}}]}",
       "unevaluatedProperties beside anyOf"},
      {"{\"type\": \"array\", \"uniqueItems\": true, \"items\": {\"enum\": [1, 1.0]}}", "a value twice"},
      {"{\"allOf\": [{\"const\": 9007199254740993}, {\"const\": 9007199254740992.0}]}", "two constants"},
  };
  all_hold(all, sizeof all / sizeof *all);
  all_are_refused(bad, sizeof bad / sizeof *bad);
}

#define OF_TWO(a, b)   "{\"oneOf\": [" a ", " b "]}"
#define HAS(key, more) OBJECT "\"properties\": {\"" key "\": {\"type\": \"null\"}}, \"required\": [\"" key "\"]" more "}"
#define LETTERS(more)  OBJECT "\"patternProperties\": {\"^[a-z]$\": {\"type\": \"null\"}}" more "}"
#define CLOSED         ", \"additionalProperties\": false"

static void what_fits_two_of_oneOf_is_found(void) {
  static const char said[] = "one value could fit two of";
  static const refusal bad[] = {
      {OF_TWO(LETTERS(CLOSED), HAS("a", CLOSED)), said},
      {OF_TWO(HAS("a", CLOSED), LETTERS(CLOSED)), said},
      {OF_TWO(HAS("a", ", \"unevaluatedProperties\": true"), HAS("b", ", \"unevaluatedProperties\": true")), said},
      {OF_TWO(HAS("a", ", \"unevaluatedProperties\": {\"type\": \"null\"}"), HAS("b", "")), said},
      /* what is required is there, whether it is described or not */
      {OF_TWO(OBJECT "\"properties\": {\"a\": {}}, \"required\": [\"a\", \"b\"]}", HAS("b", "")), said},
      {OF_TWO("{\"type\": \"string\", \"nullable\": true}", "{\"type\": \"integer\", \"nullable\": true}"), said},
      {OF_TWO("{\"type\": \"string\", \"nullable\": true}", "{\"type\": [\"integer\", \"null\"]}"), said},
      {OF_TWO("{\"enum\": [null, 1]}", "{\"type\": \"string\", \"nullable\": true}"), said},
      {OF_TWO("{\"const\": 1}", "{\"const\": 1.0}"), said},
      {OF_TWO("{\"enum\": [[1, {\"a\": 2.0}]]}", "{\"enum\": [[1.0, {\"a\": 2}]]}"), said},
  };
  static const rule all[] = {
      {OF_TWO(HAS("a", ", \"unevaluatedProperties\": false"), HAS("b", CLOSED)),
       {"{\"a\": null}", "{\"b\": null}"},
       {"{\"a\": null, \"b\": null}", "{}"}},
      {OF_TWO("{\"type\": \"string\", \"nullable\": true}", "{\"type\": \"integer\"}"), {"null", "1", "\"\""}, {"true"}},
      {OF_TWO("{\"type\": \"string\", \"nullable\": true}", "{\"type\": \"integer\", \"nullable\": false}"),
       {"null", "1", "\"\""},
       {"true"}},
      {OF_TWO("{\"const\": 9007199254740993}", "{\"const\": 9007199254740992}"), {"9007199254740993", "9007199254740992"}, {"1"}},
  };
  all_are_refused(bad, sizeof bad / sizeof *bad);
  all_hold(all, sizeof all / sizeof *all);
}

/* As docs/server.md says: what pydantic and zod write so is refused, and not taken for less than it says. */
static void what_clients_write_and_is_refused(void) {
  static const refusal bad[] = {
      {"{\"type\": \"string\", \"contentMediaType\": \"application/json\", \"contentSchema\": {\"type\": \"integer\"}}",
       "'contentSchema', which is not known"},
      {"{\"type\": \"string\", \"format\": \"regex\"}", "format that is not known"},
      {"{\"type\": \"string\", \"format\": \"name-email\"}", "format that is not known"},
      {"{\"type\": \"string\", \"format\": \"ipv4network\"}", "format that is not known"},
      {"{\"type\": \"string\", \"format\": \"ipv6interface\"}", "format that is not known"},
      {"{\"type\": \"string\", \"format\": \"multi-host-uri\", \"minLength\": 1}", "format that is not known"},
      {"{\"type\": \"integer\", \"multipleOf\": 5000}", "more than 4096 units"},
      {"{\"not\": {}}", "no value fits"},
      {"{\"type\": \"string\", \"format\": \"emoji\", \"pattern\": \"^(\\\\p{Extended_Pictographic}|\\\\p{Emoji_Component})+$\"}",
       "an escape that is not known"},
  };
  all_are_refused(bad, sizeof bad / sizeof *bad);
}

/* Is an end reached from a state? By the nearest ways first; each state once. */
static bool can_end(mn_machine *m, int32_t from) {
  static const char likely[] = "]}\":, 0abcdefghijklmnopqrstuvwxyz123-[{";
  int32_t found[2000] = {from};
  int n = 1;
  for (int i = 0; i < n; i++) {
    if (mn_machine_whole(m, found[i])) return true;
    for (const char *b = likely; *b; b++) {
      const int32_t next = mn_machine_next(m, found[i], (unsigned char)*b);
      int k = 0;
      while (k < n && found[k] != next) k++;
      if (next >= 0 && k == n && n < 2000) found[n++] = next;
    }
  }
  return false;
}

/* After each byte that may follow each prefix of `text` there is an end. */
static void nothing_leads_nowhere(const char *schema, const char *text) {
  mn_arena *arena = mn_arena_new();
  const mn_value *v = NULL;
  mn_grammar *g = NULL;
  mn_machine *m = NULL;
  CHECK_OK(mn_json_parse(arena, "schema", schema, strlen(schema), &v));
  CHECK_OK(mn_grammar_of_schema(v, &g));
  if (g) CHECK_OK(mn_machine_new(g, &m));
  int32_t at = m ? mn_machine_begin(m) : -1;
  CHECK(m && takes(m, text), "%s: not %s", schema, text);
  for (const char *s = text; m && at >= 0; s++) {
    for (int b = 32; b < 127; b++) {
      const int32_t next = mn_machine_next(m, at, (unsigned char)b);
      CHECK(next < 0 || can_end(m, next), "%s: %.*s%c leads nowhere", schema, (int)(s - text), text, b);
    }
    if (!*s) break;
    at = mn_machine_next(m, at, (unsigned char)*s);
  }
  mn_machine_free(m), mn_grammar_free(g), mn_arena_free(arena);
}

#define THREE "\"properties\": {\"a\": {\"const\": 1}, \"b\": {\"const\": 1}, \"c\": {\"const\": 1}}"

static void properties_are_counted(void) {
  static const rule all[] = {
      {OBJECT THREE ", \"minProperties\": 2}",
       {"{\"a\": 1, \"b\": 1}", "{\"a\": 1, \"c\": 1}", "{\"b\": 1, \"c\": 1}", "{\"a\": 1, \"b\": 1, \"c\": 1}"},
       {"{}", "{\"a\": 1}", "{\"c\": 1}"}},
      {OBJECT THREE ", \"maxProperties\": 1}", {"{}", "{\"a\": 1}", "{\"c\": 1}"}, {"{\"a\": 1, \"b\": 1}", "{\"b\": 1, \"c\": 1}"}},
      {OBJECT THREE ", \"maxProperties\": 2, \"minProperties\": 2, \"required\": [\"c\"], \"additionalProperties\": false}",
       {"{\"a\": 1, \"c\": 1}", "{\"b\": 1, \"c\": 1}"},
       {"{\"c\": 1}", "{\"a\": 1, \"b\": 1}", "{\"a\": 1, \"b\": 1, \"c\": 1}"}},
      {OBJECT "\"maxProperties\": 0}", {"{}"}, {"{\"a\": 1}"}},
      {OBJECT "\"minProperties\": 1}", {"{\"a\": 1}", "{\"a\": 1, \"b\": 1}"}, {"{}", "{ }"}},
      {"{\"minProperties\": 1, \"maxProperties\": 2}",
       {"{\"a\": 1}", "{\"a\": 1, \"b\": 1}"},
       {"{}", "[]", "{\"a\": 1, \"b\": 1, \"c\": 1}"}},
      /* of others one is surely new: a name may stand twice */
      {OBJECT "\"properties\": {\"a\": {}}, \"minProperties\": 2, \"additionalProperties\": {\"type\": \"null\"}}",
       {"{\"a\": 1, \"x\": null}", "{\"a\": 1, \"x\": null, \"x\": null}"},
       {"{\"a\": 1}", "{\"x\": null}", "{\"x\": null, \"x\": null}", "{\"a\": 1, \"a\": null}"}},
      {OBJECT "\"properties\": {\"a\": {}}, \"maxProperties\": 2, \"additionalProperties\": {\"type\": \"null\"}}",
       {"{}", "{\"a\": 1, \"x\": null}", "{\"x\": null, \"y\": null}"},
       {"{\"a\": 1, \"x\": null, \"y\": null}"}},
      {OBJECT "\"propertyNames\": {\"enum\": [\"r\", \"g\"]}, \"minProperties\": 2}",
       {"{\"r\": 1, \"g\": 1}"},
       {"{\"r\": 1}", "{\"r\": 1, \"r\": 1}"}},
      {OBJECT "\"patternProperties\": {\"^[a-z]$\": {}}, \"additionalProperties\": false, \"minProperties\": 1}",
       {"{\"a\": 1}"},
       {"{}", "{\"A\": 1}"}},
      /* both of two that must hold; a way that none fits is none; a value's own */
      {"{\"allOf\": [{" THREE ", \"minProperties\": 1}, {\"minProperties\": 2, \"maxProperties\": 3}, {\"maxProperties\": 2}]}",
       {"{\"a\": 1, \"b\": 1}"},
       {"{\"a\": 1}", "{\"a\": 1, \"b\": 1, \"c\": 1}"}},
      {"{\"anyOf\": [" OBJECT THREE ", \"additionalProperties\": false, \"minProperties\": 4}, {\"type\": \"null\"}]}", {"null"}, {"{}"}},
      {"{\"enum\": [{}, {\"a\": 1}], \"minProperties\": 1}", {"{\"a\": 1}"}, {"{}"}},
      /* one that no value fits is not made, where it need not be */
      {OBJECT "\"properties\": {\"a\": {\"allOf\": [{\"const\": 1}, {\"const\": 2}]}, \"b\": {}}}", {"{}", "{\"b\": 1}"}, {"{\"a\": 1}"}},
      {OBJECT "\"properties\": {\"a\": false, \"b\": {}, \"c\": {}}, \"minProperties\": 2}",
       {"{\"b\": 1, \"c\": 1}"},
       {"{\"a\": 1, \"b\": 1}"}},
  };
  static const refusal bad[] = {
      {OBJECT THREE ", \"minProperties\": 4}", "cannot reach"},
      {OBJECT "\"minProperties\": 2}", "cannot reach"},
      {OBJECT THREE ", \"minProperties\": 4, \"additionalProperties\": false}", "cannot reach"},
      {OBJECT THREE ", \"maxProperties\": 1, \"required\": [\"a\", \"b\"]}", "cannot reach"},
      {OBJECT "\"minProperties\": 2, \"maxProperties\": 1}", "below the least"},
      {OBJECT "\"minProperties\": -1}", "not a number from 0 on"},
      {OBJECT "\"minProperties\": 5000}", "more than 4096"},
  };
  all_hold(all, sizeof all / sizeof *all);
  all_are_refused(bad, sizeof bad / sizeof *bad);
  nothing_leads_nowhere(OBJECT THREE ", \"minProperties\": 2, \"maxProperties\": 2, \"additionalProperties\": false}",
                        "{\"a\": 1, \"c\": 1}");
  nothing_leads_nowhere(OBJECT THREE ", \"minProperties\": 3, \"required\": [\"b\"], \"additionalProperties\": {\"type\": \"null\"}}",
                        "{\"a\": 1, \"b\": 1, \"x\": null}");
  /* a way that holds itself has no end, and is none */
  nothing_leads_nowhere("{\"$defs\": {\"t\": " OBJECT "\"properties\": {\"t\": {\"$ref\": \"#/$defs/t\"}}, \"required\": [\"t\"]}}, "
                        "\"anyOf\": [{\"type\": \"null\"}, {\"type\": \"array\", \"items\": {\"$ref\": \"#/$defs/t\"}}]}",
                        "[]");
}

static void what_not_says_is_not_made(void) {
  static const rule all[] = {
      {"{\"not\": {\"type\": \"string\"}}", {"1", "null", "[]", "{}", "true"}, {"\"\"", "\"a\""}},
      {"{\"not\": {\"type\": [\"number\", \"object\", \"array\"]}}", {"\"a\"", "null", "true"}, {"1", "1.5", "{}", "[]"}},
      {"{\"type\": [\"integer\", \"string\"], \"not\": {\"type\": \"integer\"}}", {"\"a\""}, {"1", "1.5"}},
      {"{\"type\": \"string\", \"not\": {\"enum\": [\"a\", \"b.c\", \"\"]}}",
       {"\"b\"", "\"aa\"", "\"bxc\"", "\"A\"", "\"ab\""},
       {"\"a\"", "\"b.c\"", "\"\"", "\"\\u0061\"", "1"}},
      {"{\"type\": \"integer\", \"not\": {\"const\": 3}}", {"2", "4", "-3", "33"}, {"3", "\"3\""}},
      {"{\"type\": \"number\", \"minimum\": 0, \"not\": {\"enum\": [0, 1.5]}}", {"1", "1.4", "2"}, {"0", "1.5", "1.50", "0.0", "-1"}},
      {"{\"type\": [\"boolean\", \"null\"], \"not\": {\"const\": true}}", {"false", "null"}, {"true"}},
      {"{\"not\": {\"enum\": [null, 0, \"x\", false]}}", {"true", "1", "\"y\"", "[]", "{}"}, {"null", "0", "\"x\"", "false"}},
      {"{\"enum\": [\"a\", \"b\", 3], \"not\": {\"enum\": [\"b\", 3]}}", {"\"a\""}, {"\"b\"", "3"}},
      {"{\"type\": \"integer\", \"not\": {\"minimum\": 3, \"maximum\": 5}}", {"2", "6"}, {"3", "4", "5"}},
      {"{\"type\": \"string\", \"not\": {\"minLength\": 2}}", {"\"\"", "\"a\""}, {"\"ab\""}},
      {OBJECT THREE ", \"not\": {\"required\": [\"a\", \"b\"]}}",
       {"{}", "{\"a\": 1, \"c\": 1}", "{\"b\": 1}"},
       {"{\"a\": 1, \"b\": 1}", "{\"a\": 1, \"b\": 1, \"c\": 1}"}},
      {OBJECT "\"not\": {\"required\": [\"a\"]}}", {"{}", "{\"b\": 1}"}, {"{\"a\": 1}"}},
      {OBJECT "\"properties\": {\"k\": {\"enum\": [1, 2]}}, \"not\": {\"properties\": {\"k\": {\"const\": 1}}}}",
       {"{\"k\": 2}"},
       {"{\"k\": 1}", "{}"}},
      {"{\"type\": \"array\", \"items\": {\"enum\": [1, 2]}, \"not\": {\"contains\": {\"const\": 1}}}",
       {"[]", "[2, 2]"},
       {"[1]", "[2, 1]"}},
      {"{\"type\": \"integer\", \"not\": {\"anyOf\": [{\"maximum\": 0}, {\"minimum\": 9}]}}", {"1", "8"}, {"0", "9"}},
      {"{\"type\": \"integer\", \"not\": {\"allOf\": [{\"minimum\": 0}, {\"maximum\": 9}]}}", {"-1", "10"}, {"0", "9"}},
      {"{\"type\": \"string\", \"not\": {\"not\": {\"const\": \"a\"}}}", {"\"a\""}, {"\"b\""}},
      {"{\"$defs\": {\"a\": {\"const\": 1}}, \"enum\": [1, 2], \"not\": {\"$ref\": \"#/$defs/a\"}}", {"2"}, {"1"}},
      {"{\"allOf\": [{\"enum\": [1, 2, 3]}, {\"not\": {\"const\": 1}}, {\"not\": {\"const\": 3}}]}", {"2"}, {"1", "3"}},
      {"{\"type\": \"null\", \"not\": false}", {"null"}, {"1"}},
      {OBJECT "\"propertyNames\": {\"not\": {\"const\": \"secret\"}}}",
       {"{\"secre\": 1}", "{}"},
       {"{\"secret\": 1}", "{\"\\u0073ecret\": 1}"}},
      {OBJECT "\"propertyNames\": {\"enum\": [\"a\", \"b\"], \"not\": {\"const\": \"a\"}}}", {"{\"b\": 1}"}, {"{\"a\": 1}"}},
  };
  static const refusal bad[] = {
      {"{\"not\": {\"type\": \"integer\"}}", "of the type integer where there may be numbers"},
      {"{\"not\": {\"const\": [1]}}", "a list or a map as a value"},
      {"{\"not\": {\"pattern\": \"a\"}}", "of 'pattern', whose opposite is not known"},
      {"{\"not\": {\"oneOf\": [{\"const\": 1}]}}", "of 'oneOf', whose opposite is not known"},
      {"{\"not\": {\"uniqueItems\": true}}", "of 'uniqueItems', whose opposite is not known"},
      {"{\"not\": {\"x\": 1}}", "of 'x', whose opposite is not known"},
      {"{\"not\": {\"const\": 9007199254740993}}", "a number beyond 2^53"},
      {"{\"not\": {\"$ref\": \"#\"}}", "leads to itself"},
      {"{\"not\": 1}", "is not a map"},
      {"{\"type\": \"string\", \"nullable\": true, \"not\": {\"const\": \"a\"}}", "say null as a type"},
      {OBJECT THREE ", \"unevaluatedProperties\": false, \"not\": {\"required\": [\"a\"]}}", "say additionalProperties"},
      {"{\"type\": \"string\", \"pattern\": \"^a\", \"not\": {\"const\": \"a\"}}", "two patterns"},
  };
  all_hold(all, sizeof all / sizeof *all);
  all_are_refused(bad, sizeof bad / sizeof *bad);
  nothing_leads_nowhere("{\"enum\": [\"ab\", \"ac\"], \"not\": {\"const\": \"ab\"}}", "\"ac\"");
  nothing_leads_nowhere(OBJECT THREE ", \"additionalProperties\": false, \"minProperties\": 2, \"not\": {\"required\": [\"a\"]}}",
                        "{\"b\": 1, \"c\": 1}");
}

#define KIND(more)                                                                                                                         \
  OBJECT "\"properties\": {\"k\": {\"enum\": [\"x\", \"y\"]}, \"n\": {\"type\": \"integer\"}}, \"additionalProperties\": false, " more "}"
#define IS_X "\"if\": {\"properties\": {\"k\": {\"const\": \"x\"}}, \"required\": [\"k\"]}"

static void conditions_hold(void) {
  static const rule all[] = {
      {KIND(IS_X ", \"then\": {\"required\": [\"n\"]}"),
       {"{}", "{\"n\": 1}", "{\"k\": \"x\", \"n\": 1}", "{\"k\": \"y\"}", "{\"k\": \"y\", \"n\": 1}"},
       {"{\"k\": \"x\"}", "{\"k\": \"z\"}"}},
      {KIND(IS_X ", \"else\": {\"properties\": {\"n\": {\"maximum\": 9}}}"),
       {"{}", "{\"n\": 9}", "{\"k\": \"x\", \"n\": 10}", "{\"k\": \"y\", \"n\": 9}"},
       {"{\"n\": 10}", "{\"k\": \"y\", \"n\": 10}"}},
      {KIND(IS_X ", \"then\": {\"required\": [\"n\"]}, \"else\": {\"properties\": {\"n\": false}}"),
       {"{}", "{\"k\": \"x\", \"n\": 1}", "{\"k\": \"y\"}"},
       {"{\"n\": 1}", "{\"k\": \"x\"}", "{\"k\": \"y\", \"n\": 1}"}},
      /* without required, an object that has no k fits the condition */
      {KIND("\"if\": {\"properties\": {\"k\": {\"const\": \"x\"}}}, \"then\": {\"required\": [\"n\"]}"),
       {"{\"n\": 1}", "{\"k\": \"y\"}", "{\"k\": \"x\", \"n\": 1}"},
       {"{}", "{\"k\": \"x\"}"}},
      {"{\"type\": \"integer\", \"if\": {\"minimum\": 10}, \"then\": {\"multipleOf\": 5}, \"else\": {\"minimum\": 0}}",
       {"0", "3", "10", "15"},
       {"-1", "11"}},
      {"{\"type\": [\"string\", \"integer\"], \"if\": {\"type\": \"string\"}, \"then\": {\"maxLength\": 1}, \"else\": {\"minimum\": 5}}",
       {"\"a\"", "5"},
       {"\"ab\"", "4"}},
      {"{\"type\": \"integer\", \"if\": true, \"then\": {\"minimum\": 3}, \"else\": false}", {"3"}, {"2"}},
      {"{\"type\": \"integer\", \"if\": false, \"then\": false, \"else\": {\"minimum\": 3}}", {"3"}, {"2"}},
      /* several, as they are written */
      {KIND(
           "\"allOf\": [{" IS_X
           ", \"then\": {\"required\": [\"n\"]}}, {\"if\": {\"required\": [\"n\"]}, \"then\": {\"properties\": {\"n\": {\"minimum\": 7}}}}]"),
       {"{}", "{\"n\": 7}", "{\"k\": \"x\", \"n\": 7}", "{\"k\": \"y\"}"},
       {"{\"k\": \"x\"}", "{\"n\": 6}", "{\"k\": \"x\", \"n\": 6}"}},
  };
  static const refusal bad[] = {
      {"{\"type\": \"string\", \"if\": {\"pattern\": \"a\"}, \"then\": {\"minLength\": 2}}", "of 'pattern', whose opposite is not known"},
      {"{\"type\": \"integer\", \"if\": {\"minimum\": 2}, \"then\": false, \"else\": false}", "no value fits"},
  };
  all_hold(all, sizeof all / sizeof *all);
  all_are_refused(bad, sizeof bad / sizeof *bad);
  nothing_leads_nowhere(KIND(IS_X ", \"then\": {\"properties\": {\"n\": false}, \"required\": [\"n\"]}"), "{\"k\": \"y\", \"n\": 1}");
}

/* Conditions of one key that cannot hold at once are as many ways as there are conditions, and one more; of keys of their own they multiply. */
static void conditions_of_one_key_do_not_multiply(void) {
  static char text[2][8192], good[2][80], bad[80];
  for (int own = 0; own < 2; own++) {
    size_t n =
        (size_t)snprintf(text[own], sizeof text[own], OBJECT "\"required\": [\"k0\"], \"properties\": {\"n\": {\"type\": \"integer\"}");
    for (int i = 0; i < (own ? 32 : 1); i++)
      n += (size_t)snprintf(text[own] + n, sizeof text[own] - n, ", \"k%d\": {\"type\": \"string\"}", i);
    n += (size_t)snprintf(text[own] + n, sizeof text[own] - n, "}, \"allOf\": [true");
    for (int i = 0; i < 32; i++)
      n += (size_t)snprintf(
          text[own] + n, sizeof text[own] - n,
          ", {\"if\": {\"properties\": {\"k%d\": {\"const\": \"v%d\"}}}, \"then\": {\"properties\": {\"n\": {\"minimum\": %d}}}}",
          own ? i : 0, i, i);
    snprintf(text[own] + n, sizeof text[own] - n, "]}");
  }
  for (int i = 0; i < 32; i++) {
    snprintf(good[0], sizeof good[0], "{\"n\": %d, \"k0\": \"v%d\"}", i, i);
    snprintf(good[1], sizeof good[1], "{\"n\": -1, \"k0\": \"v%dx\"}", i);
    snprintf(bad, sizeof bad, "{\"n\": %d, \"k0\": \"v%d\"}", i - 1, i);
    all_hold(&(rule){text[0], {good[0], good[1]}, {bad, "{\"n\": 99}"}}, 1);
  }
  all_are_refused(&(refusal){text[1], "more than 64"}, 1);
}

#define ARRAY "{\"type\": \"array\", "
#define OF_3  ARRAY "\"items\": {\"enum\": [1, 2, 3]}, "

static void items_that_fit_are_counted(void) {
  static const rule all[] = {
      {OF_3 "\"contains\": {\"const\": 2}}", {"[2]", "[1, 2]", "[2, 1, 2]", "[1, 1, 1, 2, 3]"}, {"[]", "[1]", "[1, 3, 1]", "[4, 2]"}},
      {OF_3 "\"contains\": {\"const\": 2}, \"minContains\": 2}", {"[2, 2]", "[2, 1, 2, 2]"}, {"[]", "[2]", "[1, 2, 3]"}},
      {OF_3 "\"contains\": {\"const\": 2}, \"minContains\": 0}", {"[]", "[1]", "[2]"}, {"[4]"}},
      {OF_3 "\"contains\": {\"const\": 2}, \"maxContains\": 1}", {"[2]", "[1, 2, 3]"}, {"[]", "[1]", "[2, 2]", "[2, 1, 2]"}},
      {OF_3 "\"contains\": {\"const\": 2}, \"minContains\": 0, \"maxContains\": 1}", {"[]", "[1]", "[1, 2]"}, {"[2, 1, 2]"}},
      {OF_3 "\"contains\": {\"const\": 2}, \"minContains\": 0, \"maxContains\": 0}", {"[]", "[1, 3]"}, {"[2]", "[1, 2]"}},
      {OF_3 "\"contains\": {\"minimum\": 2}, \"minContains\": 2, \"minItems\": 3, \"maxItems\": 3}",
       {"[2, 3, 1]", "[1, 2, 2]", "[3, 3, 3]"},
       {"[2, 3]", "[1, 1, 2]", "[2, 2, 2, 2]"}},
      {ARRAY "\"contains\": {\"type\": \"null\"}, \"maxContains\": 1, \"maxItems\": 2}",
       {"[null]", "[1, null]", "[null, \"a\"]"},
       {"[]", "[null, null]", "[1]"}},
      {ARRAY
       "\"prefixItems\": [{\"const\": 1}, {\"type\": [\"null\", \"string\"]}], \"items\": false, \"contains\": {\"type\": \"string\"}}",
       {"[1, \"a\"]"},
       {"[]", "[1]", "[1, null]", "[\"a\"]"}},
      {"{\"contains\": true}", {"[1]", "[1, []]"}, {"[]", "{}"}},
      {ARRAY
       "\"items\": " OBJECT
       "\"properties\": {\"k\": {\"enum\": [\"x\", \"y\"]}}, \"required\": [\"k\"]}, \"contains\": {\"properties\": {\"k\": {\"const\": \"x\"}}}, "
       "\"maxContains\": 1}",
       {"[{\"k\": \"x\"}]", "[{\"k\": \"y\"}, {\"k\": \"x\"}]"},
       {"[]", "[{\"k\": \"y\"}]", "[{\"k\": \"x\"}, {\"k\": \"x\"}]"}},
      {OF_3 "\"not\": {\"items\": {\"const\": 1}}}", {"[2]", "[1, 3]"}, {"[]", "[1, 1]"}},
      {"{\"anyOf\": [" OF_3 "\"contains\": {\"const\": 4}}, {\"type\": \"null\"}]}", {"null"}, {"[]", "[4]"}},
      {"{\"enum\": [[], [1], [1, 2]], \"contains\": {\"const\": 2}}", {"[1, 2]"}, {"[]", "[1]"}},
      {OF_3 "\"if\": {\"contains\": {\"const\": 2}}, \"then\": {\"maxItems\": 1}}", {"[2]", "[1, 3]", "[]"}, {"[1, 2]"}},
  };
  static const refusal bad[] = {
      {OF_3 "\"contains\": {\"const\": 4}}", "cannot reach"},
      {OF_3 "\"contains\": {\"const\": 2}, \"not\": {\"contains\": {\"anyOf\": [true, {\"const\": 1}]}}}", "cannot reach"},
      {OF_3 "\"contains\": {\"const\": 2}, \"minContains\": 3, \"maxItems\": 2}", "cannot reach"},
      {OF_3 "\"contains\": {\"const\": 2}, \"minContains\": 3, \"maxContains\": 2}", "below the least"},
      {"{\"allOf\": [" OF_3 "\"contains\": {\"const\": 2}}, {\"contains\": {\"const\": 1}}]}", "two contains"},
      {OF_3 "\"contains\": {\"const\": 2}, \"uniqueItems\": true}", "uniqueItems beside contains"},
      {ARRAY "\"contains\": {\"pattern\": \"a\"}, \"maxContains\": 2}", "of 'pattern', whose opposite is not known"},
      {ARRAY "\"contains\": {\"type\": \"integer\"}, \"maxContains\": 2}", "of the type integer"},
      {ARRAY "\"contains\": 3}", "not a map"},
  };
  all_hold(all, sizeof all / sizeof *all);
  all_are_refused(bad, sizeof bad / sizeof *bad);
  nothing_leads_nowhere(OF_3 "\"contains\": {\"const\": 2}, \"minContains\": 2, \"maxContains\": 2, \"maxItems\": 3}", "[2, 1, 2]");
  nothing_leads_nowhere(ARRAY "\"prefixItems\": [{\"enum\": [1, 2]}, {\"const\": 1}], \"items\": false, \"contains\": {\"const\": 2}}",
                        "[2, 1]");
}

int main(void) {
  RUN(names_are_what_they_must_be);
  RUN(every_other_name_can_be_made);
  RUN(references_are_read_as_uris);
  RUN(what_is_no_schema_is_none);
  RUN(what_is_merged_keeps_what_each_says);
  RUN(what_fits_two_of_oneOf_is_found);
  RUN(properties_are_counted);
  RUN(what_not_says_is_not_made);
  RUN(conditions_hold);
  RUN(conditions_of_one_key_do_not_multiply);
  RUN(items_that_fit_are_counted);
  RUN(what_clients_write_and_is_refused);
  return test_end();
}
