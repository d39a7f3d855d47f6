/* What must be true of a backend whose memory the host cannot read (apart.h): training, evaluation, streams, sessions and `apply` run
 * on it and give the bits of the backend whose kernels it calls; two backends are open at once, and states and sessions go from one to
 * the other. Every command runs in a process of its own, which ends there when anything above the backend looks into a tensor. */
#include <signal.h>
#include <sys/wait.h>

#include "apart.h"
#include "base/file.h"
#include "cli/cli.h"
#include "format/safetensors.h"
#include "format/yaml.h"
#include "run/session.h"
#include "scratch.h"
#include "small_mixers.h"

/* ---- whatever backend the library opens ---- */
static bool is_apart;          /* it lies apart                      */
static const char *of_backend; /* and is over this one; NULL: what was asked for */

mn_status __real_mn_backend_open(const char *name, int threads, mn_backend **out);
mn_status __wrap_mn_backend_open(const char *name, int threads, mn_backend **out);
mn_status __wrap_mn_backend_open(const char *name, int threads, mn_backend **out) {
  if (of_backend && strcmp(of_backend, "ref") == 0) threads = 1;
  MN_TRY(__real_mn_backend_open(of_backend ? of_backend : name, threads, out));
  if (!is_apart) return MN_OK;
  *out = apart_over(*out);
  return *out ? mn_file_write("was-apart", "", 0) : MN_ERR_MEMORY;
}

/* ---- commands ---- words apart by one space; what it prints goes to the file NAME. The exit code; 128 + the signal that ended it. */
static int mneme(bool apart, const char *backend, const char *printed, const char *fmt, ...) MN_PRINTF(4, 5);
static int mneme(bool apart, const char *backend, const char *printed, const char *fmt, ...) {
  char text[2000], *argv[64] = {"mneme"};
  int argc = 1;
  va_list ap;
  va_start(ap, fmt);
  const int length = vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  if (length < 0 || (size_t)length >= sizeof text) return 128;
  for (char *word = strtok(text, " "); word && argc < 63; word = strtok(NULL, " ")) argv[argc++] = word;
  fflush(NULL);
  const pid_t child = fork();
  if (child == 0) {
    is_apart = apart;
    of_backend = backend;
    if (!freopen(printed, "w", stdout) || !freopen("errors", "w", stderr)) _exit(99);
    setenv("MNEME_HOME", scratch_dir, 1);
    const int code = mn_cli_main(argc, argv, mn_verbs, mn_n_verbs);
    fflush(NULL);
    _exit(code);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) return 128;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static char *text_of(const char *name) {
  char *text = NULL;
  size_t n;
  return mn_file_read(name, 1 << 24, &text, &n) == MN_OK ? text : NULL;
}

static void same_tensors(const char *a, const char *b, const char *what) {
  mn_st *st[2] = {NULL, NULL};
  CHECK_OK(mn_st_open(a, &st[0]));
  CHECK_OK(mn_st_open(b, &st[1]));
  CHECK(st[0] && st[1] && mn_st_count(st[0]) > 0 && mn_st_count(st[0]) == mn_st_count(st[1]), "%s", what);
  for (int i = 0; st[0] && st[1] && i < mn_st_count(st[0]); i++) {
    const mn_st_tensor *t = mn_st_at(st[0], i), *u = mn_st_find(st[1], t->name);
    CHECK(u && t->bytes == u->bytes && memcmp(t->data, u->data, t->bytes) == 0, "%s: %s differs", what, t->name);
  }
  for (int k = 0; k < 2; k++) mn_st_close(st[k]);
}

/* The command with the backend as it is and apart, %s in it being "plain" and "apart": both succeed. */
static bool both(const char *backend, const char *fmt_plain, const char *fmt_apart, const char *what) {
  bool ok = true;
  for (int k = 0; k < 2; k++) {
    remove("was-apart");
    const int code = mneme(k, backend, k ? "printed-apart" : "printed-plain", "%s", k ? fmt_apart : fmt_plain);
    char *errors = text_of("errors");
    CHECK(code == 0, "%s, %s: %d: %s", what, k ? "apart" : "plain", code, errors ? errors : "");
    CHECK((access("was-apart", F_OK) == 0) == k, "%s: the backend was not the one to be tested", what);
    ok = ok && code == 0;
    free(errors);
  }
  return ok;
}
#define BOTH(backend, what, ...) both_of(backend, what, (const char *[2]){"plain", "apart"}, __VA_ARGS__)
static bool both_of(const char *backend, const char *what, const char *const as[2], const char *fmt) {
  char command[2][2000]; /* every @ is the name of the place */
  for (int k = 0; k < 2; k++) {
    size_t n = 0;
    for (const char *c = fmt; *c && n + 8 < sizeof command[0]; c++)
      if (*c == '@') n += (size_t)snprintf(command[k] + n, sizeof command[0] - n, "%s", as[k]);
      else command[k][n++] = *c;
    command[k][n] = 0;
  }
  return both(backend, command[0], command[1], what);
}

static void write_file(const char *name, const char *text) { CHECK_OK(mn_file_write(name, text, strlen(text))); }

static void the_host_cannot_read_it(void) {
  mn_backend *b = apart_over(mn_backend_ref());
  CHECK(b != NULL, "made");
  if (!b) return;
  volatile float *p = b->alloc(b, 64);
  float one = 1, back = 0;
  CHECK_OK(b->upload(b, (void *)p, &one, sizeof one));
  CHECK_OK(b->download(b, &back, (void *)p, sizeof back));
  CHECK(back == 1, "up and down");
  CHECK(b->upload(b, &back, &one, sizeof one) == MN_ERR_INTERNAL && b->copy(b, (void *)p, &one, 4) == MN_ERR_INTERNAL,
        "memory of the host");
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
    _exit(p[0] == 1);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && !(WIFEXITED(status) && WEXITSTATUS(status) <= 1), "a read by the host ends the process");
  b->free(b, (void *)p, 64);
  CHECK(apart_of(b)->bytes_alive == 0, "all is given back");
  mn_backend_free(b);
}

/* ---- apply: every system, as a stream with gradients ---- */
static void apply_gives_the_same_bits(void) {
  enum { ROWS = 2, T = 6, WIDTH = 8 };
  const mn_shape shape = MN_SHAPE(ROWS, T, WIDTH);
  float x[ROWS * T * WIDTH];
  for (int i = 0; i < ROWS * T * WIDTH; i++) x[i] = (float)mn_random_normal(3, 1, (uint64_t)i);
  mn_st_writer *w = mn_st_writer_new();
  CHECK_OK(mn_st_writer_add(w, "x", MN_F32, &shape, x));
  CHECK_OK(mn_st_writer_save(w, "x.safetensors"));
  mn_st_writer_free(w);
  for (int i = 0; i < MN_SMALL_MIXERS; i++) {
    char recipe[700];
    snprintf(recipe, sizeof recipe, "d_model: 8\nmixer: %s\n", mn_small_mixers[i]);
    write_file("r.yaml", recipe);
    const char *backend = i % 2 ? "ref" : "cpu"; /* each system's other form has the other */
    if (!BOTH(backend, mn_small_mixers[i],
              "apply r.yaml --threads 2 --input x.safetensors --output y-@.safetensors --grad --state-out s-@.safetensors --params-out "
              "p-@.safetensors"))
      continue;
    same_tensors("y-plain.safetensors", "y-apart.safetensors", mn_small_mixers[i]);
    same_tensors("s-plain.safetensors", "s-apart.safetensors", mn_small_mixers[i]);
    same_tensors("p-plain.safetensors", "p-apart.safetensors", mn_small_mixers[i]);
    if (i % 4) continue;
    BOTH(backend, mn_small_mixers[i],
         "apply r.yaml --input x.safetensors --params p-@.safetensors --state-in s-@.safetensors --output z-@.safetensors");
    same_tensors("z-plain.safetensors", "z-apart.safetensors", mn_small_mixers[i]);
  }
}

/* ---- models: trained, resumed, evaluated, streamed, generated from ---- */
static const struct {
  const char *name, *backend, *recipe, *more; /* more: to be streamed and generated from too */
} trainings[] = {
    {"attention and a recurrence, carried state", NULL,
     "tokenizer: {type: bytes}\ndata: {files: [text.txt], order: sequential}\nmodel: {d_model: 16, blocks: [{mixer: {type: attention, heads: 2, window: 6}, hidden: 24}, "
     "{mixer: {type: gated_deltanet, heads: 2, chunk: 4}, hidden: 24}]}\n"
     "train: {steps: 6, batch: 2, seq_len: 16, carry_state: true, validate_every: 3, checkpoint_every: 3, optimizer: {lr: 1e-2}}\n",
     "text"},
    {"a fast memory, by the reference", "ref",
     "tokenizer: {type: bytes}\ndata: {files: [text.txt]}\nmodel: {d_model: 8, layers: 1, block: {mixer: {type: titans_mag, heads: 2, memory_net: linear, chunk: 4, "
     "window: 4, persistent: 2}, hidden: 8}}\n"
     "train: {steps: 3, batch: 2, seq_len: 8, validate_every: 3, validation_batches: 1, checkpoint_every: 2, optimizer: {lr: 1e-2}}\n",
     NULL},
    {"a source and a target", NULL,
     "tokenizer: {type: bytes}\ndata: {type: pairs, task: {name: number_words}, source_len: 80, target_len: 96}\n"
     "model: {type: encoder_decoder, d_model: 8, max_source: 80, layers: 1, block: {mixer: "
     "{type: aaren, heads: 2}, hidden: 16}, encoder: {layers: 1, block: {mixer: {type: attention, heads: 2, causal: false}, hidden: 16}}}\n"
     "objective: {type: next_token}\ntrain: {steps: 4, batch: 2, validate_every: 2, validation_batches: 1, checkpoint_every: 2, optimizer: {lr: 1e-2}}\n",
     NULL},
};

static void write_text(void) {
  static const char *const words[] = {"the ", "whale ", "sea ", "ship ", "and ", "of ", "old ", "far.\n"};
  mn_text text = {0};
  for (uint64_t i = 0, x = 1; i < 1500; i++) mn_text_add(&text, words[(x = mn_splitmix64(x)) % 8]);
  CHECK_OK(mn_file_write("text.txt", text.data, text.len));
  mn_text_free(&text);
}

static void same_printed(const char *what) {
  char *a = text_of("printed-plain"), *b = text_of("printed-apart");
  CHECK(a && b && *a && strcmp(a, b) == 0, "%s: '%s' and '%s'", what, a ? a : "", b ? b : "");
  free(a);
  free(b);
}

static void training_gives_the_same_bits(void) {
  write_text();
  for (size_t i = 0; i < sizeof trainings / sizeof *trainings; i++) {
    const char *name = trainings[i].name, *backend = trainings[i].backend;
    write_file("r.yaml", trainings[i].recipe);
    CHECK(system("rm -rf run-plain run-apart") == 0, "cleared");
    if (!BOTH(backend, name, "train r.yaml --threads 2 --out run-@ --quiet")) continue;
    same_tensors("run-plain/model.safetensors", "run-apart/model.safetensors", name);
    if (!trainings[i].more) continue;
    if (BOTH(backend, name, "train r.yaml --threads 2 --out run-@ --resume --set train.steps=8 --quiet"))
      same_tensors("run-plain/model.safetensors", "run-apart/model.safetensors", name);
    if (BOTH(backend, name, "generate --model run-@ --prompt old --tokens 20 --temperature 1 --seed 5")) same_printed("generate");
    if (BOTH(backend, name, "stream --model run-@ text.txt --session-out session-@ --quiet"))
      same_tensors("session-plain", "session-apart", "stream");
    if (BOTH(backend, name, "stream --model run-@ text.txt --session-in session-@ --session-out again-@ --quiet"))
      same_tensors("again-plain", "again-apart", "stream, gone on");
    if (BOTH(backend, name, "eval --model run-@ --data text.txt --batches 2")) same_printed("eval");
  }
}

/* ---- sessions, on two backends at once ---- */
typedef struct stream_of {
  mn_backend *backend;
  mn_params *params;
  mn_session *session;
} stream_of;

static bool open_stream(stream_of *s, const mn_model *model, bool apart, uint64_t seed) {
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  *s = (stream_of){.backend = apart && cpu ? apart_over(cpu) : cpu};
  if (s->backend) CHECK_OK(mn_params_new(model, s->backend, MN_F32, seed, &s->params));
  if (s->params) CHECK_OK(mn_session_new(model, s->params, &(mn_session_config){.batch = 2, .prefill = 8}, &s->session));
  return s->session != NULL;
}

static void close_stream(stream_of *s) {
  mn_session_free(s->session);
  mn_params_free(s->params);
  if (s->backend && !s->backend->on_host)
    CHECK(apart_of(s->backend)->bytes_alive == 0, "%lld bytes are left", apart_of(s->backend)->bytes_alive);
  mn_backend_free(s->backend);
}

/* Logits after n more tokens of each row, drawn from `seed`. */
static void feed(mn_session *s, int n, uint64_t seed, float logits[2 * 20]) {
  int32_t tokens[2 * 32];
  const float *got = NULL;
  for (int i = 0; i < 2 * n; i++) tokens[i] = (int32_t)(20 * mn_random_uniform(seed, 0, (uint64_t)i));
  CHECK_OK(mn_session_feed(s, tokens, n, &got));
  if (got) memcpy(logits, got, 2 * 20 * sizeof *logits);
}

static void sessions_go_from_place_to_place(void) {
  const char *text = "{vocab_size: 20, d_model: 8, blocks: [{mixer: {type: attention, heads: 2, window: 5}, hidden: 8}, {mixer: {type: "
                     "titans_lmm, heads: 2, memory_net: linear, chunk: 4}, hidden: 8}]}";
  mn_arena *arena = mn_arena_new();
  const mn_value *v = NULL;
  mn_model *model = NULL;
  stream_of here = {0}, apart = {0}, other = {0}, stranger = {0};
  mn_session *fork = NULL;
  float a[40], b[40], c[40];
  CHECK_OK(mn_yaml_parse(arena, "test", text, strlen(text), &v));
  CHECK_OK(mn_model_parse(v, "test", 0, &model));
  if (model && open_stream(&here, model, false, 7) && open_stream(&apart, model, true, 7) && open_stream(&other, model, true, 7)) {
    feed(here.session, 19, 1, a);
    feed(apart.session, 19, 1, b);
    CHECK(memcmp(a, b, sizeof a) == 0, "the same tokens");
    CHECK_OK(mn_session_fork(apart.session, &fork));
    feed(here.session, 5, 2, a);
    if (fork) feed(fork, 5, 2, b);
    CHECK(memcmp(a, b, sizeof a) == 0, "a fork goes on");
    CHECK_OK(mn_session_copy(apart.session, here.session));  /* from the host to a place apart, */
    CHECK_OK(mn_session_copy(other.session, apart.session)); /* to another of its kind, which it knows, */
    CHECK(apart_of(other.backend)->transfers == 1, "%lld direct transfers", apart_of(other.backend)->transfers);
    other.backend->receive = NULL;
    CHECK_OK(mn_session_copy_row(other.session, 1, apart.session, 1)); /* or does not know, */
    CHECK(apart_of(other.backend)->transfers == 1, "through the host");
    feed(here.session, 3, 3, a);
    feed(apart.session, 3, 3, b);
    feed(other.session, 3, 3, c);
    CHECK(memcmp(a, b, sizeof a) == 0 && memcmp(a, c, sizeof a) == 0, "streams that were moved go on");
    CHECK_OK(mn_session_copy(here.session, other.session)); /* and back */
    CHECK_OK(mn_session_save(apart.session, "moved.safetensors"));
    CHECK_OK(mn_session_reset(apart.session));
    CHECK_OK(mn_session_load(apart.session, "moved.safetensors"));
    feed(here.session, 2, 4, a);
    feed(apart.session, 2, 4, b);
    CHECK(memcmp(a, b, sizeof a) == 0, "saved and loaded");
    CHECK_OK(mn_session_reset_rows(apart.session, (bool[]){true, false}));
    CHECK(mn_session_row_position(apart.session, 0) == 0 && mn_session_row_position(apart.session, 1) == 29, "one row begins anew");
    if (open_stream(&stranger, model, true, 8))
      CHECK(mn_session_copy(stranger.session, here.session) == MN_ERR_ARG && strstr(mn_message(), "same model"), "%s", mn_message());
  }
  mn_session_free(fork);
  close_stream(&here);
  close_stream(&apart);
  close_stream(&other);
  close_stream(&stranger);
  mn_model_free(model);
  mn_arena_free(arena);
}

static void states_go_from_place_to_place(void) {
  const mn_state_info info[] = {{"position", MN_I32, MN_SHAPE(2), NULL, 0, 0}, {"k", MN_F32, MN_SHAPE(2, 3), NULL, 0, 0}};
  const float k[6] = {1, 2, 3, 4, 5, 6};
  float back[6] = {0};
  mn_backend *b = apart_over(mn_backend_ref());
  mn_states *here = NULL, *there = NULL, *again = NULL;
  CHECK_OK(mn_states_new(mn_backend_ref(), 2, 2, info, &here));
  CHECK_OK(mn_states_put(here, 0, (int32_t[]){4, 9}));
  CHECK_OK(mn_states_put(here, 1, k));
  if (b) CHECK_OK(mn_states_clone_on(b, here, &there));
  if (there) CHECK_OK(mn_states_clone_on(mn_backend_ref(), there, &again));
  if (again) CHECK_OK(mn_states_get(again, 1, back));
  CHECK(again && memcmp(k, back, sizeof k) == 0 && mn_states_position(there)[1] == 9 && mn_states_position(again)[1] == 9,
        "there and back");
  mn_states_free(here);
  mn_states_free(there);
  mn_states_free(again);
  if (b) mn_backend_free(b);
}

/* More than waits on the host at a time, and what is not whole pieces of it. */
static void copies_between_places(void) {
  enum { BYTES = (9 << 20) + 13 };
  mn_backend *a = apart_over(mn_backend_ref()), *b = apart_over(mn_backend_ref()), *host = mn_backend_ref();
  unsigned char *x = malloc(BYTES), *y = calloc(1, BYTES);
  for (int i = 0; i < BYTES; i++) x[i] = (unsigned char)(i * 7 + i / 251);
  if (a && b) {
    void *p = a->alloc(a, BYTES), *q = b->alloc(b, BYTES);
    b->receive = NULL;
    CHECK_OK(mn_backend_transfer(a, p, host, x, BYTES));
    CHECK_OK(mn_backend_transfer(b, q, a, p, BYTES));
    CHECK_OK(mn_backend_transfer(host, y, b, q, BYTES));
    CHECK(memcmp(x, y, BYTES) == 0, "through two places that do not know each other");
    CHECK_OK(mn_backend_transfer(b, q, b, (char *)q + 16, BYTES - 16)); /* the same place, and the two may overlap in this one */
    CHECK_OK(mn_backend_transfer(b, q, a, p, 0));
    CHECK(mn_backend_transfer(b, q, a, x, 8) == MN_ERR_INTERNAL, "memory of the host is not the place's");
    a->free(a, p, BYTES);
    b->free(b, q, BYTES);
  }
  free(x);
  free(y);
  if (a) mn_backend_free(a);
  if (b) mn_backend_free(b);
}

int main(void) {
  small_mixers_are_all_systems();
  RUN(the_host_cannot_read_it);
  RUN(copies_between_places);
  RUN(states_go_from_place_to_place);
  RUN(sessions_go_from_place_to_place);
  RUN(apply_gives_the_same_bits);
  RUN(training_gives_the_same_bits);
  return test_end();
}
