/* text_tokens.c - see text_tokens.h. */
#include "run/text_tokens.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 1 << 16 };

struct mn_text_tokens {
  const char *path;
  int fd;
  mn_encoder *encoder;
  char text[BLOCK];
  bool ended, finished;
  mn_ids ids; /* of the last block */
  size_t taken;
  int64_t bytes, file_bytes;
  mn_spelled spelled;
};

mn_status mn_text_tokens_open(const char *path, const mn_tokenizer *tok, mn_text_tokens **out) {
  *out = NULL;
  mn_text_tokens *t = mn_calloc(1, sizeof *t);
  if (!t) return MN_ERR_MEMORY;
  bool standard = strcmp(path, "-") == 0;
  t->path = standard ? "standard input" : path;
  t->fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC); /* of a pipe: waits until somebody writes to it */
  mn_status status = t->fd < 0 && errno == EINTR ? mn_fail(MN_ERR_CANCELLED, "interrupted while waiting for %s", path) : MN_OK;
  struct stat info;
  if (status != MN_OK) t->fd = -1;
  else if (t->fd < 0 || fstat(t->fd, &info) != 0) status = mn_fail(MN_ERR_IO, "%s: %s", t->path, strerror(errno));
  else if (S_ISDIR(info.st_mode)) status = mn_fail(MN_ERR_IO, "%s is a directory; name a text file, or - for standard input", t->path);
  else if (S_ISREG(info.st_mode)) t->file_bytes = info.st_size;
  if (status == MN_OK) status = mn_encoder_new(tok, &t->encoder);
  /* Room for a block's ids, touched once: the stream's memory does not grow later, but for words that are longer than a block. */
  t->ids.cap = BLOCK;
  t->ids.data = status == MN_OK ? mn_alloc(t->ids.cap * sizeof *t->ids.data) : NULL;
  if (status == MN_OK && !t->ids.data) status = MN_ERR_MEMORY;
  if (status == MN_OK) memset(t->ids.data, 0xFF, t->ids.cap * sizeof *t->ids.data);
  if (status == MN_OK) mn_encoder_reserve(t->encoder);
  if (status != MN_OK) mn_text_tokens_close(t);
  else *out = t;
  return status;
}

void mn_text_tokens_close(mn_text_tokens *t) {
  if (!t) return;
  if (t->fd > STDERR_FILENO) close(t->fd);
  mn_encoder_free(t->encoder);
  mn_ids_free(&t->ids);
  free(t);
}

/* A file ends where it ended when it was opened, or later: one that was cut short meanwhile is not read to its end. */
static mn_status check_end(const mn_text_tokens *t) {
  off_t at = t->file_bytes ? lseek(t->fd, 0, SEEK_CUR) : 0;
  if (at < 0 || at >= t->file_bytes) return MN_OK;
  return mn_fail(MN_ERR_IO, "%s was cut short while it was read: it had %lld bytes and has %lld; put it back as it was", t->path,
                 (long long)t->file_bytes, (long long)at);
}

static mn_status fill(mn_text_tokens *t) {
  size_t have = 0;
  while (!t->ended && have < BLOCK) {
    ssize_t n = read(t->fd, t->text + have, BLOCK - have);
    if (n < 0 && errno == EINTR) {
      t->ended = true; /* the user asked for the end; what has been read still counts */
      break;
    }
    if (n < 0) return mn_fail(MN_ERR_IO, "%s: %s", t->path, strerror(errno));
    if (n == 0) {
      MN_TRY(check_end(t));
      t->ended = true;
    }
    have += (size_t)n;
  }
  t->ids.len = t->taken = 0;
  if (have) {
    MN_TRY(mn_encoder_push(t->encoder, t->text, have, 0, &t->ids));
    mn_spelled_add(&t->spelled, t->text, have);
    t->bytes += (int64_t)have;
  }
  if (!t->ended || t->finished) return MN_OK;
  t->finished = true;
  return mn_encoder_finish(t->encoder, 0, &t->ids);
}

mn_spelled mn_text_tokens_spelled(const mn_text_tokens *t) { return t->spelled; }

mn_status mn_text_tokens_next(mn_text_tokens *t, int64_t n, int32_t *ids, int64_t *got) {
  *got = 0;
  while (*got < n) {
    if (t->taken == t->ids.len) {
      if (t->finished) return MN_OK;
      MN_TRY(fill(t));
      if (t->ids.len == 0) continue;
    }
    int64_t k = (int64_t)(t->ids.len - t->taken);
    if (k > n - *got) k = n - *got;
    memcpy(ids + *got, t->ids.data + t->taken, (size_t)k * sizeof *ids);
    t->taken += (size_t)k;
    *got += k;
  }
  return MN_OK;
}

int64_t mn_text_tokens_bytes(const mn_text_tokens *t) { return t->bytes; }
int64_t mn_text_tokens_file_bytes(const mn_text_tokens *t) { return t->file_bytes; }
