/* test_compare.c - `mneme compare` shows what the recipes' objectives measure: its columns, the mark of the best and the pictures come
 * from their tables, for classifiers, for language models and for both together. */
#include <fcntl.h>
#include <jansson.h>

#include "base/claim.h"
#include "train_helpers.h"

#define MNEME MN_TEST_BINARY_DIR "/mneme"
#define LEARN "train: {steps: 60, batch: 8%s, optimizer: {lr: %s}, log_every: 10, validate_every: 20}\n"
#define BLOCK "d_model: 16, layers: 1, block: {mixer: {type: attention, heads: 2%s}, hidden: 32}"

static void write_recipe(const char *name, const char *text) {
  char file[80];
  snprintf(file, sizeof file, "%s.yaml", name);
  CHECK_OK(mn_file_write(test_path(file), text, strlen(text)));
}

/* A picture's class is where it is bright. */
static void write_classifier(const char *name, const char *lr) {
  enum { N = 200 };
  static uint8_t image[16 + 16 * N] = {0, 0, 8, 3, 0, 0, 0, N, 0, 0, 0, 4, 0, 0, 0, 4}, label[8 + N] = {0, 0, 8, 1, 0, 0, 0, N};
  for (int i = 0; i < N; i++) {
    label[8 + i] = (uint8_t)(mn_splitmix64((uint64_t)i) % 4);
    for (int k = 0; k < 16; k++) image[16 + 16 * i + k] = k / 8 * 2 + k % 4 / 2 == label[8 + i] ? 200 : 40;
  }
  CHECK_OK(mn_file_write(test_path("p.idx"), (const char *)image, sizeof image));
  CHECK_OK(mn_file_write(test_path("l.idx"), (const char *)label, sizeof label));
  char text[2048];
  snprintf(text, sizeof text,
           "name: %s\ndata: {type: images, images: '%s', labels: '%s', validation: 0.2}\n"
           "model: {type: vision, height: 4, width: 4, patch: 2, num_classes: 4, " BLOCK "}\nobjective: {type: classification}\n" LEARN,
           name, test_path("p.idx"), test_path("l.idx"), ", causal: false", "", lr);
  write_recipe(name, text);
}

static void write_language(const char *name, const char *tokenizer, const char *lr) {
  char text[2048];
  snprintf(text, sizeof text, "name: %s\ntokenizer: {%s}\ndata: {files: ['%s']}\nmodel: {" BLOCK "}\n" LEARN, name, tokenizer,
           test_path("text.txt"), "", ", seq_len: 32", lr);
  write_recipe(name, text);
}

static char *said; /* by the program that ran last, on both streams or on the first */
static int run_compare(const char *what, const char *out, const char *more) {
  char command[3000];
  snprintf(command, sizeof command, "cd '%s' && " MNEME " compare %s --out %s --threads 1 > said %s", test_dir, what, out, more);
  int code = system(command);
  size_t n;
  free(said);
  CHECK_OK(mn_file_read(test_path("said"), 1 << 20, &said, &n));
  return WEXITSTATUS(code);
}

static json_t *row(const char *out, const char *what, int which) {
  char more[] = "--json --quiet";
  CHECK(run_compare(what, out, more) == 0, "%s", said);
  json_error_t e;
  json_t *doc = json_loads(said, 0, &e), *r = json_array_get(json_object_get(doc, "table"), (size_t)which);
  CHECK(r, "%s: %s", e.text, said);
  json_incref(r);
  json_decref(doc);
  return r;
}

static double mean_of(json_t *row, const char *key) {
  json_t *mean = json_object_get(json_object_get(row, key), "mean");
  return json_is_number(mean) ? json_number_value(mean) : (double)NAN;
}
static bool judged(json_t *row, const char *key) { return json_object_get(json_object_get(row, key), "best") != NULL; }
static bool best(json_t *row, const char *key) { return json_is_true(json_object_get(json_object_get(row, key), "best")); }
static bool unit_is(json_t *row, const char *unit) {
  const char *u = json_string_value(json_object_get(row, "unit"));
  return u && !strcmp(u, unit);
}
static void remove_dir(const char *out) {
  char command[700];
  snprintf(command, sizeof command, "rm -rf '%s'", test_path(out));
  CHECK(system(command) == 0, "%s", command);
}
static bool there(const char *out, const char *file) {
  char path[200];
  snprintf(path, sizeof path, "%s/%s", out, file);
  return mn_file_exists(test_path(path));
}

/* One learns and one hardly moves: the higher accuracy is the better, and the lower loss. */
static void classifiers_are_compared_by_accuracy(void) {
  write_classifier("bright", "1e-2");
  write_classifier("dull", "1e-7");
  json_t *dull = row("c0", "dull.yaml bright.yaml", 0), *bright = row("c1", "dull.yaml bright.yaml", 1);
  CHECK(mean_of(bright, "accuracy") > mean_of(dull, "accuracy") && best(bright, "accuracy"), "%g, %g", mean_of(bright, "accuracy"),
        mean_of(dull, "accuracy"));
  CHECK(judged(dull, "accuracy") && !best(dull, "accuracy"), "and the other is not");
  CHECK(mean_of(bright, "validation_loss") < mean_of(dull, "validation_loss") && best(bright, "validation_loss") &&
            !best(dull, "validation_loss"),
        "the lower loss is the better");
  CHECK(unit_is(bright, "images") && mean_of(bright, "tokens_per_second") > 0, "pictures");
  CHECK(!json_object_get(bright, "perplexity") && !json_object_get(bright, "bits_per_byte"), "what no objective has has no column");
  static const char *const pictures[] = {"loss.svg", "validation_loss.png", "validation_accuracy.svg", "validation_accuracy.png"};
  for (size_t i = 0; i < sizeof pictures / sizeof *pictures; i++) CHECK(there("c1", pictures[i]), "%s", pictures[i]);
  CHECK(!there("c1", "validation_bits_per_byte.svg"), "no text, no bits per byte");
  json_decref(dull);
  json_decref(bright);
  CHECK(run_compare("dull.yaml bright.yaml", "c2", "--quiet") == 0, "%s", said);
  CHECK(strstr(said, "accuracy") && strstr(said, "images/s") && !strstr(said, "tokens/s") && strstr(said, "* the best"), "%s", said);
  const char *learnt = strstr(said, "\nbright"), *other = strstr(said, "\ndull");
  CHECK(learnt && other && other < learnt && strcspn(other + 1, "*") > strcspn(other + 1, "\n") &&
            strcspn(learnt + 1, "*") < strcspn(learnt + 1, "\n"),
        "the mark stands in the row of the better: %s", said);
}

static void language_models_are_compared_by_perplexity_and_bits(void) {
  write_language("quick", "type: bytes", "1e-2");
  write_language("slow", "type: bytes", "1e-6");
  json_t *quick = row("l0", "quick.yaml slow.yaml", 0), *slow = row("l1", "quick.yaml slow.yaml", 1);
  static const char *const falling[] = {"validation_loss", "perplexity", "bits_per_byte"};
  for (int i = 0; i < 3; i++)
    CHECK(mean_of(quick, falling[i]) < mean_of(slow, falling[i]) && best(quick, falling[i]) && judged(slow, falling[i]) &&
              !best(slow, falling[i]),
          "%s: %g, %g", falling[i], mean_of(quick, falling[i]), mean_of(slow, falling[i]));
  CHECK(fabs(mean_of(quick, "perplexity") - exp(mean_of(quick, "validation_loss"))) < 1e-9, "exp of the loss");
  CHECK(!json_object_get(quick, "accuracy") && unit_is(quick, "tokens"), "text");
  CHECK(there("l1", "validation_bits_per_byte.svg") && !there("l1", "validation_perplexity.svg") && !there("l1", "validation_accuracy.svg"),
        "curves of what says more than the loss");
  json_decref(quick);
  json_decref(slow);
}

/* Losses of other tokens, or of another objective, are shown and not judged. */
static void what_does_not_compare_is_not_judged(void) {
  write_language("bytes", "type: bytes", "1e-2");
  write_language("pairs", "type: bpe, vocab_size: 270", "1e-2");
  json_t *r = row("t", "bytes.yaml pairs.yaml", 1);
  CHECK(mean_of(r, "validation_loss") > 0 && !judged(r, "validation_loss") && !judged(r, "perplexity"), "tokens differ");
  CHECK(judged(r, "bits_per_byte"), "bytes do not");
  json_decref(r);
  write_classifier("bright", "1e-2");
  r = row("m0", "bytes.yaml bright.yaml", 1);
  CHECK(mean_of(r, "validation_loss") > 0 && !judged(r, "validation_loss"), "objectives differ");
  CHECK(mean_of(r, "accuracy") > 0 && !best(r, "accuracy"), "alone nobody is the best");
  CHECK(json_is_null(json_object_get(r, "perplexity")), "a classifier has none, its neighbour does");
  json_decref(r);
  CHECK(run_compare("bytes.yaml bright.yaml", "m1", "2>&1") == 0, "%s", said);
  CHECK(strstr(said, " tokens/s\n") || strstr(said, " tokens/s "), "%s", said);
  CHECK(strstr(said, " images/s ") && strstr(said, "different objectives"), "every row says its unit: %s", said);
}

/* One that leaves the numbers, in the middle of three: the others are trained and shown, and the end says what is missing. */
static void one_that_fails_does_not_stop_the_others(void) {
  write_language("first", "type: bytes", "1e-2");
  write_language("wild", "type: bytes", "100");
  write_language("last", "type: bytes", "1e-2");
  CHECK(run_compare("first.yaml wild.yaml last.yaml", "f0", "2>&1") == 1, "%s", said);
  CHECK(strstr(said, "wild: ") && strstr(said, "1 of 3 trainings failed") && strstr(said, "the others stand"), "%s", said);
  CHECK(!strstr(said, "-nan"), "what is no number has no sign: %s", said);
  CHECK(strstr(said, "\nfirst ") && strstr(said, "\nlast ") && there("f0", "last/model.safetensors") && there("f0", "validation_loss.svg"),
        "the others are there: %s", said);
  CHECK(run_compare("first.yaml wild.yaml last.yaml", "f1", "--quiet") == 1 && strstr(said, "\nfailed: wild: "), "below the table: %s",
        said);
  remove_dir("f1");
  CHECK(run_compare("first.yaml wild.yaml last.yaml", "f1", "--json --quiet") == 1, "%s", said);
  json_error_t e;
  json_t *doc = json_loads(said, 0, &e), *table = json_object_get(doc, "table"), *runs = json_object_get(doc, "runs");
  CHECK(json_array_size(table) == 3 && mean_of(json_array_get(table, 2), "validation_loss") > 0, "%s: %s", e.text, said);
  CHECK(json_is_null(json_object_get(json_array_get(table, 1), "validation_loss")) &&
            json_is_null(json_object_get(json_array_get(table, 1), "parameters")),
        "nothing is said of one that failed: %s", said);
  CHECK(json_is_string(json_object_get(json_array_get(runs, 1), "error")) && !json_object_get(json_array_get(runs, 0), "error"), "%s",
        said);
  json_decref(doc);
  CHECK(run_compare("wild.yaml", "f2", "2>&1") == 1 && strstr(said, "1 of 1 trainings failed") && !strstr(said, "the others"), "alone: %s",
        said);
}

static void a_picture_of_a_metric_is_no_name(void) {
  write_classifier("Validation_Accuracy.svg", "1e-2");
  CHECK(run_compare("Validation_Accuracy.svg.yaml", "n", "2>&1") != 0 && strstr(said, "as a picture of compare is"), "%s", said);
}

/* Pictures and trainings go into a directory that is nobody's model. */
static void a_models_directory_is_no_place(void) {
  write_language("quick", "type: bytes", "1e-2");
  CHECK(run_compare("quick.yaml", "o", "--quiet") == 0, "%s", said);
  CHECK(run_compare("quick.yaml", "o/quick", "2>&1") == 2 && strstr(said, "o/quick is the directory of a model"), "%s", said);
  CHECK(run_compare("quick.yaml", "o/quick", "--resume 2>&1") == 2 && strstr(said, "choose another --out"), "%s", said);
  CHECK(!there("o/quick", "loss.svg") && !there("o/quick", "quick") && !there("o/quick", ".lock") && there("o/quick", "model.safetensors"),
        "and it is as it was");
  write_language("Recipe.json", "type: bytes", "1e-2");
  CHECK(run_compare("Recipe.json.yaml", "n", "2>&1") == 2 && strstr(said, "as a file of a training is"), "%s", said);
}

static bool lock_is_free(const char *dir) {
  int fd = -1;
  mn_lock_state state = MN_LOCK_NONE;
  const int at = open(test_path(dir), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool mine = at >= 0 && mn_lock_take(at, dir, ".lock", &fd, &state) == MN_OK && state == MN_LOCK_MINE;
  if (mine) unlinkat(at, ".lock", 0), close(fd);
  if (at >= 0) close(at);
  return mine;
}

/* Killed, compare leaves a process that trains: that ends by itself, with a checkpoint, and what goes on at once waits for it. Two at once do
 * not meddle with each other. */
static void one_that_is_killed_goes_on(void) {
  write_language("quick", "type: bytes", "1e-2");
  char command[1000], *other = NULL;
  size_t n;
  snprintf(command, sizeof command,
           "cd '%s'; " MNEME " compare quick.yaml --out k --quiet --set train.steps=1000000 & p=$!; i=0; "
           "until [ -s k/quick/metrics.jsonl ] || [ $((i += 1)) -gt 3000 ]; do sleep 0.02; done; " MNEME
           " compare quick.yaml --out k >other 2>&1; other=$?; kill -KILL $p; wait $p; exit $other",
           test_dir);
  const int code = WEXITSTATUS(system(command));
  CHECK_OK(mn_file_read(test_path("other"), 1 << 16, &other, &n));
  CHECK(code == 1 && strstr(other, "another process is training"), "%d: %s", code, other);
  free(other);
  for (int i = 0; i < 6000 && !lock_is_free("k"); i++) usleep(10000);
  CHECK(lock_is_free("k") && lock_is_free("k/quick") && there("k", "quick/model.safetensors"),
        "the process that trained has ended, and saved");
}

int main(void) {
  test_setup("compare");
  RUN(classifiers_are_compared_by_accuracy);
  RUN(language_models_are_compared_by_perplexity_and_bits);
  RUN(what_does_not_compare_is_not_judged);
  RUN(one_that_fails_does_not_stop_the_others);
  RUN(a_picture_of_a_metric_is_no_name);
  RUN(a_models_directory_is_no_place);
  RUN(one_that_is_killed_goes_on);
  free(said);
  test_cleanup();
  return test_end();
}
