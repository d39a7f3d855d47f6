/* convert_check.h - models that were converted, held against what they were: what they say token by token, and their tensors' bytes. */
#ifndef MN_CONVERT_CHECK_H
#define MN_CONVERT_CHECK_H

#include <math.h>

#include "checkpoint/bundle.h"
#include "format/safetensors.h"
#include "program.h"
#include "run/session.h"

#define GOLDEN MN_TEST_SOURCE_DIR "/tests/golden/"

enum { VOCAB = 96, TOKENS = 24 };
static inline int32_t token_at(int t) { return (int32_t)(mn_splitmix64((uint64_t)t) % VOCAB); }

/* All logits of a model, token by token; the size of its vocabulary, 0: it did not run. */
static inline int said(const char *path, float *to) {
  mn_bundle b;
  mn_session *s = NULL;
  CHECK_OK(mn_bundle_open(path, NULL, 1, &b));
  if (b.model) CHECK_OK(mn_session_new(b.model, b.params, &(mn_session_config){.batch = 1}, &s));
  for (int t = 0; s && t < TOKENS; t++) {
    const float *row = NULL;
    const int32_t token = token_at(t) % (int32_t)b.model->config.vocab_size;
    CHECK_OK(mn_session_feed(s, &token, 1, &row));
    if (row) memcpy(to + t * b.model->config.vocab_size, row, (size_t)b.model->config.vocab_size * sizeof *to);
  }
  const int vocabulary = s ? (int)b.model->config.vocab_size : 0;
  mn_session_free(s);
  mn_bundle_close(&b);
  return vocabulary;
}

static inline double apart(const float *a, const float *b, int n) { /* the greatest difference, against the greatest value */
  double worst = 0, most = 0;
  for (int i = 0; i < n; i++) {
    worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
    most = fmax(most, fabs((double)a[i]));
  }
  return worst / most;
}

static inline void there_and_back(const char *path, const char *options) {
  static float a[TOKENS * 512], b[TOKENS * 512];
  CHECK(sh("rm -rf c.gguf d && " MNEME "convert %s --out c.gguf %s --quiet 2>&1", path, options) == 0, "%s: %s", path, out);
  CHECK(sh(MNEME "convert c.gguf --out d --quiet 2>&1") == 0, "%s: %s", path, out);
  const int n = TOKENS * said(path, a);
  if (!n || !said("c.gguf", b)) return;
  CHECK(apart(a, b, n) < 1e-5, "%s as GGUF: %g apart", path, apart(a, b, n));
  CHECK(said("d", b) && apart(a, b, n) < 1e-5, "%s and back: %g apart", path, apart(a, b, n));
}

/* Every tensor of d/model.safetensors has the bytes that it has in the folder, and there is no other. */
static inline void same_bytes(const char *folder) {
  mn_st *was = NULL, *is = NULL;
  char path[600];
  snprintf(path, sizeof path, "%s/model.safetensors", folder);
  CHECK_OK(mn_st_open(path, &was));
  CHECK_OK(mn_st_open("d/model.safetensors", &is));
  if (!was || !is) return;
  CHECK(mn_st_count(was) == mn_st_count(is), "%s: %d tensors", folder, mn_st_count(is));
  for (int i = 0; i < mn_st_count(was); i++) {
    const mn_st_tensor *a = mn_st_at(was, i), *b = mn_st_find(is, a->name);
    CHECK(b && mn_shape_equal(&a->shape, &b->shape) && a->bytes == b->bytes && !memcmp(a->data, b->data, a->bytes), "%s: %s", folder,
          a->name);
  }
  mn_st_close(was);
  mn_st_close(is);
}

#endif
