/* What must be true of caches in types of their own (bf16, f16, q8): what is read back becomes the same bits again; a stream is the same in
 * any cut and on any backend, near to one whose cache is as it is computed; it is saved, forked and taken back to the bits; one of another
 * type is refused with the reason; a model without such a cache says so. */
#include "run/conversation.h"

#include "backend/cpu/isa/narrow.h"
#include "base/narrow.h"
#include "isa_set.h"
#include "model_fixture.h"
#include "scratch.h"
#include "test.h"

enum { VOCAB = 50, N = 90 };
static const mn_dtype types[] = {MN_BF16, MN_F16, MN_Q8_0};
static const double error_of[] = {1.0 / 256, 1.0 / 2048, 1.0 / 127}; /* of the largest of a block, at most */

static void what_is_read_back_is_kept_as_it_was(void) {
  for (int t = 0; t < 3; t++) {
    float x[256], y[256], z[256];
    char a[1024], b[1024];
    for (int i = 0; i < 256; i++) x[i] = (float)(mn_random_normal(4, 0, (uint64_t)i) * pow(10, i / 32 - 3));
    mn_narrow(types[t], x, 256, a);
    mn_widen(types[t], a, 256, y);
    mn_narrow(types[t], y, 256, b);
    mn_widen(types[t], b, 256, z);
    CHECK(!memcmp(a, b, mn_dtype_bytes(types[t], 256)) && !memcmp(y, z, sizeof y), "%s", mn_dtype_name(types[t]));
    for (int i = 0; i < 256; i += 32) {
      double most = 0, off = 0;
      for (int j = i; j < i + 32; j++) most = fmax(most, fabs((double)x[j])), off = fmax(off, fabs((double)x[j] - (double)y[j]));
      CHECK(off <= error_of[t] * most && off > 0, "%s: off by %g of %g", mn_dtype_name(types[t]), off, most);
    }
    for (int i = 0; i < 256; i++) x[i] = i % 2 ? 1e9f : -1e9f;
    x[40] = NAN;
    mn_narrow(types[t], x, 256, a);
    mn_widen(types[t], a, 256, y);
    CHECK(isfinite(y[0]) && y[0] < -60000 && y[1] > 60000, "%s: what is beyond the largest: %g", mn_dtype_name(types[t]), (double)y[0]);
    CHECK(isnan(y[40]), "%s: no number stays none", mn_dtype_name(types[t]));
    for (int i = 0; i < 32; i++) x[i] = 0;
    mn_narrow(types[t], x, 32, a);
    mn_widen(types[t], a, 32, y);
    CHECK(y[0] == 0 && y[31] == 0, "nothing");
  }
}

/* Of every instruction set: numbers of all magnitudes, halves between two of them, those beyond the largest, infinite ones and none. */
static void vectors_have_the_bits_of_the_plain_form(void) {
  enum { MANY = 1 << 13 };
  float *x = mn_alloc(MANY * sizeof *x), *y = mn_alloc(2 * MANY * sizeof *y);
  char *a = mn_alloc(4 * MANY), *b = mn_alloc(4 * MANY);
  CHECK(x && y && a && b, "memory");
  for (int i = 0; x && y && a && b && i < MANY; i++) {
    const uint32_t u =
        i % 4 ? (uint32_t)(mn_random_uniform(9, 0, (uint64_t)i) * 0x1p32) : ((uint32_t)i << 19 | 0x1000u) ^ (uint32_t)(i % 3 - 1);
    memcpy(x + i, &u, 4);
  }
  EACH_ISA(isa) {
    const mn_narrow_vec *v = MN_ISA_PICK(mn_narrow_table, isa);
    for (int t = 0; x && y && a && b && t < 3; t++)
      for (int64_t n = types[t] == MN_Q8_0 ? 32 : 1; n <= MANY; n = n < 64 ? n + (types[t] == MN_Q8_0 ? 32 : 1) : 2 * n) {
        memset(a, 7, 4 * MANY), memset(b, 7, 4 * MANY);
        mn_narrow(types[t], x, n, a);
        v->narrow(types[t], x, n, b);
        CHECK(!memcmp(a, b, 4 * MANY), "%s, %s: %lld values narrowed", mn_isa_name(isa), mn_dtype_name(types[t]), (long long)n);
        memset(y, 7, 2 * MANY * sizeof *y);
        mn_widen(types[t], a, n, y);
        v->widen(types[t], a, n, y + MANY);
        CHECK(!memcmp(y, y + MANY, MANY * sizeof *y), "%s, %s: %lld values widened", mn_isa_name(isa), mn_dtype_name(types[t]),
              (long long)n);
      }
  }
  free(x), free(y), free(a), free(b);
}

/* Where a scale of f16 has few digits left, down to none. */
static void small_numbers_are_kept_as_they_were(void) {
  float x[32], y[32];
  char a[128], b[128];
  for (int t = 0; t < 3; t++)
    for (int k = 0; k < 4000; k++) {
      const double top = 2e-3 * pow(0.996, k);
      for (int i = 0; i < 32; i++) x[i] = (float)(top * (i == 5 ? 1 : 2 * mn_random_uniform(6, (uint64_t)k, (uint64_t)i) - 1));
      mn_narrow(types[t], x, 32, a);
      mn_widen(types[t], a, 32, y);
      mn_narrow(types[t], y, 32, b);
      CHECK(!memcmp(a, b, mn_dtype_bytes(types[t], 32)), "%s: a block of at most %g", mn_dtype_name(types[t]), top);
    }
}

static void infinity_is_not_made_a_number(void) {
  for (int t = 0; t < 3; t++) {
    float x[32] = {3.4e38f, -3.4e38f}, y[32];
    char a[128];
    mn_narrow(types[t], x, 32, a);
    mn_widen(types[t], a, 32, y);
    CHECK(isfinite(y[0]) && y[0] > 60000 && y[1] == -y[0], "%s: %g", mn_dtype_name(types[t]), (double)y[0]);
    x[1] = INFINITY;
    mn_narrow(types[t], x, 32, a);
    mn_widen(types[t], a, 32, y);
    CHECK(!isfinite(y[1]), "%s: infinity is %g", mn_dtype_name(types[t]), (double)y[1]);
  }
}

/* A cache that is cut, grouped; a ring with sinks and persistent pairs; scores with a cap beside a recurrent memory. */
static const char *const models[] = {
    "layers: 2, block: {mixer: {type: attention, heads: 4, kv_heads: 2, head_dim: 32, max_context: 256, qk_norm: heads}, channel: swiglu}",
    "layers: 2, block: {mixer: {type: attention, heads: 2, head_dim: 64, window: 12, sinks: 2, persistent: 3}}",
    "blocks: [{mixer: {type: gated_deltanet, heads: 2, chunk: 4}}, {mixer: {type: attention, heads: 2, head_dim: 32, max_context: 256, softcap: 5}}]",
};
enum { MODELS = 3 };

static int32_t tokens[N];

typedef struct place {
  fixture f;
  mn_backend *backend;
  mn_params *params;
} place;
/* A model on a backend of its own, with caches of a type. */
static bool open_at(place *p, int m, const char *backend, int threads, mn_dtype cache) {
  *p = (place){0};
  if (!fixture_open(&p->f, 7, "{vocab_size: %d, d_model: 32, %s}", VOCAB, models[m])) return false;
  CHECK_OK(mn_backend_open(backend, threads, &p->backend));
  if (p->backend) CHECK_OK(mn_params_new(p->f.model, p->backend, MN_F32, 7, &p->params));
  if (p->params) p->params->cache = cache;
  return p->params != NULL;
}
static void close_at(place *p) {
  mn_params_free(p->params);
  mn_backend_free(p->backend);
  fixture_close(&p->f);
}
/* What it says after N tokens in pieces of `piece`, and the bytes that it used. */
static bool says(int m, const char *backend, int threads, mn_dtype cache, int piece, float out[VOCAB], size_t *bytes) {
  place p;
  mn_session *s = NULL;
  const float *logits = NULL;
  if (!open_at(&p, m, backend, threads, cache)) return false;
  CHECK_OK(mn_session_new(p.f.model, p.params, &(mn_session_config){.prefill = piece}, &s));
  for (int at = 0; s && at < N; at += piece) CHECK_OK(mn_session_feed(s, tokens + at, at + piece < N ? piece : N - at, &logits));
  if (logits) memcpy(out, logits, VOCAB * sizeof *out);
  if (s && bytes) *bytes = mn_session_state_bytes(s);
  mn_session_free(s);
  close_at(&p);
  return logits != NULL;
}
static double apart(const float *a, const float *b) { /* of the largest */
  double most = 0, d = 0;
  for (int i = 0; i < VOCAB; i++) most = fmax(most, fabs((double)b[i])), d = fmax(d, fabs((double)a[i] - (double)b[i]));
  return d / most;
}

/* Sums in another order may round a value to its neighbour: a small part of what the type costs, never all of it. */
static double cut_error(int t) { return fmax(5e-4, error_of[t] / 4); }

static void a_stream_is_the_same_in_any_cut_and_anywhere(void) {
  for (int m = 0; m < MODELS; m++) {
    float exact[VOCAB], x[VOCAB], y[VOCAB];
    size_t all, some;
    if (!says(m, "cpu", 1, MN_F32, 16, exact, &all)) return;
    for (int t = 0; t < 3; t++) {
      const char *name = mn_dtype_name(types[t]);
      if (!says(m, "cpu", 1, types[t], 16, x, &some)) return;
      CHECK(some < all, "model %d, %s: %zu of %zu bytes", m, name, some, all);
      CHECK(apart(x, exact) < 8 * error_of[t] && apart(x, exact) > 0, "model %d, %s: off by %g", m, name, apart(x, exact));
      says(m, "cpu", 1, types[t], 1, y, NULL);
      CHECK(apart(y, x) < cut_error(t), "model %d, %s: token by token it is off by %g", m, name, apart(y, x));
      says(m, "cpu", 1, types[t], 45, y, NULL);
      CHECK(apart(y, x) < cut_error(t), "model %d, %s: in other pieces it is off by %g", m, name, apart(y, x));
      says(m, "ref", 1, types[t], 16, y, NULL);
      CHECK(apart(y, x) < cut_error(t), "model %d, %s: the reference is off by %g", m, name, apart(y, x));
      says(m, "ref", 1, types[t], 1, y, NULL);
      CHECK(apart(y, x) < cut_error(t), "model %d, %s: the reference, token by token, is off by %g", m, name, apart(y, x));
      says(m, "cpu", 2, types[t], 16, y, NULL);
      CHECK(!memcmp(x, y, sizeof x), "model %d, %s: two threads give other bits", m, name);
    }
  }
}

/* A session that has read nothing has no tensors of its caches. */
static void a_session_without_tokens_is_saved_too(void) {
  const mn_dtype all[] = {MN_F32, MN_BF16, MN_F16, MN_Q8_0};
  for (int m = 0; m < MODELS; m++)
    for (int t = 0; t < 4; t++) {
      place p;
      mn_session *s = NULL, *other = NULL;
      const float *x = NULL, *y = NULL;
      float first[VOCAB];
      if (!open_at(&p, m, "cpu", 1, all[t])) return;
      CHECK_OK(mn_session_new(p.f.model, p.params, &(mn_session_config){0}, &s));
      CHECK_OK(mn_session_new(p.f.model, p.params, &(mn_session_config){0}, &other));
      CHECK_OK(mn_session_save(s, "none.safetensors"));
      CHECK_OK(mn_session_feed(s, tokens, 9, &x));
      memcpy(first, x, sizeof first);
      CHECK_OK(mn_session_feed(other, tokens + 20, 30, &y));
      CHECK_OK(mn_session_load(other, "none.safetensors"));
      CHECK_OK(mn_session_feed(other, tokens, 9, &y));
      CHECK(!memcmp(first, y, sizeof first), "model %d, %s", m, mn_dtype_name(all[t]));
      mn_session_free(s);
      mn_session_free(other);
      close_at(&p);
    }
}

static void it_is_saved_forked_and_taken_back(void) {
  for (int m = 0; m < MODELS; m++)
    for (int t = 0; t < 3; t++) {
      place p;
      mn_conversation *c = NULL, *fork = NULL, *again = NULL;
      const float *x = NULL, *y = NULL;
      float first[VOCAB];
      const char *name = mn_dtype_name(types[t]);
      if (!open_at(&p, m, "cpu", 1, types[t])) return;
      CHECK_OK(mn_conversation_new(p.f.model, p.params, NULL, NULL, &c));
      CHECK_OK(mn_conversation_feed(c, tokens, 60, NULL));
      CHECK_OK(mn_conversation_mark(c));
      CHECK_OK(mn_conversation_save(c, "c.safetensors", NULL));
      CHECK_OK(mn_session_save(mn_conversation_session(c), "s.safetensors"));
      CHECK_OK(mn_conversation_fork(c, &fork));
      const mn_session_config shared = {.program = mn_session_program(mn_conversation_session(c))};
      CHECK_OK(mn_conversation_open(p.f.model, p.params, &shared, NULL, "c.safetensors", NULL, &again));
      CHECK_OK(mn_conversation_feed(c, tokens + 60, 9, &x));
      memcpy(first, x, sizeof first);
      if (fork) CHECK_OK(mn_conversation_feed(fork, tokens + 60, 9, &y));
      CHECK(y && !memcmp(first, y, sizeof first), "model %d, %s: a fork", m, name);
      if (again) CHECK_OK(mn_conversation_feed(again, tokens + 60, 9, &y));
      CHECK(y && !memcmp(first, y, sizeof first), "model %d, %s: from its file", m, name);
      CHECK_OK(mn_conversation_back(c, 60));
      CHECK_OK(mn_conversation_feed(c, tokens + 60, 9, &x));
      CHECK(!memcmp(first, x, sizeof first), "model %d, %s: taken back", m, name);
      CHECK_OK(mn_session_load(mn_conversation_session(c), "s.safetensors"));
      CHECK_OK(mn_session_feed(mn_conversation_session(c), tokens + 60, 9, &x));
      CHECK(!memcmp(first, x, sizeof first), "model %d, %s: from a session's file", m, name);
      mn_conversation_free(again);
      mn_conversation_free(fork);
      mn_conversation_free(c);
      p.params->cache = types[(t + 1) % 3]; /* another type */
      CHECK(mn_conversation_open(p.f.model, p.params, NULL, NULL, "c.safetensors", NULL, &again) == MN_ERR_CONFIG &&
                strstr(mn_message(), "type of cache"),
            "model %d, %s: %s", m, name, mn_message());
      mn_session *s = NULL;
      CHECK_OK(mn_session_new(p.f.model, p.params, &(mn_session_config){0}, &s));
      if (s) CHECK(mn_session_load(s, "s.safetensors") == MN_ERR_CONFIG && strstr(mn_message(), "type of cache"), "%s", mn_message());
      mn_session_free(s);
      close_at(&p);
    }
}

static void what_has_no_such_cache_says_so(void) {
  static const char *const none[] = {"block: {mixer: {type: gated_deltanet, heads: 2}}",
                                     "block: {mixer: {type: attention, heads: 2, head_dim: 24, max_context: 64}}"};
  for (int i = 0; i < 2; i++) {
    fixture f;
    mn_session *s = NULL;
    if (!fixture_open(&f, 7, "{vocab_size: %d, d_model: 32, layers: 1, %s}", VOCAB, none[i])) continue;
    f.params->cache = MN_Q8_0;
    CHECK(mn_session_new(f.model, f.params, &(mn_session_config){0}, &s) == MN_ERR_CONFIG && strstr(mn_message(), "q8_0"), "%d: %s", i,
          mn_message());
    mn_session_free(s);
    f.params->cache = MN_F16; /* any width will do */
    if (i) CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){0}, &s));
    if (i) mn_session_free(s);
    fixture_close(&f);
  }
}

int main(void) {
  for (int i = 0; i < N; i++) tokens[i] = (int32_t)(mn_random_uniform(3, 0, (uint64_t)i) * VOCAB);
  RUN(what_is_read_back_is_kept_as_it_was);
  RUN(vectors_have_the_bits_of_the_plain_form);
  RUN(small_numbers_are_kept_as_they_were);
  RUN(infinity_is_not_made_a_number);
  RUN(a_stream_is_the_same_in_any_cut_and_anywhere);
  RUN(a_session_without_tokens_is_saved_too);
  RUN(it_is_saved_forked_and_taken_back);
  RUN(what_has_no_such_cache_says_so);
  return test_end();
}
