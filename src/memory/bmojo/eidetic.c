/* eidetic.c - see eidetic.h. */
#include "memory/bmojo/eidetic.h"
#include "graph/fused_attention.h"
#include "memory/attention.h"
#include "nn/prefix.h"

#include <math.h>

/* Slots with a token each: k, v [B,n,G,d], surprise [B,n] or NULL, at [B,n] its position or NULL. */
typedef struct slots {
  mn_tensor *k, *v, *surprise, *at;
} slots;

static slots each(mn_graph *g, const slots *a, mn_tensor *index) { /* those at index [B,m], all of them */
  return (slots){.k = mn_take(g, a->k, index, 1),
                 .v = mn_take(g, a->v, index, 1),
                 .surprise = a->surprise ? mn_take(g, a->surprise, index, 1) : NULL,
                 .at = a->at ? mn_take(g, a->at, index, 1) : NULL};
}
static slots behind(mn_graph *g, const slots *a, const slots *b) {
#define BEHIND(m) .m = mn_concat(g, 2, (mn_tensor *[]){a->m, b->m}, 1)
  return (slots){BEHIND(k), BEHIND(v), BEHIND(surprise), BEHIND(at)};
#undef BEHIND
}

static slots slots_of(mn_scope *s, int64_t n, const mn_tensor *k, bool surprise, bool at) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(k, 0);
  const mn_dtype t = mn_scope_exact(s);
  const mn_shape rows = MN_SHAPE(B, n, mn_dim(k, 2), mn_dim(k, 3)), one = MN_SHAPE(B, n);
  mn_tensor *none = at ? mn_full(g, t, one, -1) : NULL; /* where positions are kept, -1 says that a slot is empty */
  return (slots){.k = mn_state(s, "k", mn_type(k), rows, NULL, "keys"),
                 .v = mn_state(s, "v", mn_type(k), rows, NULL, "values"),
                 .surprise = surprise ? mn_state(s, "surprise", t, one, none, "how badly each was predicted") : NULL,
                 .at = at ? mn_state(s, "at", MN_F64, one, mn_full(g, MN_F64, one, -1), "position of each; -1: empty") : NULL};
}
static void set_slots(mn_scope *s, const slots *a) {
  mn_state_set(s, "k", a->k);
  mn_state_set(s, "v", a->v);
  if (a->surprise) mn_state_set(s, "surprise", a->surprise);
  if (a->at) mn_state_set(s, "at", a->at);
}

/* At the start of a chunk: pending tokens that have left the other parts go into the heap. */
typedef struct chunk_start {
  const mn_eidetic *c;
  const mn_tensor *k; /* for types and shapes */
  int64_t heads;
} chunk_start;

static int64_t ring_of(const mn_eidetic *c) { return c->span + c->chunk; }

static mn_tensor *position_of(mn_scope *s) { /* i32 [B,1], of the segment's first token */
  const int64_t B = mn_scope_batch(s);
  mn_tensor *start = mn_scope_position(s);
  return start ? mn_reshape(mn_scope_graph(s), start, MN_SHAPE(B, 1)) : mn_full(mn_scope_graph(s), MN_I32, MN_SHAPE(B, 1), 0);
}

/* What goes is appended; of the store, what the last chunk asked for is found. */
static void append_and_find(mn_scope *s, const chunk_start *x, const slots *gone, mn_tensor *is_gone, mn_tensor *begins) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(gone->k, 0), n = mn_dim(gone->k, 1), G = mn_dim(gone->k, 2), d = mn_dim(gone->k, 3), S = x->c->store;
  const int64_t R = x->c->retrieve, H = x->heads;
  const mn_dtype t = mn_scope_exact(s);
  mn_scope *in_store = mn_scope_in(s, "store"), *in_found = mn_scope_in(s, "found");
  slots all = slots_of(in_store, S, x->k, false, true), found = slots_of(in_found, R, x->k, false, true);
  mn_tensor *count = mn_state(in_store, "count", MN_F64, MN_SHAPE(B, 1), NULL, "tokens that were put here so far");
  mn_tensor *whole = mn_floor(g, mn_add_scalar(g, count, 0.5)); /* a number that is kept as it is, to the nearest */
  mn_tensor *next = mn_cast(g, mn_mod(g, whole, mn_scalar(g, MN_F64, (double)S)), MN_I32);
  mn_tensor *slot = mn_mod(g, mn_add(g, next, mn_iota(g, MN_I32, MN_SHAPE(1, n), 1)), mn_scalar(g, MN_I32, (double)S));
  slot = mn_select(g, is_gone, slot, mn_scalar(g, MN_I32, -1));
  all.k = mn_put(g, all.k, slot, gone->k, 1, MN_PUT_SET);
  all.v = mn_put(g, all.v, slot, gone->v, 1, MN_PUT_SET);
  all.at = mn_put(g, all.at, slot, gone->at, 1, MN_PUT_SET);
  set_slots(in_store, &all);
  mn_state_set(in_store, "count", mn_add(g, count, mn_sum(g, mn_cast(g, is_gone, MN_F64), MN_AXIS(1))));

  mn_tensor *asked = mn_state(s, "asked", t, MN_SHAPE(B, H, d), NULL, "sum of the chunk's queries");
  mn_tensor *by_group = mn_reshape(g, mn_sum(g, mn_reshape(g, asked, MN_SHAPE(B, G, H / G, d)), MN_AXIS(2)), MN_SHAPE(B, G * d, 1));
  mn_tensor *score = mn_matmul(g, mn_reshape(g, mn_cast(g, all.k, t), MN_SHAPE(B, S, G * d)), by_group);
  score = mn_select(g, mn_lt(g, all.at, mn_scalar(g, MN_F64, 0)), mn_scalar(g, t, MN_NOTHING), mn_reshape(g, score, MN_SHAPE(B, S)));
  slots now = each(g, &all, mn_topk(g, score, R));
  mn_tensor *rows = mn_reshape(g, begins, MN_SHAPE(B, 1, 1, 1));
  found.k = mn_select(g, rows, now.k, found.k);
  found.v = mn_select(g, rows, now.v, found.v);
  found.at = mn_select(g, begins, now.at, found.at);
  set_slots(in_found, &found);
  mn_state_set(s, "asked", mn_select(g, mn_reshape(g, begins, MN_SHAPE(B, 1, 1)), mn_scalar(g, t, 0), asked));
}

/* in: the pending k, v, surprise; bool [B,1], rows whose chunk begins. */
static void merge(mn_scope *s, void *ctx, mn_tensor *const *in, mn_tensor **out) {
  const chunk_start *x = ctx;
  const mn_eidetic *c = x->c;
  mn_graph *g = mn_scope_graph(s);
  mn_scope *in_kept = mn_scope_in(s, "kept");
  const int64_t B = mn_dim(x->k, 0), M = c->slots, C = c->chunk;
  const mn_dtype t = mn_scope_exact(s);
  mn_tensor *begins = in[3], *empty = mn_scalar(g, t, -1);
  (void)out;
  slots kept = slots_of(in_kept, M, x->k, true, true), pending = {in[0], in[1], in[2], NULL};
  /* those that were too near at the last chunk's start and no longer are: b - s - C < j <= b - s */
  mn_tensor *j = mn_add(g, position_of(s), mn_add_scalar(g, mn_iota(g, MN_I32, MN_SHAPE(B, C), 1), (double)(1 - c->span - C)));
  slots more = each(g, &pending, mn_mod(g, j, mn_scalar(g, MN_I32, (double)ring_of(c))));
  more.at = mn_cast(g, j, MN_F64);
  mn_tensor *there = mn_and(g, begins, mn_le(g, mn_scalar(g, MN_I32, 0), j));
  if (c->threshold > 0) there = mn_and(g, there, mn_le(g, mn_scalar(g, t, c->threshold), more.surprise));
  /* the heap falls, and equals keep their order: of equal ones the older stays, empty slots stay behind all */
  mn_tensor *old = mn_select(g, mn_lt(g, kept.surprise, mn_scalar(g, t, 0)), empty, kept.surprise);
  mn_tensor *key = mn_concat(g, 2, (mn_tensor *[]){old, mn_select(g, there, more.surprise, empty)}, 1);
  mn_tensor *order = mn_topk(g, key, c->store ? M + C : M);
  const slots all = behind(g, &kept, &more);
  kept = each(g, &all, mn_slice(g, order, 1, 0, M));
  set_slots(in_kept, &kept);
  if (!c->store) return;
  mn_tensor *rest = mn_slice(g, order, 1, M, C);
  const slots gone = each(g, &all, rest);
  append_and_find(s, x, &gone, mn_le(g, mn_scalar(g, t, 0), mn_take(g, key, rest, 1)), begins);
}

/* Softmax of q over slots of which those whose mark is below 0 are empty. */
static void attend(mn_scope *s, mn_tensor *q, const slots *a, mn_tensor *mark, mn_tensor **o, mn_tensor **lse) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *there = mn_le(g, mn_scalar(g, mn_type(mark), 0), mark);
  mn_attention_io io = {.q = q, .k = a->k, .v = a->v, .k_pos = mn_add_scalar(g, mn_cast(g, there, MN_I32), -1)};
  mn_attend(g, &io, (mn_attention_attr){.scale = 1 / sqrt((double)mn_dim(q, 3))});
  *o = mn_cast(g, io.o, mn_scope_exact(s));
  *lse = io.lse;
}

static void report(mn_scope *s, const char *name, mn_tensor *at, int64_t n) { /* [B,n,slots]: what each token sees */
  const mn_shape shape = MN_SHAPE(mn_dim(at, 0), n, mn_dim(at, 1));
  mn_report(s, name, mn_expand(mn_scope_graph(s), mn_unsqueeze(mn_scope_graph(s), at, 1), shape));
}

/* n tokens that lie in one chunk. in: q, k, v, surprise; out: o, lse [B,n,H] */
static void piece(mn_scope *s, void *ctx, mn_tensor *const *in, mn_tensor **out) {
  const mn_eidetic *c = ctx;
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(in[0], 0), n = mn_dim(in[0], 1), R = ring_of(c);
  mn_scope *in_pending = mn_scope_in(s, "pending"), *in_kept = mn_scope_in(s, "kept");
  slots pending = slots_of(in_pending, R, in[1], true, false);
  mn_tensor *position = position_of(s), *live = mn_scope_live(s, n);
  mn_tensor *begins = mn_eq(g, mn_mod(g, position, mn_scalar(g, MN_I32, (double)c->chunk)), mn_scalar(g, MN_I32, 0)); /* [B,1] */
  if (live) begins = mn_and(g, begins, mn_slice(g, live, 1, 0, 1)); /* a row of padding begins nothing */
  chunk_start x = {c, in[1], mn_dim(in[0], 2)};
  mn_tensor *given[4] = {pending.k, pending.v, pending.surprise, begins};
  if (mn_scope_aligned(s, c->chunk)) merge(s, &x, given, NULL);
  else {
    mn_tensor *any = mn_reshape(g, mn_max(g, mn_cast(g, begins, MN_I32), MN_ALL_AXES), (mn_shape){0});
    mn_scope_when(s, any, merge, &x, 4, given, 0, NULL, NULL);
  }
  slots kept = slots_of(in_kept, c->slots, in[1], true, true);
  attend(s, in[0], &kept, kept.surprise, &out[0], &out[1]);
  report(s, "kept", kept.at, n);
  if (c->store) {
    slots found = slots_of(mn_scope_in(s, "found"), c->retrieve, in[1], false, true);
    mn_tensor *o, *lse, *asked = mn_state(s, "asked", mn_scope_exact(s), MN_SHAPE(B, x.heads, mn_dim(in[0], 3)), NULL, "");
    attend(s, in[0], &found, found.at, &o, &lse);
    out[0] = mn_attention_join(g, o, lse, out[0], out[1], &out[1]);
    mn_tensor *q = mn_scope_masked(s, mn_cast(g, in[0], mn_scope_exact(s)), 0);
    mn_state_set(s, "asked", mn_add(g, asked, mn_squeeze(g, mn_sum(g, q, MN_AXIS(1)), 1)));
    report(s, "found", found.at, n);
  }
  out[1] = mn_transpose(g, out[1], 1, 2);
  mn_tensor *slot = mn_mod(g, mn_add(g, position, mn_iota(g, MN_I32, MN_SHAPE(B, n), 1)), mn_scalar(g, MN_I32, (double)R));
  if (live) slot = mn_select(g, live, slot, mn_scalar(g, MN_I32, -1));
  pending.k = mn_put(g, pending.k, slot, in[1], 1, MN_PUT_SET);
  pending.v = mn_put(g, pending.v, slot, in[2], 1, MN_PUT_SET);
  pending.surprise = mn_put(g, pending.surprise, slot, in[3], 1, MN_PUT_SET);
  set_slots(in_pending, &pending);
}

void mn_eidetic_read(mn_scope *s, const mn_eidetic *c, mn_tensor *q, mn_tensor *k, mn_tensor *v, mn_tensor *surprise, mn_tensor **o,
                     mn_tensor **lse) {
  int64_t length = c->chunk; /* pieces never cross the end of a chunk */
  while (length > 1 && (c->chunk % length || !mn_scope_aligned(s, length))) length--;
  mn_eidetic how = *c;
  mn_tensor *in[4] = {q, k, v, surprise}, *out[2];
  mn_scope_loop_n(s, (mn_loop){.length = length}, piece, &how, 4, in, 2, out);
  *o = out[0];
  *lse = out[1] ? mn_transpose(mn_scope_graph(s), out[1], 1, 2) : NULL;
}
