/* Damage and mix-ups: whatever happens to a file that a training wrote, reading it gives what was written, falls back to an
 * older whole, or says which file it is; never another result. */
#include <signal.h>

#include "model/bundle.h"
#include "train/checkpoint.h"
#include "train_helpers.h"

static int64_t stop_at = -1;
static volatile sig_atomic_t stop;

static const char *shrinks; /* at step 5 */

static void on_event(void *ctx, const mn_train_event *e) {
  (void)ctx;
  if (e->kind == MN_EVENT_STEP && e->step == 5 && shrinks) CHECK(truncate(shrinks, 700) == 0, "%s is cut", shrinks);
  if (e->kind == MN_EVENT_STEP && e->step == stop_at) stop = 1;
}

static mn_status train_into(const char *out, bool resume) {
  mn_recipe *r = RECIPE("train.steps=8", "train.checkpoint_every=2", "train.keep_last=2", "train.validate_every=0");
  mn_train_options o = {.out_dir = out, .resume = resume, .threads = 1, .db_path = "", .stop = &stop, .event = on_event};
  mn_train_result unused;
  stop = 0;
  mn_status status = mn_train(r, &o, &unused);
  mn_recipe_free(r);
  return status;
}

static const char *inside(const char *dir, const char *name) {
  static char path[8][1300];
  static int turn;
  char *p = path[turn++ % 8];
  snprintf(p, sizeof path[0], "%s/%s", test_path(dir), name);
  return p;
}

typedef struct bytes {
  char *data;
  size_t n;
} bytes;

static bytes slurp(const char *path) {
  bytes b = {0};
  CHECK_OK(mn_file_read(path, 1 << 24, &b.data, &b.n));
  return b;
}

static void put(const char *path, bytes b) { CHECK_OK(mn_file_write(path, b.data, b.n)); }

static void copy(const char *from, const char *to) { CHECK_OK(mn_file_copy(from, to)); }

/* A run of its own that stands at step 6, with checkpoints of steps 4 and 6; fresh each time. */
static void stopped_run(const char *name) {
  char command[1400];
  snprintf(command, sizeof command, "rm -rf '%s' && cp -r '%s' '%s'", test_path(name), test_path("stopped"), test_path(name));
  CHECK(system(command) == 0, "a copy of the run");
}

static char straight[33];

static void two_runs(void) {
  CHECK_OK(train_into(test_path("straight"), false));
  CHECK_OK(mn_file_hash(inside("straight", "model.safetensors"), straight));
  stop_at = 6;
  CHECK(train_into(test_path("stopped"), false) == MN_ERR_CANCELLED, "interrupted");
  stop_at = -1;
}

/* Resumes what lies in `dir`: 1 it ended with the same bits, 0 it refused, -1 with other bits. */
static int resumed(const char *dir) {
  char hex[33];
  if (train_into(test_path(dir), true) != MN_OK) return 0;
  CHECK_OK(mn_file_hash(inside(dir, "model.safetensors"), hex));
  return strcmp(hex, straight) ? -1 : 1;
}

static void resume_never_gives_other_bits(void) {
  static const char *const names[] = {"checkpoints/step-6/model.safetensors",
                                      "checkpoints/step-6/optimizer.safetensors",
                                      "checkpoints/step-6/trainer.json",
                                      "tokenizer.json",
                                      "config.json",
                                      "recipe.json",
                                      "model.safetensors"};
  for (int f = 0; f < 7; f++) {
    bool weights = f == 0 || f == 1;
    int flips = weights ? 6 : 3, same = 0, refused = 0;
    for (int k = 0; k < flips + 2; k++) {
      stopped_run("mutated");
      bytes b = slurp(inside("mutated", names[f]));
      uint64_t draw = mn_splitmix64((uint64_t)(100 * f + k));
      size_t at = weights && k % 2 ? b.n - 1 - draw % (b.n / 2) : draw % b.n; /* anywhere; every other one surely in the payload */
      if (k < flips) b.data[at] ^= (char)(1 << (draw >> 32) % 8);
      else if (k == flips) b.n = at;
      else memset(b.data + at, 0, b.n - at < 64 ? b.n - at : 64);
      put(inside("mutated", names[f]), b);
      int how = resumed("mutated");
      CHECK(how >= 0, "%s, mutation %d at byte %zu: resumes to other bits", names[f], k, at);
      same += how == 1;
      refused += how == 0;
      free(b.data);
    }
    if (f < 3) CHECK(refused == 0, "%s: the checkpoint before it is taken: %d refused (%s)", names[f], refused, mn_message());
    CHECK(same + refused == flips + 2, "%s: %d the same, %d refused", names[f], same, refused);
  }
}

static void files_of_two_checkpoints_do_not_mix(void) {
  static const char *const names[] = {"model.safetensors", "optimizer.safetensors", "trainer.json"};
  for (int f = 0; f < 3; f++) { /* whole and sound, but of step 4 */
    char from[100], to[100];
    snprintf(from, sizeof from, "checkpoints/step-4/%s", names[f]);
    snprintf(to, sizeof to, "checkpoints/step-6/%s", names[f]);
    stopped_run("mixed");
    copy(inside("mixed", from), inside("mixed", to));
    CHECK(resumed("mixed") == 1, "%s of another step: from the checkpoint before it, to the same bits", names[f]);
    stopped_run("mixed");
    copy(inside("mixed", from), inside("mixed", to));
    CHECK(remove(inside("mixed", "checkpoints/step-4/trainer.json")) == 0, "the older one is none any more");
    CHECK(train_into(test_path("mixed"), true) != MN_OK && strstr(mn_message(), "no checkpoint can be read"), "%s", mn_message());
  }
}

static mn_status open_model(const char *dir) {
  mn_bundle b;
  mn_status status = mn_bundle_open(test_path(dir), 1, &b);
  mn_bundle_close(&b);
  return status;
}

static bytes replaced(bytes b, const char *from, const char *to) {
  char *at = strstr(b.data, from);
  CHECK(at && strlen(from) == strlen(to), "'%s' is in the file", from);
  if (at) memcpy(at, to, strlen(to));
  return b;
}

/* What lies together belongs together. */
static void a_model_has_its_own_description(void) {
  CHECK_OK(open_model("straight"));
  stopped_run("described");
  bytes config = replaced(slurp(inside("described", "config.json")), "\"rope_theta\": 1e+04", "\"rope_theta\": 2e+04");
  put(inside("described", "config.json"), config);
  CHECK(open_model("described") == MN_ERR_FORMAT && strstr(mn_message(), "config.json") && strstr(mn_message(), "checksum"), "%s",
        mn_message());
  /* the line with the checksum goes: an edit by hand, which is used and said */
  char *line = strstr(config.data, "  \"checksum\""), *next = line ? strchr(line, '\n') : NULL;
  CHECK(next != NULL, "a line of its own");
  if (next) memmove(line, next + 1, config.n - (size_t)(next + 1 - config.data)), config.n -= (size_t)(next + 1 - line);
  put(inside("described", "config.json"), config);
  free(config.data);
  CHECK_OK(open_model("described"));

  mn_recipe *r = RECIPE("train.steps=1", "model.block.hidden=96", "train.validate_every=0");
  mn_train_options o = {.out_dir = test_path("other"), .threads = 1, .db_path = ""};
  mn_train_result unused;
  CHECK_OK(mn_train(r, &o, &unused));
  mn_recipe_free(r);
  copy(inside("other", "config.json"), inside("described", "config.json"));
  CHECK(open_model("described") == MN_ERR_CONFIG && strstr(mn_message(), "config.json") && strstr(mn_message(), "model.safetensors"), "%s",
        mn_message());
  copy(inside("straight", "config.json"), inside("described", "config.json"));
  CHECK_OK(open_model("described"));
  bytes tokenizer = slurp(inside("described", "tokenizer.json"));
  tokenizer.data[tokenizer.n - 1] = ' ';
  put(inside("described", "tokenizer.json"), tokenizer);
  free(tokenizer.data);
  CHECK(open_model("described") == MN_ERR_CONFIG && strstr(mn_message(), "tokenizer.json"), "%s", mn_message());
}

/* Runs `mneme ARGUMENTS`; `said` gets what it wrote. */
static int program(char said[4096], const char *fmt, ...) MN_PRINTF(2, 3);
static int program(char said[4096], const char *fmt, ...) {
  char command[4096], arguments[3000];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(arguments, sizeof arguments, fmt, ap);
  va_end(ap);
  snprintf(command, sizeof command, "%s/mneme %s 2>&1", MN_TEST_BINARY_DIR, arguments);
  FILE *f = popen(command, "r");
  size_t n = f ? fread(said, 1, 4095, f) : 0;
  said[n] = 0;
  return f ? pclose(f) : -1;
}

/* The recipe says what was held out, the configuration what inspect shows: those of another run are refused, and what only
 * says how a run is kept may change. */
static void every_verb_wants_the_description_of_the_weights(void) {
  char said[4096];
  stopped_run("verbs");
  CHECK(program(said, "eval --batches 1 --model %s", test_path("verbs")) == 0, "%s", said);
  CHECK(program(said, "inspect --seq-len 32 %s", test_path("verbs")) == 0, "%s", said);
  CHECK(program(said, "train --resume --out %s --set train.log_every=3 --quiet", test_path("verbs")) == 0, "%s", said);
  CHECK(program(said, "eval --batches 1 --model %s", test_path("verbs")) == 0, "another log_every is the same training: %s", said);
  copy(inside("other", "recipe.json"), inside("verbs", "recipe.json"));
  CHECK(program(said, "eval --batches 1 --model %s", test_path("verbs")) != 0 && strstr(said, "recipe.json is not the recipe"), "%s", said);
  copy(inside("other", "config.json"), inside("verbs", "config.json"));
  CHECK(program(said, "inspect --seq-len 32 %s", test_path("verbs")) != 0 && strstr(said, "config.json is not the one"), "%s", said);
}

/* ---- files that shrink under a training ---- */

static const char *the_shard(void) {
  static char path[1300];
  char **names;
  size_t n;
  CHECK_OK(mn_dir_list(test_path("cache"), &names, &n));
  for (size_t i = 0; i < n; i++)
    if (strstr(names[i], ".shard")) snprintf(path, sizeof path, "%s", inside("cache", names[i]));
  mn_dir_list_free(names, n);
  return path;
}

static void a_training_whose_data_shrinks_keeps_what_it_did(void) {
  shrinks = the_shard();
  CHECK(train_into(test_path("shrunk"), false) == MN_ERR_IO && strstr(mn_message(), "cut short") &&
            strstr(mn_message(), "step 5, which is saved"),
        "%s", mn_message());
  shrinks = NULL;
  CHECK(mn_file_exists(inside("shrunk", "checkpoints/step-5/trainer.json")), "its checkpoint");
  CHECK(resumed("shrunk") == 1, "and from there to the same bits");
}

static bool cut_text(void *ctx, const char *file, int64_t done, int64_t total) {
  (void)file, (void)done, (void)total;
  return truncate(ctx, 100) == 0;
}

/* Documents of one file: the text is cut after the first megabyte. */
static void a_text_that_shrinks_while_it_is_tokenised_makes_no_shard(void) {
  bytes text = slurp(test_path("text.txt"));
  mn_text big = {0};
  while (big.len < 4 << 20) {
    mn_text_add_bytes(&big, text.data, text.n);
    mn_text_add(&big, "|");
  }
  CHECK_OK(mn_file_write(test_path("big.txt"), big.data, big.len));
  mn_text_free(&big);
  free(text.data);
  char path[600];
  snprintf(path, sizeof path, "%s", test_path("big.txt"));
  mn_data_config c;
  mn_config_defaults(mn_data_fields, &c);
  const char *files[] = {path};
  c.files = (mn_strings){files, 1};
  c.separator = "|";
  c.cache = test_path("fresh");
  mn_tokenizer *tok;
  mn_corpus *corpus;
  CHECK_OK(mn_tokenizer_bytes(NULL, 0, &tok));
  CHECK(mn_corpus_open(&c, tok, cut_text, path, &corpus) == MN_ERR_IO && strstr(mn_message(), "big.txt was cut short"), "%s", mn_message());
  char **names = NULL;
  size_t n = 0;
  if (mn_file_exists(test_path("fresh"))) CHECK_OK(mn_dir_list(test_path("fresh"), &names, &n));
  for (size_t i = 0; i < n; i++) CHECK(!strstr(names[i], ".shard"), "%s", names[i]);
  mn_dir_list_free(names, n);
  mn_tokenizer_free(tok);
}

/* Every byte of a shard, its footer too, is covered: it is made again. */
static void a_damaged_shard_is_made_again(void) {
  bytes b = slurp(the_shard());
  for (int k = 0; k < 100; k++) { /* the footer of 80 bytes, and some before it */
    size_t at = b.n - 1 - (size_t)k;
    b.data[at] ^= 8;
    put(the_shard(), b);
    b.data[at] ^= 8;
    mn_recipe *r = RECIPE("seed=1");
    mn_trainer *t = NULL;
    if (k % 20 == 0) { /* the whole way now and then */
      CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, NULL, &t));
      mn_trainer_free(t);
    } else {
      mn_tokenizer *tok;
      mn_corpus *c;
      const char *special[] = {"<|endoftext|>"};
      CHECK_OK(mn_tokenizer_bytes(special, 1, &tok));
      CHECK_OK(mn_corpus_open(&r->data, tok, NULL, NULL, &c));
      mn_corpus_close(c);
      mn_tokenizer_free(tok);
    }
    mn_recipe_free(r);
    bytes again = slurp(the_shard());
    CHECK(again.n == b.n && !memcmp(again.data, b.data, b.n), "byte %zu from the end: it is as it was", (size_t)k);
    free(again.data);
  }
  free(b.data);
}

int main(void) {
  setenv("MNEME_LOG", "error", 1);
  test_setup("damage");
  RUN(two_runs);
  RUN(resume_never_gives_other_bits);
  RUN(files_of_two_checkpoints_do_not_mix);
  RUN(a_model_has_its_own_description);
  RUN(every_verb_wants_the_description_of_the_weights);
  RUN(a_training_whose_data_shrinks_keeps_what_it_did);
  RUN(a_text_that_shrinks_while_it_is_tokenised_makes_no_shard);
  RUN(a_damaged_shard_is_made_again);
  test_cleanup();
  return test_end();
}
