/* elementwise_plan.h - an element-wise program made ready to run (elementwise_plan.c): steps over tiles, and where each of their operands
 * is found. */
#ifndef MN_ELEMENTWISE_PLAN_H
#define MN_ELEMENTWISE_PLAN_H

#include "backend/cpu/isa/elementwise.h"
#include "graph/ops.h"

enum { EW_MAX_REG = MN_EW_MAX_IN + MN_EW_MAX_INSTR, EW_IMMEDIATE = 0xFF, EW_NONE = -1 };
enum { EW_SLOT_BYTES = 24576 /* of all slots together: most of an L1 cache */ };

/* Places: every operand of a step is an entry of one table of addresses. */
enum {
  EW_VALUE = 0,                     /* one number for all: register r */
  EW_IMM = EW_VALUE + EW_MAX_REG,   /* immediate of instruction i     */
  EW_IN = EW_IMM + MN_EW_MAX_INSTR, /* memory of input i              */
  EW_OUT = EW_IN + MN_EW_MAX_IN,    /* memory of output j             */
  EW_SLOT = EW_OUT + MN_EW_MAX_OUT, /* slot s                         */
  EW_PLACES = EW_SLOT + EW_MAX_REG + MN_EW_MAX_OUT
};

typedef struct mn_ew_step {
  mn_ew_fn fn;
  uint8_t dst, src[3]; /* places */
  uint8_t scalar;      /* bit k: operand k is one number */
  int8_t gather;       /* >= 0: brings this input to dst */
  bool fill;           /* one number to a whole output   */
} mn_ew_step;

typedef struct mn_ew_strided { /* an input that is not dense, its axes merged as far as they go */
  int ndim;
  int64_t dim[MN_MAX_DIMS], stride[MN_MAX_DIMS];
  mn_ew_fn load;                                                     /* from memory to the register's type */
  void (*spread)(void *y, const void *x, int64_t n, int64_t stride); /* the same of a row that is not dense */
} mn_ew_strided;

typedef union mn_ew_number {
  float f32;
  double f64;
  int32_t i32;
  int64_t i64;
  uint8_t boolean;
} mn_ew_number;

typedef struct mn_ew_plan {
  const mn_ew_vec *vec;
  int n_once, n_step;
  mn_ew_step *once, *steps;     /* run once per run, and once per tile */
  mn_ew_strided *in;            /* per input                           */
  mn_ew_number *imm;            /* per instruction                     */
  int n_slot, slot_size;        /* bytes per element of a slot */
  int64_t count, tile, tiles;   /* elements; of a tile; tiles of a task */
  int64_t turned[MN_EW_MAX_IN]; /* where in the workspace a transposed input lies dense; EW_NONE */
  uint8_t in_size[MN_EW_MAX_IN], reg_size[EW_MAX_REG], out_size[MN_EW_MAX_OUT];
} mn_ew_plan;

/* The function of an instruction, or NULL: it is not defined for these types. */
mn_ew_fn mn_ew_find(const mn_ew_vec *v, int code, int src, int dst);
/* The plan of a program for a call, in one piece of memory, into call->state. */
mn_status mn_ew_plan_new(mn_call *call, const mn_ew_attr *a);
/* Bytes of workspace in which inputs that run across memory are turned before they are read. */
size_t mn_ew_turned_bytes(const mn_call *c);
mn_view mn_ew_dense(const mn_view *v); /* the view of the same shape that lies dense */

#endif
