/* resumed.c - a conversation that is kept in a file and gone on with after a restart: what a turn costs then, also behind three turns that are taken
 * back and in a fork, and whether the logits are those of one that never stopped.
 *
 *     bench-resumed MODEL [--tokens 6000] [--turn 64] [--threads N] [--cache TYPE] [--told]       MODEL: of any form; its tokens are drawn
 *
 * One process reads the tokens, the last of them in turns whose ends are marked, and saves; then it reads three conversations anew, of which none
 * was ever saved, forked or cut, and writes what they say. Another process, which it becomes, opens the file and does the same by resuming, forking
 * and going back. Prints tokens computed, seconds, bytes kept and whether the logits have the same bits; --told: as JSON, a line for each
 * process. Exits with 1 where a turn computed more than itself, or said anything else. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"
#include "base/file.h"
#include "base/narrow.h"
#include "checkpoint/bundle.h"
#include "run/conversation.h"

enum { BACK = 3 }; /* turns that are taken back: the one after the restart, and two that lie in the file */
typedef enum way { RESUMED, FORKED, TAKEN_BACK, WAYS } way;

typedef struct run {
  char *model;
  int64_t tokens, turn, threads;
  mn_dtype cache;
  bool told;
  const char *dir;
  char kept[256], said[256];
} run;

typedef struct cost {
  double seconds;
  int64_t computed;
  bool same;
} cost;

/* Token i of the conversation (text 0), or of the turn that comes last in a way (text 1 + way). */
static mn_status feed(mn_conversation *c, int text, int64_t from, int64_t to, const float **logits) {
  const double words = (double)mn_session_vocab_size(mn_conversation_session(c));
  int32_t *part = mn_alloc((size_t)(to - from + 1) * sizeof *part);
  if (!part) return MN_ERR_MEMORY;
  for (int64_t i = from; i < to; i++) part[i - from] = (int32_t)(mn_random_uniform(1, (uint64_t)text, (uint64_t)i) * words);
  mn_status status = mn_conversation_feed(c, part, to - from, logits);
  free(part);
  return status;
}

/* The conversation up to the turn that begins behind `to`: all but the last two turns at once, then turn by turn. */
static mn_status tell(const run *r, mn_conversation *c, int64_t to) {
  for (int64_t from = 0, next; from < to; from = next) {
    next = from ? from + r->turn : r->tokens - (BACK - 1) * r->turn;
    MN_TRY(feed(c, 0, from, next, NULL));
    MN_TRY(mn_conversation_mark(c));
  }
  return MN_OK;
}

static int64_t stands_at(const run *r, way w) { return w == TAKEN_BACK ? r->tokens - (BACK - 1) * r->turn : r->tokens; }

/* What one says that never stopped; the logits are appended to the file. */
static mn_status never_stopped(const run *r, const mn_bundle *b, const mn_session_config *how, way w, FILE *file) {
  mn_conversation *c = NULL;
  const float *logits = NULL;
  mn_status status = mn_conversation_new(b->model, b->params, how, NULL, &c);
  if (status == MN_OK) status = tell(r, c, stands_at(r, w));
  if (status == MN_OK) status = feed(c, 1 + (int)w, 0, r->turn, &logits);
  const size_t n = status == MN_OK ? (size_t)mn_session_vocab_size(mn_conversation_session(c)) : 0;
  if (fwrite(logits, sizeof *logits, n, file) != n) status = mn_fail(MN_ERR_IO, "%s: %s", r->said, strerror(errno));
  mn_conversation_free(c);
  return status;
}

static mn_status told(const run *r, const mn_bundle *b, mn_conversation *c) {
  struct stat of = {0};
  double reading = mn_now();
  MN_TRY(tell(r, c, r->tokens));
  reading = mn_now() - reading;
  double saving = mn_now();
  MN_TRY(mn_conversation_save(c, r->kept, ""));
  saving = mn_now() - saving;
  const size_t state = mn_session_state_bytes(mn_conversation_session(c));
  if (stat(r->kept, &of)) return mn_fail(MN_ERR_IO, "%s: %s", r->kept, strerror(errno));
  if (r->told)
    printf("{\"reading\": %.9g, \"saving\": %.9g, \"bytes\": %lld, \"state\": %zu}\n", reading, saving, (long long)of.st_size, state);
  else
    printf("%lld tokens read in %.3f s; %.1f KiB saved in %.3f s: a state of %.1f KiB, and %lld snapshots\n", (long long)r->tokens, reading,
           (double)of.st_size / 1024, saving, (double)state / 1024, (long long)mn_conversation_snapshots(c));
  FILE *file = fopen(r->said, "wb");
  if (!file) return mn_fail(MN_ERR_IO, "%s: %s", r->said, strerror(errno));
  mn_status status = MN_OK;
  const mn_session_config how = {.batch = 1, .program = mn_session_program(mn_conversation_session(c))};
  for (way w = 0; status == MN_OK && w < WAYS; w++) status = never_stopped(r, b, &how, w, file);
  if (fclose(file) && status == MN_OK) status = mn_fail(MN_ERR_IO, "%s: %s", r->said, strerror(errno));
  return status;
}

/* The last turn of a way; `said`: what one says that never stopped. */
static mn_status turn(const run *r, mn_conversation *c, way w, const char *said, cost *out) {
  const float *logits = NULL;
  const size_t bytes = (size_t)mn_session_vocab_size(mn_conversation_session(c)) * sizeof *logits;
  const double before = mn_now();
  const uint64_t fed = w == RESUMED ? 0 : mn_conversation_fed(c); /* opening it may not have fed it either */
  if (w == TAKEN_BACK) MN_TRY(mn_conversation_back(c, stands_at(r, w)));
  MN_TRY(feed(c, 1 + (int)w, 0, r->turn, &logits));
  out->seconds += mn_now() - before;
  out->computed = (int64_t)(mn_conversation_fed(c) - fed);
  out->same = !memcmp(said + (size_t)w * bytes, logits, bytes);
  return MN_OK;
}

static bool show(const run *r, const cost did[WAYS]) {
  static const char *const words[] = {"restored", "a fork", "three turns taken back"}, *const keys[] = {"resumed", "forked", "back"};
  bool short_ = false;
  for (way w = 0; w < WAYS; w++) {
    const bool ok = did[w].same && did[w].computed <= r->turn;
    short_ = short_ || !ok;
    if (r->told) printf("%s\"%s\": [%.9g, %lld, %d]", w ? ", " : "{", keys[w], did[w].seconds, (long long)did[w].computed, did[w].same);
    else
      printf("%s, and a turn: %.4f s, %lld tokens computed (at most %lld), logits as if it had never stopped: %s %s\n", words[w],
             did[w].seconds, (long long)did[w].computed, (long long)r->turn, did[w].same ? "same bits" : "other bits", ok ? "ok" : "short");
  }
  if (r->told) printf("}\n");
  return short_;
}

static mn_status asked(const run *r, const mn_bundle *b, const mn_session_config *how, int *missed) {
  cost did[WAYS] = {{0}};
  mn_conversation *c = NULL, *fork = NULL;
  char *said = NULL;
  size_t bytes = 0;
  double began = mn_now();
  mn_status status = mn_conversation_open(b->model, b->params, how, NULL, r->kept, NULL, &c);
  did[RESUMED].seconds = mn_now() - began;
  if (status == MN_OK) status = mn_file_read(r->said, (size_t)1 << 30, &said, &bytes);
  const size_t words = status == MN_OK ? (size_t)mn_session_vocab_size(mn_conversation_session(c)) : 0;
  if (status == MN_OK && bytes != WAYS * words * sizeof(float)) status = mn_fail(MN_ERR_IO, "%s: is not whole", r->said);
  began = mn_now();
  if (status == MN_OK) status = mn_conversation_fork(c, &fork);
  did[FORKED].seconds = mn_now() - began;
  for (way w = 0; status == MN_OK && w < WAYS; w++) status = turn(r, w == FORKED ? fork : c, w, said, &did[w]);
  if (status == MN_OK) *missed = show(r, did);
  free(said);
  mn_conversation_free(fork);
  mn_conversation_free(c);
  return status;
}

static mn_status bench(const run *r, bool again, int *missed) {
  mn_bundle b = {0};
  mn_session *s = NULL;
  mn_conversation *c = NULL;
  mn_status status = mn_bundle_open(r->model, NULL, (int)r->threads, &b);
  if (status == MN_OK) {
    mn_bundle_limit(&b, r->tokens + BACK * r->turn); /* a model without caches needs none */
    b.params->cache = r->cache;
    status = mn_session_new(b.model, b.params, &(mn_session_config){.batch = 1}, &s);
  }
  mn_session_config how = {.batch = 1, .program = status == MN_OK ? mn_session_program(s) : NULL};
  if (status == MN_OK && again) status = asked(r, &b, &how, missed);
  else if (status == MN_OK) {
    status = mn_conversation_new(b.model, b.params, &how, NULL, &c);
    if (status == MN_OK) status = told(r, &b, c);
  }
  if (status != MN_OK) fprintf(stderr, "bench-resumed: %s\n", mn_message());
  mn_conversation_free(c);
  mn_session_free(s);
  mn_bundle_close(&b);
  return status;
}

static bool type_of_cache(const char *name, mn_dtype *out) {
  for (mn_dtype t = 0; t < MN_ALL_TYPES; t++)
    if (!strcmp(name, mn_dtype_name(t)) && (t == MN_F32 || mn_is_narrow(t))) return *out = t, true;
  return false;
}

int main(int argc, char **argv) {
  run r = {.tokens = 6000, .turn = 64};
  bool fits = argc > 1, again = false;
  for (int i = 2; fits && i < argc; i++) {
    const char *value = i + 1 < argc ? argv[i + 1] : "";
    if (!strcmp(argv[i], "--told")) {
      r.told = true;
      continue;
    }
    if (!strcmp(argv[i], "--tokens")) r.tokens = atoll(value);
    else if (!strcmp(argv[i], "--turn")) r.turn = atoll(value);
    else if (!strcmp(argv[i], "--threads")) r.threads = atoll(value);
    else if (!strcmp(argv[i], "--again")) again = true, r.dir = value; /* of the process that it becomes */
    else if (strcmp(argv[i], "--cache") != 0 || !type_of_cache(value, &r.cache)) fits = false;
    i++;
  }
  if (!fits || r.turn < 1 || r.tokens <= BACK * r.turn) {
    fprintf(stderr,
            "usage: bench-resumed MODEL [--tokens 6000] [--turn 64] [--threads N] [--cache TYPE] [--told]; more than three turns\n");
    return 2;
  }
  char made[] = P_tmpdir "/bench-resumed-XXXXXX";
  if (!again && !(r.dir = mkdtemp(made))) return perror("bench-resumed"), 1;
  r.model = argv[1];
  snprintf(r.kept, sizeof r.kept, "%s/kept", r.dir);
  snprintf(r.said, sizeof r.said, "%s/said", r.dir);
  int missed = 0;
  const mn_status status = bench(&r, again, &missed);
  if (status == MN_OK && !again) {
    char **next = mn_calloc((size_t)argc + 3, sizeof *next), more[] = "--again";
    for (int i = 0; next && i < argc; i++) next[i] = argv[i];
    if (next) next[argc] = more, next[argc + 1] = made;
    fflush(stdout);
    if (next) execv("/proc/self/exe", next);
    perror("bench-resumed");
    free(next);
  }
  unlink(r.kept);
  unlink(r.said);
  rmdir(r.dir);
  return status == MN_OK && again ? missed : 1;
}
