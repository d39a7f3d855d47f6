/* What must be true of the public API, seen as a foreign program sees it (mneme.h alone): the examples run; a model trained in
 * steps opens, streams, is saved, loaded and forked; batches are independent streams; generation is reproducible and can be
 * stopped; wrong use is named, and never crashes. */
#include <mneme.h>
#include <mneme_chat.h>
#include <mneme_classify.h>

#include <locale.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scratch.h"
#include "test.h"

#define DIR    "api"
#define MODEL  DIR "/model"
#define RECIPE DIR "/recipe.yaml"

static int sh(const char *command) {
  int status = system(command);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void set_up(void) {
  CHECK(sh("rm -rf " DIR " && mkdir -p " DIR) == 0, DIR);
  FILE *f = fopen(DIR "/text.txt", "w");
  for (int i = 0; f && i < 2000; i++)
    fprintf(f, "%s %s\n", i % 3 ? "it was the best of times," : "it was the worst", i % 2 ? "said he" : "she read");
  if (f) fclose(f);
  f = fopen(RECIPE, "w");
  if (f) {
    fputs("name: api\ntokenizer: {type: bytes}\ndata: {files: [" DIR "/text.txt], validation: 0.1, cache: " DIR "/cache}\n"
          "model: {d_model: 32, layers: 1, block: {mixer: {type: titans_mag, heads: 2, window: 8, chunk: 8}, hidden: 64}}\n"
          "train: {steps: 30, batch: 4, seq_len: 32, optimizer: {lr: 1e-2}, validate_every: 0}\n",
          f);
    fclose(f);
  }
  setenv("MNEME_HOME", DIR, 1);
}

static void the_examples_run(void) {
  CHECK(sh(MN_TEST_BINARY_DIR "/example-train " RECIPE " " MODEL " >" DIR "/train.log 2>&1") == 0, "see " DIR "/train.log");
  CHECK(sh("grep -q 'step 30: loss' " DIR "/train.log") == 0, "see " DIR "/train.log");
  CHECK(sh(MN_TEST_BINARY_DIR "/example-stream " MODEL " " DIR "/s.safetensors <" DIR "/text.txt >" DIR "/stream.log 2>&1") == 0,
        "see " DIR "/stream.log");
  CHECK(sh("grep -q 'tokens read, perplexity' " DIR "/stream.log && grep -q '^It was' " DIR "/stream.log") == 0, "see " DIR "/stream.log");
  if (access(MN_TEST_BINARY_DIR "/api-cpp", X_OK) == 0) /* where there is a C++ compiler */
    CHECK(sh(MN_TEST_BINARY_DIR "/api-cpp " MODEL " | grep -q '^23 '") == 0, "C++");
  CHECK(sh(MN_TEST_BINARY_DIR "/mneme generate --model " MODEL " --prompt it --tokens 5 >/dev/null 2>&1") == 0,
        "the program reads it, too");
}

static void training_lowers_the_loss(void) {
  mn_training *t = NULL;
  double first = 0, last = 0, held_out = 0;
  CHECK_OK(mn_training_new(RECIPE, (const char *const[]){"train.steps=25", NULL}, 1, &t));
  if (!t) return;
  CHECK(mn_training_steps(t) == 25 && mn_training_done(t) == 0, "%lld", (long long)mn_training_steps(t));
  CHECK_OK(mn_training_step(t, &first));
  while (mn_training_done(t) < 25) CHECK_OK(mn_training_step(t, &last));
  CHECK_OK(mn_training_validate(t, &held_out));
  CHECK(last < first - 0.5 && fabs(held_out - last) < 1.5, "%g to %g, held out %g", first, last, held_out);
  mn_training_free(t);
}

typedef struct seen {
  int64_t steps, stop_at;
} seen;
static bool on_step(void *ctx, int64_t step, int64_t steps, double loss, double rate) {
  seen *s = ctx;
  s->steps++;
  CHECK(isfinite(loss) && rate >= 0 && step <= steps, "step %lld", (long long)step);
  return s->steps != s->stop_at;
}

static void a_whole_training_stops_and_resumes(void) {
  seen a = {.stop_at = 4}, b = {0};
  CHECK(mn_lm_train(RECIPE, (const char *const[]){"train.steps=10", NULL}, DIR "/whole", false, on_step, &a) == MN_ERR_CANCELLED, "%s",
        mn_message());
  CHECK_OK(mn_lm_train(RECIPE, (const char *const[]){"train.steps=10", NULL}, DIR "/whole", true, on_step, &b));
  CHECK(a.steps == 4 && b.steps == 6, "%lld and %lld steps", (long long)a.steps, (long long)b.steps);
  mn_lm *lm = NULL;
  CHECK_OK(mn_lm_open(DIR "/whole", 1, &lm));
  mn_lm_free(lm);
}

/* Numbers of this process have a comma from here on; the locale is made where the machine has none. */
static bool with_a_comma(void) {
  char made[4096], number[16];
  if (!setlocale(LC_ALL, "de_DE.UTF-8")) {
    CHECK(getcwd(made, sizeof made - sizeof DIR - 1) != NULL, "no directory");
    strcat(made, "/" DIR);
    if (sh("localedef -i de_DE -f UTF-8 " DIR "/de_DE.UTF-8 >/dev/null 2>&1") != 0 || setenv("LOCPATH", made, 1) != 0) return false;
    const bool set = setlocale(LC_ALL, "de_DE.UTF-8") != NULL;
    unsetenv("LOCPATH"); /* it is loaded; glibc's newlocale leaks a list of such paths at each call */
    if (!set) return false;
  }
  snprintf(number, sizeof number, "%.1f", 1.5);
  return !strcmp(number, "1,5");
}

static void train_and_open(const char *dir, double *loss) {
  mn_training *t = NULL;
  mn_lm *lm = NULL;
  mn_stream *s = NULL;
  char session[64];
  snprintf(session, sizeof session, "%s.session", dir);
  CHECK_OK(mn_training_new(RECIPE, (const char *const[]){"train.optimizer.lr=1.5e-3", "model.norm_eps=2.5e-6", NULL}, 1, &t));
  if (t) CHECK_OK(mn_training_step(t, loss));
  if (t) CHECK_OK(mn_training_save(t, dir));
  mn_training_free(t);
  CHECK_OK(mn_lm_open(dir, 1, &lm));
  if (lm) CHECK_OK(mn_stream_new(lm, NULL, &s));
  if (s) CHECK_OK(mn_stream_generate(s, (int32_t[]){105, 116}, 2, 3, (const char *const[]){"temperature=0.75", NULL}, NULL, NULL));
  if (s) CHECK_OK(mn_stream_save(s, session));
  if (s) CHECK_OK(mn_stream_load(s, session));
  mn_stream_free(s);
  mn_lm_free(lm);
}

static void a_locale_with_a_comma_changes_nothing(void) {
  double point = 0, comma = 1;
  char number[16];
  train_and_open(DIR "/point", &point);
  if (!with_a_comma()) {
    setlocale(LC_ALL, "C");
    printf("skip   no locale with a comma, and no localedef to make one\n");
    return;
  }
  train_and_open(DIR "/comma", &comma);
  snprintf(number, sizeof number, "%.1f", 1.5);
  setlocale(LC_ALL, "C");
  CHECK(!strcmp(number, "1,5"), "the program's own locale was changed: %s", number);
  CHECK(point == comma, "%.9g and %.9g", point, comma);
  CHECK(sh("cmp -s " DIR "/point/config.json " DIR "/comma/config.json") == 0, "the settings that were written differ");
}

static void threads_are_as_many_as_the_program_takes(void) {
  static const int bad[] = {-1, 4097, 100000};
  for (int i = 0; i < 3; i++) {
    mn_lm *lm = NULL;
    mn_training *t = NULL;
    CHECK(mn_lm_open(DIR "/whole", bad[i], &lm) == MN_ERR_ARG && !lm && strstr(mn_message(), "mn_lm_open: threads is"), "%s", mn_message());
    CHECK(mn_training_new(RECIPE, NULL, bad[i], &t) == MN_ERR_ARG && !t && strstr(mn_message(), "4096"), "%s", mn_message());
    mn_lm_free(lm);
    mn_training_free(t);
  }
}

static void outputs_are_tried_before_the_first_step(void) {
  seen a = {0};
  CHECK(mn_lm_train(RECIPE, NULL, DIR "/text.txt/out", false, on_step, &a) == MN_ERR_IO && a.steps == 0, "%lld steps: %s",
        (long long)a.steps, mn_message());
  CHECK(mn_lm_train(RECIPE, NULL, DIR "/text.txt", false, on_step, &a) == MN_ERR_IO && a.steps == 0, "%lld steps: %s", (long long)a.steps,
        mn_message());
}

static void text_and_tokens(void) {
  mn_lm *lm = NULL;
  CHECK_OK(mn_lm_open(MODEL, 1, &lm));
  if (!lm) return;
  int32_t *tokens = NULL;
  size_t n = 0, bytes = 0;
  char *text = NULL;
  CHECK_OK(mn_lm_encode(lm, "caf\xc3\xa9 ", 6, &tokens, &n));
  CHECK_OK(mn_lm_decode(lm, tokens, n, &text, &bytes));
  CHECK(n == 6 && bytes == 6 && text && !strcmp(text, "caf\xc3\xa9 "), "%zu tokens, '%s'", n, text ? text : "");
  mn_release(tokens);
  mn_release(text);
  CHECK_OK(mn_lm_encode(lm, NULL, 0, &tokens, &n));
  CHECK(n == 0 && tokens, "nothing is a text, too");
  mn_release(tokens);
  CHECK(mn_lm_decode(lm, (int32_t[]){-5}, 1, &text, NULL) == MN_ERR_ARG && !text, "%s", mn_message());
  CHECK(mn_lm_vocab_size(lm) >= 256 && mn_lm_parameters(lm) > 1000, "%lld", (long long)mn_lm_parameters(lm));
  mn_lm_free(lm);
}

static void batches_are_independent_streams(void) {
  mn_lm *lm = NULL;
  mn_stream *two = NULL, *one = NULL;
  CHECK_OK(mn_lm_open(MODEL, 1, &lm));
  CHECK_OK(mn_stream_new(lm, (const char *const[]){"batch=2", "segment=16", NULL}, &two));
  CHECK_OK(mn_stream_new(lm, NULL, &one));
  if (!two || !one) return;
  enum { N = 40 };
  int32_t tokens[2 * N];
  for (int i = 0; i < 2 * N; i++) tokens[i] = 32 + i * 7 % 64;
  const float *both, *second;
  CHECK_OK(mn_stream_feed(two, tokens, N, &both));
  CHECK_OK(mn_stream_feed(one, tokens + N, N, &second));
  int64_t vocab = mn_lm_vocab_size(lm);
  double worst = 0;
  for (int64_t i = 0; i < vocab; i++) worst = fmax(worst, fabs((double)both[vocab + i] - (double)second[i]));
  CHECK(worst < 1e-4, "%g", worst);
  CHECK(mn_stream_position(two) == N && mn_stream_state_bytes(two) > mn_stream_state_bytes(one), "position, bytes");
  CHECK(mn_stream_generate(two, tokens, 1, 1, NULL, NULL, NULL) == MN_ERR_ARG, "generation from a batch");
  mn_stream_free(one);
  mn_stream_free(two);
  mn_lm_free(lm);
}

static bool keep(void *ctx, int32_t token, const char *text, size_t bytes) {
  char *all = ctx;
  (void)token;
  CHECK(strlen(text) == bytes, "'%s'", text);
  if (strlen(all) + bytes < 900) strcat(all, text);
  return strlen(all) < 20;
}

static void memory_is_saved_loaded_and_forked(void) {
  mn_lm *lm = NULL;
  mn_stream *s = NULL, *copy = NULL, *other = NULL;
  char a[1000] = "", b[1000] = "", c[1000] = "";
  const char *const settings[] = {"temperature=1", "seed=5", "top_k=20", NULL};
  int32_t prompt[] = {'i', 't', ' '};
  CHECK_OK(mn_lm_open(MODEL, 1, &lm));
  CHECK_OK(mn_stream_new(lm, NULL, &s));
  CHECK_OK(mn_stream_new(lm, NULL, &other));
  if (!s || !other) return;
  CHECK_OK(mn_stream_feed(s, (int32_t[]){'h', 'e', ' ', 'r', 'e', 'a', 'd', ','}, 8, NULL));
  CHECK_OK(mn_stream_save(s, DIR "/memory.safetensors"));
  CHECK_OK(mn_stream_load(other, DIR "/memory.safetensors"));
  CHECK_OK(mn_stream_save(other, DIR "/memory.safetensors")); /* what it has read and written itself */
  CHECK_OK(mn_stream_save(other, DIR "/memory.safetensors"));
  CHECK_OK(mn_stream_save(s, DIR "/memory.safetensors")); /* it was not loaded from there: that file is replaced */
  CHECK(mn_stream_save(other, "./" DIR "/memory.safetensors") == MN_ERR_IO && strstr(mn_message(), "another program has written it"), "%s",
        mn_message());
  CHECK_OK(mn_stream_save(other, DIR "/other.safetensors"));
  CHECK_OK(mn_stream_load(other, DIR "/memory.safetensors"));
  CHECK_OK(mn_stream_save(other, DIR "/memory.safetensors"));
  CHECK_OK(mn_stream_fork(s, &copy));
  CHECK(mn_stream_position(other) == 8 && mn_stream_position(copy) == 8, "positions");
  int n_dims;
  int64_t dims[6];
  const char *name, *type;
  double norm;
  for (int i = 0; i < mn_stream_tensor_count(s); i++) {
    CHECK_OK(mn_stream_tensor(s, i, &name, &type, &n_dims, dims, &norm));
    CHECK(*name && *type && n_dims >= 1 && n_dims <= 6 && isfinite(norm), "%s", name);
  }
  CHECK(mn_stream_tensor(s, 1000, NULL, NULL, NULL, NULL, NULL) == MN_ERR_ARG, "tensor 1000");
  CHECK_OK(mn_stream_generate(s, prompt, 3, 100, settings, keep, a));
  CHECK_OK(mn_stream_generate(other, prompt, 3, 100, settings, keep, b));
  CHECK_OK(mn_stream_generate(copy, prompt, 3, 100, settings, keep, c));
  CHECK(strlen(a) >= 20 && !strcmp(a, b) && !strcmp(a, c), "'%s' '%s' '%s'", a, b, c);
  CHECK_OK(mn_stream_reset(s));
  CHECK(mn_stream_position(s) == 0, "reset");
  float nll[4];
  CHECK_OK(mn_stream_score(s, (int32_t[]){'i', 't', ' ', 'w'}, (int32_t[]){'t', ' ', 'w', -1}, 4, nll));
  CHECK(nll[0] > 0 && nll[2] > 0 && nll[3] == 0, "%g %g %g", (double)nll[0], (double)nll[2], (double)nll[3]);
  mn_stream_free(s);
  mn_stream_free(copy);
  mn_stream_free(other);
  mn_lm_free(lm);
}

static int values_in_callback;
static bool look(void *ctx, int32_t token, const char *text, size_t bytes) {
  const float *v;
  int64_t n;
  (void)token, (void)text, (void)bytes;
  CHECK_OK(mn_stream_report_at(ctx, 0, NULL, &v, &n));
  values_in_callback += n == 1 && v && isfinite(v[0]);
  return true;
}

/* The same numbers however the tokens are cut into calls, and whether they are fed or scored; the results stay what they are. */
static void what_the_model_tells_about_each_token(void) {
  enum { N = 40 };
  mn_lm *lm = NULL;
  mn_stream *two = NULL, *plain = NULL, *fork = NULL;
  CHECK_OK(mn_lm_open(MODEL, 1, &lm));
  CHECK_OK(mn_stream_new(lm, (const char *const[]){"batch=2", "segment=16", NULL}, &two));
  CHECK_OK(mn_stream_new(lm, (const char *const[]){"batch=2", "segment=16", NULL}, &plain));
  if (!two || !plain) return;
  int32_t tokens[2 * N], targets[2 * N];
  for (int i = 0; i < 2 * N; i++) tokens[i] = 32 + i * 7 % 64, targets[i] = 40;
  const char *path = "";
  const float *v = NULL;
  int64_t n = -1;
  CHECK(mn_stream_report_count(two) == 0 && mn_stream_report_at(two, 0, &path, &v, &n) == MN_ERR_ARG && !path && !v && n == 0, "%s",
        mn_message());
  CHECK_OK(mn_stream_report(two, "surprise"));
  CHECK(mn_stream_report_count(two) == 1, "%d", mn_stream_report_count(two));
  CHECK_OK(mn_stream_report_at(two, 0, &path, &v, &n));
  CHECK(path && strstr(path, "layers.0.") && strstr(path, "surprise") && !v && n == 0, "before the first token: %s", path);
  float nll[2][2 * N], told[2 * N];
  CHECK_OK(mn_stream_fork(two, &fork));
  CHECK_OK(mn_stream_score(two, tokens, targets, N, nll[0]));
  CHECK_OK(mn_stream_score(plain, tokens, targets, N, nll[1]));
  CHECK(!memcmp(nll[0], nll[1], sizeof nll[0]), "asking changes no result");
  CHECK_OK(mn_stream_report_at(two, 0, NULL, &v, &n));
  CHECK(v && n == N, "%lld tokens", (long long)n);
  if (v) memcpy(told, v, sizeof told);
  for (int i = 0; i < 2 * N; i++)
    CHECK(isfinite(told[i]) && told[i] >= 0 && (i % N < 2 || told[i] > 0), "token %d: %g", i, (double)told[i]);
  for (int at = 0; fork && at < N; at += 20) { /* 20 tokens of each row at a time */
    int32_t part[40];
    for (int i = 0; i < 40; i++) part[i] = tokens[i / 20 * N + at + i % 20];
    CHECK_OK(mn_stream_feed(fork, part, 20, NULL));
    CHECK_OK(mn_stream_report_at(fork, 0, NULL, &v, &n));
    CHECK(v && n == 20, "%lld tokens", (long long)n);
    for (int i = 0; v && i < 40; i++) {
      double a = (double)v[i], b = (double)told[i / 20 * N + at + i % 20];
      CHECK(fabs(a - b) <= 1e-3 * fabs(b) + 1e-5, "token %d of the part at %d: %g and %g", i, at, a, b);
    }
  }
  CHECK(mn_stream_feed(two, (int32_t[]){1, 100000}, 1, NULL) == MN_ERR_ARG, "no such token");
  CHECK(mn_stream_report_at(two, 0, NULL, &v, &n) == MN_OK && !v && n == 0, "of a call that failed: none");
  CHECK(mn_stream_report(two, "suprise") == MN_ERR_CONFIG && strstr(mn_message(), "surprise") && mn_stream_report_count(two) == 0, "%s",
        mn_message());
  CHECK_OK(mn_stream_report(two, NULL));
  mn_stream_free(two);
  CHECK_OK(mn_stream_new(lm, NULL, &two));
  CHECK_OK(mn_stream_report(two, "surprise"));
  CHECK_OK(mn_stream_generate(two, tokens, 3, 5, (const char *const[]){"seed=1", NULL}, look, two));
  CHECK(values_in_callback >= 1, "a value with each drawn token: %d", values_in_callback);
  mn_stream_free(two);
  mn_stream_free(plain);
  mn_stream_free(fork);
  mn_lm_free(lm);
}

static void wrong_use_is_named(void) {
  mn_lm *lm = NULL;
  mn_stream *s = NULL;
  mn_training *t = NULL;
  CHECK(mn_lm_open(DIR "/nothing", 1, &lm) == MN_ERR_IO && !lm && strstr(mn_message(), "nothing"), "%s", mn_message());
  CHECK(mn_lm_open(NULL, 1, &lm) == MN_ERR_ARG && !lm, "%s", mn_message());
  CHECK(mn_training_new(DIR "/none.yaml", NULL, 1, &t) != MN_OK && !t && strstr(mn_message(), "none.yaml"), "%s", mn_message());
  CHECK(mn_training_new(RECIPE, (const char *const[]){"train.stepz=3", NULL}, 1, &t) == MN_ERR_CONFIG && !t &&
            strstr(mn_message(), "steps"),
        "%s", mn_message());
  CHECK(mn_training_new(RECIPE, (const char *const[]){"model.block.repeat=3", NULL}, 1, &t) == MN_ERR_CONFIG && !t &&
            strstr(mn_message(), "has no effect"),
        "%s", mn_message());
  CHECK(mn_lm_train(RECIPE, (const char *const[]){"modl.d_model=3", NULL}, DIR "/never", false, NULL, NULL) == MN_ERR_CONFIG &&
            strstr(mn_message(), "did you mean 'model'?"),
        "%s", mn_message());
  CHECK_OK(mn_lm_open(MODEL, 1, &lm));
  if (!lm) return;
  CHECK(mn_stream_new(lm, (const char *const[]){"bach=2", NULL}, &s) == MN_ERR_CONFIG && !s && strstr(mn_message(), "batch"), "%s",
        mn_message());
  CHECK_OK(mn_stream_new(lm, NULL, &s));
  CHECK(mn_stream_generate(s, (int32_t[]){1}, 1, 1, (const char *const[]){"temprature=1", NULL}, NULL, NULL) == MN_ERR_CONFIG &&
            strstr(mn_message(), "did you mean 'temperature'?"),
        "%s", mn_message());
  CHECK(mn_stream_feed(s, (int32_t[]){100000}, 1, NULL) == MN_ERR_ARG, "%s", mn_message());
  CHECK(mn_stream_feed(s, NULL, 1, NULL) == MN_ERR_ARG && mn_stream_feed(s, (int32_t[]){1}, 0, NULL) == MN_ERR_ARG, "%s", mn_message());
  CHECK(mn_stream_generate(s, (int32_t[]){1}, 1, 3, (const char *const[]){"temprature=1", NULL}, NULL, NULL) == MN_ERR_CONFIG &&
            strstr(mn_message(), "temperature"),
        "%s", mn_message());
  CHECK(mn_stream_load(s, DIR "/text.txt") == MN_ERR_FORMAT, "%s", mn_message());
  mn_stream_free(s);
  mn_lm_free(lm);
  mn_lm_free(NULL);
  mn_stream_free(NULL);
  mn_training_free(NULL);
  mn_release(NULL);
  CHECK(mn_version()[0] && mn_status_name(MN_ERR_IO)[0], "names");
}

/* Every function, without a handle: refused by its name, a number of nothing, and no result that could be taken for one. */
static void no_handle_is_an_error(void) {
  int32_t ids[] = {1}, *tokens = ids;
  char *text = (char *)ids;
  const char *name = "x", *type = "x";
  const float *logits = (const float *)(const void *)ids;
  float nll[1];
  double d;
  size_t n = 7;
  int64_t told = 7;
  int dims = 7;
  mn_stream *s = (mn_stream *)(void *)ids;
  mn_chat *c = (mn_chat *)(void *)ids;
  mn_lm_free(NULL), mn_stream_free(NULL), mn_training_free(NULL), mn_chat_free(NULL), mn_classifier_free(NULL), mn_release(NULL);
#define REFUSED(call) CHECK((call) == MN_ERR_ARG && !strncmp(mn_message(), #call, strcspn(#call, "(")), "%s", mn_message())
  REFUSED(mn_lm_encode(NULL, "a", 1, &tokens, &n));
  REFUSED(mn_lm_decode(NULL, ids, 1, &text, &n));
  REFUSED(mn_stream_new(NULL, NULL, &s));
  CHECK(!tokens && !text && !n && !s, "what failed gave something");
  s = (mn_stream *)(void *)ids;
  REFUSED(mn_stream_fork(NULL, &s));
  REFUSED(mn_stream_reset(NULL));
  REFUSED(mn_stream_feed(NULL, ids, 1, &logits));
  REFUSED(mn_stream_score(NULL, ids, ids, 1, nll));
  REFUSED(mn_stream_report(NULL, "surprise"));
  REFUSED(mn_stream_report_at(NULL, 0, &name, NULL, &told));
  CHECK(!s && !logits && !name && !told, "what failed gave something");
  name = "x";
  REFUSED(mn_stream_save(NULL, "x"));
  REFUSED(mn_stream_load(NULL, "x"));
  REFUSED(mn_stream_tensor(NULL, 0, &name, &type, &dims, NULL, NULL));
  CHECK(!name && !type && !dims, "what failed gave something");
  REFUSED(mn_stream_generate(NULL, ids, 1, 1, NULL, NULL, NULL));
  REFUSED(mn_training_step(NULL, &d));
  REFUSED(mn_training_validate(NULL, &d));
  REFUSED(mn_training_save(NULL, "x"));
  REFUSED(mn_chat_new(NULL, NULL, NULL, &c));
  CHECK(!c, "what failed gave something");
  c = (mn_chat *)(void *)ids;
  REFUSED(mn_chat_fork(NULL, &c));
  CHECK(!c, "what failed gave something");
  c = (mn_chat *)(void *)ids;
  REFUSED(mn_chat_load(NULL, NULL, "x", &c));
  CHECK(!c, "what failed gave something");
  REFUSED(mn_chat_say(NULL, "a", 1, NULL, NULL, NULL));
  REFUSED(mn_chat_back(NULL, 0));
  REFUSED(mn_chat_save(NULL, "x"));
  REFUSED(mn_classifier_feed(NULL, nll, 1, NULL));
  REFUSED(mn_classifier_judge(NULL, &d));
  REFUSED(mn_classifier_reset(NULL));
  CHECK(!mn_lm_vocab_size(NULL) && !mn_lm_parameters(NULL) && mn_lm_end_token(NULL) == -1 && !mn_stream_report_count(NULL) &&
            !mn_stream_limit(NULL) && !mn_stream_position(NULL) && !mn_stream_state_bytes(NULL) && !mn_stream_tensor_count(NULL) &&
            !mn_training_steps(NULL) && !mn_training_done(NULL) && !mn_chat_turns(NULL) && !mn_chat_tokens_read(NULL) &&
            !mn_classifier_classes(NULL) && !mn_classifier_channels(NULL) && !mn_classifier_position(NULL) &&
            !mn_classifier_is_stream(NULL) && !mn_classifier_label(NULL, 0) && mn_classifier_late(NULL) == -1,
        "numbers of nothing");
#undef REFUSED
  mn_lm *lm = (mn_lm *)(void *)ids;
  CHECK(mn_lm_open("", 1, &lm) == MN_ERR_IO && !lm && strstr(mn_message(), "name of the model is empty"), "%s", mn_message());
  if (mn_lm_open(MODEL, 1, &lm) != MN_OK) return;
  s = (mn_stream *)(void *)ids;
  CHECK(mn_stream_new(lm, (const char *const[]){"batch", NULL}, &s) == MN_ERR_CONFIG && !s && !strstr(mn_message(), "--set"), "%s",
        mn_message());
  CHECK_OK(mn_stream_new(lm, NULL, &s));
  CHECK(mn_stream_load(s, "") == MN_ERR_IO && strstr(mn_message(), "its name is empty"), "%s", mn_message());
  tokens = ids, text = (char *)ids;
  CHECK(mn_lm_encode(lm, NULL, 3, &tokens, &n) == MN_ERR_ARG && !tokens, "%s", mn_message());
  CHECK(mn_lm_decode(lm, NULL, 3, &text, &n) == MN_ERR_ARG && !text, "%s", mn_message());
  name = "x";
  CHECK(mn_stream_tensor(s, 999, &name, NULL, NULL, NULL, NULL) == MN_ERR_ARG && !name, "%s", mn_message());
  mn_stream_free(s);
  mn_lm_free(lm);
}

int main(void) {
  RUN(set_up);
  RUN(the_examples_run);
  RUN(training_lowers_the_loss);
  RUN(a_whole_training_stops_and_resumes);
  RUN(a_locale_with_a_comma_changes_nothing);
  RUN(threads_are_as_many_as_the_program_takes);
  RUN(outputs_are_tried_before_the_first_step);
  RUN(text_and_tokens);
  RUN(batches_are_independent_streams);
  RUN(memory_is_saved_loaded_and_forked);
  RUN(what_the_model_tells_about_each_token);
  RUN(no_handle_is_an_error);
  RUN(wrong_use_is_named);
  return test_end();
}
