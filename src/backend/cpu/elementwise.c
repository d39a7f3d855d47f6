/* elementwise.c - element-wise programs on the CPU. A program is compiled once (prepare) to steps over tiles that stay in
 * the first-level cache: inputs that lie dense are read where they are, others are gathered into a slot; the last
 * instruction of an output writes it in place. Values that are one number for all elements are computed once per run.
 *
 * Tiles are spread over threads in groups whose size depends on the program and the shape only, so results do not depend on the number
 * of threads; groups are of some microseconds and alike, and a tensor of one group runs in the calling thread without waking any other. */
#include "backend/cpu/copy.h"
#include "backend/cpu/isa/elementwise.h"
#include "graph/ops.h"

#include <stdlib.h>
#include <string.h>

enum {
  GROUP = 16384,      /* elements of a task, at most               */
  LEAST = 1024,       /* and at least                              */
  WORK = 1 << 17,     /* of a task: elements times what one costs  */
  MANY = 8,           /* tasks that are enough for all threads     */
  DEAR = 12,          /* cost of an exponential; of a sum it is 1  */
  SLOT_BYTES = 24576, /* of all slots together: most of an L1 cache */
  TRANSPOSED = 4096   /* elements from which a transposed input is turned beforehand */
};
enum { MAX_REG = MN_EW_MAX_IN + MN_EW_MAX_INSTR, IMMEDIATE = 0xFF, NONE = -1 };

/* Places: every operand of a step is an entry of one table of addresses. */
enum {
  PLACE_VALUE = 0,                        /* one number for all: register r */
  PLACE_IMM = PLACE_VALUE + MAX_REG,      /* immediate of instruction i     */
  PLACE_IN = PLACE_IMM + MN_EW_MAX_INSTR, /* memory of input i              */
  PLACE_OUT = PLACE_IN + MN_EW_MAX_IN,    /* memory of output j             */
  PLACE_SLOT = PLACE_OUT + MN_EW_MAX_OUT, /* slot s                         */
  PLACES = PLACE_SLOT + MAX_REG + MN_EW_MAX_OUT
};

typedef struct step {
  mn_ew_fn fn;
  uint8_t dst, src[3]; /* places */
  uint8_t scalar;      /* bit k: operand k is one number */
  int8_t gather;       /* >= 0: brings this input to dst */
  bool fill;           /* one number to a whole output   */
} step;

typedef struct strided { /* an input that is not dense, its axes merged as far as they go */
  int ndim;
  int64_t dim[MN_MAX_DIMS], stride[MN_MAX_DIMS];
  mn_ew_fn load;                                                     /* from memory to the register's type */
  void (*spread)(void *y, const void *x, int64_t n, int64_t stride); /* the same of a row that is not dense */
} strided;

typedef union number {
  float f32;
  double f64;
  int32_t i32;
  int64_t i64;
  uint8_t boolean;
} number;

typedef struct plan {
  const mn_ew_vec *vec;
  int n_once, n_step;
  step *once, *steps;           /* run once per run, and once per tile */
  strided *in;                  /* per input                           */
  number *imm;                  /* per instruction                     */
  int n_slot, slot_size;        /* bytes per element of a slot */
  int64_t count, tile, tiles;   /* elements; of a tile; tiles of a task */
  int64_t turned[MN_EW_MAX_IN]; /* where in the workspace a transposed input lies dense; NONE */
  uint8_t in_size[MN_EW_MAX_IN], reg_size[MAX_REG], out_size[MN_EW_MAX_OUT];
} plan;

typedef struct room { /* for what the largest program needs; a plan keeps what its own does, for there is one for each step of a model */
  step once[MAX_REG], steps[MAX_REG * 2 + MN_EW_MAX_OUT];
  strided in[MN_EW_MAX_IN];
  number imm[MN_EW_MAX_INSTR];
} room;

/* ---- types ---- registers hold bf16 as f32 */
static mn_dtype held(int t) { return t == MN_BF16 ? MN_F32 : (mn_dtype)t; }

static mn_ew_fn find(const mn_ew_vec *v, int code, int src, int dst) {
  if (code < 0 || code >= MN_EW_CODES || src < 0 || src >= MN_DTYPES || dst < 0 || dst >= MN_DTYPES) return NULL;
  if (code == MN_EW_CAST) return dst == MN_BF16 ? v->round_bf16[held(src)] : v->cast[held(src)][held(dst)];
  switch (held(src)) {
  case MN_F32:
    return v->f32[code];
  case MN_F64:
    return v->f64[code];
  case MN_I32:
    return v->i32[code];
  case MN_I64:
    return v->i64[code];
  case MN_BOOL:
    return v->boolean[code];
  default:
    return NULL;
  }
}
static int arity(int code) { return code == MN_EW_SELECT ? 3 : code >= MN_EW_ADD && code < MN_EW_SELECT ? 2 : 1; }

static number number_of(double v, mn_dtype t) {
  number n = {0};
  switch (t) {
  case MN_F64:
    n.f64 = v;
    break;
  case MN_I32:
    n.i32 = (int32_t)v;
    break;
  case MN_I64:
    n.i64 = (int64_t)v;
    break;
  case MN_BOOL:
    n.boolean = v != 0;
    break;
  default:
    n.f32 = (float)v;
    break;
  }
  return n;
}

/* ---- from a program to steps ---- */
typedef struct op { /* an instruction after folding; its operands are places of values, or registers */
  mn_ew_fn fn;
  int reg, n_src;
  int src[3]; /* register, or NONE: the immediate */
  int imm[3]; /* which instruction's immediate    */
  bool once;
} op;

typedef struct compiler {
  plan *p;
  const mn_ew_vec *vec;
  const mn_ew_attr *a;
  op ops[MN_EW_MAX_INSTR];
  int n_ops;
  int alias[MAX_REG];     /* the register that holds this one's value            */
  mn_dtype type[MAX_REG]; /* held type                                           */
  bool value[MAX_REG];    /* one number for all                                  */
  bool direct[MAX_REG];   /* an input read where it lies                         */
  int place[MAX_REG];     /* NONE: not yet in a place                            */
  int last[MAX_REG];      /* last op that reads it; n_ops: an output             */
  int uses[MAX_REG];
  bool slot_used[MAX_REG + MN_EW_MAX_OUT];
} compiler;

static mn_status broken(const char *what) { return mn_fail(MN_ERR_INTERNAL, "element-wise program: %s", what); }

/* Types fit, registers exist; casts that change nothing become aliases; uses are counted. */
static mn_status read_program(compiler *c, const mn_call *call) {
  const mn_ew_attr *a = c->a;
  if (a->n_in != call->n_in || a->n_out != call->n_out || a->n_in > MN_EW_MAX_IN || a->n_out > MN_EW_MAX_OUT ||
      a->n_instr > MN_EW_MAX_INSTR || a->n_in < 0 || a->n_instr < 0)
    return broken("it does not fit its node");
  for (int r = 0; r < MAX_REG; r++) c->alias[r] = r;
  for (int i = 0; i < a->n_in; i++) c->type[i] = held(call->in[i].dtype);
  int stored_only[MAX_REG] = {0}; /* uses by outputs of type bf16 */
  for (int j = 0; j < a->n_out; j++) {
    if (a->out_reg[j] >= a->n_in + a->n_instr) return broken("an output names no register");
    if (call->out[j].dtype == MN_BF16) stored_only[a->out_reg[j]]++;
    c->uses[a->out_reg[j]]++;
  }
  for (int i = 0; i < a->n_instr; i++)
    for (int k = 0; k < arity(a->instr[i].code); k++) {
      if (a->instr[i].src[k] == IMMEDIATE) continue;
      if (a->instr[i].src[k] >= a->n_in + i) return broken("an operand is used before it is made");
      c->uses[a->instr[i].src[k]]++;
    }
  for (int i = 0; i < a->n_instr; i++) {
    const mn_ew_instr *in = &a->instr[i];
    int r = a->n_in + i;
    c->type[r] = held(in->dtype);
    mn_ew_fn fn = find(c->vec, in->code, in->src_dtype, in->dtype);
    if (!fn) return broken("an operation is not defined for its type");
    c->p->imm[i] = number_of(in->imm, held(in->src_dtype));
    op *o = &c->ops[c->n_ops];
    *o = (op){.fn = fn, .reg = r, .n_src = arity(in->code), .once = true};
    for (int k = 0; k < o->n_src; k++) {
      bool cond = in->code == MN_EW_SELECT && k == 0;
      o->imm[k] = i;
      if (in->src[k] == IMMEDIATE) {
        if (cond) return broken("the condition of a select is an immediate");
        o->src[k] = NONE;
        continue;
      }
      int s = o->src[k] = c->alias[in->src[k]];
      if (c->type[s] != (cond ? MN_BOOL : held(in->src_dtype))) return broken("an operand has another type than it says");
      o->once &= c->value[s];
    }
    c->value[r] = o->once;
    /* f32 from bf16 is what the register holds already; to bf16 for a bf16 output is what the store does */
    if (in->code == MN_EW_CAST && o->src[0] != NONE && c->type[r] == c->type[o->src[0]] &&
        (in->dtype != MN_BF16 || stored_only[r] == c->uses[r])) {
      c->alias[r] = o->src[0];
      c->uses[o->src[0]] += c->uses[r] - 1;
      continue;
    }
    c->n_ops++;
  }
  return MN_OK;
}

/* a*b + c where nothing else reads the product */
static void fuse_multiply_add(compiler *c) {
  for (int i = 0; i < c->n_ops; i++) {
    op *add = &c->ops[i];
    if (add->fn != c->vec->f32[MN_EW_ADD] || add->once) continue;
    for (int k = 0; k < 2; k++) {
      if (add->src[k] == NONE || c->uses[add->src[k]] != 1) continue;
      int j = i - 1;
      while (j >= 0 && c->ops[j].reg != add->src[k]) j--;
      if (j < 0 || c->ops[j].fn != c->vec->f32[MN_EW_MUL] || c->ops[j].once) continue;
      op mul = c->ops[j];
      op fused = {.fn = c->vec->fma_f32, .reg = add->reg, .n_src = 3};
      for (int m = 0; m < 2; m++) fused.src[m] = mul.src[m], fused.imm[m] = mul.imm[m];
      fused.src[2] = add->src[1 - k], fused.imm[2] = add->imm[1 - k];
      *add = fused;
      memmove(&c->ops[j], &c->ops[j + 1], sizeof(op) * (size_t)(c->n_ops - j - 1));
      c->n_ops--;
      i--;
      break;
    }
  }
}

static void merge_axes(strided *s, const mn_view *in) {
  s->ndim = 0;
  for (int d = 0; d < in->ndim; d++) {
    if (in->dim[d] == 1) continue;
    int l = s->ndim - 1;
    if (l >= 0 && s->stride[l] == in->stride[d] * in->dim[d]) {
      s->dim[l] *= in->dim[d];
      s->stride[l] = in->stride[d];
      continue;
    }
    s->dim[s->ndim] = in->dim[d];
    s->stride[s->ndim++] = in->stride[d];
  }
}

/* An input that runs across memory would be gathered one element to a cache line, tile after tile. */
static bool transposed(const mn_view *v) {
  int last = v->ndim - 1;
  while (last >= 0 && v->dim[last] == 1) last--;
  if (last < 0 || v->stride[last] == 0 || v->stride[last] == 1 || mn_view_count(v) < TRANSPOSED) return false;
  for (int d = 0; d < last; d++)
    if (v->stride[d] == 1 && v->dim[d] >= 8) return true;
  return false;
}
static int64_t place_turned(const mn_call *c, int64_t at[MN_EW_MAX_IN]) { /* bytes of all */
  int64_t bytes = 0;
  for (int i = 0; i < c->n_in && i < MN_EW_MAX_IN; i++) {
    at[i] = transposed(&c->in[i]) ? bytes : NONE;
    if (at[i] != NONE) bytes += (int64_t)mn_align((size_t)mn_view_count(&c->in[i]) * mn_dtype_size(c->in[i].dtype), 64);
  }
  return bytes;
}
static size_t workspace(const mn_call *c) {
  int64_t at[MN_EW_MAX_IN];
  return (size_t)place_turned(c, at);
}
static mn_view made_dense(const mn_view *v) {
  mn_view d = *v;
  int64_t stride = 1;
  for (int i = d.ndim - 1; i >= 0; i--) d.stride[i] = stride, stride *= d.dim[i];
  return d;
}

static int take_slot(compiler *c) {
  int s = 0;
  while (c->slot_used[s]) s++;
  c->slot_used[s] = true;
  if (s >= c->p->n_slot) c->p->n_slot = s + 1;
  return PLACE_SLOT + s;
}
static void release(compiler *c, int place) {
  if (place >= PLACE_SLOT) c->slot_used[place - PLACE_SLOT] = false;
}

/* An input, brought to a place where steps can read it. */
static void bring(compiler *c, const mn_call *call, int r) {
  if (c->place[r] != NONE) return;
  plan *p = c->p;
  if (c->direct[r]) {
    c->place[r] = PLACE_IN + r;
    return;
  }
  bool dense = p->in[r].ndim == 0 || (p->in[r].ndim == 1 && p->in[r].stride[0] == 1);
  c->place[r] = take_slot(c);
  p->steps[p->n_step++] = (step){.fn = c->vec->cast[call->in[r].dtype][c->type[r]],
                                 .dst = (uint8_t)c->place[r],
                                 .src = {(uint8_t)(PLACE_IN + r), (uint8_t)(PLACE_IN + r), (uint8_t)(PLACE_IN + r)},
                                 .gather = (int8_t)(dense ? NONE : r)};
}

static void emit(compiler *c, const mn_call *call) {
  plan *p = c->p;
  const mn_ew_attr *a = c->a;
  for (int r = 0; r < MAX_REG; r++) c->place[r] = NONE, c->last[r] = NONE;
  for (int i = 0; i < c->n_ops; i++)
    for (int k = 0; k < c->ops[i].n_src; k++)
      if (c->ops[i].src[k] != NONE) c->last[c->ops[i].src[k]] = i;
  int out_of[MN_EW_MAX_OUT], through = 0;
  for (int j = 0; j < a->n_out; j++) {
    int r = out_of[j] = c->alias[a->out_reg[j]];
    c->last[r] = c->n_ops;
    through += r < a->n_in && !c->value[r];
  }
  /* An output's memory may be an input's. So an output is written by its instruction only when nothing reads memory
   * afterwards; else it waits in a slot. Two inputs handed through might be each other's outputs. */
  int first[MN_EW_MAX_IN], memory_last = through ? c->n_ops : NONE;
  for (int r = 0; r < a->n_in; r++) {
    bool dense = p->in[r].ndim == 0 || (p->in[r].ndim == 1 && p->in[r].stride[0] == 1);
    c->direct[r] = dense && call->in[r].dtype == c->type[r] && !(through > 1 && c->last[r] == c->n_ops);
    first[r] = NONE;
  }
  for (int i = c->n_ops - 1; i >= 0; i--)
    for (int k = 0; k < c->ops[i].n_src; k++) {
      int s = c->ops[i].src[k];
      if (s != NONE && s < a->n_in && !c->value[s]) {
        if (c->direct[s] && i > memory_last) memory_last = i;
        first[s] = i;
      }
    }
  for (int r = 0; r < a->n_in; r++)
    if (first[r] > memory_last) memory_last = first[r];

  for (int i = 0; i < c->n_ops; i++) {
    op *o = &c->ops[i];
    step s = {.fn = o->fn, .gather = NONE};
    for (int k = 0; k < o->n_src; k++) {
      int r = o->src[k];
      if (r == NONE) s.src[k] = (uint8_t)(PLACE_IMM + o->imm[k]);
      else if (c->value[r]) s.src[k] = (uint8_t)(PLACE_VALUE + r);
      else {
        bring(c, call, r);
        s.src[k] = (uint8_t)c->place[r];
        continue;
      }
      s.scalar |= (uint8_t)(1u << k);
    }
    for (int k = o->n_src; k < 3; k++) s.src[k] = s.src[0];
    if (o->once) {
      s.scalar = 0;
      s.dst = (uint8_t)(PLACE_VALUE + o->reg);
      p->once[p->n_once++] = s;
      continue;
    }
    int place = NONE;
    for (int j = 0; j < a->n_out && place == NONE; j++)
      if (out_of[j] == o->reg && call->out[j].dtype == c->type[o->reg] && i >= memory_last) place = PLACE_OUT + j;
    /* A slot whose value dies here may be written in place where the elements have one size. */
    for (int k = 0; k < o->n_src && place == NONE; k++) {
      int r = o->src[k];
      if (r == NONE || c->value[r] || c->last[r] != i || c->place[r] < PLACE_SLOT) continue;
      if (p->reg_size[r] == p->reg_size[o->reg]) {
        place = c->place[r];
        c->place[r] = PLACE_IN; /* no longer owns the slot */
      }
    }
    if (place == NONE) place = take_slot(c);
    for (int k = 0; k < o->n_src; k++)
      if (o->src[k] != NONE && !c->value[o->src[k]] && c->last[o->src[k]] == i) {
        release(c, c->place[o->src[k]]);
        c->place[o->src[k]] = PLACE_IN;
      }
    if (c->last[o->reg] == NONE) release(c, place); /* nothing reads it */
    c->place[o->reg] = place;
    s.dst = (uint8_t)place;
    p->steps[p->n_step++] = s;
  }

  /* what is handed through first waits in slots, then all is stored */
  for (int j = 0; j < a->n_out; j++)
    if (!c->value[out_of[j]]) bring(c, call, out_of[j]);
  for (int pass = 0; pass < 2; pass++)
    for (int j = 0; j < a->n_out; j++) {
      int r = out_of[j];
      bool from_memory = !c->value[r] && c->place[r] < PLACE_OUT;
      if (from_memory != (pass == 0) || (!c->value[r] && c->place[r] == PLACE_OUT + j)) continue;
      int from = c->value[r] ? PLACE_VALUE + r : c->place[r];
      p->steps[p->n_step++] = (step){.fn = c->vec->cast[c->type[r]][call->out[j].dtype],
                                     .dst = (uint8_t)(PLACE_OUT + j),
                                     .src = {(uint8_t)from, (uint8_t)from, (uint8_t)from},
                                     .gather = NONE,
                                     .fill = c->value[r]};
    }
}

/* ---- the kernel ---- */
static bool is_dear(int code) {
  switch (code) {
  case MN_EW_EXP:
  case MN_EW_LOG:
  case MN_EW_LOG1P:
  case MN_EW_SIN:
  case MN_EW_COS:
  case MN_EW_TANH:
  case MN_EW_SIGMOID:
  case MN_EW_ERF:
  case MN_EW_POW:
  case MN_EW_SOFTPLUS:
  case MN_EW_SILU:
  case MN_EW_SILU_SLOPE:
    return true;
  default:
    return false;
  }
}

static int64_t up_to_64(int64_t n) { return (n + 63) / 64 * 64; }
/* Where there is enough for all threads, tasks are long, since several streams of memory run better so. */
static void cut(plan *p, const mn_ew_attr *a) {
  p->tiles = GROUP / p->tile;
  if (p->count >= MANY * GROUP) return;
  int64_t cost = a->n_in + a->n_out;
  for (int i = 0; i < a->n_instr; i++) cost += is_dear(a->instr[i].code) ? DEAR : 1;
  int64_t group = WORK / cost;
  group = group < LEAST ? LEAST : group > GROUP ? GROUP : group;
  const int64_t groups = (p->count + group - 1) / group;
  if (groups > 0) group = up_to_64((p->count + groups - 1) / groups);
  if (group < 64) group = 64;
  p->tiles = (group + p->tile - 1) / p->tile;
  p->tile = up_to_64((group + p->tiles - 1) / p->tiles);
}

/* In one piece of memory, as long as it need be. */
static plan *packed(const plan *from, int n_in, int n_instr) {
  const size_t in = (size_t)n_in * sizeof *from->in, once = (size_t)from->n_once * sizeof *from->once,
               steps = (size_t)from->n_step * sizeof *from->steps, imm = (size_t)n_instr * sizeof *from->imm;
  plan *p = mn_alloc(sizeof *p + in + once + steps + imm);
  if (!p) return NULL;
  *p = *from;
  p->in = memcpy(p + 1, from->in, in);
  p->once = memcpy((char *)p->in + in, from->once, once);
  p->steps = memcpy((char *)p->once + once, from->steps, steps);
  p->imm = memcpy((char *)p->steps + steps, from->imm, imm);
  return p;
}

static mn_status compile(mn_call *call, const mn_ew_attr *a) {
  room space;
  plan made = {.once = space.once, .steps = space.steps, .in = space.in, .imm = space.imm}, *p = &made;
  compiler c = {.p = p, .vec = MN_ISA_PICK(mn_ew_table, mn_cpu_isa(call->backend)), .a = a};
  p->vec = c.vec;
  p->count = mn_view_count(&call->out[0]);
  place_turned(call, p->turned);
  for (int i = 0; i < call->n_in && i < MN_EW_MAX_IN; i++) {
    mn_view in = p->turned[i] == NONE ? call->in[i] : made_dense(&call->in[i]);
    merge_axes(&p->in[i], &in);
    p->in[i].load = c.vec->cast[call->in[i].dtype][held(call->in[i].dtype)];
    int size = p->in_size[i] = (uint8_t)mn_dtype_size(call->in[i].dtype);
    p->in[i].spread = c.vec->spread[call->in[i].dtype == MN_BF16 ? 4 : size == 8 ? 3 : size / 2];
    c.value[i] = true;
    for (int d = 0; d < p->in[i].ndim; d++) c.value[i] &= p->in[i].stride[d] == 0;
    if (!c.value[i] && mn_view_count(&call->in[i]) != p->count) return broken("an operand was not broadcast");
    if (c.value[i] && p->count == 1) c.value[i] = false; /* one element is a tile like any other */
  }
  for (int j = 0; j < call->n_out && j < MN_EW_MAX_OUT; j++) p->out_size[j] = (uint8_t)mn_dtype_size(call->out[j].dtype);
  MN_TRY(read_program(&c, call));
  fuse_multiply_add(&c);
  p->slot_size = 1;
  for (int r = 0; r < a->n_in + a->n_instr; r++) {
    p->reg_size[r] = (uint8_t)mn_dtype_size(c.type[r]);
    if (p->reg_size[r] > p->slot_size) p->slot_size = p->reg_size[r];
  }
  for (int i = 0; i < a->n_in; i++)
    if (c.value[i])
      p->once[p->n_once++] = (step){.fn = p->in[i].load,
                                    .dst = (uint8_t)(PLACE_VALUE + i),
                                    .src[0] = (uint8_t)(PLACE_IN + i),
                                    .src[1] = (uint8_t)(PLACE_IN + i),
                                    .src[2] = (uint8_t)(PLACE_IN + i),
                                    .gather = NONE};
  emit(&c, call);
  int64_t left = SLOT_BYTES / (p->slot_size * (p->n_slot ? p->n_slot : 1)) / 64 * 64;
  int64_t most = p->n_slot ? 1024 : 4096;
  p->tile = left < 64 ? 64 : left > most ? most : left;
  cut(p, a);
  call->state = packed(p, call->n_in, a->n_instr);
  return call->state ? MN_OK : MN_ERR_MEMORY;
}

static void release_plan(mn_call *call) {
  free(call->state);
  call->state = NULL;
}
static mn_status prepare_program(mn_call *call, const mn_ew_attr *a) {
  mn_status status = compile(call, a);
  if (status != MN_OK) release_plan(call);
  return status;
}
static mn_status prepare(mn_call *call) {
  if (call->node->op == &mn_op_ew) return prepare_program(call, call->attr);
  const mn_node *n = call->node;
  mn_ew_attr a = {.n_in = call->n_in, .n_out = 1, .n_instr = 1, .out_reg = {(uint8_t)call->n_in}};
  a.instr[0] = (mn_ew_instr){.code = (uint8_t)n->op->code,
                             .dtype = (uint8_t)call->out[0].dtype,
                             .src_dtype = (uint8_t)call->in[call->n_in - 1].dtype,
                             .src = {0, 1, 2}};
  return prepare_program(call, &a);
}

/* Rows along the innermost axis of elements [start, start + n) of the output, one after another. */
static void gather(const strided *s, const char *data, size_t from_size, size_t to_size, int64_t start, int64_t n, char *to) {
  int64_t index[MN_MAX_DIMS], offset = 0, rest = start;
  int last = s->ndim - 1;
  for (int d = last; d >= 0; d--) {
    index[d] = rest % s->dim[d];
    rest /= s->dim[d];
    offset += index[d] * s->stride[d];
  }
  int64_t stride = s->stride[last];
  while (n > 0) {
    int64_t len = s->dim[last] - index[last] < n ? s->dim[last] - index[last] : n;
    const char *row = data + offset * (int64_t)from_size;
    if (stride == 1) s->load(to, row, row, row, len, 0);
    else s->spread(to, row, len, stride);
    to += (size_t)len * to_size;
    n -= len;
    offset += len * stride;
    index[last] += len;
    for (int d = last; d > 0 && index[d] == s->dim[d]; d--) {
      offset += s->stride[d - 1] - s->dim[d] * s->stride[d];
      index[d] = 0;
      index[d - 1]++;
    }
  }
}

typedef struct job {
  const mn_call *call;
  const plan *plan;
  number value[MAX_REG];
  int64_t tiles; /* of a group */
} job;

static void set_places(const job *j, char *place[PLACES], char *slots, int64_t start) {
  const plan *p = j->plan;
  const mn_call *c = j->call;
  int n_instr = c->node->op == &mn_op_ew ? ((const mn_ew_attr *)c->attr)->n_instr : 1;
  for (int r = 0; r < c->n_in + n_instr; r++) place[PLACE_VALUE + r] = (char *)&j->value[r];
  for (int i = 0; i < n_instr; i++) place[PLACE_IMM + i] = (char *)&p->imm[i];
  for (int i = 0; i < c->n_in; i++) {
    char *data = p->turned[i] == NONE ? c->in[i].data : (char *)c->workspace + p->turned[i];
    place[PLACE_IN + i] = data + start * p->in_size[i];
  }
  for (int i = 0; i < c->n_out; i++) place[PLACE_OUT + i] = (char *)c->out[i].data + start * p->out_size[i];
  for (int s = 0; s < p->n_slot; s++) place[PLACE_SLOT + s] = slots + s * p->tile * p->slot_size;
}

static void run_group(void *ctx, int64_t group, int thread) {
  (void)thread;
  const job *j = ctx;
  const plan *p = j->plan;
  const mn_call *c = j->call;
  _Alignas(64) char slots[SLOT_BYTES + (MAX_REG + MN_EW_MAX_OUT) * 64 * 8]; /* a tile has at least 64 elements */
  char *place[PLACES];
  int64_t at = group * j->tiles * p->tile, end = at + j->tiles * p->tile;
  if (end > p->count) end = p->count;
  set_places(j, place, slots, at);
  while (at < end) {
    int64_t n = end - at < p->tile ? end - at : p->tile;
    for (const step *s = p->steps, *stop = s + p->n_step; s < stop; s++) {
      if (s->gather != NONE) {
        int i = s->gather;
        size_t to = c->in[i].dtype == MN_BF16 ? 4 : p->in_size[i];
        gather(&p->in[i], c->in[i].data, p->in_size[i], to, at, n, place[s->dst]);
      } else if (s->fill) {
        number v;
        s->fn(&v, place[s->src[0]], NULL, NULL, 1, 0);
        int size = p->out_size[s->dst - PLACE_OUT];
        p->vec->spread[size == 8 ? 3 : size / 2](place[s->dst], &v, n, 0);
      } else {
        s->fn(place[s->dst], place[s->src[0]], place[s->src[1]], place[s->src[2]], n, s->scalar);
      }
    }
    at += n;
    for (int i = 0; i < c->n_in; i++) place[PLACE_IN + i] += n * p->in_size[i];
    for (int i = 0; i < c->n_out; i++) place[PLACE_OUT + i] += n * p->out_size[i];
  }
}

static mn_status run(mn_call *c) {
  const plan *p = c->state;
  if (p->count == 0) return MN_OK;
  job j = {.call = c, .plan = p, .tiles = p->tiles};
  for (int i = 0; i < c->n_in; i++) {
    if (p->turned[i] == NONE) continue;
    mn_view x = c->in[i], y = made_dense(&x);
    mn_cpu_copy(c->pool, mn_cpu_isa(c->backend), p->in_size[i], x.ndim, x.dim, (char *)c->workspace + p->turned[i], y.stride, x.data,
                x.stride);
  }
  if (p->n_once) {
    char *place[PLACES];
    set_places(&j, place, NULL, 0);
    for (int i = 0; i < p->n_once; i++) {
      const step *s = &p->once[i];
      s->fn(place[s->dst], place[s->src[0]], place[s->src[1]], place[s->src[2]], 1, 0);
    }
  }
  int64_t groups = (p->count + j.tiles * p->tile - 1) / (j.tiles * p->tile);
  mn_pool_run(c->pool, groups, run_group, &j);
  return MN_OK;
}

static bool accepts(const mn_node *n) {
  const mn_ew_vec *v = &mn_ew_table_generic;
  if (n->op != &mn_op_ew) return find(v, n->op->code, n->in[n->n_in - 1]->dtype, n->out[0]->dtype) != NULL;
  const mn_ew_attr *a = n->attr;
  for (int i = 0; i < a->n_instr; i++)
    if (!find(v, a->instr[i].code, a->instr[i].src_dtype, a->instr[i].dtype)) return false;
  return true;
}

#define KERNEL(op_address, label)                                                                                                          \
  {                                                                                                                                        \
    .op = op_address, .name = label, .layout = MN_LAYOUT_ANY, .accepts = accepts, .prepare = prepare, .workspace = workspace,              \
    .release = release_plan, .run = run                                                                                                    \
  }
#define X(upper, lower) KERNEL(&mn_op_ew_table[MN_EW_##upper], "cpu " #lower),
static const mn_kernel kernels[] = {KERNEL(&mn_op_ew, "cpu ew"), MN_EW_UNARY(X) MN_EW_BINARY(X) X(SELECT, select) X(CAST, cast)};
#undef X
enum { N_KERNELS = (int)(sizeof kernels / sizeof *kernels) };

const mn_kernel *const *mn_cpu_elementwise_kernels(mn_isa isa, int *n) {
  (void)isa; /* the call's backend says it */
#define X(upper, lower) &kernels[1 + MN_EW_##upper],
  static const mn_kernel *const list[] = {&kernels[0], MN_EW_UNARY(X) MN_EW_BINARY(X) X(SELECT, select) X(CAST, cast)};
#undef X
  *n = N_KERNELS;
  return list;
}
