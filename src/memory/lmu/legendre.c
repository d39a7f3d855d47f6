#include "memory/lmu/legendre.h"

#include "nn/scope_numbers.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* c += a b: a [m,n] and c [m,n] with rows that begin `stride` apart, b [n,n]. A band of b serves all rows before the next is read; each sum runs
 * over k in order. */
static void add_product(int64_t m, int64_t n, int64_t stride, const double *restrict a, const double *restrict b, double *restrict c) {
  enum { BAND = 32 };
  for (int64_t from = 0; from < n && !mn_stopped(); from += BAND) {
    const int64_t to = from + BAND < n ? from + BAND : n;
    for (int64_t i = 0; i < m; i++) {
      const double *of = a + i * stride;
      double *row = c + i * stride;
      int64_t k = from;
      for (; k + 4 <= to; k += 4) {
        const double *b0 = b + k * n, *b1 = b0 + n, *b2 = b1 + n, *b3 = b2 + n;
        for (int64_t j = 0; j < n; j++) row[j] = row[j] + of[k] * b0[j] + of[k + 1] * b1[j] + of[k + 2] * b2[j] + of[k + 3] * b3[j];
      }
      for (; k < to; k++)
        for (int64_t j = 0; j < n; j++) row[j] += of[k] * b[k * n + j];
    }
  }
}

/* c = a b, all [n,n] */
static void product(int64_t n, const double *restrict a, const double *restrict b, double *restrict c) {
  memset(c, 0, sizeof(double) * (size_t)(n * n));
  add_product(n, n, n, a, b, c);
}

static mn_status stop(void) { return mn_stop_check("working out a Legendre memory"); }

/* x = exp(x), [n,n]: the Taylor polynomial of degree 16 of x / 2^s, whose remainder at a norm of at most 1/2 is below one part in 1e19,
 * squared s times (Moler & Van Loan 2003). By powers of y = x / 2^s up to the fourth the polynomial takes six products:
 *     p = c0 + y (c1 + ...) = q0 + y^4 (q1 + y^4 (q2 + y^4 (q3 + c16 y^4)))     q_i = sum over r < 4 of c_{4i+r} y^r     c_i = 1/i! */
static void announce(int64_t n, int products) {
  if (n < 1500) return; /* seconds; this much is minutes */
  mn_log_write(
      MN_LOG_WARN,
      "working out a Legendre memory of order %lld: %d products of %lld x %lld matrices, which takes minutes; a lower order is quicker",
      (long long)(n - 1), products, (long long)n, (long long)n);
}

static mn_status matrix_exponential(int64_t n, double *x) {
  const int64_t size = n * n;
  double norm = 0;
  for (int64_t j = 0; j < n; j++) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += fabs(x[i * n + j]);
    norm = fmax(norm, sum);
  }
  int squarings = norm > 0.5 ? (int)ceil(log2(norm)) + 1 : 0;
  announce(n, 6 + squarings);
  double *room = mn_alloc(sizeof(double) * (size_t)(5 * size));
  if (!room) return MN_ERR_MEMORY;
  double *power[5] = {NULL, x, room, room + size, room + 2 * size}, *p = room + 3 * size, *next = room + 4 * size;
  for (int64_t i = 0; i < size; i++) x[i] = ldexp(x[i], -squarings);
  product(n, x, x, power[2]);
  product(n, power[2], x, power[3]);
  product(n, power[2], power[2], power[4]);
  double c[17] = {1};
  for (int i = 1; i <= 16; i++) c[i] = c[i - 1] / i;
  for (int64_t i = 0; i < size; i++) p[i] = c[16] * power[4][i];
  for (int q = 3; q >= 0; q--) {
    if (q < 3) {
      product(n, p, power[4], next);
      double *was = p;
      p = next;
      next = was;
    }
    for (int64_t i = 0; i < size; i++) p[i] += c[4 * q + 1] * power[1][i] + c[4 * q + 2] * power[2][i] + c[4 * q + 3] * power[3][i];
    for (int64_t i = 0; i < n; i++) p[i * n + i] += c[4 * q];
  }
  for (int s = 0; s < squarings; s++) {
    product(n, p, p, next);
    double *was = p;
    p = next;
    next = was;
  }
  memcpy(x, p, sizeof(double) * (size_t)size);
  free(room);
  return stop();
}

mn_status mn_legendre_step(int64_t d, double theta, double *a, double *b) {
  const int64_t n = d + 1;
  double *x = mn_alloc(sizeof(double) * (size_t)(n * n));
  if (!x) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < d; i++) {
    double rate = (double)(2 * i + 1) / theta;
    for (int64_t j = 0; j < d; j++) x[i * n + j] = rate * (i < j || (i - j) % 2 == 0 ? -1 : 1);
    x[i * n + d] = rate * (i % 2 == 0 ? 1 : -1);
  }
  memset(x + d * n, 0, sizeof(double) * (size_t)n);
  mn_status st = matrix_exponential(n, x);
  for (int64_t i = 0; i < d && st == MN_OK; i++) {
    memcpy(a + i * d, x + i * n, sizeof(double) * (size_t)d);
    b[i] = x[i * n + d];
  }
  free(x);
  return st;
}

/* ---- many steps at once ---- */
typedef struct table {
  struct table *next;
  int64_t d, L;
  double theta;
  double step[]; /* G for one step (b as a row, then a^T); G for L steps */
} table;
static table *tables; /* grows by one for each (d, theta, L) in use; guarded by `lock` */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static table *find(int64_t d, double theta, int64_t L) {
  for (table *t = tables; t; t = t->next)
    if (t->d == d && t->theta == theta && (!L || t->L == L)) return t;
  return NULL;
}

/* steps [L + d, L d] from one step: b [d], a^T [d,d]. Step t + 1 of each row is step t times a^T; row j begins with b at step j. */
static void run_steps(int64_t d, int64_t L, const double *b, const double *at, double *steps) {
  memset(steps, 0, sizeof(double) * (size_t)((L + d) * L * d));
  for (int64_t t = 0; t < L; t++) memcpy(steps + (t * L + t) * d, b, sizeof(double) * (size_t)d);
  for (int64_t i = 0; i < d; i++) memcpy(steps + (L + i) * L * d, at + i * d, sizeof(double) * (size_t)d);
  for (int64_t t = 0; t + 1 < L; t++) {
    add_product(1, d, L * d, steps + t * d, at, steps + (t + 1) * d);
    for (int64_t row = 1; row <= t; row++) /* what row 0 was, `row` steps later */
      memcpy(steps + (row * L + t + 1) * d, steps + (t + 1 - row) * d, sizeof(double) * (size_t)d);
    add_product(d, d, L * d, steps + (L * L + t) * d, at, steps + (L * L + t + 1) * d);
  }
}

static mn_status fill(table *t) {
  const int64_t d = t->d;
  const table *same = find(d, t->theta, 0);
  double *a = same ? NULL : mn_alloc(sizeof(double) * (size_t)(d * d));
  mn_status status = same || a ? MN_OK : MN_ERR_MEMORY;
  if (same) memcpy(t->step, same->step, sizeof(double) * (size_t)(d + d * d));
  else if (a) status = mn_legendre_step(d, t->theta, a, t->step);
  for (int64_t i = 0; a && i < d && status == MN_OK; i++)
    for (int64_t j = 0; j < d; j++) t->step[d + j * d + i] = a[i * d + j];
  free(a);
  MN_TRY(status);
  run_steps(d, t->L, t->step, t->step + d, t->step + d + d * d);
  return stop();
}

/* The table of (d, theta, L), made if there is none yet. Under the lock. */
static mn_status table_of(int64_t d, double theta, int64_t L, const table **out) {
  if ((*out = find(d, theta, L))) return MN_OK;
  table *t = mn_alloc(sizeof *t + sizeof(double) * (size_t)(d + d * d + (L + d) * L * d));
  if (!t) return MN_ERR_MEMORY;
  t->d = d;
  t->L = L;
  t->theta = theta;
  mn_status status = fill(t);
  if (status != MN_OK) {
    free(t);
    return status;
  }
  t->next = tables;
  *out = tables = t;
  return MN_OK;
}

static mn_status known(int64_t d, double theta, int64_t L, const table **out) {
  pthread_mutex_lock(&lock);
  mn_status status = table_of(d, theta, L, out);
  pthread_mutex_unlock(&lock);
  return status;
}

/* of: d, theta */
static mn_status copy_steps(const double *of, const mn_shape *shape, double *to) {
  const int64_t d = (int64_t)of[0];
  const table *t;
  mn_status status = known(d, of[1], shape->dim[0] - d, &t);
  if (status == MN_ERR_MEMORY) return mn_fail(MN_ERR_MEMORY, "no memory for a Legendre memory of order %lld", (long long)d);
  MN_TRY(status);
  memcpy(to, t->step + d + d * d, sizeof(double) * (size_t)mn_shape_count(shape));
  return MN_OK;
}

mn_tensor *mn_legendre_steps(mn_scope *s, mn_dtype type, int64_t d, double theta, int64_t L) {
  return mn_scope_numbers(s, copy_steps, 2, (const double[]){(double)d, theta}, type, MN_SHAPE(L + d, L * d));
}

/* ---- running it ---- */
/* Steps that run as one product: what it does for nothing grows with their number, what each costs beside it with its inverse. */
static int64_t steps_at_once(int64_t order) { return order <= 64 ? 32 : order <= 256 ? 16 : 8; }

mn_tensor *mn_legendre_memory(mn_scope *s, mn_tensor *u, mn_tensor *m0, double theta) {
  if (!u || !m0) return NULL;
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(u, 0), T = mn_dim(u, 1), M = mn_dim(u, 2), d = mn_dim(m0, 2), most = steps_at_once(d);
  const int64_t L = T < most ? T : most, chunks = (T + L - 1) / L, rows = B * M;
  mn_tensor *G = mn_legendre_steps(s, u->dtype, d, theta, L);                                                 /* [L + d, L d] */
  u = mn_pad(g, mn_transpose(g, u, 1, 2), 2, 0, chunks * L - T);                                              /* [B,M,chunks L] */
  u = mn_permute(g, mn_reshape(g, u, MN_SHAPE(rows, chunks, L)), (int[]){1, 0, 2});                           /* [chunks,rows,L] */
  mn_tensor *before = mn_reshape(g, m0, MN_SHAPE(1, rows, d)), *first = mn_reshape(g, m0, MN_SHAPE(rows, d)); /* of each chunk */
  if (chunks > 1) {
    mn_tensor *last = mn_slice(g, G, 1, (L - 1) * d, d), *fade = mn_slice(g, last, 0, L, d); /* (a^L)^T */
    mn_tensor *written = mn_matmul(g, u, mn_slice(g, last, 0, 0, L)), *m, *more, *end, *starts;
    mn_scan_builder *b = mn_scan_begin(g, chunks, MN_FORWARD, 1, &first, 1, &written, &m, &more);
    mn_graph *body = mn_scan_body(b);
    if (!body) return NULL;
    mn_tensor *next = mn_add(body, mn_matmul(body, m, fade), more);
    mn_scan_end(b, &next, 1, &m, &end, &starts);
    before = starts; /* [chunks,rows,d] */
  }
  mn_tensor *m = mn_matmul(g, mn_concat(g, 2, (mn_tensor *[]){u, before}, 2), G); /* [chunks,rows,L d] */
  m = mn_permute(g, mn_reshape(g, m, MN_SHAPE(chunks, B, M, L, d)), (int[]){1, 0, 3, 2, 4});
  return mn_slice(g, mn_reshape(g, m, MN_SHAPE(B, chunks * L, M, d)), 1, 0, T);
}
