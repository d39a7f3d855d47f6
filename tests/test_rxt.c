/* test_rxt.c - what must be true of the Reactive Transformer, in order: NumPy's vectors in every way of writing; gradients through
 * turns, and where they stop; which of its forms are one another; what a gate may do; what a turn is to a stream, token by token; a
 * dialogue that is saved, and one whose memory is written by another thread; what a dialogue costs; what a recipe may not ask for. */
#include <pthread.h>
#include <unistd.h>

#include "model_check.h"
#include "run/session.h"
#include "scratch.h"

static const char *const files[] = {"../rxt/interlayer", "../rxt/self_interlayer", "../rxt/self", "../rxt/simple"};
enum { FILES = sizeof files / sizeof *files };

/* Of rows of n numbers those whose place is there (there NULL: all), as far apart as they are. */
static double apart(const mc_tensor *a, const mc_tensor *b, const mc_tensor *there) {
  if (!a || !b || !mn_shape_equal(&a->shape, &b->shape)) return INFINITY;
  const int64_t count = mn_shape_count(&a->shape), places = there ? mn_shape_count(&there->shape) : 1, n = count / places;
  double worst = 0;
  for (int64_t i = 0; i < places; i++)
    if (!there || there->x[i] > 0) worst = fmax(worst, mc_difference(a->x + i * n, b->x + i * n, n));
  return worst;
}

static void golden_vectors(void) {
  for (int i = 0; i < FILES; i++) {
    mk_golden f;
    mc_bag out = {0};
    if (!mk_golden_open(&f, files[i])) continue;
    CHECK(f.want.n == 7, "%s has %d outputs", files[i], f.want.n);
    if (mk_run(&f.m, &f.in, &out))
      for (int k = 0; k < f.want.n; k++) {
        const mc_tensor *want = &f.want.t[k], *there = strstr(want->name, "memory_") ? NULL : mc_get(&f.in, "there");
        double e = apart(mc_get(&out, want->name), want, there);
        CHECK(e < 1e-11, "%s: %s differs by %g", files[i], want->name, e);
      }
    mc_bag_free(&out);
    mk_golden_close(&f);
  }
}

/* Of all but what stands beside a stop: the joint outputs, which are left out. */
static void gradients_agree_with_differences(void) {
  for (int i = 0; i < FILES; i++) {
    mk_golden f;
    mc_bag in = {0};
    if (!mk_golden_open(&f, files[i])) continue;
    static const char *const names[] = {"tokens", "masks"};
    for (int k = 0; k < 2; k++) mc_put(&in, names[k], mc_get(&f.in, names[k])->shape, mc_get(&f.in, names[k])->x);
    double e = mk_gradient_error_by(&f.m, &in, 8, 3, 5e-5);
    CHECK(e < 1e-7, "%s: %g", files[i], e);
    mc_bag_free(&in);
    mk_golden_close(&f);
  }
}

#define BLOCK  "block: {mixer: {type: attention, heads: 2}, cross: {heads: 2}, hidden: 8}"
#define READER "{type: attention, heads: 2, causal: false}"
#define RXT(layers, more)                                                                                                                  \
  "{type: rxt, vocab_size: 11, d_model: 8, turn: 5, slots: 3, memory: {heads: 2}, layers: " #layers ", " BLOCK                             \
  ", encoder: {layers: " #layers ", block: {mixer: " READER ", hidden: 8}}" more "}"

static double most_of(const double *x, int64_t n) {
  double most = 0;
  for (int64_t i = 0; i < n; i++) most = fmax(most, fabs(x[i]));
  return most;
}

/* A token that stands in one turn alone reaches what is said two turns later through two writes: with truncate: 1 its gradient is 0 to
 * the bit, with 2 it is there; that of the turn between is there always. */
static void gradients_stop_where_a_recipe_says(void) {
  static const struct {
    const char *yaml;
    bool early;
  } cases[] = {{RXT(2, ", truncate: 1"), false}, {RXT(2, ", truncate: 2"), true}, {RXT(2, ", truncate: 0"), true}, {RXT(2, ""), false}};
  mc_bag in = {0};
  double *x = mc_put(&in, "tokens", MN_SHAPE(1, 20), NULL);
  for (int i = 0; i < 20; i++) x[i] = (double)(i / 5 % 2 * 3 + i % 3); /* turns 0 and 2 of 0..2, turns 1 and 3 of 3..5 */
  x[7] = 9, x[12] = 10;                                                /* once each, in turns 1 and 2 */
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    mk_model m;
    mc_bag grad = {0};
    if (mk_open(&m, cases[k].yaml, 4) && mk_gradients(&m, &in, 15, &grad, NULL)) { /* what is said in turn 3 */
      const double *e = mc_get(&grad, "embed_tokens.weight")->x;
      double early = most_of(e + 9 * 8, 8), late = most_of(e + 10 * 8, 8);
      CHECK(cases[k].early ? early > 1e-9 : early == 0, "%s: %g", cases[k].yaml, early);
      CHECK(late > 1e-6, "%s: %g", cases[k].yaml, late);
      static const char *const reached[] = {"encoder.layers.0.mixer.q_proj.weight", "memory.layers.1.write.v_proj.weight",
                                            "memory.layers.0.gate.weight", "memory.layers.1.between.q_proj.weight"};
      for (size_t i = 0; i < sizeof reached / sizeof *reached; i++) {
        const mc_tensor *t = mc_get(&grad, reached[i]);
        CHECK(t && most_of(t->x, mn_shape_count(&t->shape)) > 1e-9, "%s has no gradient", reached[i]);
      }
    }
    mc_bag_free(&grad);
    mk_close(&m);
  }
  mc_bag_free(&in);
}

/* ---- forms that are one another ---- */
static double *take(mk_model *m, const char *name) {
  mc_tensor *t = mc_get(&m->params, name);
  CHECK(t, "no parameter %s", name);
  return t ? t->x : NULL;
}

/* All parameters of `from` that `to` has, too. */
static void give(mk_model *to, mk_model *from) {
  for (int i = 0; i < to->params.n; i++) {
    const mc_tensor *x = mc_get(&from->params, to->params.t[i].name);
    if (x && mn_shape_equal(&x->shape, &to->params.t[i].shape)) mc_put(&to->params, x->name, x->shape, x->x);
  }
}

static double difference(mk_model *a, mk_model *b, const mc_bag *in, const char *name) {
  mc_bag x = {0}, y = {0};
  double e = mk_run(a, in, &x) && mk_run(b, in, &y) ? apart(mc_get(&x, name), mc_get(&y, name), NULL) : INFINITY;
  mc_bag_free(&x);
  mc_bag_free(&y);
  return e;
}

static void ways_of_writing_meet(void) {
  static const struct {
    const char *a, *b;
    bool share; /* n'' is n' */
  } cases[] = {{RXT(1, ", write: self"), RXT(1, ", write: interlayer"), true},
               {RXT(2, ", write: self"), RXT(2, ", write: grouped, group: 1"), true},
               {RXT(2, ", write: interlayer"), RXT(2, ", write: grouped, group: 2"), false}};
  mc_bag in = {0};
  mk_tokens(&in, "tokens", 2, 15, 11, 5);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    mk_model a, b;
    if (!mk_open(&a, cases[i].a, 3) || !mk_open(&b, cases[i].b, 9)) continue;
    give(&b, &a);
    for (int k = 0; k < 2 && cases[i].share; k++) {
      char mean[64], own[64];
      snprintf(mean, sizeof mean, "memory.layers.%d.mean_norm.weight", k);
      snprintf(own, sizeof own, "memory.layers.%d.between_norm.weight", k);
      if (mc_get(&b.params, mean)) memcpy(take(&b, mean), take(&b, own), 8 * sizeof(double));
    }
    double e = difference(&a, &b, &in, "hidden");
    CHECK(e < 1e-12, "%s: %g", cases[i].b, e);
    mk_close(&a);
    mk_close(&b);
  }
  mc_bag_free(&in);
}

/* Where nothing of the memory passes, it is a decoder, every turn alone; and where what is read has no part in the answer, too. */
static void without_its_memory_it_is_a_decoder(void) {
  mk_model m, plain;
  mc_bag in = {0}, first = {0};
  mk_tokens(&in, "tokens", 2, 15, 11, 5);
  if (!mk_open(&m, RXT(2, ""), 3) ||
      !mk_open(&plain, "{vocab_size: 11, d_model: 8, layers: 2, block: {mixer: {type: attention, heads: 2}, hidden: 8}}", 4))
    return;
  for (int i = 0; i < 2; i++) {
    char name[64];
    snprintf(name, sizeof name, "layers.%d.cross.o_proj.weight", i);
    memset(take(&m, name), 0, 64 * sizeof(double));
  }
  give(&plain, &m);
  for (int64_t n = 0; n < 3; n++) {
    mc_bag turn = {0}, a = {0}, b = {0};
    mk_cut(&m, &in, 5 * n, 5 * n + 5, &turn);
    if (mk_run(&m, &in, &a) && mk_run(&plain, &turn, &b)) {
      const double *x = mc_get(&a, "hidden")->x, *y = mc_get(&b, "hidden")->x;
      for (int64_t r = 0; r < 2; r++)
        CHECK(!memcmp(x + (r * 15 + 5 * n) * 8, y + r * 40, 40 * sizeof *x), "turn %lld of row %lld", (long long)n, (long long)r);
    }
    mc_bag_free(&turn);
    mc_bag_free(&a);
    mc_bag_free(&b);
  }
  mc_bag_free(&in);
  mc_bag_free(&first);
  mk_close(&m);
  mk_close(&plain);
}

/* Slots are in no order: permuted alike in every layer, with what gates have for each, the answers are the same and the memory is
 * permuted. */
static void slots_are_in_no_order(void) {
  static const char *const recipes[] = {RXT(2, ", write: self_interlayer"), RXT(2, ", gate: elementwise, gate_act: tanh"),
                                        RXT(2, ", gate: static, write: self"), RXT(2, ", gate: none, write: simple")};
  static const int to[3] = {2, 0, 1};
  mc_bag in = {0};
  mk_tokens(&in, "tokens", 2, 15, 11, 5);
  for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
    mk_model a, b;
    mc_bag x = {0}, y = {0};
    if (!mk_open(&a, recipes[i], 3) || !mk_open(&b, recipes[i], 3)) continue;
    for (int k = 0; k < a.params.n; k++) {
      const mc_tensor *t = &a.params.t[k];
      double *p = b.params.t[k].x;
      const bool memory = !strcmp(t->name, "initial_memory"), matrix = t->shape.ndim == 2;
      if (!memory && !strstr(t->name, "gate.")) continue;
      if (strstr(t->name, "channel")) continue;
      for (int l = 0; memory && l < 2; l++)
        for (int s = 0; s < 3; s++) memcpy(p + (l * 3 + to[s]) * 8, t->x + (l * 3 + s) * 8, 8 * sizeof *p);
      for (int s = 0; !memory && s < 3; s++)
        for (int r = 0; r < (matrix ? 3 : 1); r++) p[matrix ? to[s] * 3 + to[r] : to[s]] = t->x[matrix ? s * 3 + r : s];
    }
    if (mk_run(&a, &in, &x) && mk_run(&b, &in, &y)) {
      double e = apart(mc_get(&x, "hidden"), mc_get(&y, "hidden"), NULL), worst = 0;
      const double *u = mc_get(&x, "memory_after")->x, *v = mc_get(&y, "memory_after")->x;
      for (int n = 0; n < 2 * 3 * 2; n++) /* rows, turns, layers */
        for (int s = 0; s < 3; s++) worst = fmax(worst, mc_difference(v + (n * 3 + to[s]) * 8, u + (n * 3 + s) * 8, 8));
      CHECK(e < 1e-12 && worst < 1e-12, "%s: %g, memory %g", recipes[i], e, worst);
    }
    mc_bag_free(&x);
    mc_bag_free(&y);
    mk_close(&a);
    mk_close(&b);
  }
  mc_bag_free(&in);
}

/* Every gate of the recipe forced to one side. */
static void force(mk_model *m, double to) {
  for (int k = 0; k < m->params.n; k++) {
    mc_tensor *t = &m->params.t[k];
    if (!strstr(t->name, "gate.") || strstr(t->name, "channel")) continue;
    for (int64_t i = 0; i < mn_shape_count(&t->shape); i++) t->x[i] = strstr(t->name, "gate.weight") && t->shape.ndim == 2 ? 0 : to;
  }
}

/* Gates that are shut keep the memory to the bit, however many turns; open they replace it, so that what stood there before does not
 * matter (with `simple`, where nothing else reads it, to the bit: the question alone does); between, a slot lies between both. */
static void what_a_gate_may_do(void) {
  static const char *const recipes[] = {RXT(2, ", write: self_interlayer"), RXT(2, ""), RXT(2, ", gate: static"),
                                        RXT(2, ", gate: static, write: simple")};
  mc_bag in = {0};
  mk_tokens(&in, "tokens", 2, 25, 11, 5);
  for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
    mk_model m;
    mc_bag x = {0}, y = {0};
    if (!mk_open(&m, recipes[i], 3)) continue;
    force(&m, -1e4);
    if (mk_run(&m, &in, &x)) {
      const mc_tensor *after = mc_get(&x, "memory_after");
      const double *start = take(&m, "initial_memory");
      for (int n = 0; n < 2 * 5; n++) CHECK(!memcmp(after->x + n * 48, start, 48 * sizeof *start), "%s: turn %d", recipes[i], n);
    }
    force(&m, 1e4);
    if (i == 3 &&
        mk_run(&m, &in,
               &x)) { /* all that is new: the answers, whatever was there. A constant on all rows of W_O's output is the answer's */
      memset(take(&m, "memory.layers.0.write.q_proj.weight"), 0, 64 * sizeof(double)); /* every slot asks the same */
      memset(take(&m, "memory.layers.1.write.q_proj.weight"), 0, 64 * sizeof(double));
      CHECK(mk_run(&m, &in, &x), "%s", mn_message());
      for (int k = 0; k < 48; k++) take(&m, "initial_memory")[k] += 1;
      CHECK(mk_run(&m, &in, &y), "%s", mn_message());
      const double *a = mc_get(&x, "memory_after")->x, *b = mc_get(&y, "memory_after")->x;
      for (int r = 0; r < 2; r++) CHECK(!memcmp(a + (r * 5 + 1) * 48, b + (r * 5 + 1) * 48, 4 * 48 * sizeof *a), "what was there still is");
      CHECK(mc_difference(a, b, 48) > 0.1, "before the first write it is");
    }
    mc_bag_free(&x);
    mc_bag_free(&y);
    mk_close(&m);
  }
  mk_model open, half, shut; /* one write from one memory: the gate's mean of both */
  if (mk_open(&open, RXT(2, ", gate: static, write: simple"), 3) && mk_open(&half, RXT(2, ", gate: static, write: simple"), 3) &&
      mk_open(&shut, RXT(2, ", gate: static, write: simple"), 3)) {
    mc_bag x = {0}, y = {0}, two = {0};
    mk_cut(&open, &in, 0, 10, &two);
    force(&open, 1e4);
    if (mk_run(&open, &two, &x) && mk_run(&half, &two, &y)) {
      const double *old = mc_get(&x, "memory_before")->x + 48, *new = mc_get(&x, "memory_after")->x + 48,
                   *now = mc_get(&y, "memory_after")->x + 48;
      for (int k = 0; k < 48; k++)
        CHECK(now[k] >= fmin(old[k], new[k]) - 1e-15 && now[k] <= fmax(old[k], new[k]) + 1e-15, "%g is not between %g and %g", now[k],
              old[k], new[k]);
    }
    mc_bag_free(&x);
    mc_bag_free(&y);
    mc_bag_free(&two);
    mk_close(&open), mk_close(&half), mk_close(&shut);
  }
  mc_bag_free(&in);
}

/* A turn that is padded to another length, and a turn that is not there, are what they are. */
static void padding_writes_nothing(void) {
  static const char *const recipes[] = {RXT(2, ", joint_noise: 0"),
                                        "{type: rxt, vocab_size: 11, d_model: 8, turn: 9, slots: 3, memory: {heads: 2}, layers: 2, " BLOCK
                                        ", encoder: {layers: 2, block: {mixer: " READER ", hidden: 8}}}"};
  static const int lengths[3] = {4, 5, 2};
  mk_model m[2];
  mc_bag out[2] = {{0}, {0}};
  for (int k = 0; k < 2; k++) {
    const int L = k ? 9 : 5;
    mc_bag in = {0};
    double *x = mc_put(&in, "tokens", MN_SHAPE(1, 4 * L), NULL), *there = mc_put(&in, "masks", MN_SHAPE(1, 4 * L), NULL);
    if (!mk_open(&m[k], recipes[k], 3)) return;
    for (int n = 0, i = 0; n < 3; n++)
      for (int t = 0; t < L; t++) { /* with k, a turn that is not there stands between the first and the second */
        const int at = (n + (k && n)) * L + t;
        there[at] = t < lengths[n];
        x[at] = there[at] > 0 ? (double)(i++ * 7 % 11) : (double)(k + t % 3);
      }
    if (k) give(&m[1], &m[0]);
    CHECK(mk_run(&m[k], &in, &out[k]), "%s", mn_message());
    mc_bag_free(&in);
  }
  for (int n = 0; n < 3; n++) {
    const double *a = mc_get(&out[0], "hidden")->x + n * 5 * 8, *b = mc_get(&out[1], "hidden")->x + (n + (n > 0)) * 9 * 8;
    double e = mc_difference(a, b, lengths[n] * 8);
    CHECK(e < 1e-12, "turn %d: %g", n, e);
  }
  for (int k = 0; k < 2; k++) mc_bag_free(&out[k]), mk_close(&m[k]);
}

/* ---- streams ---- */
/* A dialogue of a golden file, turn by turn as a stream, in pieces of `step` tokens, is the dialogue in one piece; the end of a turn comes
 * with its last token or, late, after it. All ways of writing. */
static void a_turn_in_pieces_is_the_turn(void) {
  for (int i = 0; i < FILES; i++)
    for (int64_t step = 1; step <= 4; step++) {
      mk_golden f;
      mc_bag state = {0};
      if (!mk_golden_open(&f, files[i])) continue;
      const mc_tensor *tokens = mc_get(&f.in, "tokens"), *masks = mc_get(&f.in, "masks"), *want = mc_get(&f.want, "hidden");
      const int64_t T = tokens->shape.dim[1], D = want->shape.dim[2], L = i ? 3 : 4, row = tokens->shape.dim[0] - 1;
      const double *x = tokens->x + row * T, *there = masks->x + row * T, *h = want->x + row * T * D;
      for (int64_t n = 0; n < T / L; n++) {
        int64_t length = 0;
        while (length < L && there[n * L + length] > 0) length++;
        for (int64_t at = 0; at < length; at += step) {
          const int64_t m = at + step < length ? step : length - at;
          mc_bag in = {0}, out = {0};
          mc_put(&in, "tokens", MN_SHAPE(1, m), x + n * L + at);
          mc_put(&in, "turn_ends", MN_SHAPE(1), (double[]){at + m == length});
          CHECK(mk_segment(&f.m, &in, &state, "hidden", &out), "%s", mn_message());
          double e = mc_get(&out, "hidden") ? mc_difference(mc_get(&out, "hidden")->x, h + (n * L + at) * D, m * D) : INFINITY;
          CHECK(e < 1e-11, "%s by %lld: turn %lld, token %lld: %g", files[i], (long long)step, (long long)n, (long long)at, e);
          CHECK(mc_get(&state, "position")->x[0] == (at + m == length ? 0 : (double)(at + m)), "%s: %g", files[i],
                mc_get(&state, "position")->x[0]);
          mc_bag_free(&in);
          mc_bag_free(&out);
        }
      }
      mc_bag_free(&state);
      mk_golden_close(&f);
    }
}

/* A model with f32 parameters, and sessions of it on either backend. */
typedef struct talk {
  mk_model m;
  mn_params *params;
} talk;
static bool talk_open(talk *t, const char *yaml, mn_backend *backend, uint64_t seed) {
  *t = (talk){0};
  if (!mk_open(&t->m, yaml, 1)) return false;
  CHECK_OK(mn_params_new(t->m.model, backend, MN_F32, seed, &t->params));
  return t->params != NULL;
}
static void talk_close(talk *t) {
  mn_params_free(t->params);
  mk_close(&t->m);
}

/* Any decoder, any reader: the blocks inside keep nothing of a turn that is over. */
#define MIXED                                                                                                                              \
  "{type: rxt, vocab_size: 11, d_model: 8, turn: 5, slots: 3, memory: {heads: 2}, positions: learned, max_positions: 5, blocks: ["         \
  "{mixer: {type: gated_deltanet, heads: 2, chunk: 4}, cross: {heads: 2}, hidden: 8}, {mixer: {type: attention, heads: 2, conv: 3}, "      \
  "cross: none, hidden: 8}], encoder: {layers: 1, block: {mixer: " READER ", hidden: 8}}}"

static const int32_t said[4][5] = {{1, 4, 2, 8, 5}, {7, 1, 4, 0, 0}, {2, 0, 0, 0, 0}, {8, 5, 7, 1, 0}};
static const int32_t lengths[4] = {5, 3, 1, 4};

/* Logits of what is said last in each turn. */
static void say(mn_session *s, int from, int to, int step, float *logits) {
  for (int n = from; n < to; n++) {
    const float *x = NULL;
    for (int at = 0; at < lengths[n]; at += step)
      CHECK_OK(mn_session_feed(s, said[n] + at, at + step < lengths[n] ? step : lengths[n] - at, &x));
    if (x) memcpy(logits + n * 11, x, 11 * sizeof *x);
    CHECK_OK(mn_session_end_turn(s, NULL));
  }
}

/* What a session says is what training sees, token by token as turn by turn. */
static void a_session_says_what_training_sees(void) {
  static const char *const recipes[] = {RXT(2, ""), MIXED, RXT(2, ", write: self_interlayer, gate: elementwise, gate_act: tanh")};
  for (int i = 0; i < 3; i++)
    for (int step = 1; step <= 5; step += 2) {
      talk t;
      mn_session *s = NULL;
      mc_bag in = {0}, out = {0};
      float logits[4 * 11] = {0};
      if (!talk_open(&t, recipes[i], mn_backend_ref(), 5)) continue;
      for (int k = 0; k < t.params->n; k++)
        mc_unpack(t.params->data[k], MN_F32, mn_shape_count(&t.params->info[k].shape), take(&t.m, t.params->info[k].name));
      double *x = mc_put(&in, "tokens", MN_SHAPE(1, 20), NULL), *there = mc_put(&in, "masks", MN_SHAPE(1, 20), NULL);
      for (int n = 0; n < 20; n++) x[n] = said[n / 5][n % 5], there[n] = n % 5 < lengths[n / 5];
      CHECK_OK(mn_session_new(t.m.model, t.params, &(mn_session_config){0}, &s));
      if (s && mk_run(&t.m, &in, &out)) {
        const double *h = mc_get(&out, "hidden")->x, *w = mc_get(&out, "head")->x;
        say(s, 0, 4, step, logits);
        double worst = 0;
        for (int n = 0; n < 4; n++)
          for (int v = 0; v < 11; v++) {
            double want = 0;
            for (int d = 0; d < 8; d++) want += h[(n * 5 + lengths[n] - 1) * 8 + d] * w[v * 8 + d];
            worst = fmax(worst, fabs(want - (double)logits[n * 11 + v]));
          }
        CHECK(worst < 1e-5, "%s by %d: %g", recipes[i], step, worst);
      }
      mn_session_free(s);
      mc_bag_free(&in);
      mc_bag_free(&out);
      talk_close(&t);
    }
}

static void *end_in_another_thread(void *s) { return mn_session_end_turn(s, NULL) == MN_OK ? NULL : s; }

/* A dialogue that is saved, and goes on in another session; one that is forked; one whose turns are ended by another thread: the same to
 * the bit. What is kept does not grow. */
static void a_dialogue_goes_on(void) {
  talk t;
  float want[44] = {0}, got[44] = {0};
  mn_session *a = NULL, *b = NULL, *c = NULL, *d = NULL;
  int64_t turns;
  const char *path = "dialogue.safetensors";
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_open("cpu", 2, &cpu));
  if (!cpu || !talk_open(&t, RXT(2, ""), cpu, 5)) return;
  const mn_session_config config = {0};
  CHECK_OK(mn_session_new(t.m.model, t.params, &config, &a));
  CHECK_OK(mn_session_new(t.m.model, t.params, &config, &b));
  say(a, 0, 4, 2, want);
  say(b, 0, 1, 2, got);
  const size_t bytes = mn_session_state_bytes(b);
  const int64_t compiled = mn_program_compiled(mn_session_program(a));
  CHECK_OK(mn_session_feed(b, said[1], 2, NULL)); /* in the middle of a turn */
  CHECK_OK(mn_session_save(b, path));
  CHECK_OK(mn_session_fork(b, &c));
  mn_session_free(b);
  CHECK_OK(mn_session_new(t.m.model, t.params, &config, &b));
  CHECK_OK(mn_session_load(b, path));
  mn_session *both[] = {b, c};
  for (int k = 0; k < 2; k++) {
    const float *x = NULL;
    memset(got, 0, sizeof got);
    CHECK(mn_session_position(both[k]) == 2 && mn_session_turns(both[k], 0, &turns) == MN_OK && turns == 1, "%s", mn_message());
    CHECK_OK(mn_session_feed(both[k], said[1] + 2, 1, &x));
    CHECK_OK(mn_session_end_turn(both[k], NULL));
    say(both[k], 2, 4, 2, got);
    CHECK(!memcmp(got + 22, want + 22, 22 * sizeof *got), k ? "forked" : "saved and loaded");
  }
  CHECK_OK(mn_session_new(t.m.model, t.params, &config, &d));
  for (int n = 0; n < 4 && d; n++) {
    pthread_t other;
    const float *x = NULL;
    void *failed = d;
    for (int at = 0; at < lengths[n]; at += 2) CHECK_OK(mn_session_feed(d, said[n] + at, at + 2 < lengths[n] ? 2 : lengths[n] - at, &x));
    memcpy(got + n * 11, x, 11 * sizeof *x);
    CHECK(pthread_create(&other, NULL, end_in_another_thread, d) == 0 && pthread_join(other, &failed) == 0 && !failed, "turn %d", n);
  }
  CHECK(!memcmp(got, want, sizeof got), "another thread writes what this one does");
  for (int n = 0; n < 20; n++) say(a, n % 4, n % 4 + 1, 2, got);
  CHECK(mn_session_turns(a, 0, &turns) == MN_OK && turns == 24 && mn_session_position(a) == 0, "%lld turns", (long long)turns);
  CHECK(mn_session_state_bytes(a) == bytes, "%zu bytes, then %zu", bytes, mn_session_state_bytes(a));
  CHECK(mn_program_compiled(mn_session_program(a)) == compiled, "nothing is compiled after the first turns");
  mn_session_free(a), mn_session_free(b), mn_session_free(c), mn_session_free(d);
  talk_close(&t);
  mn_backend_free(cpu);
  remove(path);
}

/* Rows of a batch end their turns when they do: each is as it would be alone. */
static void rows_end_their_turns_alone(void) {
  talk t;
  mn_session *both = NULL, *one = NULL;
  float alone[44] = {0};
  const float *x = NULL;
  if (!talk_open(&t, RXT(2, ""), mn_backend_ref(), 5)) return;
  CHECK_OK(mn_session_new(t.m.model, t.params, &(mn_session_config){.batch = 2}, &both));
  CHECK_OK(mn_session_new(t.m.model, t.params, &(mn_session_config){0}, &one));
  say(one, 0, 2, 1, alone);
  const int32_t first[2][5] = {{1, 4, 2, 8, 5}, {9, 3, 0, 0, 0}}, then[2][3] = {{7, 1, 4}, {3, 0, 0}};
  CHECK_OK(mn_session_feed_rows(both, first[0], 5, (int32_t[]){5, 2}, NULL));
  CHECK_OK(mn_session_end_turn(both, (bool[]){true, false}));
  CHECK(mn_session_row_position(both, 0) == 0 && mn_session_row_position(both, 1) == 2, "the other row stands where it stood");
  CHECK_OK(mn_session_feed_rows(both, then[0], 3, (int32_t[]){3, 1}, &x));
  for (int v = 0; x && v < 11; v++) CHECK(fabsf(x[v] - alone[11 + v]) < 1e-6f, "%g is not %g", (double)x[v], (double)alone[11 + v]);
  mn_session_free(one);
  CHECK_OK(mn_session_new(t.m.model, t.params, &(mn_session_config){0}, &one));
  CHECK_OK(mn_session_feed(one, (int32_t[]){9, 3, 3}, 3, &x));
  memcpy(alone, x, 11 * sizeof *x);
  CHECK_OK(mn_session_feed_rows(both, then[0], 3, (int32_t[]){0, 0}, &x));
  for (int v = 0; x && v < 11; v++) CHECK(fabsf(x[11 + v] - alone[v]) < 1e-6f, "%g is not %g", (double)x[11 + v], (double)alone[v]);
  mn_session_free(one), mn_session_free(both);
  talk_close(&t);
}

static void what_a_session_refuses(void) {
  talk t, other;
  mn_session *s = NULL, *o = NULL;
  const char *path = "refused.safetensors";
  int64_t turns;
  if (!talk_open(&t, RXT(2, ""), mn_backend_ref(), 5) || !talk_open(&other, RXT(2, ""), mn_backend_ref(), 6)) return;
  CHECK_OK(mn_session_new(t.m.model, t.params, &(mn_session_config){0}, &s));
  CHECK_OK(mn_session_new(other.m.model, other.params, &(mn_session_config){0}, &o));
  CHECK(mn_session_end_turn(s, NULL) == MN_ERR_ARG && strstr(mn_message(), "nothing to end"), "%s", mn_message());
  CHECK_OK(mn_session_feed(s, said[0], 5, NULL));
  CHECK(mn_session_feed(s, said[0], 1, NULL) == MN_ERR_CONFIG && strstr(mn_message(), "turn is 5") &&
            strstr(mn_message(), "a turn without an end"),
        "%s", mn_message());
  CHECK_OK(mn_session_save(s, path));
  CHECK(mn_session_load(o, path) == MN_ERR_CONFIG && strstr(mn_message(), path) && strstr(mn_message(), "another model"), "%s",
        mn_message());
  FILE *f = fopen(path, "r+b");
  CHECK(f && fseek(f, 0, SEEK_END) == 0 && ftruncate(fileno(f), ftell(f) - 8) == 0, "cut short");
  if (f) fclose(f);
  CHECK(mn_session_load(s, path) != MN_OK && strstr(mn_message(), path), "%s", mn_message());
  mn_session_free(s), mn_session_free(o);
  talk_close(&t), talk_close(&other);
  if (talk_open(&t, "{vocab_size: 11, d_model: 8, block: {mixer: {type: attention, heads: 2}}}", mn_backend_ref(), 5)) {
    CHECK_OK(mn_session_new(t.m.model, t.params, &(mn_session_config){0}, &s));
    CHECK(mn_session_end_turn(s, NULL) == MN_ERR_CONFIG && strstr(mn_message(), "in no turns"), "%s", mn_message());
    CHECK(mn_session_turns(s, 0, &turns) == MN_ERR_CONFIG, "%s", mn_message());
    mn_session_free(s);
    talk_close(&t);
  }
  remove(path);
}

static void what_a_recipe_may_not_ask_for(void) {
#define REST "block: {mixer: {type: attention, heads: 2}}\n"
#define R    "type: rxt\nvocab_size: 9\nd_model: 8\nlayers: 2\n" REST
  mk_refused(R, "encoder must be a map");
  mk_refused("type: rxt\nvocab_size: 9\nd_model: 8\nlayers: 2\nturn: 9\nblock: {mixer: {type: attention, heads: 2, max_context: 8}}\n"
             "encoder: {block: {mixer: " READER "}}\n",
             "recipe.yaml:5|turn is 9 tokens|max_context of layers.0.mixer is 8");
  mk_refused(R "encoder: {layers: 1, block: {mixer: " READER "}}\n", "recipe.yaml:6|encoder has 1 layers, and 2 blocks|cross: none");
  mk_refused(R "encoder: {block: {mixer: " READER "}}\nwrite: grouped\ngroup: 3\n",
             "recipe.yaml:8|group must divide the memory's 2 layers");
  mk_refused(R "encoder: {block: {mixer: " READER "}}\nwrite: grouped\n", "group must divide");
  mk_refused(R "encoder: {block: {mixer: " READER "}}\ngroup: 2\n", "recipe.yaml:7|group has no effect without write: grouped");
  mk_refused(R "encoder: {block: {mixer: " READER "}}\ngate: none\ngate_act: tanh\n",
             "recipe.yaml:8|gate_act has no effect with gate: none");
  mk_refused(R "encoder: {block: {mixer: " READER "}}\nwrite: interlayers\n", "recipe.yaml:7|write must be one of|self_interlayer");
  mk_refused(R "encoder: {block: {mixer: " READER "}}\nmemory: {heads: 3}\n", "recipe.yaml:7|heads must divide d_model 8");
  mk_refused(R "encoder: {block: {mixer: " READER "}}\nmemory: 4\n", "recipe.yaml:7|memory must be a map");
  mk_refused(R "encoder: {block: {mixer: " READER "}}\nmemory: {heads: 8}\n", "recipe.yaml:7|memory.head_dim must be even|it is 1");
  mk_refused("type: rxt\nvocab_size: 9\nd_model: 4\nencoder: {block: {mixer: " READER "}}\n"
             "block: {mixer: {type: attention, heads: 2}, cross: {heads: 1}}\n",
             "recipe.yaml:1|memory.head_dim must be even"); /* of four heads, which nobody asked for */
#define ASKS(cross, more) "type: rxt\nvocab_size: 9\nd_model: 6\nblock:\n  mixer: {type: attention, heads: 1" more "}\n" cross
#define READS             "encoder: {block: {mixer: {type: attention, heads: 1, causal: false}}}\nmemory: {heads: 1}\n"
  mk_refused(ASKS("  cross: {heads: 2}\n", "") READS, "recipe.yaml:6|block.cross.head_dim must be even for rotary positions, it is 3");
  mk_refused(ASKS("  cross: {heads: 2, head_dim: 5}\n", "") READS, "recipe.yaml:6|block.cross.head_dim must be even");
  mk_refused(ASKS("", "") READS, "recipe.yaml:5|block.cross.heads must divide d_model 6");
  mk_refused(ASKS("  cross: {heads: 1}\n", ", causal: false") READS, "recipe.yaml:5|block must be causal|sees later tokens");
  mk_model m;
  mc_bag in = {0};
  mk_built b;
  if (!mk_open(&m, RXT(2, ""), 1)) return;
  mk_tokens(&in, "tokens", 1, 12, 11, 1);
  CHECK(!mk_build(&m, &in, false, &b) && strstr(mn_message(), "12 tokens are no whole number of turns of 5"), "%s", mn_message());
  mk_free(&b);
  mc_bag_free(&in);
  mk_close(&m);
}

static void a_recipe_comes_back(void) {
  static const char *const recipes[] = {RXT(2, ", write: grouped, group: 2, gate: elementwise, gate_act: tanh, truncate: 3"), RXT(1, ""),
                                        MIXED};
  for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
    mk_model m;
    mn_model *again = NULL;
    mn_text a = {0}, b = {0};
    const mn_value *back = NULL;
    if (!mk_open(&m, recipes[i], 1)) continue;
    CHECK_OK(mn_value_to_json(mn_model_to_value(m.arena, m.model), 0, &a));
    CHECK_OK(mn_json_parse(m.arena, "config.json", a.data, strlen(a.data), &back));
    CHECK_OK(mn_model_parse(back, NULL, 0, &again));
    if (again) CHECK_OK(mn_value_to_json(mn_model_to_value(m.arena, again), 0, &b));
    CHECK(a.data && b.data && !strcmp(a.data, b.data), "%s\n%s", a.data, b.data);
    mn_model_free(again);
    mn_text_free(&a), mn_text_free(&b);
    mk_close(&m);
  }
}

int main(void) {
  RUN(golden_vectors);
  RUN(gradients_agree_with_differences);
  RUN(gradients_stop_where_a_recipe_says);
  RUN(ways_of_writing_meet);
  RUN(without_its_memory_it_is_a_decoder);
  RUN(slots_are_in_no_order);
  RUN(what_a_gate_may_do);
  RUN(padding_writes_nothing);
  RUN(a_turn_in_pieces_is_the_turn);
  RUN(a_session_says_what_training_sees);
  RUN(a_dialogue_goes_on);
  RUN(rows_end_their_turns_alone);
  RUN(what_a_session_refuses);
  RUN(what_a_recipe_may_not_ask_for);
  RUN(a_recipe_comes_back);
  return test_end();
}
