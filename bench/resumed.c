/* resumed.c - a stream that was told much, kept in a file, and asked once more after a restart: what it costs and whether it is the same.
 *
 *     bench-resumed MODEL [--tokens 6000] [--turn 64]            MODEL: of any form; its tokens are drawn
 *
 * One process reads the tokens, saves the session, and goes on with the turn; another one, which it becomes, loads the session and reads the
 * turn alone. Prints the tokens that the second one computed, whether the logits have the same bits, seconds of both, and the bytes kept;
 * exits with 1 where a bar is missed. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "base/file.h"
#include "checkpoint/bundle.h"
#include "run/session.h"

typedef struct run {
  const char *model;
  int64_t tokens, turn;
  char session[256], said[256];
} run;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int32_t token_at(const mn_session *s, int64_t i) {
  return (int32_t)(mn_random_uniform(1, 0, (uint64_t)i) * (double)mn_session_vocab_size(s));
}

/* Tokens [from, to) of the text. */
static mn_status feed(mn_session *s, int64_t from, int64_t to, const float **logits) {
  int32_t *part = mn_alloc((size_t)(to - from + 1) * sizeof *part);
  if (!part) return MN_ERR_MEMORY;
  for (int64_t i = from; i < to; i++) part[i - from] = token_at(s, i);
  mn_status status = mn_session_feed(s, part, to - from, logits);
  free(part);
  return status;
}

static mn_status write_all(const char *path, const void *data, size_t bytes) {
  FILE *f = fopen(path, "wb");
  const bool ok = f && fwrite(data, 1, bytes, f) == bytes;
  return (f && fclose(f)) || !ok ? mn_fail(MN_ERR_IO, "%s: %s", path, strerror(errno)) : MN_OK;
}

static mn_status told(const run *r, mn_session *s) {
  const float *logits = NULL;
  double reading = now();
  MN_TRY(feed(s, 0, r->tokens, NULL));
  reading = now() - reading;
  double saving = now();
  MN_TRY(mn_session_save(s, r->session));
  saving = now() - saving;
  MN_TRY(feed(s, r->tokens, r->tokens + r->turn, &logits));
  struct stat file;
  printf("reading %lld tokens: %.3f s; saving %.1f KiB: %.3f s\n", (long long)r->tokens, reading,
         stat(r->session, &file) ? 0 : (double)file.st_size / 1024, saving);
  return write_all(r->said, logits, (size_t)mn_session_vocab_size(s) * sizeof *logits);
}

static mn_status asked(const run *r, mn_session *s, int *missed) {
  const float *logits = NULL;
  char *said = NULL;
  size_t bytes = 0;
  double loading = now();
  MN_TRY(mn_session_load(s, r->session));
  loading = now() - loading;
  const int64_t before = mn_session_position(s);
  double turn = now();
  MN_TRY(feed(s, r->tokens, r->tokens + r->turn, &logits));
  turn = now() - turn;
  MN_TRY(mn_file_read(r->said, (size_t)1 << 30, &said, &bytes));
  const bool same = bytes == (size_t)mn_session_vocab_size(s) * sizeof *logits && !memcmp(said, logits, bytes);
  const int64_t computed = mn_session_position(s) - before;
  free(said);
  printf("after a restart: loading %.3f s, the turn %.3f s\n", loading, turn);
  printf("tokens computed after the restart: %lld (at most %lld) %s\n", (long long)computed, (long long)r->turn,
         computed <= r->turn ? "ok" : "short");
  printf("logits as if it had never stopped: %s (same bits) %s\n", same ? "same bits" : "other bits", same ? "ok" : "short");
  *missed = !same || computed > r->turn;
  return MN_OK;
}

int main(int argc, char **argv) {
  run r = {.tokens = 6000, .turn = 64};
  bool again = false;
  const char *dir = NULL;
  for (int i = 2; i < argc; i += 2) {
    if (!strcmp(argv[i], "--tokens") && i + 1 < argc) r.tokens = atoll(argv[i + 1]);
    else if (!strcmp(argv[i], "--turn") && i + 1 < argc) r.turn = atoll(argv[i + 1]);
    else if (!strcmp(argv[i], "--again") && i + 1 < argc) again = true, dir = argv[i + 1];
    else return fprintf(stderr, "bench-resumed: what is %s?\n", argv[i]), 2;
  }
  if (argc < 2 || r.tokens < 1 || r.turn < 1) return fprintf(stderr, "usage: bench-resumed MODEL [--tokens 6000] [--turn 64]\n"), 2;
  char made[] = P_tmpdir "/bench-resumed-XXXXXX";
  if (!dir && !(dir = mkdtemp(made))) return perror("bench-resumed"), 1;
  r.model = argv[1];
  snprintf(r.session, sizeof r.session, "%s/session", dir);
  snprintf(r.said, sizeof r.said, "%s/said", dir);
  mn_bundle b = {0};
  mn_session *s = NULL;
  int missed = 0;
  mn_status status = mn_bundle_open(r.model, NULL, 0, &b);
  if (status == MN_OK) status = mn_session_new(b.model, b.params, &(mn_session_config){.batch = 1}, &s);
  if (status == MN_OK) status = again ? asked(&r, s, &missed) : told(&r, s);
  if (status != MN_OK) fprintf(stderr, "bench-resumed: %s\n", mn_message());
  mn_session_free(s);
  mn_bundle_close(&b);
  if (status == MN_OK && !again) {
    char tokens[32], turn[32];
    snprintf(tokens, sizeof tokens, "%lld", (long long)r.tokens);
    snprintf(turn, sizeof turn, "%lld", (long long)r.turn);
    fflush(stdout);
    execl("/proc/self/exe", argv[0], argv[1], "--tokens", tokens, "--turn", turn, "--again", dir, (char *)NULL);
    perror("bench-resumed");
  }
  unlink(r.session);
  unlink(r.said);
  rmdir(dir);
  return status == MN_OK && again ? missed : 1;
}
