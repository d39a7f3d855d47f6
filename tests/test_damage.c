/* Damage and mix-ups: whatever happens to a file that a training wrote, reading it gives what was written, falls back to an
 * older whole, or says which file it is; never another result. */
#include <jansson.h>
#include <signal.h>

#include "checkpoint/bundle.h"
#include "train/checkpoint.h"
#include "train/runlog_line.h"
#include "train/runs.h"
#include "train_helpers.h"

static int64_t stop_at = -1;
static atomic_int stop;

static const char *shrinks; /* at step 5 */

static void on_event(void *ctx, const mn_train_event *e) {
  (void)ctx;
  if (e->kind == MN_EVENT_STEP && e->step == 5 && shrinks) CHECK(truncate(shrinks, 700) == 0, "%s is cut", shrinks);
  if (e->kind == MN_EVENT_STEP && e->step == stop_at) stop = 1;
}

static mn_status train_into(const char *out, bool resume) {
  mn_recipe *r = RECIPE("train.steps=8", "train.checkpoint_every=2", "train.keep_last=2", "train.validate_every=0");
  mn_train_options o = {.out_dir = out, .resume = resume, .threads = 1, .db_path = "", .watch = {.stop = &stop}, .event = on_event};
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

/* Two flipped bits in the name of the member that would have told. */
static void misspell_the_checksum(const char *from, const char *to) {
  char *text;
  size_t n;
  CHECK_OK(mn_file_read(from, 1 << 20, &text, &n));
  char *at = text ? strstr(text, "\"checksum\"") : NULL;
  CHECK(at, "%s has a checksum", from);
  if (at) memcpy(at, "\"checkswm\"", 10);
  CHECK_OK(mn_file_write(to, text, n));
  free(text);
}

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
                                      "model.safetensors",
                                      "metrics.jsonl"};
  for (int f = 0; f < 8; f++) {
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
    if (f == 7) CHECK(refused == 0, "%s: no record is worth a training: %d refused (%s)", names[f], refused, mn_message());
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
  mn_status status = mn_bundle_open(test_path(dir), NULL, 1, &b);
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
  misspell_the_checksum(inside("other", "recipe.json"), inside("verbs", "recipe.json"));
  CHECK(program(said, "inspect --seq-len 32 %s", test_path("verbs")) != 0 && strstr(said, "unknown key 'checkswm'"), "%s", said);
  misspell_the_checksum(inside("other", "config.json"), inside("verbs", "config.json"));
  CHECK(program(said, "inspect --seq-len 32 %s", test_path("verbs")) != 0 && strstr(said, "unknown key 'checkswm'"), "%s", said);
  copy(inside("other", "recipe.json"), inside("verbs", "recipe.json"));
  copy(inside("other", "config.json"), inside("verbs", "config.json"));
  CHECK(program(said, "inspect --seq-len 32 %s", test_path("verbs")) != 0 && strstr(said, "config.json is not the one"), "%s", said);
}

/* A text of numbers, and a teacher: what a model was trained on is what it is judged by and goes on with, or it is said. */
static void what_was_learned_from_is_still_the_same(void) {
  char said[4096];
  mn_text csv = {0}, more = {0};
  for (int i = 0; i < 400; i++)
    mn_text_addf(&csv, "%d,%d\n", i * 37 % 101, i % 7), mn_text_addf(&more, "%d,%d\n", i * 37 % 101 + 50, i % 7);
  CHECK_OK(mn_file_write(test_path("series.csv"), csv.data, csv.len));
  static const char series[] =
      "train %s --quiet --out %s --set 'data={type: series, file: %s, header: false, input: 16, horizon: 8}' "
      "--set 'model={type: forecaster, context: 16, horizon: 8, channels: 2, patch: 8, d_model: 16, layers: 1, block: "
      "{mixer: {type: attention, heads: 2, causal: false}}}' --set objective.type=regression --set train.seq_len=16 "
      "--set train.steps=%d %s";
  CHECK(program(said, series, test_path("recipe.yaml"), test_path("series"), test_path("series.csv"), 2, "") == 0, "%s", said);
  CHECK(program(said, "eval --model %s", test_path("series")) == 0, "%s", said);
  CHECK_OK(mn_file_write(test_path("series.csv"), more.data, more.len));
  CHECK(program(said, "eval --model %s", test_path("series")) != 0 && strstr(said, "is not what the model was trained on"), "%s", said);
  CHECK(program(said, series, test_path("recipe.yaml"), test_path("series"), test_path("series.csv"), 4, "--resume") != 0 &&
            strstr(said, "not what it began with"),
        "%s", said);
  static const char pupil[] = "train %s --quiet --out %s --set 'objective={type: distillation, teacher: %s}' --set train.steps=%d %s";
  CHECK(program(said, pupil, test_path("recipe.yaml"), test_path("pupil"), test_path("stopped"), 2, "") == 0, "%s", said);
  CHECK(program(said, pupil, test_path("recipe.yaml"), test_path("pupil"), test_path("stopped"), 3, "--resume") == 0, "%s", said);
  CHECK(program(said, "eval --batches 1 --model %s", test_path("pupil")) == 0, "%s", said);
  bytes was = slurp(inside("stopped", "model.safetensors"));
  copy(inside("stopped", "checkpoints/step-4/model.safetensors"), inside("stopped", "model.safetensors"));
  CHECK(program(said, "eval --batches 1 --model %s", test_path("pupil")) != 0 && strstr(said, "or a teacher, has changed"), "%s", said);
  CHECK(program(said, pupil, test_path("recipe.yaml"), test_path("pupil"), test_path("stopped"), 4, "--resume") != 0 &&
            strstr(said, "or a teacher, has changed"),
        "%s", said);
  put(inside("stopped", "model.safetensors"), was);
  free(was.data);
  mn_text_free(&csv);
  mn_text_free(&more);
}

/* ---- the log ---- */

/* The sound lines of a log, and how many are not. */
static int sound_lines(bytes log, const char *identity, mn_text *sound) {
  mn_loglines l = {.text = log.data, .size = log.n, .identity = identity};
  int others = 0;
  for (size_t began = 0; mn_loglines_next(&l); began = l.at) {
    if (l.kind == MN_LOGLINE_SOUND) mn_text_add_bytes(sound, log.data + began, l.at - began);
    else others++;
    others += l.missing > 0;
  }
  return others;
}

static void a_line_of_a_log_is_what_was_written_or_none(void) {
  mn_text log = {0};
  size_t end[7] = {0}, longest = 0;
  for (int i = 1; i <= 6; i++) {
    char *line = mn_logline_write(json_pack("{s:i,s:f}", "step", i, "loss", 3.25 / i), "this run", i);
    mn_text_addf(&log, "%s\n", line ? line : "");
    free(line);
    end[i] = log.len;
    if (end[i] - end[i - 1] > longest) longest = end[i] - end[i - 1];
  }
  mn_text whole = {0};
  CHECK(sound_lines((bytes){log.data, log.len}, "this run", &whole) == 0 && whole.len == log.len, "as it was: all six");
  mn_text_free(&whole);
  CHECK(sound_lines((bytes){log.data, log.len}, "another", &whole) == 6 && whole.len == 0, "of another run: none");
  mn_text_free(&whole);
  for (size_t i = 0; i < log.len * 8; i++) {
    log.data[i / 8] ^= (char)(1 << i % 8);
    mn_text sound = {0};
    int others = sound_lines((bytes){log.data, log.len}, "this run", &sound);
    log.data[i / 8] ^= (char)(1 << i % 8);
    size_t lost = log.len - sound.len, at = 0;
    bool last = i / 8 + 1 == log.len; /* its end: no line any more, as after a kill */
    CHECK((others > 0 || last) && lost > 0 && lost <= 2 * longest, "bit %zu: %zu bytes are left out, %d named", i, lost, others);
    for (int k = 1; k <= 6; k++) { /* each of what is left is a line of the log, in its place */
      size_t n = end[k] - end[k - 1];
      if (sound.len - at >= n && !memcmp(log.data + end[k - 1], sound.data + at, n)) at += n;
    }
    CHECK(at == sound.len, "bit %zu: '%.*s'", i, (int)(sound.len - at), sound.data + at);
    mn_text_free(&sound);
  }
  mn_text_free(&log);
}

typedef enum log_change { DIGIT, CUT_OUT, TWICE, SWAPPED, FOREIGN, OLD, N_CHANGES } log_change;

/* The third line of a log, changed. */
static bytes changed(bytes log, log_change how, bytes other) {
  mn_text out = {0};
  size_t at[5] = {0};
  for (int i = 1; i < 5; i++) at[i] = (size_t)((char *)memchr(log.data + at[i - 1], '\n', log.n - at[i - 1]) - log.data) + 1;
  const char *third = log.data + at[2];
  size_t n = at[3] - at[2];
  mn_text_add_bytes(&out, log.data, at[2]);
  if (how == SWAPPED) mn_text_add_bytes(&out, log.data + at[3], at[4] - at[3]);
  if (how == FOREIGN) mn_text_add_bytes(&out, other.data, (size_t)((char *)memchr(other.data, '\n', other.n) - other.data) + 1);
  if (how != CUT_OUT) mn_text_add_bytes(&out, third, n);
  if (how == TWICE) mn_text_add_bytes(&out, third, n);
  if (how == DIGIT) {
    char *loss = strstr(out.data + at[2], "\"loss\":") + 7;
    *loss = *loss == '9' ? '8' : '9';
  }
  mn_text_add_bytes(&out, log.data + at[how == SWAPPED ? 4 : 3], log.n - at[how == SWAPPED ? 4 : 3]);
  if (how != OLD) return (bytes){out.data, out.len};
  mn_text bare = {0}; /* as an older program wrote it */
  for (char *line = strtok(out.data, "\n"); line; line = strtok(NULL, "\n"))
    mn_text_addf(&bare, "%.*s}\n", (int)(strstr(line, ",\"line\"") - line), line);
  mn_text_free(&out);
  return (bytes){bare.data, bare.len};
}

/* A database made anew from the log has what the training measured and nothing else; what it leaves out is named. */
static void a_record_that_was_changed_is_named_and_left_out(void) {
  static const struct {
    const char *says;
    int lost;
  } expect[N_CHANGES] = {[DIGIT] = {":3: the line is damaged, or of another run", 1},
                         [CUT_OUT] = {":3: before this line 1 is missing", 1},
                         [TWICE] = {":4: the line is not in its place, or there a second time", 0},
                         [SWAPPED] = {":3: the line is not in its place, or there a second time", 1},
                         [FOREIGN] = {":3: the line is damaged, or of another run", 0},
                         [OLD] = {"", 0}};
  char said[4096], db[1300];
  bytes other = slurp(inside("other", "metrics.jsonl")), all = slurp(inside("straight", "metrics.jsonl"));
  double loss[9] = {0};
  char *line = all.data;
  for (char *end; (end = strchr(line, '\n')); line = end + 1) {
    json_t *r = json_loadb(line, (size_t)(end - line), 0, NULL);
    if (json_object_get(r, "loss")) loss[json_integer_value(json_object_get(r, "step"))] = json_number_value(json_object_get(r, "loss"));
    json_decref(r);
  }
  setenv("MNEME_LOG", "warn", 1);
  for (int how = 0; how < N_CHANGES; how++) {
    stopped_run("logged");
    bytes log = slurp(inside("logged", "metrics.jsonl")), b = changed(log, (log_change)how, other);
    put(inside("logged", "metrics.jsonl"), b);
    snprintf(db, sizeof db, "%s", test_path("logged.db"));
    remove(db);
    CHECK(program(said, "train --resume --threads 1 --quiet --db %s --out %s", db, test_path("logged")) == 0, "%s", said);
    CHECK(*expect[how].says ? strstr(said, expect[how].says) != NULL : !strstr(said, "metrics.jsonl"), "change %d: %s", how, said);
    mn_runs *runs;
    mn_arena *arena = mn_arena_new();
    mn_metric_series s = {0};
    CHECK_OK(mn_runs_open(db, false, &runs));
    CHECK_OK(mn_run_series(runs, arena, 1, "loss", &s));
    CHECK(s.n == (size_t)(8 - expect[how].lost), "change %d: %zu of 8 steps", how, s.n);
    for (size_t i = 0; i < s.n; i++)
      CHECK(fabs(s.value[i] - loss[(int)s.step[i]]) < 1e-12, "change %d: step %g: %g", how, s.step[i], s.value[i]);
    mn_runs_close(runs);
    mn_arena_free(arena);
    free(log.data);
    free(b.data);
  }
  setenv("MNEME_LOG", "error", 1);
  free(all.data);
  free(other.data);
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
  char *log = NULL;
  size_t n;
  CHECK_OK(mn_file_read(inside("shrunk", "metrics.jsonl"), 1 << 20, &log, &n));
  CHECK(log && strstr(log, "\"step\":5,") && !strstr(log, "\"loss\":0.0,"), "a step that was not taken has no loss: %s", log);
  free(log);
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
  CHECK(mn_corpus_open(&c, tok, &(mn_watch){.progress = cut_text, .ctx = path}, &corpus) == MN_ERR_IO &&
            strstr(mn_message(), "big.txt was cut short"),
        "%s", mn_message());
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
      CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, &t));
      mn_trainer_free(t);
    } else {
      mn_tokenizer *tok;
      mn_corpus *c;
      const char *special[] = {"<|endoftext|>"};
      CHECK_OK(mn_tokenizer_bytes(special, 1, &tok));
      CHECK_OK(mn_corpus_open(&r->data, tok, NULL, &c));
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
  RUN(what_was_learned_from_is_still_the_same);
  RUN(a_line_of_a_log_is_what_was_written_or_none);
  RUN(a_record_that_was_changed_is_named_and_left_out);
  RUN(a_training_whose_data_shrinks_keeps_what_it_did);
  RUN(a_text_that_shrinks_while_it_is_tokenised_makes_no_shard);
  RUN(a_damaged_shard_is_made_again);
  test_cleanup();
  return test_end();
}
