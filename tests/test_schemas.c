/* test_schemas.c - what must be true of what a masked sampler says, in order: whatever tokens are drawn, a document that is whole fits its
 * schema, by a judge of this test's own that knows nothing of grammars (patterns by the C library's regular expressions); patterns hold the strings
 * that they should; of oneOf only schemas that no value fits two of are taken; a way that no value goes is none; what would take too long or
 * too deep a stack is refused before it does, and what is only long is taken. */
#include <regex.h>

#include "base/text.h"
#include "format/json.h"
#include "serve/json_schema.h"
#include "test.h"

/* ---- a judge ---- */
static const mn_value *root;
static bool judge(const mn_value *schema, const mn_value *v);

static const char *text_of(const mn_value *v) { return v && v->kind == MN_TEXT ? v->as.text : ""; }

static bool is_type(const char *type, const mn_value *v) {
  double x;
  if (!strcmp(type, "integer")) return v->kind == MN_INTEGER || (v->kind == MN_REAL && v->as.real == floor(v->as.real));
  if (!strcmp(type, "number")) return mn_value_number(v, &x);
  return !strcmp(type, v->kind == MN_NULL      ? "null"
                       : v->kind == MN_BOOLEAN ? "boolean"
                       : v->kind == MN_TEXT    ? "string"
                       : v->kind == MN_LIST    ? "array"
                       : v->kind == MN_MAP     ? "object"
                                               : "");
}

static size_t characters(const mn_value *v) {
  size_t n = 0;
  for (size_t i = 0; i < v->count; i++) n += ((unsigned char)v->as.text[i] & 0xc0) != 0x80;
  return n;
}

static bool matches(const char *pattern, const char *text) {
  regex_t re;
  CHECK(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB) == 0, "%s", pattern);
  const bool out = regexec(&re, text, 0, NULL, 0) == 0;
  regfree(&re);
  return out;
}

static double number_at(const mn_value *schema, const char *key, double otherwise) {
  double x = otherwise;
  const mn_value *v = mn_value_get(schema, key);
  return v && mn_value_number(v, &x) ? x : otherwise;
}

static bool judge_object(const mn_value *schema, const mn_value *v) {
  const mn_value *required = mn_value_get(schema, "required"), *named = mn_value_get(schema, "properties"),
                 *others = mn_value_get(schema, "additionalProperties");
  for (size_t i = 0; required && i < required->count; i++)
    if (!mn_value_get(v, required->as.items[i]->as.text)) return false;
  for (size_t i = 0; i < v->count; i++) {
    const mn_value *own = mn_value_get(named, v->as.entries[i].key), *by = own ? own : others;
    if (by && !judge(by, v->as.entries[i].value)) return false;
  }
  return true;
}

static bool judge_array(const mn_value *schema, const mn_value *v) {
  const mn_value *items = mn_value_get(schema, "items"), *prefix = mn_value_get(schema, "prefixItems");
  if ((double)v->count < number_at(schema, "minItems", 0) || (double)v->count > number_at(schema, "maxItems", 1e9)) return false;
  for (size_t i = 0; i < v->count; i++) {
    const mn_value *by = prefix && i < prefix->count ? prefix->as.items[i] : items;
    if (by && !judge(by, v->as.items[i])) return false;
  }
  return true;
}

static int judge_all(const mn_value *list, const mn_value *v) { /* how many of them it fits */
  int n = 0;
  for (size_t i = 0; i < list->count; i++) n += judge(list->as.items[i], v);
  return n;
}

static bool is_multiple(const mn_value *v, double x, const mn_value *step) {
  double of = 1;
  if (v->kind == MN_INTEGER && step->kind == MN_INTEGER) return v->as.integer % step->as.integer == 0;
  return mn_value_number(step, &of) && fabs(remainder(x, of)) < 1e-9; /* exact of steps that f64 has exactly */
}

static bool judge(const mn_value *schema, const mn_value *v) {
  double x;
  if (schema->kind == MN_BOOLEAN) return schema->as.boolean;
  const mn_value *type = mn_value_get(schema, "type"), *list = mn_value_get(schema, "enum"), *only = mn_value_get(schema, "const"), *k;
  bool good = !type;
  if (type && type->kind == MN_TEXT) good = is_type(type->as.text, v);
  for (size_t i = 0; type && type->kind == MN_LIST && i < type->count; i++) good = good || is_type(type->as.items[i]->as.text, v);
  if (!good || (only && !mn_value_equal(only, v))) return false;
  for (size_t i = 0; list && (good = false, i < list->count); i++)
    if ((good = mn_value_equal(list->as.items[i], v))) break;
  if (!good) return false;
  if ((k = mn_value_get(schema, "$ref")) &&
      !judge(strcmp(text_of(k), "#") ? mn_value_get(mn_value_get(root, "$defs"), text_of(k) + 8) : root, v))
    return false;
  if ((k = mn_value_get(schema, "allOf")) && judge_all(k, v) != (int)k->count) return false;
  if ((k = mn_value_get(schema, "anyOf")) && judge_all(k, v) < 1) return false;
  if ((k = mn_value_get(schema, "oneOf")) && judge_all(k, v) != 1) return false;
  if (mn_value_number(v, &x) && (x < number_at(schema, "minimum", -1e300) || x > number_at(schema, "maximum", 1e300) ||
                                 x <= number_at(schema, "exclusiveMinimum", -1e300) || x >= number_at(schema, "exclusiveMaximum", 1e300)))
    return false;
  if (mn_value_number(v, &x) && (k = mn_value_get(schema, "multipleOf")) && !is_multiple(v, x, k)) return false;
  if (v->kind == MN_TEXT &&
      ((double)characters(v) < number_at(schema, "minLength", 0) || (double)characters(v) > number_at(schema, "maxLength", 1e9)))
    return false;
  if (v->kind == MN_TEXT && (k = mn_value_get(schema, "pattern")) && !matches(text_of(k), v->as.text)) return false;
  return v->kind == MN_MAP ? judge_object(schema, v) : v->kind == MN_LIST ? judge_array(schema, v) : true;
}

/* ---- a sampler ---- */
static const char *const words[] = {
    "\"",   "\": ", "\", \"", "{\"",  "{",    "}",        "\"}",  "[",   "]",   ", ", "a",     "b",    "c",  "red", "ab",
    "ba",   "kind", "x",      "y",    "cat",  "dog",      "name", "0",   "1",   "12", "-",     "7",    "99", ".",   "true",
    "null", "e",    " ",      "\xc3", "\xa9", "\xc3\xa9", "\\",   "\\n", "u00", "Z",  "false", "next", "-1", "@",   "\xe2\x82\xac"};
enum { WORDS = sizeof words / sizeof *words, ALL = WORDS + 256 };
static char bytes[256][2];
static const char *word(void *ctx, int32_t i, size_t *n) {
  (void)ctx;
  if (i >= WORDS) bytes[i - WORDS][0] = (char)(i - WORDS);
  *n = i < WORDS ? strlen(words[i]) : 1;
  return i < WORDS ? words[i] : bytes[i - WORDS];
}

/* A document of tokens that are drawn of those that the mask allows, whatever they are; whole: it came to an end. Those that end things are
 * likelier when it grows long. */
static bool draw(mn_machine *m, const mn_lexicon *l, uint64_t key, uint64_t number, mn_text *out) {
  int32_t at = mn_machine_begin(m);
  for (uint64_t step = 0; out->len < 600 && mn_machine_goes_on(m, at); step++) {
    const uint64_t *mask = mn_machine_mask(m, at, l);
    double total = 0;
    int32_t drawn = -1;
    CHECK(mask != NULL, "%s", mn_message());
    for (int32_t i = 0; mask && i < ALL; i++) {
      if (!(mask[i / 64] >> (i % 64) & 1)) continue;
      const double ends = i < WORDS && strpbrk(words[i], "\"]}") ? 1 + (double)out->len : 1;
      total += ends;
      if (mn_random_uniform(key, number, step * 1000 + (uint64_t)i) * total <= ends) drawn = i; /* each by its share */
    }
    if (drawn < 0) break;
    size_t n;
    const char *text = word(NULL, drawn, &n);
    for (size_t i = 0; i < n; i++) at = mn_machine_next(m, at, (unsigned char)text[i]);
    mn_text_add_bytes(out, text, n);
    if (mn_machine_whole(m, at) && mn_random_uniform(key, number, step * 1000 + 999) < 0.5) break;
  }
  return mn_machine_whole(m, at);
}

static mn_machine *machine_of(mn_arena *arena, const char *schema, mn_grammar **g) {
  mn_machine *m = NULL;
  CHECK_OK(mn_json_parse(arena, "schema", schema, strlen(schema), &root));
  mn_status status = root ? mn_grammar_of_schema(root, g) : MN_ERR_FORMAT;
  CHECK(status == MN_OK, "%s: %s", schema, mn_message());
  if (status == MN_OK) CHECK_OK(mn_machine_new(*g, &m));
  return m;
}

static void what_is_drawn_fits(void) {
  static const char *const all[] = {
      "{\"type\": \"string\", \"pattern\": \"^[a-c]+$\"}",
      "{\"type\": \"string\", \"pattern\": \"^(red|ab{2,3}|x?y)$\"}",
      "{\"type\": \"string\", \"pattern\": \"[0-9]{2}\", \"maxLength\": 6}",
      "{\"type\": \"string\", \"pattern\": \"^a|b$\", \"minLength\": 3, \"maxLength\": 5}",
      "{\"type\": \"string\", \"pattern\": \"^[@-Z]{1,4}@[a-c ]*e$\", \"minLength\": 6}",
      "{\"type\": \"string\", \"minLength\": 2, \"maxLength\": 4}",
      "{\"type\": \"array\", \"items\": {\"type\": \"integer\", \"exclusiveMinimum\": -3, \"maximum\": 12.5}, \"minItems\": 1, \"maxItems\": 4}",
      "{\"type\": \"integer\", \"minimum\": 0.5, \"exclusiveMaximum\": 10}",
      "{\"type\": \"number\", \"minimum\": -1.25, \"exclusiveMaximum\": 7}",
      "{\"type\": \"number\", \"exclusiveMinimum\": 0, \"multipleOf\": 0.25}",
      "{\"type\": [\"integer\", \"null\"], \"minimum\": 7, \"multipleOf\": 7}",
      "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}, \"ab\": {\"type\": \"boolean\"}}, \"additionalProperties\": {\"type\": \"null\"}, "
      "\"required\": [\"ab\"]}",
      "{\"type\": \"object\", \"required\": [\"x\"], \"additionalProperties\": {\"enum\": [1, \"a\"]}}",
      "{\"allOf\": [{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\", \"minimum\": 1}}, \"required\": [\"a\"]}, {\"properties\": {\"a\": "
      "{\"maximum\": 12}, \"b\": {\"type\": \"string\", \"maxLength\": 3}}, \"required\": [\"b\"]}]}",
      "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}, \"b\": {\"type\": \"integer\"}}, \"anyOf\": [{\"required\": [\"a\"]}, "
      "{\"required\": [\"b\"]}]}",
      "{\"$defs\": {\"base\": {\"type\": \"object\", \"properties\": {\"kind\": {\"type\": \"string\"}}, \"required\": [\"kind\"]}}, \"$ref\": \"#/$defs/base\", "
      "\"properties\": {\"kind\": {\"const\": \"x\"}}}",
      "{\"oneOf\": [{\"type\": \"object\", \"properties\": {\"kind\": {\"const\": \"cat\"}, \"a\": {\"type\": \"null\"}}, \"required\": [\"kind\"]}, {\"type\": "
      "\"object\", \"properties\": {\"kind\": {\"enum\": [\"dog\", \"ab\"]}}, \"required\": [\"kind\"]}, {\"type\": \"integer\"}]}",
      "{\"oneOf\": [{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"null\"}}, \"required\": [\"a\"], \"additionalProperties\": false}, {\"type\": "
      "\"object\", \"properties\": {\"b\": {\"type\": \"null\"}}, \"required\": [\"b\"], \"additionalProperties\": false}]}",
      "{\"enum\": [1, \"a\", null, [1, {\"b\": true}], \"red\", 12, 0.5], \"type\": [\"integer\", \"array\", \"string\"], \"minimum\": 2, \"minLength\": 2}",
      "{\"$defs\": {\"tree\": {\"type\": \"object\", \"properties\": {\"x\": {\"type\": \"integer\", \"minimum\": 0, \"maximum\": 9}, \"next\": {\"type\": \"array\", "
      "\"items\": {\"$ref\": \"#/$defs/tree\"}, \"maxItems\": 2}}, \"required\": [\"x\"], \"additionalProperties\": false}}, \"$ref\": \"#/$defs/tree\"}",
      "{\"anyOf\": [{\"$ref\": \"#/$defs/n\"}, {\"type\": \"array\", \"prefixItems\": [{\"const\": \"a\"}, {\"$ref\": \"#/$defs/n\"}], \"items\": false, "
      "\"minItems\": 2}], \"$defs\": {\"n\": {\"type\": \"integer\", \"minimum\": -12, \"maximum\": 7}}}",
      "{\"allOf\": [{\"anyOf\": [{\"type\": \"integer\"}, {\"type\": \"string\", \"maxLength\": 3}]}, {\"anyOf\": [{\"type\": \"string\", \"minLength\": 2}, "
      "{\"type\": \"number\"}]}]}",
      "{\"type\": \"object\", \"properties\": {\"a\": false, \"b\": {\"type\": \"boolean\"}}, \"additionalProperties\": true}",
  };
  mn_lexicon *l = NULL;
  CHECK_OK(mn_lexicon_new(ALL, word, NULL, &l));
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    mn_arena *arena = mn_arena_new();
    mn_grammar *g = NULL;
    mn_machine *m = machine_of(arena, all[i], &g);
    const uint64_t key = mn_random_key(9, "schemas");
    int whole = 0, judged = 0, wrong = 0;
    for (uint64_t k = 0; m && l && k < 250; k++) {
      mn_text t = {0};
      const mn_value *v = NULL;
      if (draw(m, l, key, i * 1000 + k, &t)) {
        whole++;
        if (mn_json_parse(arena, "drawn", t.data, t.len, &v) == MN_OK) { /* a zero byte, a huge number, a key twice: not for our reader */
          judged++;
          wrong += !judge(root, v);
          CHECK(judge(root, v), "%s: %.*s", all[i], (int)t.len, t.data);
        }
      }
      mn_text_free(&t);
    }
    CHECK(whole >= 150 && judged >= 100, "%s: %d of 250 are whole, %d judged", all[i], whole, judged);
    CHECK(wrong == 0, "%s: %d do not fit", all[i], wrong);
    mn_machine_free(m), mn_grammar_free(g), mn_arena_free(arena);
  }
  mn_lexicon_free(l);
}

/* ---- patterns ---- */
static bool takes(mn_machine *m, const char *s) {
  int32_t at = mn_machine_begin(m);
  for (; *s && at >= 0; s++) at = mn_machine_next(m, at, (unsigned char)*s);
  return mn_machine_whole(m, at);
}

static void patterns_hold_their_strings(void) {
  static const struct {
    const char *pattern, *good[6], *bad[6];
  } all[] = {
      {"^\\\\d{3}-\\\\d{4}$", {"\"555-1234\""}, {"\"55-1234\"", "\"555-12345\"", "\"x555-1234\""}},
      {"\\\\d",
       {"\"7\"", "\"a7b\"",
        "\"\xc3\xa9"
        "7\""},
       {"\"\"", "\"abc\""}},
      {"^[\\\\w.+-]+@[\\\\w-]+\\\\.[a-z]{2,3}$", {"\"a.b@c-d.org\""}, {"\"a@b\"", "\"@b.org\"", "\"a b@c.org\""}},
      {"^(?:a|bc)*$", {"\"\"", "\"abca\"", "\"bcbc\""}, {"\"b\"", "\"ac\""}},
      {"^(a*)*b$", {"\"b\"", "\"aab\""}, {"\"a\"", "\"ba\""}},
      {"^\\\\u00e9\\\\x41.$",
       {"\"\xc3\xa9"
        "A!\"",
        "\"\xc3\xa9"
        "A\xe2\x82\xac\"",
        "\"\xc3\xa9"
        "A\\\\\""},
       {"\"\xc3\xa9"
        "A\"",
        "\"\xc3\xa9"
        "A\\n\""}},
      {"^[^a]$", {"\"b\"", "\"\xe2\x82\xac\"", "\"\xf0\x9f\x90\x8b\"", "\"\\n\"", "\"\\\"\""}, {"\"a\"", "\"bb\""}},
      {"^[\\\\t\\\\]\\\\-\\\\\\\\]+$", {"\"\\t\"", "\"]\"", "\"-\\\\\""}, {"\"t\"", "\"a\""}},
      {"^\\\\S+\\\\s\\\\S+$", {"\"a b\"", "\"a\\tb\""}, {"\"ab\"", "\"a  b\""}},
      {"^a{2}$|^b{1,}?$", {"\"aa\"", "\"b\"", "\"bbb\""}, {"\"a\"", "\"aab\"", "\"\""}},
      {"^(?<year>[0-9]{4})(-[01][0-9])?$", {"\"2024\"", "\"2024-12\""}, {"\"24\"", "\"2024-\""}},
      {"x{,3}", {"\"x{,3}\"", "\"ax{,3}b\""}, {"\"xxx\""}},
      {"", {"\"\"", "\"a\""}, {"1"}},
      {"^(?=.*[A-Z])(?=.*\\\\d).{4,}$", {"\"aB3x\"", "\"3333Z\""}, {"\"aB3\"", "\"abc3\"", "\"ABCD\""}},
      {"^(?!\\\\.)(?!.*\\\\.\\\\.)([a-z.]*)[a-z]@([a-z]+\\\\.)+[a-z]{2,}$",
       {"\"a.b@c.de\"", "\"ab@c.d.ef\""},
       {"\".a@c.de\"", "\"a..b@c.de\"", "\"a.@c.de\""}},
      {"^(?!^[-+.]*$)[+-]?0*\\\\d*\\\\.?\\\\d*$", {"\"1.5\"", "\"-0012.\"", "\".5\""}, {"\"\"", "\"-\"", "\"+.\"", "\"1.2.3\""}},
      {"^(?!(red|blue)$)[a-z]+$", {"\"green\"", "\"reds\"", "\"blu\""}, {"\"red\"", "\"blue\"", "\"\""}},
      {"^(?!.*\\\\d)[^z]*$", {"\"abc\"", "\"\""}, {"\"a1\"", "\"\xd9\xa3\"", "\"z\""}},
      {"^(?=ab)a", {"\"ab\"", "\"abc\""}, {"\"a\"", "\"ac\"", "\"cab\""}},
      {"^\\\\ud83d\\\\ude00$", {"\"\xf0\x9f\x98\x80\""}, {"\"\"", "\"\xf0\x9f\x98\x81\""}},
      {"^[\\\\ud83d\\\\ude00-\\\\ud83d\\\\ude02x]$", {"\"\xf0\x9f\x98\x81\"", "\"x\""}, {"\"\xf0\x9f\x98\x83\""}},
      {"^a{2}?{,3}$", {"\"aa{,3}\""}, {"\"aa\""}},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    mn_arena *arena = mn_arena_new();
    mn_grammar *g = NULL;
    char schema[300];
    snprintf(schema, sizeof schema, "{\"type\": \"string\", \"pattern\": \"%s\"}", all[i].pattern);
    mn_machine *m = machine_of(arena, schema, &g);
    for (int k = 0; m && k < 6 && all[i].good[k]; k++) CHECK(takes(m, all[i].good[k]), "%s: %s", schema, all[i].good[k]);
    for (int k = 0; m && k < 6 && all[i].bad[k]; k++) CHECK(!takes(m, all[i].bad[k]), "%s: %s", schema, all[i].bad[k]);
    CHECK(!m || takes(m, "\"") == false, "a string ends");
    mn_machine_free(m), mn_grammar_free(g), mn_arena_free(arena);
  }
}

/* No way leads where a document could not end any more. */
static void no_way_is_a_trap(void) {
  mn_arena *arena = mn_arena_new();
  mn_grammar *g = NULL;
  mn_machine *m = machine_of(arena, "{\"type\": \"string\", \"pattern\": \"^ab$\"}", &g);
  CHECK(!m || mn_machine_next(m, mn_machine_next(m, mn_machine_begin(m), '"'), 'b') < 0, "what is found nowhere else begins with it");
  mn_machine_free(m), mn_grammar_free(g), mn_arena_free(arena);
}

static void of_one_alone(void) {
  static const struct {
    const char *schema;
    bool taken;
  } all[] = {
      {"{\"oneOf\": [{\"type\": \"string\"}, {\"type\": \"null\"}]}", true},
      {"{\"oneOf\": [{\"type\": \"string\"}, {\"type\": [\"null\", \"string\"]}]}", false},
      {"{\"oneOf\": [{\"const\": 1}, {\"enum\": [2, 3]}]}", true},
      {"{\"oneOf\": [{\"const\": 1}, {\"enum\": [1, 3]}]}", false},
      {"{\"oneOf\": [{\"type\": \"object\", \"properties\": {\"a\": {}}}, {\"type\": \"object\", \"properties\": {\"b\": {}}}]}", false},
      {"{\"oneOf\": [{\"type\": \"object\", \"properties\": {\"a\": {}}, \"required\": [\"a\"]}, {\"type\": \"object\", \"properties\": {\"b\": {}}, "
       "\"required\": [\"b\"]}]}",
       true},
      {"{\"$defs\": {\"a\": {\"type\": \"string\"}}, \"oneOf\": [{\"$ref\": \"#/$defs/a\"}, {\"type\": \"integer\"}]}", true},
      {"{\"$defs\": {\"a\": {\"type\": \"string\"}}, \"oneOf\": [{\"$ref\": \"#/$defs/a\"}, {\"const\": \"x\", \"type\": \"string\"}]}",
       false},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    mn_arena *arena = mn_arena_new();
    mn_grammar *g = NULL;
    CHECK_OK(mn_json_parse(arena, "schema", all[i].schema, strlen(all[i].schema), &root));
    const mn_status status = mn_grammar_of_schema(root, &g);
    CHECK(status == (all[i].taken ? MN_OK : MN_ERR_CONFIG), "%s: %s", all[i].schema, mn_message());
    mn_grammar_free(g), mn_arena_free(arena);
  }
}

/* ---- ways that are none ---- */
static void ways_that_no_value_goes_are_none(void) {
  static const struct {
    const char *schema, *good, *bad;
  } all[] = {
      {"{\"$defs\": {\"x\": {\"allOf\": [{\"type\": \"string\"}, {\"type\": \"integer\"}]}}, \"anyOf\": [{\"$ref\": \"#/$defs/x\"}, {\"type\": \"null\"}]}",
       "null", "1"},
      /* twice: the second time it is known */
      {"{\"$defs\": {\"x\": {\"allOf\": [{\"type\": \"string\"}, {\"type\": \"integer\"}]}}, \"type\": \"array\", \"prefixItems\": [{\"anyOf\": [{\"$ref\": "
       "\"#/$defs/x\"}, {\"type\": \"null\"}]}, {\"anyOf\": [{\"type\": \"boolean\"}, {\"$ref\": \"#/$defs/x\"}]}], \"items\": false, \"minItems\": 2}",
       "[null, true]", "[1"},
      /* y was compiled within x, and would lead into it */
      {"{\"$defs\": {\"x\": {\"type\": \"object\", \"properties\": {\"q\": {\"allOf\": [{\"const\": 1}, {\"const\": 2}]}, \"p\": {\"$ref\": \"#/$defs/y\"}}, "
       "\"required\": [\"p\", \"q\"]}, \"y\": {\"anyOf\": [{\"type\": \"array\", \"items\": {\"$ref\": \"#/$defs/x\"}, \"minItems\": 1}, {\"type\": \"null\"}]}}, "
       "\"anyOf\": [{\"$ref\": \"#/$defs/x\"}, {\"$ref\": \"#/$defs/y\"}]}",
       "null", "["},
      {"{\"anyOf\": [{\"allOf\": [{\"const\": 1}, {\"const\": 2}]}, {\"const\": 3}]}", "3", "2"},
      {"{\"allOf\": [{\"const\": {\"a\": 2}}, {\"const\": {\"a\": 2}}]}", "{\"a\": 2}", "{\"a\": 3}"},
      {"{\"anyOf\": [{\"anyOf\": [{\"allOf\": [{\"const\": 1}, {\"const\": 2}]}]}, {\"const\": 3}]}", "3", "1"},
      {"{\"anyOf\": [{\"const\": 1, \"type\": \"string\"}, {\"const\": 3}]}", "3", "1"},
      {"{\"oneOf\": [{\"allOf\": [{\"const\": 1}, {\"const\": 2}]}, {\"const\": 3}]}", "3", "1"},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    mn_arena *arena = mn_arena_new();
    mn_grammar *g = NULL;
    mn_machine *m = machine_of(arena, all[i].schema, &g);
    CHECK(!m || takes(m, all[i].good), "%s: not %s", all[i].schema, all[i].good);
    int32_t at = m ? mn_machine_begin(m) : -1;
    for (const char *s = all[i].bad; *s && at >= 0; s++) at = mn_machine_next(m, at, (unsigned char)*s);
    CHECK(!m || at < 0, "%s: begins with %s", all[i].schema, all[i].bad);
    mn_machine_free(m), mn_grammar_free(g), mn_arena_free(arena);
  }
}

/* ---- long schemas ---- */
/* `begin`, n times `one` with commas between and the number behind (numbered), `end`. */
static void add_list(mn_text *t, const char *begin, const char *one, bool numbered, int n, const char *end) {
  mn_text_add(t, begin);
  for (int i = 0; i < n; i++) {
    mn_text_addf(t, "%s%s", i ? ", " : "", one);
    if (numbered) mn_text_addf(t, "%d", i);
    if (numbered && strchr(one, '"')) mn_text_add(t, "\"");
  }
  mn_text_add(t, end);
}

static void add_times(mn_text *t, const char *s, int n) {
  for (int i = 0; i < n; i++) mn_text_add(t, s);
}

/* NULL: it is taken. */
static void holds(mn_text *t, const char *refusal, const char *what) {
  mn_arena *arena = mn_arena_new();
  mn_grammar *g = NULL;
  CHECK_OK(mn_json_parse(arena, "schema", t->data, t->len, &root));
  const mn_status status = mn_grammar_of_schema(root, &g);
  if (refusal) CHECK(status == MN_ERR_CONFIG && !g && strstr(mn_message(), refusal), "%s: %d, %s", what, (int)status, mn_message());
  else CHECK(status == MN_OK && g, "%s: %s", what, mn_message());
  mn_grammar_free(g), mn_arena_free(arena), mn_text_free(t);
}

static void long_lists_are_refused(void) {
  static const struct {
    const char *begin, *one, *between, *end, *refusal;
    bool numbered;
    int n;
  } all[] = {
      {"{\"type\": \"object\", \"required\": [", "\"a", "", "]}", "too long", true, 30000},
      {"{\"type\": \"object\", \"required\": [", "\"a\"", "", "]}", "too long", false, 30000},
      {"{\"allOf\": [{\"enum\": [", "", "]}, {\"enum\": [", "]}]}", "too long", true, 30000},
      {"{\"allOf\": [{\"required\": [", "\"a", "]}, {\"required\": [", "]}]}", "too long", true, 30000},
      {"{\"oneOf\": [{\"enum\": [", "", "]}, {\"enum\": [", "]}]}", "too long", true, 30000},
      {"{\"oneOf\": [", "{\"type\": \"null\"}", "", "]}", "too long", false, 30000},
      {"{\"type\": \"object\", \"required\": [", "\"a", "", "]}", NULL, true, 1500},
      {"{\"enum\": [", "\"a", "", "], \"type\": \"string\"}", NULL, true, 4000},
      {"{\"allOf\": [{\"enum\": [", "", "]}, {\"enum\": [", "]}]}", NULL, true, 4000},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    mn_text t = {0};
    add_list(&t, all[i].begin, all[i].one, all[i].numbered, all[i].n, *all[i].between ? all[i].between : all[i].end);
    if (*all[i].between) add_list(&t, "", all[i].one, all[i].numbered, all[i].n, all[i].end);
    holds(&t, all[i].refusal, all[i].begin);
  }
}

static void long_names_are_refused_beside_others(void) {
  static const struct {
    int n;
    const char *others, *refusal;
  } all[] = {{256, "true", NULL}, {257, "true", "more than 256 bytes"}, {257, "false", NULL}, {195000, "true", "more than 256 bytes"}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    mn_text t = {0};
    mn_text_add(&t, "{\"type\": \"object\", \"properties\": {\"");
    add_times(&t, "a", all[i].n);
    mn_text_addf(&t, "\": {\"type\": \"null\"}}, \"additionalProperties\": %s}", all[i].others);
    holds(&t, all[i].refusal, all[i].others);
  }
}

/* What is nested would double at each level where it were looked at twice: 2^28, and three times more for each name that is there again. */
static void nested_schemas_cost_what_they_are_long(void) {
  enum { LEVELS = 28 };
  mn_text t = {0}, one = {0};
  add_times(&one, "{\"type\": \"object\", \"required\": [\"a\", \"a\", \"a\"], \"properties\": {\"a\": ", LEVELS);
  mn_text_add(&one, "{\"type\": \"null\"}");
  add_times(&one, "}}", LEVELS);
  mn_text_addf(&t, "{\"oneOf\": [%s, %s]}", one.data, one.data);
  holds(&t, "could fit two of", "of one alone");
  mn_text_free(&one);
  add_times(&t, "{\"enum\": [[]], \"type\": \"array\", \"items\": ", LEVELS);
  mn_text_add(&t, "{\"type\": \"null\"}");
  add_times(&t, "}", LEVELS);
  holds(&t, NULL, "values that fit");
}

static void patterns_are_bounded(void) {
  mn_text t = {0};
  for (int ways = 0; ways < 2; ways++) { /* one way for all that is the same; and as it is, where there are too many sets of states */
    mn_text_add(&t, "{\"type\": \"string\", \"maxLength\": 31, \"pattern\": \"^((a");
    add_times(&t, "|a", 1599);
    mn_text_addf(&t, ")*%s)$\"}", ways ? "|[ab]*a[ab]{13}b" : "");
    holds(&t, ways ? "explode" : NULL, "edges");
  }
}

/* Each pattern is another, and none of them large; how long they take is bounded together, also where a pattern has too many sets of states and is
 * followed as it is. A group's name is read each time that its group is repeated. */
static void patterns_are_bounded_together(void) {
  static const struct {
    int n;
    const char *refusal;
  } all[] = {{4, NULL}, {4000, "take too long"}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    mn_text t = {0};
    mn_text_add(&t, "{\"anyOf\": [");
    for (int k = 0; k < all[i].n; k++)
      mn_text_addf(&t, "%s{\"const\": \"a\", \"pattern\": \"[ab]*a[ab]{%d}|a\"}", k ? ", " : "", 150 + k % 100);
    mn_text_add(&t, "]}");
    holds(&t, all[i].refusal, "many");
  }
  for (int long_name = 0; long_name < 2; long_name++) {
    mn_text t = {0};
    mn_text_add(&t, "{\"type\": \"string\", \"pattern\": \"^(?:(?<");
    add_times(&t, "n", long_name ? 150000 : 60);
    mn_text_add(&t, ">a){20}){20}$\"}");
    holds(&t, long_name ? "name" : NULL, "a group's name");
  }
}

/* What one value cost is not charged to the next. */
static void values_are_looked_at_one_by_one(void) {
  mn_text t = {0};
  mn_text_add(&t, "{\"type\": \"array\", \"enum\": [");
  for (char b = '#'; b <= '~'; b++) {
    if (b == '\\') continue;
    mn_text_add(&t, b == '#' ? "[\"" : ", [\"");
    add_times(&t, (const char[]){b, 0}, 100);
    mn_text_add(&t, "\"]");
  }
  mn_text_add(&t, "], \"items\": {\"anyOf\": [");
  for (int k = 0; k < 100; k++)
    mn_text_addf(&t, "%s{\"type\": \"string\", \"minLength\": %d, \"maxLength\": %d}", k ? ", " : "", k % 3, 100 + k);
  mn_text_add(&t, "]}}");
  holds(&t, NULL, "many values");
}

/* Whether the value fits was not found out: the pattern has 2^16 states, and each character of the value leads to another. */
static void a_machine_that_failed_says_nothing(void) {
  mn_text t = {0};
  mn_text_add(&t, "{\"enum\": [\"x\", \"");
  for (uint64_t i = 0; i < 400000; i++) mn_text_add(&t, mn_random_uniform(mn_random_key(3, "fits"), 0, i) < 0.5 ? "a" : "b");
  mn_text_add(&t, "\"], \"pattern\": \"^(x|[ab]*a[ab]{19})$\"}");
  holds(&t, "it would take too long to find", "states");
}

enum { LETTERS = 13, OF_LETTERS = 1 << LETTERS };
static const char *letters(void *ctx, int32_t i, size_t *n) { /* all of a and b that are shorter */
  static char all[OF_LETTERS][LETTERS];
  (void)ctx;
  *n = 0;
  for (int32_t bits = i + 2; bits > 1; bits /= 2) all[i][(*n)++] = bits % 2 ? 'a' : 'b';
  return all[i];
}

/* Strings of many lengths beside a pattern whose every text leads elsewhere: what may come is found in time, or it is said that it is not. */
static void a_mask_that_would_take_too_long_is_refused(void) {
  mn_lexicon *l = NULL;
  CHECK_OK(mn_lexicon_new(OF_LETTERS - 2, letters, NULL, &l));
  for (int ways = 2; ways <= 102; ways += 100) {
    mn_text t = {0};
    mn_arena *arena = mn_arena_new();
    mn_grammar *g = NULL;
    mn_text_addf(&t, "{\"anyOf\": [{\"type\": \"string\", \"pattern\": \"^[ab]*a[ab]{%d}$\"}", LETTERS);
    for (int i = 0; i < ways; i++) mn_text_addf(&t, ", {\"type\": \"string\", \"minLength\": %d, \"maxLength\": %d}", i, i + 40);
    mn_text_add(&t, "]}");
    mn_machine *m = machine_of(arena, t.data, &g);
    const uint64_t *mask = m ? mn_machine_mask(m, mn_machine_next(m, mn_machine_begin(m), '"'), l) : NULL;
    CHECK(m && (mask != NULL) == (ways == 2), "%d ways", ways);
    if (m && !mask) CHECK(mn_machine_status(m) == MN_ERR_CONFIG && strstr(mn_message(), "take too long"), "%s", mn_message());
    mn_machine_free(m), mn_grammar_free(g), mn_arena_free(arena), mn_text_free(&t);
  }
  mn_lexicon_free(l);
}

int main(void) {
  RUN(what_is_drawn_fits);
  RUN(patterns_hold_their_strings);
  RUN(no_way_is_a_trap);
  RUN(of_one_alone);
  RUN(ways_that_no_value_goes_are_none);
  RUN(long_lists_are_refused);
  RUN(long_names_are_refused_beside_others);
  RUN(nested_schemas_cost_what_they_are_long);
  RUN(patterns_are_bounded);
  RUN(patterns_are_bounded_together);
  RUN(values_are_looked_at_one_by_one);
  RUN(a_machine_that_failed_says_nothing);
  RUN(a_mask_that_would_take_too_long_is_refused);
  return test_end();
}
