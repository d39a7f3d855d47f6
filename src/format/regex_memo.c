/* regex_memo.c - what a search has found to fail: see regex_internal.h. */
#include "format/regex_internal.h"

#include <stdlib.h>
#include <string.h>

enum { SMALL = 1 << 10, MOST_CELLS = 1 << 22 };

static uint64_t key_of(uint32_t pc, uint64_t place, bool is_run) { return (place << 17 | (uint64_t)pc << 1 | is_run) + 1; }

static struct mn_regex_cell *find(const mn_regex_memo *memo, uint64_t key) {
  size_t at = (size_t)mn_splitmix64(key) & (memo->cap - 1);
  while (memo->cell[at].key && memo->cell[at].key != key) at = (at + 1) & (memo->cap - 1);
  return &memo->cell[at];
}

static bool grow(mn_matcher *m) {
  mn_regex_memo *memo = m->memo;
  size_t cap = memo->cap ? 2 * memo->cap : SMALL;
  if (cap > MOST_CELLS) {
    memset(memo->cell, 0, memo->cap * sizeof *memo->cell);
    memo->n = 0;
    return true;
  }
  mn_regex_memo old = *memo;
  struct mn_regex_cell *cell = mn_calloc(cap, sizeof *cell);
  if (!cell) {
    m->status = MN_ERR_MEMORY;
    return false;
  }
  memo->cell = cell;
  memo->cap = cap;
  for (size_t i = 0; i < old.cap; i++)
    if (old.cell[i].key) *find(memo, old.cell[i].key) = old.cell[i];
  free(old.cell);
  return true;
}

/* The cell of a key, made where it is not there; NULL: out of memory. */
static struct mn_regex_cell *enter(mn_matcher *m, uint64_t key, uint64_t value) {
  struct mn_regex_cell *c = find(m->memo, key);
  if (c->key) return c;
  if (2 * m->memo->n >= m->memo->cap) {
    if (!grow(m)) return NULL;
    c = find(m->memo, key);
  }
  *c = (struct mn_regex_cell){key, value};
  m->memo->n++;
  return c;
}

bool mn_memo_begin(mn_matcher *m, const mn_regex *re) {
  if (!m->memo && !(m->memo = mn_calloc(1, sizeof *m->memo))) {
    m->status = MN_ERR_MEMORY;
    return false;
  }
  mn_regex_memo *memo = m->memo;
  if (memo->n_runs < re->n) {
    mn_regex_run *run = mn_realloc(memo->run, re->n * sizeof *run);
    if (!run) {
      m->status = MN_ERR_MEMORY;
      return false;
    }
    memset(run + memo->n_runs, 0, (re->n - memo->n_runs) * sizeof *run);
    memo->run = run;
    memo->n_runs = re->n;
  }
  memo->search++;
  memo->far = 0;
  if (!memo->cap && !grow(m)) return false;
  return m->remembers = true;
}

void mn_memo_end(mn_matcher *m) { /* a large table is not kept, nor cleared over and over */
  mn_regex_memo *memo = m->memo;
  m->remembers = false;
  if (memo->cap > SMALL) {
    free(memo->cell);
    memo->cell = NULL;
    memo->cap = 0;
  } else if (memo->n) {
    memset(memo->cell, 0, memo->cap * sizeof *memo->cell);
  }
  memo->n = 0;
}

void mn_memo_free(mn_matcher *m) {
  if (!m->memo) return;
  free(m->memo->cell);
  free(m->memo->run);
  free(m->memo);
  m->memo = NULL;
}

bool mn_memo_has_failed(const mn_matcher *m, uint32_t pc, size_t at) {
  const struct mn_regex_cell *c = find(m->memo, key_of(pc, at >> 6, false));
  return c->key && c->value >> (at & 63) & 1;
}

bool mn_memo_fail(mn_matcher *m, uint32_t pc, size_t at) {
  struct mn_regex_cell *c = enter(m, key_of(pc, at >> 6, false), 0);
  if (at > m->memo->far) m->memo->far = at;
  if (c) c->value |= 1ull << (at & 63);
  return c != NULL;
}

/* The run of the SPAN at pc that ends at `high`, and holds `begin` at least. */
mn_regex_run *mn_memo_run(mn_matcher *m, uint32_t pc, size_t begin, size_t high) {
  if (high > m->memo->far) m->memo->far = high;
  mn_regex_run *run = &m->memo->run[pc];
  const bool is_ours = run->search == m->memo->search;
  if (is_ours && run->high == high) {
    if (begin < run->begin) run->begin = begin;
    return run;
  }
  if (is_ours && run->lo <= run->high) { /* makes way */
    struct mn_regex_cell *c = enter(m, key_of(pc, run->high, true), run->lo);
    if (!c) return NULL;
    c->value = run->lo;
  }
  const struct mn_regex_cell *c = find(m->memo, key_of(pc, high, true));
  *run = (mn_regex_run){m->memo->search, begin, high, c->key ? (size_t)c->value : NOWHERE};
  return run;
}
