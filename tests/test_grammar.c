/* test_grammar.c - what must be true of grammars, in order: JSON is what a parser of JSON takes; a schema's grammar takes what fits it and
 * nothing else; whatever it can say is JSON; a mask of tokens is what each token alone would do; what explodes or calls itself is refused;
 * whether there is a text that ends is found in time. */
#include "base/text.h"
#include "format/json.h"
#include "serve/json_schema.h"
#include "test.h"

static bool takes(mn_machine *m, const char *s, size_t n) {
  int32_t at = mn_machine_begin(m);
  for (size_t i = 0; i < n && at >= 0; i++) at = mn_machine_next(m, at, (unsigned char)s[i]);
  return mn_machine_whole(m, at);
}

static mn_machine *machine_of(const char *schema, mn_grammar **g, mn_arena *arena) {
  const mn_value *v = NULL;
  mn_machine *m = NULL;
  CHECK_OK(mn_json_parse(arena, "schema", schema, strlen(schema), &v));
  mn_status status = v ? mn_grammar_of_schema(v, g) : MN_ERR_FORMAT;
  CHECK(status == MN_OK, "%s: %s", schema, mn_message());
  if (status == MN_OK) CHECK_OK(mn_machine_new(*g, &m));
  return m;
}

static void json_is_what_a_parser_takes(void) {
  static const char *const good[] = {"{}",
                                     "[]",
                                     "0",
                                     "-0",
                                     "-12.5e+3",
                                     "1E9",
                                     "\"\"",
                                     "true",
                                     "false",
                                     "null",
                                     "[1, 2,3]",
                                     "[[], {\"a\": {}}]",
                                     "{\"a\":1,\"b\": [true, null]}",
                                     "{\n  \"a\": \"x\"\n}",
                                     "\"\\u00e9\\n\\\"\\\\\"",
                                     "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\x8b\"",
                                     "\"\\ud83d\\udc0b\"",
                                     "[ 1 ]"};
  static const char *const bad[] = {"",
                                    "{",
                                    "}",
                                    "[1,]",
                                    "{\"a\"}",
                                    "{a: 1}",
                                    "01",
                                    "1.",
                                    ".5",
                                    "+1",
                                    "-",
                                    "1e",
                                    "tru",
                                    "nul",
                                    "'a'",
                                    "\"a",
                                    "\"\n\"",
                                    "\"\\x\"",
                                    "\"\xff\"",
                                    "\"\xc0\x80\"",
                                    "\"\xed\xa0\x80\"",
                                    "\"\\ud83d\"",
                                    "\"\\udc0b\"",
                                    "1 2",
                                    "{\"a\": 1,}",
                                    "[1 2]",
                                    "\"\xf4\x90\x80\x80\""};
  mn_grammar *g;
  mn_machine *m;
  CHECK_OK(mn_grammar_of_json(false, &g));
  CHECK_OK(mn_machine_new(g, &m));
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) CHECK(takes(m, good[i], strlen(good[i])), "%s", good[i]);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK(!takes(m, bad[i], strlen(bad[i])), "%s", bad[i]);
  mn_machine_free(m), mn_grammar_free(g);
  CHECK_OK(mn_grammar_of_json(true, &g));
  CHECK_OK(mn_machine_new(g, &m));
  CHECK(takes(m, "{\"a\": [1]}", 10) && !takes(m, "[1]", 3) && !takes(m, "1", 1), "an object alone");
  const int32_t end = mn_machine_next(m, mn_machine_next(m, mn_machine_begin(m), '{'), '}');
  CHECK(mn_machine_whole(m, end) && !mn_machine_goes_on(m, end), "an object ends with its brace");
  mn_machine_free(m), mn_grammar_free(g);
}

static void a_schema_takes_what_fits(void) {
  static const struct {
    const char *schema, *good[8], *bad[8];
  } all[] = {
      {"{\"type\": \"string\"}", {"\"a\"", "\"\""}, {"1", "a"}},
      {"{\"type\": \"string\", \"minLength\": 2, \"maxLength\": 3}",
       {"\"ab\"", "\"\xc3\xa9\\n\xc3\xa9\""},
       {"\"a\"", "\"abcd\"", "\"\\u0\""}},
      {"{\"type\": \"string\", \"minLength\": 2}", {"\"ab\"", "\"abcdefg\""}, {"\"a\"", "\"\""}},
      {"{\"type\": \"boolean\"}", {"true", "false"}, {"1", "null"}},
      {"{\"type\": [\"integer\", \"null\"]}", {"12", "null"}, {"1.5", "\"a\""}},
      {"{\"type\": \"number\"}", {"12", "-1.5e3"}, {"null"}},
      {"{\"type\": \"integer\", \"minimum\": -9007199254740991, \"maximum\": 9007199254740991}",
       {"9007199254740991", "-9007199254740991", "0"},
       {"9007199254740992", "-9007199254740992", "-0", "1.0"}},
      {"{\"type\": \"integer\", \"maximum\": 1e18}", {"1000000000000000000", "-99999999999999999999999"}, {"1000000000000000001"}},
      {"{\"enum\": [1e-5, 1e20, -2.5e-7, 3], \"maximum\": 1e19}", {"1e-05", "-2.5e-07", "3"}, {"1e+20"}},
      {"{\"enum\": [\"red\", 3, null, {\"a\": [1]}]}", {"\"red\"", "3", "null", "{\"a\": [1]}"}, {"\"green\"", "4"}},
      {"{\"type\": \"string\", \"enum\": [\"a\\n\"]}", {"\"a\\n\""}, {"\"a\""}},
      {"{\"const\": \"x\"}", {"\"x\""}, {"\"y\""}},
      {"{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}, \"b\": {\"type\": \"string\"}, \"c\": {\"type\": \"null\"}}, \"required\": [\"b\"]}",
       {"{\"a\": 1, \"b\": \"x\"}", "{\"b\": \"x\"}", "{\"b\":\"x\",\"c\":null}", "{\"a\": 1, \"b\": \"\", \"c\": null}",
        "{\n  \"b\": \"\"\n}"},
       {"{}", "{\"a\": 1}", "{\"b\": \"x\", \"a\": 1}", "{\"b\": 1}", "{\"b\": \"x\", \"d\": 1}", "{, \"b\": \"x\"}", "{\"b\": \"x\",}"}},
      {"{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}}, \"additionalProperties\": {\"type\": \"boolean\"}}",
       {"{}", "{\"a\": 1}", "{\"a\": 1, \"z\": true}", "{\"z\": true, \"y\": false}"},
       {"{\"z\": 1}", "{\"z\": true,}"}},
      {"{\"type\": \"object\"}", {"{}", "{\"x\": [1]}"}, {"[]"}},
      {"{\"type\": \"object\", \"additionalProperties\": false}", {"{}", "{ }"}, {"{\"x\": 1}"}},
      {"{\"type\": \"array\", \"items\": {\"type\": \"integer\"}}", {"[]", "[1]", "[1, 2]", "[1,2,3]"}, {"[\"a\"]", "[1,]", "1"}},
      {"{\"type\": \"array\", \"items\": {\"type\": \"integer\"}, \"minItems\": 2, \"maxItems\": 3}",
       {"[1, 2]", "[1, 2, 3]"},
       {"[]", "[1]", "[1, 2, 3, 4]"}},
      {"{\"type\": \"array\", \"minItems\": 1}", {"[{}]", "[1, \"a\"]"}, {"[]"}},
      {"{\"type\": \"array\", \"prefixItems\": [{\"type\": \"string\"}, {\"type\": \"integer\"}], \"items\": false}",
       {"[]", "[\"a\"]", "[\"a\", 1]"},
       {"[1]", "[\"a\", 1, 2]"}},
      {"{\"anyOf\": [{\"type\": \"integer\"}, {\"type\": \"object\", \"properties\": {\"x\": {\"type\": \"null\"}}}]}",
       {"4", "{\"x\": null}", "{}"},
       {"\"a\"", "{\"x\": 1}"}},
      {"{\"$defs\": {\"tree\": {\"type\": \"object\", \"properties\": {\"v\": {\"type\": \"integer\"}, \"kids\": {\"type\": \"array\", \"items\": {\"$ref\": "
       "\"#/$defs/tree\"}}}, \"required\": [\"v\"]}}, \"$ref\": \"#/$defs/tree\"}",
       {"{\"v\": 1}", "{\"v\": 1, \"kids\": [{\"v\": 2, \"kids\": [{\"v\": 3}]}, {\"v\": 4}]}"},
       {"{\"kids\": []}", "{\"v\": 1, \"kids\": [1]}"}},
      {"{\"type\": \"object\", \"properties\": {\"next\": {\"anyOf\": [{\"$ref\": \"#\"}, {\"type\": \"null\"}]}}, \"required\": [\"next\"]}",
       {"{\"next\": {\"next\": null}}"},
       {"{\"next\": 1}", "{}"}},
      {"{\"type\": \"string\", \"format\": \"date-time\"}",
       {"\"2024-02-29T23:59:59.5Z\"", "\"1999-12-31T00:00:00+01:30\""},
       {"\"2024-13-01T00:00:00Z\"", "\"2024-01-01\"", "\"2024-01-32T00:00:00Z\"", "\"2024-01-01T24:00:00Z\""}},
      {"{\"type\": \"string\", \"format\": \"uuid\"}", {"\"123e4567-e89b-12d3-a456-426614174000\""}, {"\"123e4567\""}},
      {"{\"type\": \"string\", \"format\": \"uuid4\"}",
       {"\"123e4567-e89b-42d3-a456-426614174000\""},
       {"\"123e4567-e89b-12d3-a456-426614174000\"", "\"123e4567-e89b-42d3-7456-426614174000\""}},
      {"{\"type\": \"string\", \"format\": \"date\"}",
       {"\"2024-02-29\"", "\"2000-02-29\"", "\"1999-12-31\"", "\"0001-04-30\""},
       {"\"2023-02-29\"", "\"1900-02-29\"", "\"2024-02-30\"", "\"2024-04-31\"", "\"2024-00-10\"", "\"0000-01-01\"", "\"2024-1-01\""}},
      {"{\"type\": \"string\", \"format\": \"duration\"}",
       {"\"P3W\"", "\"P1Y2M10DT2H30M\"", "\"PT36H\"", "\"PT1M5S\""},
       {"\"P\"", "\"PT\"", "\"P1W2D\"", "\"1D\"", "\"P1DT\""}},
      {"{\"type\": \"string\", \"format\": \"email\"}",
       {"\"a@b.org\"", "\"first.last+tag@mail.example-site.co.uk\""},
       {"\"a@b\"", "\"@b.org\"", "\"a..b@c.org\"", "\"a@-b.org\"", "\"a b@c.org\"", "\"a@b.org.\""}},
      {"{\"type\": \"string\", \"format\": \"hostname\"}",
       {"\"localhost\"", "\"a-b.example.org\""},
       {"\"-a\"", "\"a..b\"", "\"a_b\"", "\"\""}},
      {"{\"type\": \"string\", \"format\": \"ipv4\"}",
       {"\"0.0.0.0\"", "\"192.168.1.255\""},
       {"\"256.1.1.1\"", "\"1.1.1\"", "\"01.1.1.1\"", "\"1.1.1.1.1\""}},
      {"{\"type\": \"string\", \"format\": \"ipv6\"}",
       {"\"::\"", "\"::1\"", "\"2001:db8::ff00:42:8329\"", "\"1:2:3:4:5:6:7:8\"", "\"1::\"", "\"1:2:3:4:5:6:7::\"", "\"::2:3:4:5:6:7:8\""},
       {"\":\"", "\"1:2:3:4:5:6:7\"", "\"1::2::3\"", "\"12345::\"", "\"1:2:3:4:5:6:7:8:9\"", "\"1:\""}},
      {"{\"type\": \"string\", \"format\": \"uri\", \"minLength\": 1, \"maxLength\": 2083}",
       {"\"https://example.org\"", "\"http://localhost:8080/a/b?c=d&e#f\"", "\"ftp://a.b/\""},
       {"\"example.org\"", "\"https://\"", "\"https:///a\"", "\"http://a b\"", "\"http://a:/\""}},
      {"{\"type\": \"string\", \"format\": \"byte\"}",
       {"\"\"", "\"TW4=\"", "\"TQ==\"", "\"TW5l\""},
       {"\"TW5\"", "\"TW5l=\"", "\"TR==\"", "\"T-5l\""}},
      {"{\"type\": \"string\", \"contentEncoding\": \"base64\", \"contentMediaType\": \"image/png\"}", {"\"TW5l\""}, {"\"TW5\""}},
      {"{\"type\": \"string\", \"format\": \"json-pointer\"}", {"\"\"", "\"/a/0/b~1c\"", "\"/\""}, {"\"a\"", "\"/~\"", "\"/~2\""}},
      {"{\"type\": \"string\", \"format\": \"password\", \"writeOnly\": true}", {"\"x\""}, {"1"}},
      {"{\"type\": \"string\", \"format\": \"ulid\", \"pattern\": \"^[0-9A-HJKMNP-TV-Z]{26}$\"}",
       {"\"01ARZ3NDEKTSV4RRFFQ69G5FAV\""},
       {"\"01ARZ3\""}},
      {"{\"type\": \"string\", \"format\": \"date\", \"pattern\": \"^2024\"}", {"\"2024-02-29\""}, {"\"2023-01-01\"", "\"2024\""}},
      {"{\"type\": \"string\", \"maxLength\": 100000}", {"\"abc\""}, {"1"}},
      {"{\"type\": \"integer\", \"format\": \"int32\"}", {"2147483647", "-2147483648"}, {"2147483648", "-2147483649", "1.5"}},
      {"{\"type\": \"integer\", \"format\": \"uint8\", \"minimum\": 3}", {"3", "255"}, {"2", "256", "-1"}},
      {"{\"type\": \"number\", \"format\": \"double\"}", {"1.5e3"}, {"null"}},
      {"{\"type\": \"string\", \"nullable\": true}", {"null", "\"a\""}, {"1"}},
      {"{\"type\": \"string\", \"nullable\": false, \"x-order\": 3, \"example\": \"b\"}", {"\"a\""}, {"null"}},
      {"{\"type\": \"array\", \"items\": [{\"type\": \"string\"}, {\"type\": \"integer\"}], \"additionalItems\": false, \"minItems\": 2}",
       {"[\"a\", 1]"},
       {"[\"a\"]", "[\"a\", 1, 2]", "[1, 1]"}},
      {"{\"type\": \"array\", \"items\": [{\"type\": \"string\"}], \"additionalItems\": {\"type\": \"null\"}}",
       {"[]", "[\"a\", null, null]"},
       {"[\"a\", 1]"}},
      {"{\"type\": \"array\", \"uniqueItems\": true, \"items\": {\"enum\": [\"a\", \"b\", 3], \"type\": \"string\"}, \"minItems\": 1}",
       {"[\"a\"]", "[\"b\", \"a\"]", "[\"a\", \"b\"]"},
       {"[]", "[\"a\", \"a\"]", "[3]", "[\"b\", \"a\", \"b\"]"}},
      {"{\"type\": \"array\", \"uniqueItems\": true, \"maxItems\": 1}", {"[]", "[{}]"}, {"[1, 2]"}},
      {"{\"type\": \"object\", \"propertyNames\": {\"type\": \"string\"}, \"additionalProperties\": {\"type\": \"integer\"}}",
       {"{}", "{\"a\": 1, \"b\": 2}"},
       {"{\"a\": null}"}},
      {"{\"type\": \"object\", \"propertyNames\": {\"enum\": [\"a\", \"b\"]}, \"additionalProperties\": {\"type\": \"integer\"}, \"required\": [\"b\"]}",
       {"{\"b\": 1}", "{\"b\": 1, \"a\": 2}"},
       {"{}", "{\"a\": 1}", "{\"b\": 1, \"c\": 1}", "{\"b\": null}"}},
      {"{\"type\": \"object\", \"propertyNames\": {\"pattern\": \"^[a-z]$\"}, \"additionalProperties\": {\"type\": \"null\"}}",
       {"{}", "{\"a\": null, \"b\": null}"},
       {"{\"A\": null}", "{\"a\": 1}"}},
      {"{\"type\": \"object\", \"patternProperties\": {\"^[a-z]+$\": {\"type\": \"boolean\"}}, \"additionalProperties\": false}",
       {"{}", "{\"ab\": true}"},
       {"{\"A\": true}", "{\"a\": 1}"}},
      {"{\"allOf\": [{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"null\"}}}, {\"properties\": {\"b\": {\"type\": \"null\"}}}], "
       "\"unevaluatedProperties\": false}",
       {"{\"a\": null, \"b\": null}"},
       {"{\"c\": null}"}},
      {"{\"oneOf\": [{\"type\": \"object\", \"properties\": {\"k\": {\"const\": \"x\", \"type\": \"string\"}}, \"required\": [\"k\"]}, {\"type\": \"object\", "
       "\"properties\": {\"k\": {\"const\": \"y\", \"type\": \"string\"}}, \"required\": [\"k\"]}], \"discriminator\": {\"propertyName\": \"k\"}}",
       {"{\"k\": \"x\"}", "{\"k\": \"y\"}"},
       {"{\"k\": \"z\"}"}},
      {"true", {"1", "{\"a\": []}"}, {"x"}},
      {"{}", {"1", "{\"a\": []}"}, {"x"}},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    mn_arena *arena = mn_arena_new();
    mn_grammar *g = NULL;
    mn_machine *m = machine_of(all[i].schema, &g, arena);
    for (int k = 0; m && k < 8 && all[i].good[k]; k++)
      CHECK(takes(m, all[i].good[k], strlen(all[i].good[k])), "%s: %s", all[i].schema, all[i].good[k]);
    for (int k = 0; m && k < 8 && all[i].bad[k]; k++)
      CHECK(!takes(m, all[i].bad[k], strlen(all[i].bad[k])), "%s: %s", all[i].schema, all[i].bad[k]);
    mn_machine_free(m), mn_grammar_free(g), mn_arena_free(arena);
  }
}

static void bounds_of_integers_hold(void) {
  static const struct {
    int64_t low, high;
  } all[] = {{0, 0},    {0, 9},  {1, 1},      {3, 17},      {-5, 5},         {-120, -7},      {99, 101},
             {0, 1000}, {-1, 0}, {123, 4567}, {-1000, 999}, {INT64_MIN, -3}, {42, INT64_MAX}, {INT64_MIN, 12}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    char schema[200], from[40] = "", to[40] = "", text[40];
    mn_arena *arena = mn_arena_new();
    mn_grammar *g = NULL;
    int wrong = 0;
    if (all[i].low != INT64_MIN) snprintf(from, sizeof from, ", \"minimum\": %lld", (long long)all[i].low);
    if (all[i].high != INT64_MAX) snprintf(to, sizeof to, ", \"maximum\": %lld", (long long)all[i].high);
    snprintf(schema, sizeof schema, "{\"type\": \"integer\"%s%s}", from, to);
    mn_machine *m = machine_of(schema, &g, arena);
    for (int64_t x = -12000; m && x <= 12000; x++) {
      const int n = snprintf(text, sizeof text, "%lld", (long long)x);
      wrong += takes(m, text, (size_t)n) != (x >= all[i].low && x <= all[i].high);
    }
    CHECK(wrong == 0 && m && !takes(m, "007", 3), "%s: %d numbers are judged wrongly", schema, wrong);
    mn_machine_free(m), mn_grammar_free(g), mn_arena_free(arena);
  }
}

/* Hundredths from -60 to 60, as they are usually written and with two places: taken where they fit, by arithmetic of whole numbers. */
static void bounds_of_numbers_hold(void) {
  enum { NONE = -999999 };
  static const struct {
    int low, above, high, below, step; /* in hundredths */
    bool whole;
  } all[] = {{0, NONE, 100, NONE, NONE, false},      {NONE, 0, NONE, 100, NONE, false},    {-250, NONE, 1275, NONE, NONE, false},
             {NONE, -1000, NONE, -1, NONE, false},   {999, NONE, 1001, NONE, NONE, false}, {150, NONE, NONE, NONE, NONE, false},
             {NONE, NONE, NONE, 150, NONE, false},   {NONE, NONE, 0, NONE, NONE, false},   {NONE, 0, NONE, NONE, NONE, false},
             {NONE, NONE, NONE, 0, NONE, false},     {0, NONE, 0, NONE, NONE, false},      {NONE, NONE, NONE, NONE, 25, false},
             {-300, NONE, 300, NONE, 75, false},     {NONE, 0, NONE, NONE, 70, false},     {5, NONE, NONE, 5975, 1, false},
             {NONE, NONE, NONE, NONE, 700, true},    {-1750, NONE, 4250, NONE, 300, true}, {NONE, -1200, NONE, 1200, 400, true},
             {-50, NONE, 1250, NONE, 250, true},     {1, NONE, NONE, NONE, 1100, true},    {-1999, -1000, 5000, 1050, NONE, true},
             {-1999, -1050, 5000, 1001, NONE, false}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    mn_arena *arena = mn_arena_new();
    mn_grammar *g = NULL;
    mn_text schema = {0};
    const int bounds[] = {all[i].low, all[i].above, all[i].high, all[i].below, all[i].step};
    static const char *const names[] = {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"};
    mn_text_addf(&schema, "{\"type\": \"%s\"", all[i].whole ? "integer" : "number");
    for (int k = 0; k < 5; k++)
      if (bounds[k] != NONE) mn_text_addf(&schema, ", \"%s\": %g", names[k], bounds[k] / 100.0);
    mn_text_add(&schema, "}");
    mn_machine *m = machine_of(schema.data, &g, arena);
    int wrong = 0;
    for (int x = -6000; m && x <= 6000; x++) {
      char text[40];
      const bool fits = (bounds[0] == NONE || x >= bounds[0]) && (bounds[1] == NONE || x > bounds[1]) &&
                        (bounds[2] == NONE || x <= bounds[2]) && (bounds[3] == NONE || x < bounds[3]) &&
                        (bounds[4] == NONE || x % bounds[4] == 0) && !(all[i].whole && x % 100);
      int n = snprintf(text, sizeof text, "%g", x / 100.0);
      wrong += takes(m, text, (size_t)n) != fits;
      n = snprintf(text, sizeof text, "%.2f", x / 100.0); /* a step may have fewer places, and so may what fits */
      wrong += takes(m, text, (size_t)n) && (!fits || all[i].whole);
    }
    CHECK(wrong == 0 && m && !takes(m, "007", 3) && !takes(m, "1e1", 3) && !takes(m, "-", 1) && !takes(m, "1.", 2),
          "%s: %d numbers are judged wrongly", schema.data, wrong);
    mn_machine_free(m), mn_grammar_free(g), mn_arena_free(arena), mn_text_free(&schema);
  }
}

/* What lies a unit of the last place from a bound, and bounds of any size: as f64 reads the text, so it is taken. */
static void bounds_are_those_of_f64(void) {
  static const double bounds[] = {0.1, 1, 1e-7, 0.30000000000000004, 1e16, 1e22, 9007199254740991.0, 123456.789, 5e-324, 1e300, 2.5, 0.07};
  for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
    for (int kind = 0; kind < 8; kind++) {
      static const char *const keys[] = {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"};
      const double bound = kind < 4 ? bounds[i] : -bounds[i];
      char schema[120], text[800];
      mn_arena *arena = mn_arena_new();
      mn_grammar *g = NULL;
      snprintf(schema, sizeof schema, "{\"type\": \"number\", \"%s\": %.17g}", keys[kind % 4], bound);
      mn_machine *m = machine_of(schema, &g, arena);
      int wrong = 0, taken = 0;
      for (int k = -40; m && k <= 40; k++)
        for (int digits = 0; digits < 360; digits = digits < 20 ? digits + 1 : digits + 20) {
          const double near = k == 0 ? bound : k % 2 ? bound * (1 + k * 1e-16) : bound * (1 + k / 37.0);
          const int n = snprintf(text, sizeof text, "%.*f", digits, near);
          const double x = strtod(text, NULL);
          const bool fits = kind % 4 == 0 ? x >= bound : kind % 4 == 1 ? x > bound : kind % 4 == 2 ? x <= bound : x < bound;
          const bool may = takes(m, text, (size_t)n);
          wrong += may && !fits, taken += may;
        }
      CHECK(m && wrong == 0 && (taken > 10 || fabs(bound) < 1e-320), "%s: %d of %d do not fit", schema, wrong, taken);
      mn_machine_free(m), mn_grammar_free(g), mn_arena_free(arena);
    }
}

/* The same of integers, one by one around bounds that f64 has, and beyond 2^53, where it has not each of them. */
static void bounds_of_long_integers_are_those_of_f64(void) {
  static const int64_t bounds[] = {
      7, 1000000000000000, 9007199254740991, 9007199254740992, 10000000000000000, 100000000000000000, 1234567890123456768};
  for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
    for (int kind = 0; kind < 8; kind++) {
      static const char *const keys[] = {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"};
      const int64_t bound = kind < 4 ? bounds[i] : -bounds[i];
      char schema[120], text[40];
      mn_arena *arena = mn_arena_new();
      mn_grammar *g = NULL;
      snprintf(schema, sizeof schema, "{\"type\": \"integer\", \"%s\": %lld%s}", keys[kind % 4], (long long)bound, i % 2 ? "" : ".0");
      mn_machine *m = machine_of(schema, &g, arena);
      int wrong = 0, taken = 0, missed = 0;
      for (int64_t k = -12000; m && k <= 12000; k++) {
        const int n = snprintf(text, sizeof text, "%lld", (long long)(bound + k));
        const double x = strtod(text, NULL), b = (double)bound;
        const bool fits = kind % 4 == 0 ? x >= b : kind % 4 == 1 ? x > b : kind % 4 == 2 ? x <= b : x < b;
        const bool may = takes(m, text, (size_t)n);
        wrong += may && !fits, taken += may, missed += fits && !may && bounds[i] < 9007199254740992;
      }
      CHECK(m && wrong == 0 && missed == 0 && taken > 1000, "%s: %d of %d do not fit, %d are missing", schema, wrong, taken, missed);
      mn_machine_free(m), mn_grammar_free(g), mn_arena_free(arena);
    }
}

/* Walks at random, shortest ways last; what comes out is parsed. */
static void what_it_says_is_json(void) {
  const char *const schema =
      "{\"type\": \"object\", \"properties\": {\"name\": {\"type\": \"string\", \"maxLength\": 6}, \"n\": {\"type\": \"integer\", \"minimum\": -3, "
      "\"maximum\": 40}, \"tags\": {\"type\": \"array\", \"items\": {\"enum\": [\"a\", \"b\"]}, \"maxItems\": 3}, \"any\": {}}, \"required\": "
      "[\"name\", \"tags\"]}";
  mn_arena *arena = mn_arena_new();
  mn_grammar *g = NULL;
  mn_machine *m = machine_of(schema, &g, arena);
  const uint64_t key = mn_random_key(5, "walk");
  int whole = 0;
  for (uint64_t walk = 0; m && walk < 300; walk++) {
    mn_text t = {0};
    int32_t at = mn_machine_begin(m);
    while (t.len < 400 && mn_machine_goes_on(m, at)) {
      unsigned char can[256];
      int n = 0;
      for (int b = 0; b < 256; b++)
        if (mn_machine_next(m, at, (unsigned char)b) >= 0) can[n++] = (unsigned char)b;
      const unsigned char b = can[(int)(mn_random_uniform(key, walk, t.len) * n)];
      at = mn_machine_next(m, at, b);
      mn_text_add_bytes(&t, &b, 1);
    }
    if (mn_machine_whole(m, at)) {
      const mn_value *v = NULL;
      whole++;
      /* escaped zeros and doubled keys of "any" are JSON that our reader refuses */
      const mn_status status = mn_json_parse(arena, "walk", t.data, t.len, &v);
      CHECK(status == MN_OK || strstr(mn_message(), "u0000") || strstr(mn_message(), "duplicate") || strstr(mn_message(), "large") ||
                strstr(mn_message(), "small") || strstr(mn_message(), "overflow"),
            "%.*s: %s", (int)t.len, t.data, mn_message());
      if (status == MN_OK) CHECK(mn_value_get(v, "name") && mn_value_get(v, "tags"), "%.*s", (int)t.len, t.data);
    }
    mn_text_free(&t);
  }
  CHECK(whole > 100, "%d of 300 walks came to an end", whole);
  CHECK_OK(mn_machine_status(m));
  mn_machine_free(m), mn_grammar_free(g), mn_arena_free(arena);
}

static const char *const words[] = {"{",     "}",    "{\"",  "\"",       "\": ", "a", "b",    "\"a\"",      "ab", "1",
                                    "12",    "-",    ",",    ", ",       "\n",   " ", "[",    "]",          "tr", "ue",
                                    "true}", "\xc3", "\xa9", "\xc3\xa9", "a",    "",  "null", "{\"a\": 1}", "0"};
enum { WORDS = sizeof words / sizeof *words };
static const char *word(void *ctx, int32_t i, size_t *n) {
  (void)ctx;
  *n = strlen(words[i]);
  return i == 9 ? NULL : words[i]; /* one that may not be said */
}

static void a_mask_is_what_each_token_would_do(void) {
  mn_arena *arena = mn_arena_new();
  mn_grammar *g = NULL;
  mn_machine *m = machine_of(
      "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": [\"integer\", \"boolean\"]}, \"ab\": {\"type\": \"string\"}}}", &g, arena);
  mn_lexicon *l = NULL;
  CHECK_OK(mn_lexicon_new(WORDS, word, NULL, &l));
  const char *const before[] = {"",          "{", "{\"", "{\"a", "{\"a\": ", "{\"a\": 1", "{\"a\": tr", "{\"ab\": \"", "{\"ab\": \"\xc3",
                                "{\"a\": 1}"};
  for (size_t i = 0; m && l && i < sizeof before / sizeof *before; i++) {
    int32_t at = mn_machine_begin(m);
    for (const char *c = before[i]; *c; c++) at = mn_machine_next(m, at, (unsigned char)*c);
    CHECK(at >= 0, "%s", before[i]);
    const uint64_t *mask = mn_machine_mask(m, at, l);
    for (int32_t w = 0; mask && w < WORDS; w++) {
      int32_t to = at;
      for (const char *c = words[w]; *c && to >= 0; c++) to = mn_machine_next(m, to, (unsigned char)*c);
      const bool may = to >= 0 && *words[w] && w != 9;
      CHECK(may == (mask[w / 64] >> (w % 64) & 1), "after %s: %s", before[i], words[w]);
    }
    CHECK(mask == mn_machine_mask(m, at, l), "found once");
  }
  mn_lexicon_free(l), mn_machine_free(m), mn_grammar_free(g), mn_arena_free(arena);
}

static void what_cannot_be_kept_is_refused(void) {
  static const struct {
    const char *schema, *said;
  } all[] = {
      {"3", "is not a map"},
      {"{\"type\": \"strin\"}", "unknown type"},
      {"{\"type\": 3}", "neither a word nor a list"},
      {"{\"type\": \"string\", \"patern\": \"a*\"}", "'patern', which is not known"},
      {"{\"type\": \"array\", \"uniqueItems\": true}", "has uniqueItems, which no grammar can keep"},
      {"{\"type\": \"array\", \"uniqueItems\": true, \"items\": {\"enum\": [1, 2, 2]}}", "a value twice"},
      {"{\"type\": \"array\", \"uniqueItems\": true, \"minItems\": 3, \"items\": {\"enum\": [1, 2]}}", "fewer values than its minItems"},
      {"{\"type\": \"array\", \"unevaluatedItems\": {}}", "'unevaluatedItems', which is not known"},
      {"{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"string\", \"format\": \"regex\"}}}", "at properties.a.format"},
      {"{\"type\": \"string\", \"contentEncoding\": \"quoted-printable\"}", "a format that is not known"},
      {"{\"type\": \"object\", \"propertyNames\": {\"pattern\": \"^a\"}, \"properties\": {\"b\": {}}}", "propertyNames beside names"},
      {"{\"type\": \"object\", \"propertyNames\": 3}", "that are not a schema"},
      {"{\"type\": \"object\", \"propertyNames\": {\"enum\": [\"a\"]}, \"required\": [\"b\"]}", "may not be there"},
      {"{\"type\": \"object\", \"patternProperties\": {\"a\": {}, \"b\": {}}}", "not one pattern"},
      {"{\"type\": \"array\", \"prefixItems\": [{}], \"additionalItems\": {}}", "behind a list of these"},
      {"{\"type\": \"string\", \"nullable\": 1}", "neither true nor false"},
      {"{\"type\": \"object\", \"additionalProperties\": false, \"required\": [\"a\"]}", "may not be there"},
      {"{\"type\": \"string\", \"minLength\": 3, \"maxLength\": 2}", "maxLength is below the least"},
      {"{\"type\": \"string\", \"minLength\": 100000}", "explode"},
      {"{\"type\": \"string\", \"maxLength\": 1.5}", "a count that is not a number from 0 on"},
      {"{\"type\": \"integer\", \"minimum\": 3, \"maximum\": 2}", "no integer"},
      {"{\"type\": \"number\", \"minimum\": 3, \"exclusiveMaximum\": 3}", "no number is"},
      {"{\"type\": \"number\", \"minimum\": 0.1, \"maximum\": 0.4, \"multipleOf\": 0.5}", "no number is"},
      {"{\"type\": \"integer\", \"minimum\": 1, \"maximum\": 6, \"multipleOf\": 7}", "no integer is"},
      {"{\"type\": \"number\", \"minimum\": \"3\"}", "at minimum has a bound that is no number"},
      {"{\"type\": \"number\", \"exclusiveMinimum\": true}", "a bound that is no number"},
      {"{\"type\": \"number\", \"multipleOf\": 0}", "no number above 0"},
      {"{\"type\": \"integer\", \"multipleOf\": 4097}", "more than 4096 units"},
      {"{\"type\": \"integer\", \"minimum\": 0, \"maximum\": 1e300, \"multipleOf\": 4001}", "more than 200000 nodes"},
      {"{\"allOf\": [{\"multipleOf\": 2}, {\"multipleOf\": 3}]}", "two multipleOf"},
      {"{\"enum\": []}", "not a list of values"},
      {"{\"anyOf\": []}", "not a list of schemas"},
      {"{\"$ref\": \"#/nowhere\"}", "leads nowhere"},
      {"{\"$ref\": \"http://x\"}", "leads nowhere"},
      {"{\"anyOf\": [{\"type\": \"null\"}], \"type\": \"string\"}", "two types at once"},
      {"{\"allOf\": []}", "not a list of schemas"},
      {"{\"allOf\": [{\"type\": \"string\"}, {\"type\": \"null\"}]}", "two types at once"},
      {"{\"allOf\": [{\"const\": 1}, {\"const\": 2}]}", "two constants at once"},
      {"{\"allOf\": [{\"pattern\": \"a\"}, {\"pattern\": \"b\"}]}", "two patterns that must hold"},
      {"{\"oneOf\": [{\"type\": \"integer\"}, {\"type\": \"number\"}]}", "one value could fit two of"},
      {"{\"enum\": [1, 2], \"minimum\": 3}", "no value that fits"},
      {"{\"type\": \"string\", \"pattern\": \"(?=a)b\"}", "looks around itself"},
      {"{\"type\": \"string\", \"pattern\": \"^a(?!b)\"}", "looks around itself"},
      {"{\"type\": \"string\", \"pattern\": \"^(?!a(?=b))\"}", "looks around itself"},
      {"{\"type\": \"string\", \"pattern\": \"^(?=a)b|c\"}", "in one of several ways"},
      {"{\"type\": \"string\", \"pattern\": \"^(?=a\"}", "no )"},
      {"{\"type\": \"string\", \"pattern\": \"^(?=a)(?=.b)(?=..c)(?=...d)(?=....e)(?=.....f).*$\"}", "look ahead more often"},
      {"{\"type\": \"string\", \"pattern\": \"^(?!a)a\"}", "no string of its length"},
      {"{\"type\": \"string\", \"pattern\": \"^(?=.*[ab]{3}.*[bc]{30})(?=.*(a|b|c).{30}).*$\"}", "too many ways"},
      {"{\"type\": \"string\", \"format\": \"uuid\", \"maxLength\": 35}", "no string of its length"},
      {"{\"type\": \"string\", \"format\": \"uuid\", \"pattern\": \"x\"}", "no string of its length"},
      {"{\"type\": \"string\", \"pattern\": \"(a)\\\\1\"}", "an escape that is not known"},
      {"{\"type\": \"string\", \"pattern\": \"[a\"}", "no ]"},
      {"{\"type\": \"string\", \"pattern\": \"(a\"}", "no )"},
      {"{\"type\": \"string\", \"pattern\": \"a)\"}", "without a ("},
      {"{\"type\": \"string\", \"pattern\": \"*a\"}", "nothing to repeat"},
      {"{\"type\": \"string\", \"pattern\": \"a{2}{3}\"}", "nothing to repeat"},
      {"{\"type\": \"string\", \"pattern\": \"a*{3,}\"}", "nothing to repeat"},
      {"{\"type\": \"string\", \"pattern\": \"(a|{1,2})\"}", "nothing to repeat"},
      {"{\"type\": \"string\", \"pattern\": \"^*a\"}", "nothing to repeat"},
      {"{\"type\": \"string\", \"pattern\": \"(?<>a)\"}", "no name"},
      {"{\"type\": \"string\", \"pattern\": \"[z-a]\"}", "runs backwards"},
      {"{\"type\": \"string\", \"pattern\": \"a{3,2}\"}", "runs backwards"},
      {"{\"type\": \"string\", \"pattern\": \"((a{900}){900}){900}\"}", "explode"},
      {"{\"type\": \"string\", \"pattern\": \"((){900}){900}\"}", "explode"},
      {"{\"type\": \"string\", \"pattern\": \"a$b\"}", "no string of its length"},
      {"{\"type\": \"string\", \"pattern\": \"^abc$\", \"maxLength\": 2}", "no string of its length"},
      {"{\"type\": \"string\", \"pattern\": \"(a|b){500}\", \"maxLength\": 4000}", "take too long"},
      {"{\"type\": \"string\", \"pattern\": \"[ab]*a[ab]{150}\", \"maxLength\": 4000}", "multiply: the grammar would explode"},
      {"{\"properties\": {\"next\": {\"$ref\": \"#\"}}, \"required\": [\"next\"]}", "no text that ends"},
      {"{\"$defs\": {\"a\": {\"allOf\": [{\"$ref\": \"#/$defs/a\"}, {\"$ref\": \"#/$defs/a\"}]}}, \"$ref\": \"#/$defs/a\"}", "schema"},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    mn_arena *arena = mn_arena_new();
    const mn_value *v = NULL;
    mn_grammar *g = NULL;
    CHECK_OK(mn_json_parse(arena, "schema", all[i].schema, strlen(all[i].schema), &v));
    CHECK(mn_grammar_of_schema(v, &g) == MN_ERR_CONFIG && !g && strstr(mn_message(), all[i].said), "%s: %s", all[i].schema, mn_message());
    mn_arena_free(arena);
  }
  /* a rule that begins with itself, and a way around without a byte: failures of the machine, in time */
  mn_arena *arena = mn_arena_new();
  const char *const self = "{\"$defs\": {\"a\": {\"anyOf\": [{\"$ref\": \"#/$defs/a\"}, {\"type\": \"null\"}]}}, \"$ref\": \"#/$defs/a\"}";
  const mn_value *v = NULL;
  mn_grammar *g = NULL;
  mn_machine *m = NULL;
  CHECK_OK(mn_json_parse(arena, "schema", self, strlen(self), &v));
  CHECK_OK(mn_grammar_of_schema(v, &g));
  CHECK(mn_machine_new(g, &m) == MN_ERR_CONFIG && !m, "%s", mn_message());
  mn_grammar_free(g);
  CHECK_OK(mn_grammar_new(&g));
  const mn_bytes_node around = mn_grammar_place(g);
  mn_grammar_put(g, around, mn_grammar_either(g, around, mn_grammar_return(g)));
  const int32_t rule = mn_grammar_rule(g);
  mn_grammar_define(g, rule, around);
  CHECK_OK(mn_grammar_end(g, rule));
  CHECK(mn_machine_new(g, &m) == MN_ERR_CONFIG && !m, "%s", mn_message());
  mn_grammar_free(g);
  mn_arena_free(arena);
}

/* Items and strings that are alike are one rule, however often they are counted; what differs fills the grammar, whatever comes last. */
static void what_is_alike_is_made_once(void) {
  static const char *const alike[] = {
      "{\"type\": \"array\", \"items\": {\"type\": \"array\", \"items\": {\"type\": \"array\", \"items\": {\"type\": \"string\", \"maxLength\": 4000}, "
      "\"maxItems\": 1000}, \"maxItems\": 1000}, \"maxItems\": 1000}",
      "{\"type\": \"array\", \"items\": {\"type\": \"array\", \"items\": {\"type\": \"string\", \"format\": \"email\"}, \"maxItems\": 1000}, \"maxItems\": 1000}"};
  for (size_t i = 0; i < sizeof alike / sizeof *alike; i++) {
    mn_arena *arena = mn_arena_new();
    mn_grammar *g = NULL;
    mn_machine *m = machine_of(alike[i], &g, arena);
    CHECK(m && mn_grammar_nodes(g) < 30000, "%s: %lld nodes", alike[i], (long long)mn_grammar_nodes(g));
    mn_machine_free(m), mn_grammar_free(g), mn_arena_free(arena);
  }
  for (int last = 0; last < 2; last++) {
    mn_text schema = {0};
    mn_arena *arena = mn_arena_new();
    const mn_value *v = NULL;
    mn_grammar *g = NULL;
    mn_text_addf(&schema, "{\"type\": \"array\", \"prefixItems\": [%s", last ? "{\"type\": \"string\", \"pattern\": \"^a$\"}" : "{}");
    for (int k = 0; k < 40; k++) mn_text_addf(&schema, ", {\"type\": \"string\", \"maxLength\": %d}", 4000 - k);
    mn_text_add(&schema, "]}");
    CHECK_OK(mn_json_parse(arena, "schema", schema.data, schema.len, &v));
    CHECK(mn_grammar_of_schema(v, &g) == MN_ERR_CONFIG && !g && strstr(mn_message(), "more than 200000 nodes"), "%s", mn_message());
    mn_arena_free(arena), mn_text_free(&schema);
  }
}

/* Each place leads to the next that was made, or to the one before: an end is found from behind, each link once, whichever way they lie. */
static void ends_are_found_from_behind(void) {
  enum { N = MN_GRAMMAR_NODES - 10 };
  for (int up = 0; up < 2; up++)
    for (int ends = 0; ends < 2; ends++) {
      mn_grammar *g = NULL;
      CHECK_OK(mn_grammar_new(&g));
      const int32_t rule = mn_grammar_rule(g), other = mn_grammar_rule(g);
      const mn_bytes_node first = mn_grammar_place(g);
      for (int i = 1; i < N; i++) mn_grammar_place(g);
      for (int i = 0; i + 1 < N; i++) mn_grammar_put(g, first + i + !up, first + i + up);
      const mn_bytes_node end = mn_grammar_return(g), call = mn_grammar_call(g, other, end);
      mn_grammar_put(g, up ? first + N - 1 : first, call); /* ends where the other rule does */
      mn_grammar_define(g, rule, up ? first : first + N - 1);
      mn_grammar_define(g, other, ends ? mn_grammar_text(g, "a", 1, end) : call);
      const mn_status status = mn_grammar_end(g, rule);
      CHECK(status == (ends ? MN_OK : MN_ERR_CONFIG), "%d, %d: %s", up, ends, mn_message());
      mn_grammar_free(g);
    }
}

int main(void) {
  RUN(json_is_what_a_parser_takes);
  RUN(a_schema_takes_what_fits);
  RUN(bounds_of_integers_hold);
  RUN(bounds_of_numbers_hold);
  RUN(bounds_are_those_of_f64);
  RUN(bounds_of_long_integers_are_those_of_f64);
  RUN(what_it_says_is_json);
  RUN(a_mask_is_what_each_token_would_do);
  RUN(what_cannot_be_kept_is_refused);
  RUN(what_is_alike_is_made_once);
  RUN(ends_are_found_from_behind);
  return test_end();
}
