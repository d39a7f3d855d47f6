/* Configuration fields: described once, then parsed, refused with reasons, printed and written back. */
#include "format/config.h"
#include "format/json.h"
#include "format/yaml.h"
#include "test.h"

#include <math.h>
#include <stdint.h>
#include <time.h>

static mn_arena *arena;

typedef enum granularity { PER_TOKEN, PER_CHUNK } granularity;
static const char *const granularities[] = {"token", "chunk", NULL};

typedef struct mixer {
  const char *kind;
  int head_dim;
  int64_t window;
  double eta;
  float dropout;
  bool causal;
  granularity write;
  const char *note;
  mn_ints shape;
  mn_floats betas;
  mn_strings files;
  const mn_value *inner;
} mixer;

static const mn_field mixer_fields[] = {MN_FIELD_STRING_REQUIRED(mixer, kind, "which mixer"),
                                        MN_FIELD_INT(mixer, head_dim, 64, 1, 512, "width of a head"),
                                        MN_FIELD_INT(mixer, window, 0, 0, INT64_MAX, "tokens seen; 0 is all"),
                                        MN_FIELD_FLOAT(mixer, eta, 0.9, 0, 1, "momentum"),
                                        MN_FIELD_FLOAT(mixer, dropout, 0.1, 0, 1, "dropped share | of weights"),
                                        MN_FIELD_BOOL(mixer, causal, true, "no token sees a later one"),
                                        MN_FIELD_ENUM(mixer, write, granularities, PER_TOKEN, "when the memory is written"),
                                        MN_FIELD_STRING(mixer, note, NULL, "free text"),
                                        MN_FIELD_INTS(mixer, shape, 1, 100, "a shape"),
                                        MN_FIELD_FLOATS(mixer, betas, 0, 1, "decays"),
                                        MN_FIELD_STRINGS(mixer, files, "files"),
                                        MN_FIELD_VALUE(mixer, inner, "a nested mixer"),
                                        MN_FIELD_END};

typedef struct block {
  int layers;
  double lr;
  double clip;
} block;
static const mn_field block_fields[] = {MN_FIELD_INT_REQUIRED(block, layers, 1, 1000, "how many"),
                                        MN_FIELD_FLOAT(block, lr, 1e-3, DBL_MIN, 10, "learning rate"),
                                        MN_FIELD_FLOAT(block, clip, INFINITY, 0, INFINITY, "gradient norm limit"), MN_FIELD_END};

static const mn_value *yaml(const char *text) {
  const mn_value *v = NULL;
  mn_status status = mn_yaml_parse(arena, "recipe.yaml", text, strlen(text), &v);
  CHECK(status == MN_OK, "%s: %s", text, mn_message());
  return v;
}

static void defaults_come_from_the_table(void) {
  mixer m;
  memset(&m, 0xAA, sizeof m);
  mn_config_defaults(mixer_fields, &m);
  CHECK(!m.kind && m.head_dim == 64 && m.window == 0 && m.eta == 0.9 && m.dropout == 0.1f, "numbers");
  CHECK(m.causal && m.write == PER_TOKEN && !m.note && m.shape.count == 0 && !m.inner, "others");
  CHECK_OK(mn_fields_check(mixer_fields));
  CHECK_OK(mn_fields_check(block_fields));
}

static void maps_fill_structs(void) {
  mixer m;
  const mn_value *v = yaml("kind: titans\nhead_dim: 32\nwindow: 1e6\neta: 1\ndropout: 0.25\ncausal: false\nwrite: chunk\n"
                           "note: 'a b'\nshape: [1, 2, 3]\nbetas: [0.9, 1]\nfiles: [x, 'y z']\ninner: {any: [thing]}\n");
  CHECK_OK(mn_config_read(arena, v, "model.mixer", mixer_fields, &m));
  CHECK(!strcmp(m.kind, "titans") && m.head_dim == 32 && m.window == 1000000 && m.eta == 1 && m.dropout == 0.25f, "numbers");
  CHECK(!m.causal && m.write == PER_CHUNK && !strcmp(m.note, "a b"), "words");
  CHECK(m.shape.count == 3 && m.shape.items[2] == 3 && m.betas.count == 2 && m.betas.items[0] == 0.9, "lists");
  CHECK(m.files.count == 2 && !strcmp(m.files.items[1], "y z"), "texts");
  CHECK(m.inner && m.inner == mn_value_get(v, "inner"), "a value is kept as it is");
  CHECK_OK(mn_config_read(arena, yaml("kind: x\nhead_dim: null\nnote:\n"), NULL, mixer_fields, &m));
  CHECK(m.head_dim == 64 && !m.note, "null means not given");
}

static void tables_share_a_map(void) {
  mixer m;
  block b;
  mn_config_defaults(mixer_fields, &m);
  mn_config_defaults(block_fields, &b);
  const mn_value *v = yaml("kind: x\nlayers: 3\nlr: 0.5\nhead_dim: 7\n");
  mn_config_part parts[] = {{mixer_fields, &m}, {block_fields, &b}};
  CHECK_OK(mn_config_parse(arena, v, NULL, parts, 2));
  CHECK(m.head_dim == 7 && b.layers == 3 && b.lr == 0.5, "each has its own");
  mn_config_part known[] = {{mixer_fields, NULL}, {block_fields, &b}};
  mn_config_defaults(mixer_fields, &m);
  CHECK_OK(mn_config_parse(arena, v, NULL, known, 2));
  CHECK(m.head_dim == 64, "a table without a target is known but not read");
  CHECK(mn_config_parse(arena, v, NULL, parts, 1) == MN_ERR_CONFIG && strstr(mn_message(), "unknown key 'layers'"), "%s", mn_message());
}

static void faults_name_file_line_key_and_expectation(void) {
  static const struct {
    const char *text, *says;
  } cases[] = {
      {"kind: x\nhead_dmi: 3\n",
       "recipe.yaml:2: unknown key 'head_dmi' in model.mixer; did you mean 'head_dim'? (known: kind, head_dim, window, eta, "
       "dropout, causal, write, note, shape, betas, files, inner)"},
      {"kind: x\nzzzzzzzz: 3\n", "recipe.yaml:2: unknown key 'zzzzzzzz' in model.mixer (known: kind, "},
      {"kind: x\n\nhead_dim: big\n", "recipe.yaml:3: model.mixer.head_dim must be an integer from 1 to 512, but is the text 'big'"},
      {"kind: x\nhead_dim: 0\n", "recipe.yaml:2: model.mixer.head_dim must be an integer from 1 to 512, but is 0"},
      {"kind: x\nhead_dim: 513\n", "from 1 to 512, but is 513"},
      {"kind: x\nhead_dim: 2.5\n", "but is 2.5"},
      {"kind: x\nhead_dim: 1e300\n", "but is 1e+300"},
      {"kind: x\nhead_dim: 99999999999\n", "but is 99999999999"},
      {"kind: x\nhead_dim: [1]\n", "but is a list"},
      {"kind: x\nhead_dim: {a: 1}\n", "but is a map"},
      {"kind: x\nhead_dim: true\n", "but is true"},
      {"kind: x\nhead_dim: ''\n", "but is an empty text"},
      {"kind: x\nwindow: -1\n", "model.mixer.window must be an integer, at least 0, but is -1"},
      {"kind: x\neta: 1.5\n", "model.mixer.eta must be a number from 0 to 1, but is 1.5"},
      {"kind: x\neta: .nan\n", "but is nan"},
      {"kind: x\neta: 1e-308\n",
       "recipe.yaml:2: model.mixer.eta is 1e-308, too small for a number of 32 bits; give one of at least 1.2e-38, or 0"},
      {"kind: x\ndropout: 1e-45\n", "model.mixer.dropout is 1e-45, too small"},
      {"kind: x\nbetas: [0, 1e-40]\n", "model.mixer.betas[1] is 1e-40, too small"},
      {"kind: x\neta: fast\n", "but is the text 'fast'"},
      {"kind: x\ncausal: yes\n", "model.mixer.causal must be true or false, but is the text 'yes'"},
      {"kind: x\ncausal: 1\n", "must be true or false, but is 1"},
      {"kind: x\nwrite: chnuk\n", "model.mixer.write must be one of token, chunk, but is the text 'chnuk'; did you mean 'chunk'?"},
      {"kind: x\nwrite: 1\n", "must be one of token, chunk, but is 1"},
      {"kind: 7\n", "recipe.yaml:1: model.mixer.kind must be a text, but is 7"},
      {"kind: x\nshape: 3\n", "model.mixer.shape must be a list of integers from 1 to 100, but is 3"},
      {"kind: x\nshape:\n  - 3\n  - 0\n", "recipe.yaml:4: model.mixer.shape[1] must be an integer from 1 to 100, but is 0"},
      {"kind: x\nbetas: [2]\n", "betas[0] must be a number from 0 to 1, but is 2"},
      {"kind: x\nfiles: [2]\n", "files[0] must be a text, but is 2"},
      {"head_dim: 3\n", "recipe.yaml:1: model.mixer needs the key 'kind': which mixer (a text)"},
      {"kind:\n", "model.mixer needs the key 'kind'"},
      {"[1]", "recipe.yaml:1: model.mixer must be a map of keys and values, but is a list"},
      {"titans", "model.mixer must be a map of keys and values, but is the text 'titans'"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    mixer m;
    CHECK(mn_config_read(arena, yaml(cases[i].text), "model.mixer", mixer_fields, &m) == MN_ERR_CONFIG, "accepted: %s", cases[i].text);
    CHECK(strstr(mn_message(), cases[i].says), "%s\n-> %s\nexpected %s", cases[i].text, mn_message(), cases[i].says);
  }
  block b;
  CHECK(mn_config_read(arena, NULL, "train", block_fields, &b) == MN_ERR_CONFIG, "nothing given");
  CHECK(!strcmp(mn_message(), "train needs the key 'layers': how many (an integer from 1 to 1000)"), "%s", mn_message());
  CHECK(mn_config_read(arena, yaml("layers: 1\nlr: 0\n"), NULL, block_fields, &b) == MN_ERR_CONFIG &&
            strstr(mn_message(), "recipe.yaml:2: lr must be a number above 0, at most 10, but is 0"),
        "%s", mn_message());
  const char *small = NULL;
  CHECK(mn_config_read(arena, yaml("layers: 1\nlr: 1e-300\n"), NULL, block_fields, &b) == MN_ERR_CONFIG &&
            (small = strstr(mn_message(), "recipe.yaml:2: lr is 1e-300, too small")) && !strstr(small, "or 0"),
        "%s", mn_message());
  CHECK_OK(mn_config_read(arena, yaml("layers: 1\nlr: 1.2e-38\nclip: 0\n"), NULL, block_fields, &b));
}

static void faults_name_settings_and_nested_keys(void) {
  const mn_value *v = yaml("train:\n  layers: 2\n"), *w;
  block b;
  CHECK_OK(mn_value_set(arena, v, "train.lr=lots", &w));
  CHECK(mn_config_read(arena, mn_value_get(w, "train"), NULL, block_fields, &b) == MN_ERR_CONFIG, "refused");
  CHECK(strstr(mn_message(), "--set train.lr=lots: train.lr must be a number above 0"), "%s", mn_message());
  CHECK_OK(mn_value_set(arena, v, "train.lrr=1", &w));
  CHECK(mn_config_read(arena, mn_value_get(w, "train"), NULL, block_fields, &b) == MN_ERR_CONFIG &&
            strstr(mn_message(), "--set train.lrr=1: unknown key 'lrr' in train"),
        "%s", mn_message());
  CHECK(mn_config_fail(mn_value_get(v, "train"), NULL, "layers", "times %d is too many", 9) == MN_ERR_CONFIG, "status");
  CHECK(!strcmp(mn_message(), "recipe.yaml:2: train.layers times 9 is too many"), "%s", mn_message());
  mn_config_fail(mn_value_get(v, "train"), NULL, "lr", "is missing");
  CHECK(!strcmp(mn_message(), "recipe.yaml:2: train.lr is missing"), "%s", mn_message());
  mn_config_fail(NULL, "train", "lr", "is wrong");
  CHECK(!strcmp(mn_message(), "train.lr is wrong"), "%s", mn_message());
}

static void structs_come_back_from_json(void) {
  mixer m, n;
  block b, c;
  CHECK_OK(mn_config_read(arena,
                          yaml("kind: \"q\\\"\"\nwindow: 9007199254740993\neta: 0.3\ndropout: 0.7\nwrite: chunk\nshape: [4]\n"
                               "betas: [0.1]\nfiles: [f]\ninner: [1, {a: b}]\ncausal: false\n"),
                          NULL, mixer_fields, &m));
  CHECK_OK(mn_config_read(arena, yaml("layers: 5\n"), NULL, block_fields, &b));
  mn_config_part parts[] = {{mixer_fields, &m}, {block_fields, &b}}, back[] = {{mixer_fields, &n}, {block_fields, &c}};
  const mn_value *v = mn_config_to_value(arena, parts, 2), *again;
  mn_text json = {0};
  CHECK_OK(mn_value_to_json(v, 2, &json));
  CHECK(strstr(json.data, "\"dropout\": 0.7,"), "a float is written with a float's digits: %s", json.data);
  CHECK_OK(mn_json_parse(arena, "config.json", json.data, json.len, &again));
  mn_config_defaults(mixer_fields, &n);
  mn_config_defaults(block_fields, &c);
  CHECK_OK(mn_config_parse(arena, again, NULL, back, 2));
  CHECK(!strcmp(n.kind, "q\"") && n.window == 9007199254740993 && n.eta == 0.3 && n.dropout == 0.7f && n.write == PER_CHUNK && !n.causal &&
            !n.note,
        "scalars");
  CHECK(n.shape.items[0] == 4 && n.betas.items[0] == 0.1 && !strcmp(n.files.items[0], "f"), "lists");
  CHECK(mn_value_equal(m.inner, n.inner), "nested");
  CHECK(c.layers == 5 && c.lr == 1e-3 && isinf(c.clip), "the second table, and an infinity");
  CHECK(mn_value_equal(v, mn_config_to_value(arena, back, 2)), "the same tree again");
  mn_text_free(&json);
}

static void help_is_made_from_the_table(void) {
  mn_text text = {0}, markdown = {0};
  mn_config_help(mixer_fields, MN_HELP_TEXT, &text);
  CHECK(strstr(text.data, "  head_dim  width of a head. (an integer from 1 to 512; default 64)\n"), "%s", text.data);
  CHECK(strstr(text.data, "  kind      which mixer. (a text; required)\n"), "%s", text.data);
  CHECK(strstr(text.data, "one of token, chunk; default token"), "%s", text.data);
  size_t longest = 0;
  for (const char *s = text.data; *s; s += strcspn(s, "\n") + 1) longest = fmax(longest, strcspn(s, "\n"));
  CHECK(longest <= 100, "%zu columns", longest);
  mn_config_help(mixer_fields, MN_HELP_MARKDOWN, &markdown);
  CHECK(strstr(markdown.data, "| `window` | an integer, at least 0 | 0 | tokens seen; 0 is all |\n"), "%s", markdown.data);
  CHECK(strstr(markdown.data, "dropped share \\| of weights"), "a bar in a cell is escaped");
  mn_text_free(&text);
  mn_text_free(&markdown);
}

static void tables_keep_their_rules(void) {
  const mn_field twice[] = {MN_FIELD_INT(block, layers, 1, 1, 2, "x"), MN_FIELD_INT(block, layers, 1, 1, 2, "x"), MN_FIELD_END};
  const mn_field outside[] = {MN_FIELD_INT(block, layers, 3, 1, 2, "x"), MN_FIELD_END};
  const mn_field helpless[] = {MN_FIELD_INT(block, layers, 1, 1, 2, ""), MN_FIELD_END};
  const mn_field wordless[] = {MN_FIELD_ENUM(mixer, write, granularities, 2, "x"), MN_FIELD_END};
  CHECK(mn_fields_check(twice) == MN_ERR_INTERNAL && mn_fields_check(outside) == MN_ERR_INTERNAL, "names and ranges");
  CHECK(mn_fields_check(helpless) == MN_ERR_INTERNAL && mn_fields_check(wordless) == MN_ERR_INTERNAL, "help and words");
  CHECK(mn_field_find(mixer_fields, "eta") == &mixer_fields[3] && !mn_field_find(mixer_fields, "x"), "find");
}

/* Ticks that reading a list of n zeros takes, as text. */
static clock_t ticks_of_zeros(size_t n) {
  mn_arena *a = mn_arena_new();
  const mn_value *v = NULL;
  char *text = malloc(4 * n + 3), *at = text;
  *at++ = '[';
  for (size_t i = 0; i < n; i++) memcpy(at, i + 1 < n ? "0.0," : "0.0]", 4), at += 4;
  const clock_t begin = clock();
  CHECK_OK(mn_json_parse(a, "zeros.json", text, (size_t)(at - text), &v));
  const clock_t end = clock();
  CHECK(v && v->count == n, "%zu numbers", n);
  mn_arena_free(a);
  free(text);
  return end - begin;
}

/* Eight times as many numbers cost about eight times as much; looked for to the end of the text they would cost 64 times. */
static void many_zeros_cost_what_they_are(void) {
  const clock_t few = ticks_of_zeros(50000), many = ticks_of_zeros(400000);
  CHECK(many < 30 * few + CLOCKS_PER_SEC / 20, "%ld ticks, and %ld for eight times as many", (long)few, (long)many);
}

int main(void) {
  arena = mn_arena_new();
  RUN(defaults_come_from_the_table);
  RUN(maps_fill_structs);
  RUN(tables_share_a_map);
  RUN(faults_name_file_line_key_and_expectation);
  RUN(faults_name_settings_and_nested_keys);
  RUN(structs_come_back_from_json);
  RUN(many_zeros_cost_what_they_are);
  RUN(help_is_made_from_the_table);
  RUN(tables_keep_their_rules);
  mn_arena_free(arena);
  return test_end();
}
