/* runs_seal.c - see runs_seal.h. */
#include "train/runs_seal.h"

#include <string.h>

static void row(sqlite3_context *c, int n, sqlite3_value **v) {
  uint64_t h = 0x6d6e656d65727573u;
  for (int i = 0; i < n; i++) {
    int type = sqlite3_value_type(v[i]);
    int64_t number = sqlite3_value_int64(v[i]);
    double real = sqlite3_value_double(v[i]);
    const void *data = &number;
    size_t size = sizeof number;
    if (type == SQLITE_FLOAT) data = &real;
    else if (type == SQLITE_NULL) size = 0;
    else if (type != SQLITE_INTEGER) {
      data = sqlite3_value_blob(v[i]);
      size = (size_t)sqlite3_value_bytes(v[i]);
    }
    h = mn_hash_bytes(size ? data : "", size, mn_splitmix64(h ^ (uint64_t)type));
  }
  sqlite3_result_int64(c, (int64_t)h);
}

static void plus(sqlite3_context *c, int n, sqlite3_value **v) {
  (void)n;
  sqlite3_result_int64(c, (int64_t)((uint64_t)sqlite3_value_int64(v[0]) + (uint64_t)sqlite3_value_int64(v[1])));
}

static void minus(sqlite3_context *c, int n, sqlite3_value **v) {
  (void)n;
  sqlite3_result_int64(c, (int64_t)((uint64_t)sqlite3_value_int64(v[0]) - (uint64_t)sqlite3_value_int64(v[1])));
}

static void total_step(sqlite3_context *c, int n, sqlite3_value **v) {
  (void)n;
  uint64_t *sum = sqlite3_aggregate_context(c, sizeof *sum);
  if (sum) *sum += (uint64_t)sqlite3_value_int64(v[0]);
}

static void total_end(sqlite3_context *c) {
  uint64_t *sum = sqlite3_aggregate_context(c, 0);
  sqlite3_result_int64(c, sum ? (int64_t)*sum : 0);
}

int mn_seal_functions(sqlite3 *sql) {
  enum { FLAGS = SQLITE_UTF8 | SQLITE_DETERMINISTIC };
  int code = sqlite3_create_function(sql, "mn_row", -1, FLAGS, NULL, row, NULL, NULL);
  if (code == SQLITE_OK) code = sqlite3_create_function(sql, "mn_plus", 2, FLAGS, NULL, plus, NULL, NULL);
  if (code == SQLITE_OK) code = sqlite3_create_function(sql, "mn_minus", 2, FLAGS, NULL, minus, NULL, NULL);
  if (code == SQLITE_OK) code = sqlite3_create_function(sql, "mn_total", 1, FLAGS, NULL, NULL, total_step, total_end);
  return code;
}
