/* What must be true of the element-wise kernels of the CPU backend: each operation and each type agrees with a plain loop in
 * double, on every instruction set of this machine, for any strides, in place, and to the same bits for any number of
 * threads; programs of several instructions agree with the same instructions one by one. */
#include "cpu_kernel_test.h"

enum { MAX_N = 70000 };
static mn_pool *pool2;

static double eval(int code, double a, double b, double c, bool integer) {
  switch (code) {
  case MN_EW_NEG:
    return -a;
  case MN_EW_ABS:
    return fabs(a);
  case MN_EW_SIGN:
    return (a > 0) - (a < 0);
  case MN_EW_SQRT:
    return sqrt(a);
  case MN_EW_RSQRT:
    return 1 / sqrt(a);
  case MN_EW_RECIP:
    return 1 / a;
  case MN_EW_EXP:
    return exp(a);
  case MN_EW_LOG:
    return log(a);
  case MN_EW_LOG1P:
    return log1p(a);
  case MN_EW_SIN:
    return sin(a);
  case MN_EW_COS:
    return cos(a);
  case MN_EW_TANH:
    return tanh(a);
  case MN_EW_SIGMOID:
    return 1 / (1 + exp(-a));
  case MN_EW_SILU:
    return a / (1 + exp(-a));
  case MN_EW_SILU_SLOPE:
    return (1 + a / (1 + exp(a))) / (1 + exp(-a));
  case MN_EW_ERF:
    return erf(a);
  case MN_EW_NORMAL_CDF:
    return 0.5 * erfc(-a * M_SQRT1_2);
  case MN_EW_NORMAL_PDF:
    return exp(-0.5 * a * a) / sqrt(2 * M_PI);
  case MN_EW_SOFTPLUS:
    return a > 40 ? a : log1p(exp(a));
  case MN_EW_FLOOR:
    return floor(a);
  case MN_EW_NOT:
    return a == 0;
  case MN_EW_ADD:
    return a + b;
  case MN_EW_SUB:
    return a - b;
  case MN_EW_MUL:
    return a * b;
  case MN_EW_DIV:
    return integer ? (b == 0 ? 0 : trunc(a / b)) : a / b;
  case MN_EW_MAXIMUM:
    return a != a || b != b ? NAN : a > b ? a : b;
  case MN_EW_MINIMUM:
    return a != a || b != b ? NAN : a < b ? a : b;
  case MN_EW_POW:
    return integer ? trunc(pow(a, b)) : pow(a, b);
  case MN_EW_MOD:
    return integer && b == 0 ? 0 : a - b * floor(a / b);
  case MN_EW_LT:
    return a < b;
  case MN_EW_LE:
    return a <= b;
  case MN_EW_EQ:
    return a == b;
  case MN_EW_AND:
    return a != 0 && b != 0;
  case MN_EW_OR:
    return a != 0 || b != 0;
  case MN_EW_SELECT:
    return a != 0 ? b : c;
  default:
    return a;
  }
}

static bool run(const mn_op *op, const void *attr, int n_in, mn_view *in, int n_out, mn_view *out, mn_pool *pool) {
  return run_kernel(mn_cpu_elementwise_kernels, op, attr, n_in, in, n_out, out, pool);
}
static char buf_a[MAX_N * 8], buf_b[MAX_N * 8], buf_c[MAX_N * 8], buf_y[MAX_N * 8];

static double error(double got, double want) {
  if (want != want) return got != got ? 0 : INFINITY;
  if (got == want) return 0;
  return fabs(got - want) / (fabs(want) > 1e-30 ? fabs(want) : 1e-30);
}

/* ---- each operation, each type, operands as vectors and as single values ---- */
static bool logical(int code) { return (code >= MN_EW_LT && code <= MN_EW_OR) || code == MN_EW_NOT; }
static void operations_one_isa(void) {
  static const mn_dtype types[] = {MN_F32, MN_BF16, MN_F64, MN_I32, MN_I64, MN_BOOL};
  for (int ti = 0; ti < 6; ti++)
    for (int code = 0; code < MN_EW_CAST; code++) {
      mn_dtype t = types[ti], out_t = logical(code) ? MN_BOOL : t;
      bool integer = t == MN_I32 || t == MN_I64;
      int n_in = code == MN_EW_SELECT ? 3 : code >= MN_EW_ADD ? 2 : 1;
      int64_t n = 1037;
      void *bufs[3] = {buf_a, buf_b, buf_c};
      for (int64_t i = 0; i < n; i++) {
        double x = draw(-6, 6);
        if (code == MN_EW_SQRT || code == MN_EW_RSQRT || code == MN_EW_LOG || (code == MN_EW_POW && !integer)) x = fabs(x) + 0.01;
        if (code == MN_EW_LOG1P) x = fabs(x) - 0.9;
        double y = draw(-5, 5), z = draw(-3, 3);
        if (integer) x = trunc(x * 3), y = trunc(y), z = trunc(z);
        if (code == MN_EW_POW && integer) y = fabs(y);
        if (i % 5 == 0 && code >= MN_EW_LT && code <= MN_EW_EQ) y = x;
        if (t == MN_BOOL) x = x > 0, y = y > 0, z = z > 0;
        if (code == MN_EW_SELECT) put(buf_a, MN_BOOL, i, x > 0), put(buf_b, t, i, y), put(buf_c, t, i, z);
        else put(buf_a, t, i, x), put(buf_b, t, i, y);
      }
      for (unsigned scalar = 0; scalar < 1u << n_in; scalar++) {
        mn_view in[3], out = dense(buf_y, out_t, 1, &n);
        for (int k = 0; k < n_in; k++) {
          in[k] = dense(bufs[k], code == MN_EW_SELECT && k == 0 ? MN_BOOL : t, 1, &n);
          if (scalar >> k & 1) in[k].stride[0] = 0;
        }
        if (!run(&mn_op_ew_table[code], NULL, n_in, in, 1, &out, NULL)) {
          CHECK(t == MN_BOOL || integer || code == MN_EW_NOT || code == MN_EW_AND || code == MN_EW_OR, "no kernel: %s %s",
                mn_op_ew_table[code].name, mn_dtype_name(t));
          break;
        }
        double worst = 0, limit = t == MN_BF16 ? 5e-3 : t == MN_F64 ? 1e-12 : t == MN_F32 ? 5e-7 : 0;
        int64_t where = 0;
        for (int64_t i = 0; i < n; i++) {
          double v[3] = {0};
          for (int k = 0; k < n_in; k++) v[k] = get(in[k].data, in[k].dtype, i * in[k].stride[0]);
          double want = eval(code, v[0], v[1], v[2], integer), got = get(buf_y, out_t, i), e = error(got, want);
          /* cancellation: absolute error in units of the operands */
          if (code == MN_EW_MOD && fabs(got - want) <= limit * fabs(v[0])) e = 0;
          if (code == MN_EW_SILU_SLOPE && fabs(got - want) <= limit) e = 0; /* near its zero: a sum of terms near 0.2 */
          if ((code == MN_EW_NORMAL_CDF || code == MN_EW_NORMAL_PDF) && fabs(got - want) <= limit / 4) e = 0;
          if (code == MN_EW_MOD && t != MN_F64 && fabs(fabs(got - want) - fabs(v[1])) < 1e-6) e = 0;
          if (e > worst) worst = e, where = i;
        }
        CHECK(worst <= limit, "%s %s isa %s scalar %u: error %g at %lld: f(%g, %g) = %g", mn_op_ew_table[code].name, mn_dtype_name(t),
              mn_isa_name(cpu.isa), scalar, worst, (long long)where, get(in[0].data, in[0].dtype, where * in[0].stride[0]),
              n_in > 1 ? get(in[1].data, in[1].dtype, where * in[1].stride[0]) : 0, get(buf_y, out_t, where));
      }
    }
}
static void test_operations(void) { each_isa(operations_one_isa); }

static void casts_one_isa(void) {
  for (int from = 0; from < MN_DTYPES; from++)
    for (int to = 0; to < MN_DTYPES; to++) {
      int64_t n = 531;
      for (int64_t i = 0; i < n; i++) put(buf_a, (mn_dtype)from, i, draw(-100, 100));
      mn_view in = dense(buf_a, (mn_dtype)from, 1, &n), out = dense(buf_y, (mn_dtype)to, 1, &n);
      CHECK(run(&mn_op_ew_table[MN_EW_CAST], NULL, 1, &in, 1, &out, NULL), "no cast %d %d", from, to);
      int wrong = 0;
      for (int64_t i = 0; i < n; i++) {
        double x = get(buf_a, (mn_dtype)from, i);
        char want[8];
        put(want, (mn_dtype)to, 0, x);
        wrong += get(want, (mn_dtype)to, 0) != get(buf_y, (mn_dtype)to, i);
      }
      CHECK(wrong == 0, "cast %s to %s, isa %s: %d wrong", mn_dtype_name((mn_dtype)from), mn_dtype_name((mn_dtype)to), mn_isa_name(cpu.isa),
            wrong);
    }
}
static void test_casts(void) { each_isa(casts_one_isa); }

/* Within a program a value is rounded to the type it is cast to, whether or not it is ever stored as that: on its way back it is what
 * memory would have held. */
static void casts_within_programs_one_isa(void) {
  for (int from = 0; from < MN_DTYPES; from++)
    for (int to = 0; to < MN_DTYPES; to++) {
      int64_t n = 531;
      mn_ew_attr a = {.n_in = 1, .n_out = 1, .n_instr = 2};
      a.instr[0] = (mn_ew_instr){MN_EW_CAST, (uint8_t)to, (uint8_t)from, {0}, .imm = 0};
      a.instr[1] = (mn_ew_instr){MN_EW_CAST, MN_F64, (uint8_t)to, {1}, .imm = 0};
      a.out_reg[0] = 2;
      for (int64_t i = 0; i < n; i++) put(buf_a, (mn_dtype)from, i, draw(-1000, 1000));
      mn_view in = dense(buf_a, (mn_dtype)from, 1, &n), out = dense(buf_y, MN_F64, 1, &n);
      CHECK(run(&mn_op_ew, &a, 1, &in, 1, &out, NULL), "no casts %d %d", from, to);
      int wrong = 0;
      for (int64_t i = 0; i < n; i++) {
        char want[8];
        put(want, (mn_dtype)to, 0, get(buf_a, (mn_dtype)from, i));
        wrong += get(want, (mn_dtype)to, 0) != get(buf_y, MN_F64, i);
      }
      CHECK(wrong == 0, "cast %s to %s and on, isa %s: %d wrong", mn_dtype_name((mn_dtype)from), mn_dtype_name((mn_dtype)to),
            mn_isa_name(cpu.isa), wrong);
    }
}
static void test_casts_within_programs(void) { each_isa(casts_within_programs_one_isa); }

/* ---- accuracy in units in the last place, and the ends of the range ---- */
static double ulps(float got, double want) {
  float w = (float)want;
  if (want != want) return got != got ? 0 : 1e9;
  if (got == w) return 0;
  if (isinf(w) || isinf(got) || got != got) return 1e9;
  return fabs(got - want) / (fabs(want) < 0x1p-126 ? 0x1p-149 : ldexp(1, ilogb(want) - 23));
}
static void accuracy_one_isa(void) {
  static const int codes[] = {MN_EW_RSQRT,   MN_EW_EXP, MN_EW_LOG,      MN_EW_LOG1P, MN_EW_SIN,        MN_EW_COS,       MN_EW_TANH,
                              MN_EW_SIGMOID, MN_EW_ERF, MN_EW_SOFTPLUS, MN_EW_POW,   MN_EW_NORMAL_CDF, MN_EW_NORMAL_PDF};
  static const float ends[] = {0,    INFINITY, -INFINITY, NAN,      1,    -1,   0x1p-149f, -0x1p-140f, 88.7f, 89.5f, -87.3f, -103.9f,
                               -110, 1e30f,    3.4e38f,   -3.4e38f, 0.5f, 1e6f, 4095,      4097,       2,     3,     -2};
  enum { ENDS = sizeof ends / sizeof *ends };
  for (size_t k = 0; k < sizeof codes / sizeof *codes; k++) {
    int64_t n = MAX_N;
    float *a = (float *)buf_a, *b = (float *)buf_b, *y = (float *)buf_y;
    for (int64_t i = 0; i < n; i++) {
      a[i] = (float)draw(-30, 30);
      b[i] = (float)draw(-12, 12);
      if (i % 3 == 0) { /* any bits */
        rng = rng * 1664525u + 1013904223u;
        memcpy(&a[i], &rng, 4);
      }
      if (i % 7 == 0 || i / 64 % 5 == 1) a[i] = (float)draw(-0.9, 0.9); /* among others, and by themselves */
      if (i < ENDS * ENDS) a[i] = ends[i % ENDS], b[i] = ends[i / ENDS];
    }
    mn_view in[2] = {dense(a, MN_F32, 1, &n), dense(b, MN_F32, 1, &n)}, out = dense(y, MN_F32, 1, &n);
    run(&mn_op_ew_table[codes[k]], NULL, codes[k] == MN_EW_POW ? 2 : 1, in, 1, &out, NULL);
    double worst = 0;
    int64_t where = 0;
    for (int64_t i = 0; i < n; i++) {
      double want = eval(codes[k], a[i], b[i], 0, false);
      if (codes[k] == MN_EW_SIGMOID && fabs(want) < 0x1p-126) want = y[i] >= 0 && y[i] < 0x1p-125 ? y[i] : want;
      double e = ulps(y[i], want);
      if (codes[k] == MN_EW_NORMAL_CDF || codes[k] == MN_EW_NORMAL_PDF) /* small ones are sums of terms of about 1, or powers */
        e = want != want ? e : y[i] >= 0 && y[i] <= 1 ? fabs(y[i] - want) / 0x1p-24 : 1e9;
      if (e > worst) worst = e, where = i;
    }
    CHECK(worst <= 2.5, "%s isa %s: %.2f ulp: f(%a, %a) = %a", mn_op_ew_table[codes[k]].name, mn_isa_name(cpu.isa), worst, a[where],
          b[where], y[where]);
  }
}
static void test_accuracy(void) { each_isa(accuracy_one_isa); }

/* ---- layouts ---- */
static void layouts_one_isa(void) {
  static const mn_dtype types[] = {MN_F32, MN_BF16, MN_I32, MN_I64, MN_BOOL};
  int64_t dim[4] = {5, 7, 9, 67}, count = 5 * 7 * 9 * 67;
  for (int ti = 0; ti < 5; ti++) {
    mn_dtype t = types[ti];
    for (int64_t i = 0; i < MAX_N; i++) put(buf_a, t, i, trunc(draw(-50, 50))), put(buf_b, t, i, trunc(draw(-50, 50)));
    mn_view d = dense(buf_a, t, 4, dim);
    mn_view kinds[10];
    for (int k = 0; k < 10; k++) kinds[k] = d, kinds[k].data = buf_b;
    int64_t strides[10][4] = {{7 * 9 * 67, 9 * 67, 67, 1},
                              {0, 0, 0, 0},
                              {0, 0, 0, 1},
                              {63, 9, 1, 0},
                              {0, 67, 0, 1},
                              {1, 5, 35, 315} /* transposed */,
                              {7 * 9 * 67, 67, 7 * 67, 1} /* heads and time swapped */,
                              {2 * 603, 0, 134, 2},
                              {67, 0, 0, 1},
                              {7 * 603, 603, 1, 9} /* turned */};
    for (int k = 0; k < 10; k++) memcpy(kinds[k].stride, strides[k], sizeof strides[k]);
    for (int k = 0; k < 10; k++) {
      int code = t == MN_BOOL ? MN_EW_AND : MN_EW_SUB;
      mn_view in[2] = {d, kinds[k]}, out = dense(buf_y, t, 4, dim);
      if (k % 2) in[0] = kinds[k], in[1] = d;
      CHECK(run(&mn_op_ew_table[code], NULL, 2, in, 1, &out, pool2), "no kernel");
      int64_t wrong = 0;
      for (int64_t i = 0; i < count; i++) {
        double want = eval(code, get(in[0].data, t, at(&in[0], i)), get(in[1].data, t, at(&in[1], i)), 0, false);
        wrong += get(buf_y, t, i) != want;
      }
      CHECK(wrong == 0, "layout %d, %s, isa %s: %lld wrong", k, mn_dtype_name(t), mn_isa_name(cpu.isa), (long long)wrong);
    }
  }
}
static void test_layouts(void) { each_isa(layouts_one_isa); }

/* ---- programs ---- */
/* in0 f32 (dense), in1 bf16 row vector, in2 i32 column, in3 f32 single value; y0 = silu(in0*in1 + in3) * cast(in2) f32,
 * y1 = (in0 < 0.5) bool, y2 = the first as bf16 + 1 */
static mn_ew_attr program(void) {
  mn_ew_attr a = {.n_in = 4, .n_out = 3, .n_instr = 9};
  mn_ew_instr p[9] = {
      {MN_EW_CAST, MN_F32, MN_BF16, {1}, .imm = 0},       /* 4 */
      {MN_EW_MUL, MN_F32, MN_F32, {0, 4}, .imm = 0},      /* 5 */
      {MN_EW_ADD, MN_F32, MN_F32, {5, 3}, .imm = 0},      /* 6 */
      {MN_EW_SIGMOID, MN_F32, MN_F32, {6}, .imm = 0},     /* 7 */
      {MN_EW_MUL, MN_F32, MN_F32, {6, 7}, .imm = 0},      /* 8 */
      {MN_EW_CAST, MN_F32, MN_I32, {2}, .imm = 0},        /* 9 */
      {MN_EW_MUL, MN_F32, MN_F32, {8, 9}, .imm = 0},      /* 10 */
      {MN_EW_LT, MN_BOOL, MN_F32, {0, 0xFF}, .imm = 0.5}, /* 11 */
      {MN_EW_CAST, MN_BF16, MN_F32, {10}, .imm = 0},      /* 12 */
  };
  memcpy(a.instr, p, sizeof p);
  a.out_reg[0] = 10, a.out_reg[1] = 11, a.out_reg[2] = 12;
  return a;
}
static void programs_one_isa(void) {
  mn_ew_attr a = program();
  int64_t sizes[][2] = {{1, 1}, {3, 5}, {1, 4097}, {130, 519}};
  for (int s = 0; s < 4; s++)
    for (int inplace = 0; inplace < 2; inplace++) {
      int64_t *dim = sizes[s], n = dim[0] * dim[1];
      static float x[MAX_N], x0[MAX_N], single[1], y[2][MAX_N];
      static uint16_t row[MAX_N], z[2][MAX_N];
      static int32_t col[MAX_N];
      static uint8_t flag[2][MAX_N];
      for (int64_t i = 0; i < n; i++) x0[i] = (float)draw(-2, 2);
      for (int64_t i = 0; i < dim[1]; i++) put(row, MN_BF16, i, draw(-2, 2));
      for (int64_t i = 0; i < dim[0]; i++) col[i] = (int32_t)draw(-9, 9);
      single[0] = 0.25f;
      for (int threads = 1; threads <= 2; threads++) {
        memcpy(x, x0, sizeof x);
        mn_view in[4] = {dense(x, MN_F32, 2, dim), dense(row, MN_BF16, 2, dim), dense(col, MN_I32, 2, dim), dense(single, MN_F32, 2, dim)};
        in[1].stride[0] = 0, in[2].stride[0] = 1, in[2].stride[1] = 0, in[3].stride[0] = in[3].stride[1] = 0;
        mn_view out[3] = {dense(inplace ? x : y[threads - 1], MN_F32, 2, dim), dense(flag[threads - 1], MN_BOOL, 2, dim),
                          dense(z[threads - 1], MN_BF16, 2, dim)};
        CHECK(run(&mn_op_ew, &a, 4, in, 3, out, threads == 2 ? pool2 : NULL), "no kernel");
        if (inplace) memcpy(y[threads - 1], x, sizeof x);
      }
      CHECK(!memcmp(y[0], y[1], (size_t)n * 4) && !memcmp(flag[0], flag[1], (size_t)n) && !memcmp(z[0], z[1], (size_t)n * 2),
            "one and two threads differ");
      double worst = 0, worst_bf16 = 0;
      int wrong = 0;
      for (int64_t i = 0; i < n; i++) {
        double t = (double)x0[i] * get(row, MN_BF16, i % dim[1]) + 0.25, v = t / (1 + exp(-t)) * col[i / dim[1]];
        double e = fabs(y[0][i] - v) / (fabs(v) + 1), eb = fabs(get(z[0], MN_BF16, i) - v) / (fabs(v) + 1e-3);
        if (e > worst) worst = e;
        if (eb > worst_bf16) worst_bf16 = eb;
        wrong += flag[0][i] != (x0[i] < 0.5f);
      }
      CHECK(worst < 3e-6 && worst_bf16 < 5e-3 && !wrong, "isa %s size %d inplace %d: %g %g %d", mn_isa_name(cpu.isa), s, inplace, worst,
            worst_bf16, wrong);
    }
}
static void test_programs(void) { each_isa(programs_one_isa); }

/* Outputs that are inputs, exchanged in place; outputs that are one number; a value rounded to bf16 and used again. */
static void corners_one_isa(void) {
  static float p[3000], q[3000], one[1] = {7}, fill[3000];
  int64_t n = 3000;
  for (int i = 0; i < 3000; i++) p[i] = (float)i, q[i] = (float)-i;
  mn_ew_attr a = {.n_in = 3, .n_out = 4, .n_instr = 4};
  a.instr[0] = (mn_ew_instr){MN_EW_ADD, MN_F32, MN_F32, {2, 0xFF}, .imm = 3};
  a.instr[1] = (mn_ew_instr){MN_EW_CAST, MN_BF16, MN_F32, {0}, .imm = 0};
  a.instr[2] = (mn_ew_instr){MN_EW_CAST, MN_F32, MN_BF16, {4}, .imm = 0};
  a.instr[3] = (mn_ew_instr){MN_EW_SUB, MN_F32, MN_F32, {5, 1}, .imm = 0};
  a.out_reg[0] = 1, a.out_reg[1] = 0, a.out_reg[2] = 3, a.out_reg[3] = 6;
  static float diff[3000];
  mn_view in[3] = {dense(p, MN_F32, 1, &n), dense(q, MN_F32, 1, &n), dense(one, MN_F32, 1, &n)};
  in[2].stride[0] = 0;
  mn_view out[4] = {dense(p, MN_F32, 1, &n), dense(q, MN_F32, 1, &n), dense(fill, MN_F32, 1, &n), dense(diff, MN_F32, 1, &n)};
  CHECK(run(&mn_op_ew, &a, 3, in, 4, out, NULL), "no kernel");
  int wrong = 0;
  for (int i = 0; i < 3000; i++) {
    char r[2];
    put(r, MN_BF16, 0, i);
    wrong += p[i] != -(float)i || q[i] != (float)i || fill[i] != 10 || diff[i] != (float)get(r, MN_BF16, 0) + (float)i;
  }
  CHECK(wrong == 0, "isa %s: %d wrong", mn_isa_name(cpu.isa), wrong);

  /* a broken program is refused, not run */
  mn_tensor t = {.dtype = MN_F32}, *pt[3] = {&t, &t, &t};
  a.instr[3].src[0] = 9;
  mn_node node = {.op = &mn_op_ew, .n_in = 3, .n_out = 4, .in = pt, .attr = &a};
  int count;
  const mn_kernel *k = mn_cpu_elementwise_kernels(cpu.isa, &count)[0];
  mn_call call = {.kernel = k, .node = &node, .attr = &a, .n_in = 3, .n_out = 4, .in = in, .out = out, .backend = &cpu.backend};
  CHECK(k->prepare(&call) == MN_ERR_INTERNAL && !call.state, "a program that reads an unmade register was accepted");
}
static void test_corners(void) { each_isa(corners_one_isa); }

/* Long chains at random against the same instructions run one by one. */
static void random_programs_one_isa(void) {
  static float x[4][5000], regs[MN_EW_MAX_IN + MN_EW_MAX_INSTR][5000], y[3][5000];
  static const int codes[] = {MN_EW_ADD, MN_EW_SUB, MN_EW_MUL, MN_EW_MAXIMUM, MN_EW_MINIMUM, MN_EW_NEG, MN_EW_TANH, MN_EW_ABS};
  int64_t n = 5000;
  for (int trial = 0; trial < 30; trial++) {
    mn_ew_attr a = {.n_in = 4, .n_out = 3, .n_instr = 1 + (int)draw(0, MN_EW_MAX_INSTR - 0.01)};
    for (int i = 0; i < 4; i++)
      for (int64_t k = 0; k < n; k++) x[i][k] = regs[i][k] = i == 3 ? 0.75f : (float)draw(-1, 1);
    for (int i = 0; i < a.n_instr; i++) {
      int code = codes[(int)draw(0, 7.99)];
      a.instr[i] = (mn_ew_instr){.code = (uint8_t)code, .dtype = MN_F32, .src_dtype = MN_F32, .imm = 0.5};
      for (int k = 0; k < 2; k++)
        a.instr[i].src[k] = draw(0, 1) < 0.1 ? 0xFF : (uint8_t)draw(i > 3 && draw(0, 1) < 0.7 ? i : 0, 4 + i - 0.01);
      for (int64_t k = 0; k < n; k++) {
        double u = a.instr[i].src[0] == 0xFF ? 0.5 : regs[a.instr[i].src[0]][k];
        double v = a.instr[i].src[1] == 0xFF ? 0.5 : regs[a.instr[i].src[1]][k];
        regs[4 + i][k] = (float)eval(code, u, v, 0, false);
      }
    }
    for (int j = 0; j < 3; j++) a.out_reg[j] = (uint8_t)(j == 0 ? 3 + a.n_instr : draw(0, 4 + a.n_instr - 0.01));
    int inplace = trial % 2;
    mn_view in[4], out[3];
    for (int i = 0; i < 4; i++) in[i] = dense(x[i], MN_F32, 1, &n);
    in[3].stride[0] = 0;
    for (int j = 0; j < 3; j++) out[j] = dense(inplace ? x[j] : y[j], MN_F32, 1, &n);
    run(&mn_op_ew, &a, 4, in, 3, out, NULL);
    for (int j = 0; j < 3; j++) {
      double worst = 0;
      const float *got = inplace ? x[j] : y[j], *want = regs[a.out_reg[j]];
      for (int64_t k = 0; k < n; k++) {
        double e = got[k] == want[k] || (got[k] != got[k] && want[k] != want[k]) ? 0 : fabs(got[k] - want[k]) / (fabs(want[k]) + 1);
        if (fabs(want[k]) > 1e4) e = 0; /* chains of products that blow up */
        if (e > worst) worst = e;
      }
      CHECK(worst < 1e-3, "isa %s trial %d output %d inplace %d: %g", mn_isa_name(cpu.isa), trial, j, inplace, worst);
    }
  }
}
static void test_random_programs(void) { each_isa(random_programs_one_isa); }

int main(void) {
  pool2 = mn_pool_new(2);
  RUN(test_operations);
  RUN(test_casts);
  RUN(test_casts_within_programs);
  RUN(test_accuracy);
  RUN(test_layouts);
  RUN(test_programs);
  RUN(test_corners);
  RUN(test_random_programs);
  mn_pool_free(pool2);
  return test_end();
}
