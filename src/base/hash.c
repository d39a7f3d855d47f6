/* hash.c - the content hash of bytes, whole or piece by piece. */
#include "base/file.h"

#include <stdio.h>

#include <xxhash.h>

static void hex128(XXH128_hash_t h, char hex[MN_HASH_HEX]) {
  snprintf(hex, MN_HASH_HEX, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
}

void mn_content_hash(const void *data, size_t n, char hex[MN_HASH_HEX]) { hex128(XXH3_128bits(data, n), hex); }

mn_hasher *mn_hasher_new(void) {
  XXH3_state_t *state = XXH3_createState();
  if (state && XXH3_128bits_reset(state) == XXH_OK) return (mn_hasher *)state;
  if (state) XXH3_freeState(state);
  mn_fail(MN_ERR_MEMORY, "out of memory: the state of a hash");
  return NULL;
}

void mn_hasher_add(mn_hasher *h, const void *data, size_t n) { XXH3_128bits_update((XXH3_state_t *)h, data, n); }

void mn_hasher_take(mn_hasher *h, char hex[MN_HASH_HEX]) {
  hex128(XXH3_128bits_digest((XXH3_state_t *)h), hex);
  XXH3_128bits_reset((XXH3_state_t *)h);
}

void mn_hasher_free(mn_hasher *h) {
  if (h) XXH3_freeState((XXH3_state_t *)h);
}
