/* keys.c - see keys.h. */
#include "serve/keys.h"

#include <math.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"

enum { MOST_KEYS = 10000, SHORTEST = 8, LONGEST = 256, MOST_FILE = 4 << 20 };

typedef struct key {
  char *text;
  uint64_t owner;
  double rate, saved, when; /* requests a minute; that it has now; since then */
} key;

struct mn_keys {
  key *list;
  int n;
};

static double most_saved(double rate) { return rate / 6 > 1 ? rate / 6 : 1; }

/* From SHA-256, as it is written to disks, and the key cannot be told from it. */
static mn_status hash(const char *text, size_t n, uint64_t *out) {
  unsigned char all[EVP_MAX_MD_SIZE];
  *out = 0;
  if (EVP_Digest(text, n, all, NULL, EVP_sha256(), NULL) != 1) return mn_fail(MN_ERR_MEMORY, "no hash of a key can be made");
  for (int i = 0; i < 8; i++) *out = *out << 8 | all[i];
  if (!*out) *out = 1;
  return MN_OK;
}

static mn_status add(mn_keys *k, const char *name, int line, const char *text, size_t n, double rate) {
  size_t length = strcspn(text, " \t\r");
  if (length > n) length = n;
  for (size_t i = 0; i < length; i++)
    if ((unsigned char)text[i] <= 0x20 || (unsigned char)text[i] > 0x7e)
      return mn_fail(MN_ERR_FORMAT, "%s:%d: a key is of visible ASCII signs", name, line);
  if (length < SHORTEST || length > LONGEST)
    return mn_fail(MN_ERR_FORMAT, "%s:%d: a key of %zu signs; it has from %d to %d", name, line, length, SHORTEST, LONGEST);
  if (k->n == MOST_KEYS) return mn_fail(MN_ERR_FORMAT, "%s:%d: more than %d keys", name, line, MOST_KEYS);
  const char *rest = text + length + strspn(text + length, " \t\r");
  if (rest < text + n) {
    char *end;
    rate = strtod(rest, &end);
    end += strspn(end, " \t\r");
    if (end != text + n || !(rate > 0) || !isfinite(rate))
      return mn_fail(MN_ERR_FORMAT, "%s:%d: behind the key stands its limit, a number of requests per minute above 0", name, line);
  }
  uint64_t owner;
  MN_TRY(hash(text, length, &owner));
  k->list[k->n] = (key){.text = mn_alloc(length + 1), .owner = owner, .rate = rate, .saved = most_saved(rate)};
  if (!k->list[k->n].text) return MN_ERR_MEMORY;
  memcpy(k->list[k->n].text, text, length);
  k->list[k->n++].text[length] = 0;
  return MN_OK;
}

mn_status mn_keys_parse(const char *name, const char *text, size_t n, double rate, mn_keys **out) {
  *out = NULL;
  mn_keys *k = mn_calloc(1, sizeof *k);
  size_t lines = 1;
  for (size_t i = 0; i < n; i++) lines += text[i] == '\n';
  if (k) k->list = mn_calloc(lines < MOST_KEYS ? lines : MOST_KEYS, sizeof *k->list);
  mn_status status = k && k->list ? MN_OK : MN_ERR_MEMORY;
  int line = 1;
  for (size_t at = 0; at < n && status == MN_OK; line++) {
    const char *end = memchr(text + at, '\n', n - at);
    size_t length = end ? (size_t)(end - text) - at : n - at;
    char *copy = mn_alloc(length + 1); /* ends with a zero byte, so that it can be searched */
    if (!copy) status = MN_ERR_MEMORY;
    else {
      memcpy(copy, text + at, length);
      copy[length] = 0;
      size_t bare = strlen(copy);
      while (bare && strchr(" \t\r", copy[bare - 1])) copy[--bare] = 0;
      if (bare && copy[0] != '#') status = add(k, name, line, copy, bare, rate);
    }
    free(copy);
    at += length + 1;
  }
  if (status == MN_OK && !k->n) status = mn_fail(MN_ERR_FORMAT, "%s has no key: nobody could ask anything", name);
  if (status != MN_OK) mn_keys_free(k);
  else *out = k;
  return status;
}

mn_status mn_keys_read(const char *path, double rate, mn_keys **out) {
  char *text;
  size_t n;
  *out = NULL;
  MN_TRY(mn_file_read(path, MOST_FILE, &text, &n));
  mn_status status = mn_keys_parse(path, text, n, rate, out);
  free(text);
  return status;
}

void mn_keys_free(mn_keys *k) {
  if (!k) return;
  for (int i = 0; i < k->n; i++) free(k->list[i].text);
  free(k->list);
  free(k);
}

int mn_keys_count(const mn_keys *k) { return k->n; }

static bool same(const char *text, const char *given, size_t n) {
  const size_t length = strlen(text);
  unsigned char different = length != n;
  for (size_t i = 0; i < length; i++) different |= (unsigned char)(text[i] ^ (i < n ? given[i] : 0));
  return !different;
}

int mn_keys_find(const mn_keys *k, const char *authorization) {
  int found = -1;
  if (!authorization || strncasecmp(authorization, "Bearer ", 7) != 0) return -1;
  const char *given = authorization + 7 + strspn(authorization + 7, " ");
  const size_t n = strlen(given);
  for (int i = 0; i < k->n; i++)
    if (same(k->list[i].text, given, n)) found = i;
  return found;
}

uint64_t mn_keys_owner(const mn_keys *k, int number) { return k->list[number].owner; }

double mn_keys_spend(mn_keys *k, int number, double now) {
  key *it = &k->list[number];
  if (it->rate <= 0) return 0;
  const double most = most_saved(it->rate);
  if (it->when > 0) it->saved += (now - it->when) * it->rate / 60;
  if (it->saved > most) it->saved = most;
  it->when = now;
  if (it->saved < 1) return (1 - it->saved) * 60 / it->rate;
  it->saved -= 1;
  return 0;
}
