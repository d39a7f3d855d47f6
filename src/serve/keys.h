/* keys.h - who may ask: API keys from a file, each with its own limit of requests per minute.
 *
 * A line of the file is a key, and behind a space, if it has a limit of its own, a number of requests per minute. Empty lines and lines
 * that begin with '#' are passed over. Keys are compared in time that does not depend on where they differ. */
#ifndef MN_SERVE_KEYS_H
#define MN_SERVE_KEYS_H

#include "base/base.h"

typedef struct mn_keys mn_keys;
/* rate: requests per minute of keys that say none; 0: any number. */
mn_status mn_keys_read(const char *path, double rate, mn_keys **out);
mn_status mn_keys_parse(const char *name, const char *text, size_t n, double rate, mn_keys **out);
void mn_keys_free(mn_keys *k);
int mn_keys_count(const mn_keys *k);
/* The number of the key in an Authorization header ("Bearer KEY"; NULL: none came); -1: it is none of them. */
int mn_keys_find(const mn_keys *k, const char *authorization);
/* A number that stands for the key, the same in every program: the first 64 bits of its SHA-256; never 0. */
uint64_t mn_keys_owner(const mn_keys *k, int key);
/* Counts one request of that key at the time `now` (seconds). 0: go on; else the seconds until it may ask again. A key saves up as many
 * requests as it has in ten seconds, one at least. */
double mn_keys_spend(mn_keys *k, int key, double now);

#endif
