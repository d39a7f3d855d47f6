/* test_heard.c - long work looks at the stop flag often enough: who opens models of many tensors, reads long JSON, or renders templates over
 * long texts is asked how often it looks, and ends where a look says so. What counts is looks by size of the work, never time. */
#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "format/json.h"
#include "format/safetensors.h"
#include "format/template.h"
#include "format/wav.h"
#include "model/params.h"
#include "model_fixture.h"
#include "run/session.h"
#include "scratch.h"
#include "test.h"
#include "wav_file.h"

/* The linker puts these between the library and the flag (CMakeLists.txt). */
bool __wrap_mn_stopped(void);
mn_status __wrap_mn_stop_check(const char *what);

static int looks, stop_at; /* looks so far; the one that says stop, 0: none */

bool __wrap_mn_stopped(void) { return ++looks == stop_at || (stop_at && looks > stop_at); }
mn_status __wrap_mn_stop_check(const char *what) {
  return __wrap_mn_stopped() ? mn_fail(MN_ERR_CANCELLED, "interrupted while %s", what) : MN_OK;
}

/* Does the work once, at least `most_looks` looks in it; then again, told to stop at the first look, in the middle and at the last one. */
static void heard(const char *what, int least, mn_status (*work)(const void *ctx), const void *ctx) {
  looks = stop_at = 0;
  CHECK_OK(work(ctx));
  const int all = looks, at[] = {1, (all + 1) / 2, all};
  CHECK(all >= least, "%s: %d looks, at least %d are wanted", what, all, least);
  for (int i = 0; i < 3 && all > 0; i++) {
    looks = 0, stop_at = at[i];
    const mn_status status = work(ctx);
    CHECK(status == MN_ERR_CANCELLED, "%s: told to stop at look %d of %d: %s, %s", what, at[i], all, mn_status_name(status), mn_message());
    CHECK(looks <= at[i] + 8, "%s: went on to look %d behind look %d", what, looks, at[i]);
  }
  stop_at = 0;
}

/* ---- JSON ---- */
static mn_status read_json(const void *ctx) {
  const mn_text *t = ctx;
  mn_arena *arena = mn_arena_new();
  const mn_value *v = NULL;
  const mn_status status = mn_json_parse(arena, "long", t->data, t->len, &v);
  CHECK(status == MN_OK || !v, "a value without a status");
  mn_arena_free(arena);
  return status;
}

static void long_json_is_left(void) {
  mn_text t = {0};
  mn_text_add(&t, "[0");
  for (int i = 0; i < 100000; i++) mn_text_addf(&t, ",{\"k%d\":%d}", i, i);
  mn_text_add(&t, "]");
  heard("JSON", (int)(t.len / (64 << 10)), read_json, &t);
  mn_text_free(&t);
}

/* ---- tensors ---- */
enum { TENSORS = 6000 };

static mn_status open_tensors(const void *ctx) {
  mn_st *st = NULL;
  const mn_status status = mn_st_open(ctx, &st);
  mn_st_close(st);
  return status;
}

static mn_status open_checkpoint(const void *ctx) {
  mn_checkpoint *c = NULL;
  const mn_status status = mn_checkpoint_open(ctx, &c);
  mn_checkpoint_close(c);
  return status;
}

static void files_of_many_tensors_are_left(void) {
  static const float number = 1;
  const mn_shape shape = MN_SHAPE(1);
  static char names[TENSORS][32];
  static const char config[] = "{\"model_type\": \"llama\"}";
  mn_st_writer *w = mn_st_writer_new();
  for (int i = 0; i < TENSORS; i++) {
    snprintf(names[i], sizeof names[i], "model.layers.%d.weight", i);
    CHECK_OK(mn_st_writer_add(w, names[i], MN_F32, &shape, &number));
  }
  CHECK_OK(mn_make_dirs("many"));
  CHECK_OK(mn_st_writer_save(w, "many/model.safetensors"));
  mn_st_writer_free(w);
  CHECK_OK(mn_file_write("many/config.json", config, sizeof config - 1));
  heard("tensors", TENSORS / 1024, open_tensors, "many/model.safetensors");
  heard("a checkpoint", 2 * (TENSORS / 1024), open_checkpoint, "many");
}

/* ---- sounds ---- */
static mn_status hear(const void *ctx) {
  const mn_text *t = ctx;
  mn_wav w;
  const mn_status status = mn_wav_parse("long.wav", t->data, t->len, &w);
  CHECK((status == MN_OK) == (w.samples != NULL), "samples and a status");
  mn_wav_free(&w);
  return status;
}

static void long_sounds_are_left(void) {
  enum { SAMPLES = 1 << 19 };
  mn_text t = {0};
  wav_text(&t, 16000, 440, SAMPLES, 2 * SAMPLES);
  heard("a sound", SAMPLES >> 17, hear, &t);
  mn_text_free(&t);
}

/* ---- templates ---- */
enum { LONG = 2 << 20 };

typedef struct rendering {
  char text[256];
  const mn_value *values;
} rendering;

static mn_status render(const void *ctx) {
  const rendering *r = ctx;
  const mn_template_limits limits = {.memory = (size_t)4 << 30, .steps = (int64_t)1 << 40, .output = (size_t)1 << 30};
  mn_template *t = NULL;
  mn_text out = {0};
  mn_status status = mn_template_parse("chat", r->text, strlen(r->text), &t);
  if (status == MN_OK) status = mn_template_render(t, r->values, &limits, &out);
  CHECK(status == MN_OK || !out.len, "%s: something was written", r->text);
  mn_template_free(t);
  mn_text_free(&out);
  return status;
}

/* One pass over a long text looks at least every MiB, beside the looks of the steps that it is charged with before it begins. */
static void long_passes_of_templates_are_left(void) {
  static const char *const of_words[] = {"x|upper",        "x|lower",      "x|title",           "x|capitalize", "x|e",
                                         "x|tojson",       "x|wordcount",  "x|indent",          "[x]|string",   "x.split()",
                                         "x.splitlines()", "x.casefold()", "x.swapcase()",      "x.title()",    "'%r' % x",
                                         "x|reverse",      "x|list",       "x.replace('', '-')"};
  static const char *const of_letters[] = {"x.isalpha()", "x.islower()", "x.strip('a')", "x|trim('a')",
                                           "x.isalnum()", "x|int(3)",    "x is lower"};
  static const char *const of_digits[] = {"x|float", "x.isdigit()", "x.isnumeric()", "x.isdecimal()"};
  static const struct {
    const char *unit;
    const char *const *parts;
    int n;
  } all[] = {{"Hello w\xc3\xb6rld.\n", of_words, sizeof of_words / sizeof *of_words},
             {"a", of_letters, sizeof of_letters / sizeof *of_letters},
             {"0", of_digits, sizeof of_digits / sizeof *of_digits}};
  for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
    mn_arena *arena = mn_arena_new();
    mn_text x = {0};
    while (x.len < LONG) mn_text_add(&x, all[k].unit);
    const mn_value *text = mn_value_text(arena, x.data);
    const mn_entry entry = {.key = "x", .value = text};
    mn_value map = {.kind = MN_MAP, .count = 1};
    map.as.entries = (mn_entry *)(uintptr_t)&entry;
    rendering charged = {"{% set y = x == x ~ '' %}", &map};
    looks = 0;
    CHECK_OK(render(&charged)); /* reads it as often as a pass does, and goes through no letter of it */
    const int before = looks;
    for (int i = 0; i < all[k].n; i++) {
      rendering r = {"", &map};
      snprintf(r.text, sizeof r.text, "{%% set y = %s %%}", all[k].parts[i]);
      heard(all[k].parts[i], before + LONG / (1 << 20), render, &r);
    }
    mn_text_free(&x);
    mn_arena_free(arena);
  }
}

/* ---- segments ---- */
enum { LAYERS = 12, SEGMENT = 8 };

static const int32_t words[SEGMENT] = {3, 1, 4, 1, 5, 9, 2, 6};

static mn_status feed(const void *ctx) {
  mn_session *const *s = ctx;
  const float *logits;
  CHECK_OK(mn_session_reset(*s));
  return mn_session_feed(*s, words, SEGMENT, &logits);
}

/* Streams that nobody goes on with are left in the midst of a segment, and a reset makes them as new; others before their first change. */
static void segments_of_passing_streams_are_left(void) {
  fixture f;
  if (!fixture_open(&f, 3, "{vocab_size: 16, d_model: 16, layers: %d, block: {mixer: {type: attention, heads: 2}}}", LAYERS)) return;
  float first[16];
  int all[2];
  for (int passing = 0; passing < 2; passing++) {
    mn_session *s = NULL;
    const float *logits;
    CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.batch = 1, .prefill = SEGMENT, .passing = passing}, &s));
    if (!s) break;
    CHECK_OK(feed(&s)); /* compiled */
    heard(passing ? "a passing segment" : "a segment", passing ? 2 * LAYERS : 1, feed, &s);
    looks = 0;
    CHECK_OK(mn_session_reset(s));
    CHECK_OK(mn_session_feed(s, words, SEGMENT, &logits));
    all[passing] = looks;
    if (!passing) memcpy(first, logits, sizeof first);
    CHECK(memcmp(first, logits, sizeof first) == 0, "passing %d: others than before", passing);
    mn_session_free(s);
  }
  CHECK(all[0] * 2 < all[1], "%d looks in a segment, %d in a passing one", all[0], all[1]);
  fixture_close(&f);
}

int main(void) {
  RUN(segments_of_passing_streams_are_left);
  RUN(long_json_is_left);
  RUN(files_of_many_tensors_are_left);
  RUN(long_sounds_are_left);
  RUN(long_passes_of_templates_are_left);
  return test_end();
}
