/* mutate_bytes.h - one mutation of one file: what bad disks, cut copies and mixed-up files do, as a function of a seed. */
#ifndef MUTATE_BYTES_H
#define MUTATE_BYTES_H

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

typedef struct bytes {
  uint8_t *data;
  size_t n;
} bytes;

static bytes bytes_copy(const void *data, size_t n) {
  bytes b = {malloc(n + 1), n};
  if (!b.data) abort();
  if (n) memcpy(b.data, data, n);
  b.data[n] = 0;
  return b;
}

typedef struct dice {
  uint64_t state;
} dice;

static uint64_t roll(dice *d, uint64_t below) { return below ? mn_splitmix64(d->state++) % below : 0; }

/* A place in the file. Half of them are near its beginning or end, where headers and closing braces are. */
static size_t place(dice *d, size_t n) {
  size_t near = n < 1600 ? n : 1600;
  switch (roll(d, 4)) {
  case 0:
    return (size_t)roll(d, near);
  case 1:
    return n - 1 - (size_t)roll(d, n < 64 ? n : 64);
  default:
    return (size_t)roll(d, n);
  }
}

static size_t length(dice *d, size_t room) {
  static const size_t usual[] = {1, 2, 4, 8, 16, 64, 256, 512, 4096};
  size_t n = roll(d, 2) ? usual[roll(d, sizeof usual / sizeof *usual)] : (size_t)roll(d, room) + 1;
  return n < room ? n : room;
}

/* Puts `n` new bytes in the place of [at, at + old). */
static void replace(bytes *b, size_t at, size_t old, const void *with, size_t n) {
  bytes r = {malloc(b->n - old + n + 1), b->n - old + n};
  if (!r.data) abort();
  memcpy(r.data, b->data, at);
  if (n) memcpy(r.data + at, with, n);
  memcpy(r.data + at + n, b->data + at + old, b->n - at - old);
  r.data[r.n] = 0;
  free(b->data);
  *b = r;
}

/* Changes a number of the file's text (a JSON header's, a recipe's): another value, an odd spelling, or nonsense. */
static bool edit_number(bytes *b, dice *d) {
  static const char *const values[] = {
      "0",  "-1",  "1",    "2",     "3",   "7",    "1e30", "-1e-30", "NaN", "Infinity", "4294967296", "18446744073709551615",
      "\"", "0.1", "true", "1e400", "0x7", "null", "[]",   "{}",     "00",  "1.",       "",           "9223372036854775807"};
  size_t at = place(d, b->n);
  for (size_t tries = 0; tries < b->n && !isdigit(b->data[at]); tries++) at = (at + 1) % b->n;
  if (!isdigit(b->data[at])) return false;
  size_t begin = at, end = at;
  while (begin > 0 && (isdigit(b->data[begin - 1]) || strchr(".-+eE", b->data[begin - 1]))) begin--;
  while (end < b->n && (isdigit(b->data[end]) || (b->data[end] && strchr(".-+eE", b->data[end])))) end++;
  if (roll(d, 2)) b->data[at] = (uint8_t)('0' + roll(d, 10)); /* one digit */
  else {
    const char *value = values[roll(d, sizeof values / sizeof *values)];
    replace(b, begin, end - begin, value, strlen(value));
  }
  return true;
}

/* An aligned number of four bytes becomes another: a quiet NaN, an infinity, a huge, a tiny or a slightly different one. */
static void edit_float(bytes *b, dice *d) {
  static const uint32_t values[] = {0x7fc00000, 0x7f800000, 0xff800000, 0x7f7fffff, 0x00000001, 0x80000000, 0, 0x3f800000};
  if (b->n < 8) return;
  size_t at = (size_t)roll(d, b->n / 4 - 1) * 4;
  uint32_t word = values[roll(d, sizeof values / sizeof *values)], old;
  memcpy(&old, b->data + at, 4);
  if (roll(d, 2)) word = old ^ 1;
  memcpy(b->data + at, &word, 4);
}

/* One change. `donors` are other files of the same kind; what it did is written into `what`. */
static void mutate_once(bytes *b, dice *d, const bytes *donors, int n_donors, bool alone, char what[120]) {
  size_t n = b->n, at = n ? place(d, n) : 0, len = n ? length(d, n - at) : 0;
  uint64_t kind = roll(d, n_donors ? 15 : 13);
  if (n == 0) kind = 3;
  switch (kind) {
  case 0:
  case 1: { /* bit flips are the commonest damage */
    unsigned bit = (unsigned)roll(d, 8);
    b->data[at] ^= (uint8_t)(1u << bit);
    snprintf(what, 120, "bit %u of byte %zu flipped", bit, at);
    return;
  }
  case 2:
    b->data[at] = (uint8_t)roll(d, 256);
    snprintf(what, 120, "byte %zu set to %u", at, b->data[at]);
    return;
  case 3: {
    uint8_t tail[4096];
    size_t more = 1 + (size_t)roll(d, roll(d, 2) ? sizeof tail : 8), same = (size_t)roll(d, 3);
    for (size_t i = 0; i < more; i++) tail[i] = same == 0 ? 0 : same == 1 ? ' ' : (uint8_t)roll(d, 256);
    replace(b, n, 0, tail, more);
    snprintf(what, 120, "%zu bytes more at the end", more);
    return;
  }
  case 4:
    b->n = roll(d, 8) ? at : 0;
    snprintf(what, 120, "cut to %zu of %zu bytes", b->n, n);
    return;
  case 5: { /* two blocks of equal length change places */
    size_t other = place(d, n), room = n - (at > other ? at : other), gap = at > other ? at - other : other - at;
    len = length(d, room) < gap ? length(d, room) : gap;
    if (len > room) len = room;
    for (size_t i = 0; i < len; i++) {
      uint8_t x = b->data[at + i];
      b->data[at + i] = b->data[other + i];
      b->data[other + i] = x;
    }
    snprintf(what, 120, "%zu bytes at %zu and %zu swapped", len, at, other);
    return;
  }
  case 6: {
    bytes part = bytes_copy(b->data + at, len);
    replace(b, at, 0, part.data, part.n);
    free(part.data);
    snprintf(what, 120, "%zu bytes at %zu doubled", len, at);
    return;
  }
  case 7:
    replace(b, at, len, NULL, 0);
    snprintf(what, 120, "%zu bytes at %zu removed", len, at);
    return;
  case 8:
  case 9:
    snprintf(what, 120, "a number edited");
    if (edit_number(b, d)) return;
    edit_float(b, d);
    return;
  case 10:
    snprintf(what, 120, "a word of four bytes edited");
    edit_float(b, d);
    return;
  case 11: { /* a page or a part of one that was never written */
    size_t page = roll(d, 2) ? 512 : 4096;
    at -= at % page;
    len = n - at < page ? n - at : page;
    memset(b->data + at, roll(d, 4) ? 0 : 0xff, len);
    snprintf(what, 120, "%zu bytes at %zu blanked", len, at);
    return;
  }
  case 12:
    memset(b->data + at, (int)roll(d, 256), len);
    snprintf(what, 120, "%zu bytes at %zu overwritten by one value", len, at);
    return;
  default: { /* from another file of the kind: all of it, or the same range, or its tail */
    int which = (int)roll(d, (uint64_t)n_donors);
    const bytes *o = &donors[which];
    if (!alone && roll(d, 3) == 0) {
      replace(b, 0, n, o->data, o->n);
      snprintf(what, 120, "all of it from file %d of the kind", which);
      return;
    }
    if (at >= o->n) at = o->n ? o->n - 1 : 0;
    if (roll(d, 2)) len = o->n - at;
    if (len > o->n - at) len = o->n - at;
    if (alone && len > n / 2) len = n / 2; /* most of another file is that file */
    replace(b, at, len < b->n - at ? len : b->n - at, o->data + at, len);
    snprintf(what, 120, "%zu bytes at %zu from file %d of the kind", len, at, which);
  }
  }
}

static bool bytes_same(const bytes *a, const bytes *b) { return a->n == b->n && !memcmp(a->data, b->data, a->n); }

static bool is_one_of(const bytes *b, const bytes *files, int n) {
  for (int i = 0; i < n; i++)
    if (bytes_same(b, &files[i])) return true;
  return false;
}

/* The mutation of a seed: one change, now and then up to three. The result is not the file and, where another whole file of
 * the kind would be just as good (`alone`), no other. */
static bytes mutate(const bytes *file, uint64_t seed, const bytes *donors, int n_donors, bool alone, char what[400]) {
  dice d = {mn_splitmix64(seed ^ 0x6d75746174696f6eu)};
  bytes b = bytes_copy(file->data, file->n);
  do {
    int changes = roll(&d, 8) ? 1 : 1 + (int)roll(&d, 3);
    what[0] = 0;
    replace(&b, 0, b.n, file->data, file->n);
    for (int i = 0; i < changes; i++) {
      char one[120];
      mutate_once(&b, &d, donors, n_donors, alone, one);
      size_t used = strlen(what);
      snprintf(what + used, 400 - used, "%s%s", i ? ", " : "", one);
      if (!alone || !is_one_of(&b, donors, n_donors)) continue;
      replace(&b, 0, b.n, file->data, file->n);
      what[0] = 0;
    }
  } while (bytes_same(&b, file));
  return b;
}

#endif
