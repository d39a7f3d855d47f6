/* What must be true of `mneme eval --task verbatim`: a table for people, a line of JSON for each cell, a picture; models of text and of
 * token ids; the control; what a window cannot hold is said, and every mistake is named with its remedy. */
#include <jansson.h>

#include "base/file.h"
#include "format/tokenizer.h"
#include "model/params.h"
#include "model_fixture.h"
#include "program.h"
#include "scratch.h"

#define DIR  "verbatim-cli"
#define EVAL MNEME "eval --task verbatim --threads 1 "
#define FEW  " --examples 4 --set 'delays=[40]' "

static void make_model(const char *name, const char *text, bool tokenizer) {
  fixture f;
  char path[512];
  mn_tokenizer *tok = NULL;
  if (!fixture_open(&f, 7, "%s", text)) return;
  snprintf(path, sizeof path, DIR "/%s", name);
  CHECK_OK(mn_make_dirs(path));
  CHECK_OK(mn_model_save_dir(f.model, f.params, path));
  CHECK_OK(mn_tokenizer_bytes(NULL, 0, &tok));
  snprintf(path, sizeof path, DIR "/%s/tokenizer.json", name);
  if (tokenizer) CHECK_OK(mn_tokenizer_save(tok, path));
  mn_tokenizer_free(tok);
  fixture_close(&f);
}

static void make_models(void) {
  CHECK(sh("rm -rf %s", DIR) == 0, "%s", out);
  make_model("text", "{vocab_size: 256, d_model: 16, layers: 1, block: {mixer: {type: attention, heads: 2, window: 24}}}", true);
  make_model("short", "{vocab_size: 256, d_model: 16, layers: 1, block: {mixer: {type: attention, heads: 2, max_context: 200}}}", true);
  make_model("ids", "{vocab_size: 512, d_model: 16, layers: 1, block: {mixer: {type: lmu_cell}}}", false);
  make_model("few", "{vocab_size: 300, d_model: 16, layers: 1, block: {mixer: {type: lmu_cell}}}", false);
}

static int lines_of(json_t **line, int most) {
  int n = 0;
  for (char *s = out; *s && n < most; n++) {
    char *end = strchr(s, '\n');
    if (end) *end = 0;
    line[n] = json_loads(s, 0, NULL);
    CHECK(line[n], "no JSON: %s", s);
    if (!end) return n + 1;
    s = end + 1;
  }
  return n;
}

static double number(const json_t *doc, const char *key) { return json_number_value(json_object_get(doc, key)); }
static const char *word(const json_t *doc, const char *key) { return json_string_value(json_object_get(doc, key)); }

static void a_table_shows_every_cell(void) {
  CHECK(sh(EVAL "--model " DIR "/text" FEW "--set 'lists=[arbitrary,semantic]' --set 'lengths=[3,10]' 2>&1") == 0, "%s", out);
  static const char *const there[] = {"arbitrary", "semantic", "repeat",      "permuted",
                                      "novel",     "between",  "4 vignettes", "widest window has 24"};
  for (int i = 0; i < 8; i++) CHECK(strstr(out, there[i]), "no %s: %s", there[i], out);
}

static void json_says_the_same_line_by_line(void) {
  json_t *line[16];
  CHECK(sh(EVAL "--model " DIR "/text" FEW "--set 'contexts=[intact,short]' --seed 3 --json 2>/dev/null") == 0, "%s", out);
  const int n = lines_of(line, 16);
  CHECK(n == 6, "%d lines", n);
  for (int i = 0; i < n; i++) {
    const json_t *interval = json_object_get(line[i], "interval");
    const double low = json_number_value(json_array_get(interval, 0)), high = json_number_value(json_array_get(interval, 1));
    CHECK(!strcmp(word(line[i], "metric"), "repeat_surprisal") && !strcmp(word(line[i], "task"), "verbatim"), "%d", i);
    CHECK(low <= number(line[i], "value") && number(line[i], "value") <= high, "%g in %g to %g", number(line[i], "value"), low, high);
    CHECK(number(line[i], "vignettes") == 4 && number(line[i], "seed") == 3 && number(line[i], "state_bytes") > 0, "%d", i);
    CHECK(json_array_size(json_object_get(line[i], "second_places")) == 10, "a place for each noun");
    CHECK(!strcmp(word(line[i], "second"), i % 3 == 0 ? "repeat" : i % 3 == 1 ? "permuted" : "novel"), "%s", word(line[i], "second"));
    const bool is_short = i >= 3; /* where no delay was asked for */
    CHECK(json_is_null(json_object_get(line[i], "delay")) == is_short &&
              (is_short ? number(line[i], "between") < 25 : number(line[i], "between") > 30),
          "%g", number(line[i], "between"));
    json_decref(line[i]);
  }
}

static void the_same_seed_gives_the_same_numbers(void) {
  static char first[sizeof out];
  CHECK(sh(EVAL "--model " DIR "/ids" FEW "--json 2>/dev/null") == 0, "%s", out);
  strcpy(first, out);
  CHECK(sh(EVAL "--model " DIR "/ids" FEW "--json --batch 16 2>/dev/null") == 0 && !strcmp(first, out), "%s", out);
  CHECK(sh(EVAL "--model " DIR "/ids" FEW "--json --seed 9 2>/dev/null") == 0 && strcmp(first, out) != 0, "another seed, the same numbers");
}

static void pictures_are_drawn(void) {
  CHECK(sh(EVAL "--model " DIR "/ids --examples 4 --set 'delays=[10,40]' --plot " DIR "/d.svg --plot " DIR "/d.png 2>&1") == 0, "%s", out);
  CHECK(sh("grep -c '<svg' " DIR "/d.svg") == 0, "%s", out);
  CHECK(mn_file_exists(DIR "/d.png"), "no png");
  CHECK(sh(EVAL "--model " DIR "/ids --examples 4 --set 'delays=[10]' --plot " DIR "/p.svg 2>&1") == 0, "%s", out);
  CHECK(sh("grep -c '<svg' " DIR "/p.svg") == 0, "%s", out);
}

static void the_control_changes_queries_and_keys(void) {
  json_t *line[2][4];
  for (int k = 0; k < 2; k++) {
    CHECK(sh(EVAL "--model " DIR "/text" FEW "--set 'seconds=[repeat]' --set shuffle=%s --json 2>/dev/null", k ? "true" : "false") == 0,
          "%s", out);
    CHECK(lines_of(line[k], 4) == 1, "%s", out);
  }
  CHECK(json_is_true(json_object_get(line[1][0], "shuffled")) && json_is_false(json_object_get(line[0][0], "shuffled")), "said");
  CHECK(number(line[0][0], "value") != number(line[1][0], "value"), "the same surprisals");
  for (int k = 0; k < 2; k++) json_decref(line[k][0]);
  CHECK(sh(EVAL "--model " DIR "/ids" FEW "--set shuffle=true 2>&1") == 2 && strstr(out, "q_proj"), "%s", out);
}

static void mistakes_are_named(void) {
  static const struct {
    const char *more;
    int code;
    const char *says;
  } bad[] = {
      {"text --set 'delays=[5]'", 2, "21 of this model's tokens"},
      {"short --set 'delays=[40,435]'", 2, "the model holds 200"},
      {"few", 2, "train one on text, or on the task recurring"},
      {"ids --set 'lists=[semantic]'", 2, "reads token ids"},
      {"ids --set 'lists=[semantics]'", 2, "did you mean semantic"},
      {"ids --set 'lengths=[2]'", 2, "lengths"},
      {"ids --set delay=3", 2, "did you mean 'delays'"},
      {"ids --examples 231", 2, "there are 230"},
      {"ids --lengths 3,10", 2, "tasks of text"},
      {"ids --stream", 2, "tasks of token ids"},
      {"ids --tokens 100", 2, "--task stream"},
      {"ids --plot a.jpg", 2, ".png"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    const int code = sh(EVAL "--model " DIR "/%s 2>&1", bad[i].more);
    CHECK(code == bad[i].code && strstr(out, bad[i].says), "%s: %d, %s", bad[i].more, code, out);
  }
  CHECK(sh(EVAL "--model " DIR "/short --forget --examples 2 --set 'delays=[435]' --set 'seconds=[repeat]' 2>&1") == 0, "%s", out);
  CHECK(sh(MNEME "train " MN_TEST_SOURCE_DIR "/recipes/mqar-swa.yaml --set 'data={task: {name: verbatim}}' --out " DIR "/none 2>&1") == 2 &&
            strstr(out, "verbatim"),
        "%s", out);
}

int main(void) {
  setbuf(stdout, NULL);
  make_models();
  RUN(a_table_shows_every_cell);
  RUN(json_says_the_same_line_by_line);
  RUN(the_same_seed_gives_the_same_numbers);
  RUN(pictures_are_drawn);
  RUN(the_control_changes_queries_and_keys);
  RUN(mistakes_are_named);
  sh("rm -rf %s", DIR);
  return test_end();
}
