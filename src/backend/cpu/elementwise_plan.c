/* elementwise_plan.c - from an element-wise program to steps: inputs that lie dense are read where they are, others are gathered into a
 * slot; the last instruction of an output writes it in place; a product and the sum that alone reads it are one; values that are one number
 * for all elements are computed once per run. Tiles are spread over threads in groups whose size depends on the program and the shape
 * only, so results do not depend on the number of threads. */
#include "backend/cpu/elementwise_plan.h"

#include "backend/cpu/cpu.h"

#include <string.h>

enum {
  GROUP = 16384,    /* elements of a task, at most               */
  LEAST = 1024,     /* and at least                              */
  WORK = 1 << 17,   /* of a task: elements times what one costs  */
  MANY = 8,         /* tasks that are enough for all threads     */
  DEAR = 12,        /* cost of an exponential; of a sum it is 1  */
  TRANSPOSED = 4096 /* elements from which a transposed input is turned beforehand */
};
typedef struct room { /* for what the largest program needs; a plan keeps what its own does, for there is one for each step of a model */
  mn_ew_step once[EW_MAX_REG], steps[EW_MAX_REG * 2 + MN_EW_MAX_OUT];
  mn_ew_strided in[MN_EW_MAX_IN];
  mn_ew_number imm[MN_EW_MAX_INSTR];
} room;

/* ---- types ---- registers hold bf16 as f32 */
static mn_dtype held(int t) { return t == MN_BF16 ? MN_F32 : (mn_dtype)t; }

mn_ew_fn mn_ew_find(const mn_ew_vec *v, int code, int src, int dst) {
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

static mn_ew_number number_of(double v, mn_dtype t) {
  mn_ew_number n = {0};
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
  int src[3]; /* register, or EW_NONE: the immediate */
  int imm[3]; /* which instruction's immediate    */
  bool once;
} op;

typedef struct compiler {
  mn_ew_plan *p;
  const mn_ew_vec *vec;
  const mn_ew_attr *a;
  op ops[MN_EW_MAX_INSTR];
  int n_ops;
  int alias[EW_MAX_REG];     /* the register that holds this one's value            */
  mn_dtype type[EW_MAX_REG]; /* held type                                           */
  bool value[EW_MAX_REG];    /* one number for all                                  */
  bool direct[EW_MAX_REG];   /* an input read where it lies                         */
  int place[EW_MAX_REG];     /* EW_NONE: not yet in a place                            */
  int last[EW_MAX_REG];      /* last op that reads it; n_ops: an output             */
  int uses[EW_MAX_REG];
  bool slot_used[EW_MAX_REG + MN_EW_MAX_OUT];
} compiler;

static mn_status broken(const char *what) { return mn_fail(MN_ERR_INTERNAL, "element-wise program: %s", what); }

/* Types fit, registers exist; casts that change nothing become aliases; uses are counted. */
static mn_status read_program(compiler *c, const mn_call *call) {
  const mn_ew_attr *a = c->a;
  if (a->n_in != call->n_in || a->n_out != call->n_out || a->n_in > MN_EW_MAX_IN || a->n_out > MN_EW_MAX_OUT ||
      a->n_instr > MN_EW_MAX_INSTR || a->n_in < 0 || a->n_instr < 0)
    return broken("it does not fit its node");
  for (int r = 0; r < EW_MAX_REG; r++) c->alias[r] = r;
  for (int i = 0; i < a->n_in; i++) c->type[i] = held(call->in[i].dtype);
  int stored_only[EW_MAX_REG] = {0}; /* uses by outputs of type bf16 */
  for (int j = 0; j < a->n_out; j++) {
    if (a->out_reg[j] >= a->n_in + a->n_instr) return broken("an output names no register");
    if (call->out[j].dtype == MN_BF16) stored_only[a->out_reg[j]]++;
    c->uses[a->out_reg[j]]++;
  }
  for (int i = 0; i < a->n_instr; i++)
    for (int k = 0; k < arity(a->instr[i].code); k++) {
      if (a->instr[i].src[k] == EW_IMMEDIATE) continue;
      if (a->instr[i].src[k] >= a->n_in + i) return broken("an operand is used before it is made");
      c->uses[a->instr[i].src[k]]++;
    }
  for (int i = 0; i < a->n_instr; i++) {
    const mn_ew_instr *in = &a->instr[i];
    int r = a->n_in + i;
    c->type[r] = held(in->dtype);
    mn_ew_fn fn = mn_ew_find(c->vec, in->code, in->src_dtype, in->dtype);
    if (!fn) return broken("an operation is not defined for its type");
    c->p->imm[i] = number_of(in->imm, held(in->src_dtype));
    op *o = &c->ops[c->n_ops];
    *o = (op){.fn = fn, .reg = r, .n_src = arity(in->code), .once = true};
    for (int k = 0; k < o->n_src; k++) {
      bool cond = in->code == MN_EW_SELECT && k == 0;
      o->imm[k] = i;
      if (in->src[k] == EW_IMMEDIATE) {
        if (cond) return broken("the condition of a select is an immediate");
        o->src[k] = EW_NONE;
        continue;
      }
      int s = o->src[k] = c->alias[in->src[k]];
      if (c->type[s] != (cond ? MN_BOOL : held(in->src_dtype))) return broken("an operand has another type than it says");
      o->once &= c->value[s];
    }
    c->value[r] = o->once;
    /* f32 from bf16 is what the register holds already; to bf16 for a bf16 output is what the store does */
    if (in->code == MN_EW_CAST && o->src[0] != EW_NONE && c->type[r] == c->type[o->src[0]] &&
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
      if (add->src[k] == EW_NONE || c->uses[add->src[k]] != 1) continue;
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

static void merge_axes(mn_ew_strided *s, const mn_view *in) {
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
    at[i] = transposed(&c->in[i]) ? bytes : EW_NONE;
    if (at[i] != EW_NONE) bytes += (int64_t)mn_align((size_t)mn_view_count(&c->in[i]) * mn_dtype_size(c->in[i].dtype), 64);
  }
  return bytes;
}
size_t mn_ew_turned_bytes(const mn_call *c) {
  int64_t at[MN_EW_MAX_IN];
  return (size_t)place_turned(c, at);
}
mn_view mn_ew_dense(const mn_view *v) {
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
  return EW_SLOT + s;
}
static void release(compiler *c, int place) {
  if (place >= EW_SLOT) c->slot_used[place - EW_SLOT] = false;
}

/* An input, brought to a place where steps can read it. */
static void bring(compiler *c, const mn_call *call, int r) {
  if (c->place[r] != EW_NONE) return;
  mn_ew_plan *p = c->p;
  if (c->direct[r]) {
    c->place[r] = EW_IN + r;
    return;
  }
  bool dense = p->in[r].ndim == 0 || (p->in[r].ndim == 1 && p->in[r].stride[0] == 1);
  c->place[r] = take_slot(c);
  p->steps[p->n_step++] = (mn_ew_step){.fn = c->vec->cast[call->in[r].dtype][c->type[r]],
                                       .dst = (uint8_t)c->place[r],
                                       .src = {(uint8_t)(EW_IN + r), (uint8_t)(EW_IN + r), (uint8_t)(EW_IN + r)},
                                       .gather = (int8_t)(dense ? EW_NONE : r)};
}

static void emit(compiler *c, const mn_call *call) {
  mn_ew_plan *p = c->p;
  const mn_ew_attr *a = c->a;
  for (int r = 0; r < EW_MAX_REG; r++) c->place[r] = EW_NONE, c->last[r] = EW_NONE;
  for (int i = 0; i < c->n_ops; i++)
    for (int k = 0; k < c->ops[i].n_src; k++)
      if (c->ops[i].src[k] != EW_NONE) c->last[c->ops[i].src[k]] = i;
  int out_of[MN_EW_MAX_OUT], through = 0;
  for (int j = 0; j < a->n_out; j++) {
    int r = out_of[j] = c->alias[a->out_reg[j]];
    c->last[r] = c->n_ops;
    through += r < a->n_in && !c->value[r];
  }
  /* An output's memory may be an input's. So an output is written by its instruction only when nothing reads memory
   * afterwards; else it waits in a slot. Two inputs handed through might be each other's outputs. */
  int first[MN_EW_MAX_IN], memory_last = through ? c->n_ops : EW_NONE;
  for (int r = 0; r < a->n_in; r++) {
    bool dense = p->in[r].ndim == 0 || (p->in[r].ndim == 1 && p->in[r].stride[0] == 1);
    c->direct[r] = dense && call->in[r].dtype == c->type[r] && !(through > 1 && c->last[r] == c->n_ops);
    first[r] = EW_NONE;
  }
  for (int i = c->n_ops - 1; i >= 0; i--)
    for (int k = 0; k < c->ops[i].n_src; k++) {
      int s = c->ops[i].src[k];
      if (s != EW_NONE && s < a->n_in && !c->value[s]) {
        if (c->direct[s] && i > memory_last) memory_last = i;
        first[s] = i;
      }
    }
  for (int r = 0; r < a->n_in; r++)
    if (first[r] > memory_last) memory_last = first[r];

  for (int i = 0; i < c->n_ops; i++) {
    op *o = &c->ops[i];
    mn_ew_step s = {.fn = o->fn, .gather = EW_NONE};
    for (int k = 0; k < o->n_src; k++) {
      int r = o->src[k];
      if (r == EW_NONE) s.src[k] = (uint8_t)(EW_IMM + o->imm[k]);
      else if (c->value[r]) s.src[k] = (uint8_t)(EW_VALUE + r);
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
      s.dst = (uint8_t)(EW_VALUE + o->reg);
      p->once[p->n_once++] = s;
      continue;
    }
    int place = EW_NONE;
    for (int j = 0; j < a->n_out && place == EW_NONE; j++)
      if (out_of[j] == o->reg && call->out[j].dtype == c->type[o->reg] && i >= memory_last) place = EW_OUT + j;
    /* A slot whose value dies here may be written in place where the elements have one size. */
    for (int k = 0; k < o->n_src && place == EW_NONE; k++) {
      int r = o->src[k];
      if (r == EW_NONE || c->value[r] || c->last[r] != i || c->place[r] < EW_SLOT) continue;
      if (p->reg_size[r] == p->reg_size[o->reg]) {
        place = c->place[r];
        c->place[r] = EW_IN; /* no longer owns the slot */
      }
    }
    if (place == EW_NONE) place = take_slot(c);
    for (int k = 0; k < o->n_src; k++)
      if (o->src[k] != EW_NONE && !c->value[o->src[k]] && c->last[o->src[k]] == i) {
        release(c, c->place[o->src[k]]);
        c->place[o->src[k]] = EW_IN;
      }
    if (c->last[o->reg] == EW_NONE) release(c, place); /* nothing reads it */
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
      bool from_memory = !c->value[r] && c->place[r] < EW_OUT;
      if (from_memory != (pass == 0) || (!c->value[r] && c->place[r] == EW_OUT + j)) continue;
      int from = c->value[r] ? EW_VALUE + r : c->place[r];
      p->steps[p->n_step++] = (mn_ew_step){.fn = c->vec->cast[c->type[r]][call->out[j].dtype],
                                           .dst = (uint8_t)(EW_OUT + j),
                                           .src = {(uint8_t)from, (uint8_t)from, (uint8_t)from},
                                           .gather = EW_NONE,
                                           .fill = c->value[r]};
    }
}

/* ---- tiles and tasks ---- */
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
  case MN_EW_NORMAL_CDF:
  case MN_EW_NORMAL_PDF:
    return true;
  default:
    return false;
  }
}

static int64_t up_to_64(int64_t n) { return (n + 63) / 64 * 64; }
/* Where there is enough for all threads, tasks are long, since several streams of memory run better so. */
static void cut(mn_ew_plan *p, const mn_ew_attr *a) {
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
static mn_ew_plan *packed(const mn_ew_plan *from, int n_in, int n_instr) {
  const size_t in = (size_t)n_in * sizeof *from->in, once = (size_t)from->n_once * sizeof *from->once,
               steps = (size_t)from->n_step * sizeof *from->steps, imm = (size_t)n_instr * sizeof *from->imm;
  mn_ew_plan *p = mn_alloc(sizeof *p + in + once + steps + imm);
  if (!p) return NULL;
  *p = *from;
  p->in = memcpy(p + 1, from->in, in);
  p->once = memcpy((char *)p->in + in, from->once, once);
  p->steps = memcpy((char *)p->once + once, from->steps, steps);
  p->imm = memcpy((char *)p->steps + steps, from->imm, imm);
  return p;
}

mn_status mn_ew_plan_new(mn_call *call, const mn_ew_attr *a) {
  room space;
  mn_ew_plan made = {.once = space.once, .steps = space.steps, .in = space.in, .imm = space.imm}, *p = &made;
  compiler c = {.p = p, .vec = MN_ISA_PICK(mn_ew_table, mn_cpu_isa(call->backend)), .a = a};
  p->vec = c.vec;
  p->count = mn_view_count(&call->out[0]);
  place_turned(call, p->turned);
  for (int i = 0; i < call->n_in && i < MN_EW_MAX_IN; i++) {
    mn_view in = p->turned[i] == EW_NONE ? call->in[i] : mn_ew_dense(&call->in[i]);
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
      p->once[p->n_once++] = (mn_ew_step){.fn = p->in[i].load,
                                          .dst = (uint8_t)(EW_VALUE + i),
                                          .src[0] = (uint8_t)(EW_IN + i),
                                          .src[1] = (uint8_t)(EW_IN + i),
                                          .src[2] = (uint8_t)(EW_IN + i),
                                          .gather = EW_NONE};
  emit(&c, call);
  int64_t left = EW_SLOT_BYTES / (p->slot_size * (p->n_slot ? p->n_slot : 1)) / 64 * 64;
  int64_t most = p->n_slot ? 1024 : 4096;
  p->tile = left < 64 ? 64 : left > most ? most : left;
  cut(p, a);
  call->state = packed(p, call->n_in, a->n_instr);
  return call->state ? MN_OK : MN_ERR_MEMORY;
}
